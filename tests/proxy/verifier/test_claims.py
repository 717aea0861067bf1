"""The claims of a result: an EAT."""

import base64
import json
from hashlib import sha256
from typing import Any

from proxy.attested.binding import Binding, Kind
from proxy.verifier.claims import PROFILE, claims_of
from rules.facts import Level
from tests.proxy.attested.making import NOW, result

NONCE = b"n" * 32


def said(unique: str = "a", claimed: Any = None, **changed: Any) -> dict[str, Any]:
    made = claims_of(result(unique, **changed), "example.org", NONCE, {"pcr": {}}, claimed or {})
    found: dict[str, Any] = json.loads(made)
    return found


def unb64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def test_a_result_says_who_for_whom_until_when_and_bound_to_what() -> None:
    claims = said(level=Level.TPM, attester="000b" + "cc" * 32)
    assert (claims["iss"], claims["aud"], claims["jti"]) == ("example.org", "example.org", "a")
    assert claims["sub"] == "spiffe://sallyport.internal/coder"
    assert (claims["iat"], claims["exp"]) == (int(NOW), int(NOW) + 300)
    assert (unb64(claims["eat_nonce"]), claims["eat_profile"]) == (NONCE, PROFILE)
    assert claims["level"] == "tpm"
    assert unb64(claims["cnf"]["x5t#S256"]) == bytes.fromhex("dd" * 32)
    assert unb64(claims["ueid"]) == b"\x01" + bytes.fromhex("cc" * 32)  # RAND of 32 octets
    assert claims["measurements"] == {"pcr": {}}
    assert "claimed" not in claims


def test_a_lease_is_confirmed_by_its_id() -> None:
    binding = Binding(Kind.LEASE, "lease-1")
    claims = said(binding=binding, attester="lease-1", spiffe_id="", thumbprint="")
    assert claims["cnf"] == {"lease": "lease-1"}
    assert claims["sub"] == "sallyport:app:coder"
    assert unb64(claims["ueid"]) == b"\x01" + sha256(b"lease-1").digest()
    in_lease = said(binding=binding, thumbprint="")
    assert unb64(in_lease["ueid"]) == b"\x01" + bytes.fromhex("cc" * 32)


def test_what_is_claimed_stands_apart() -> None:
    claims = said(claimed={"level": "tpm", "sub": "spiffe://x/y"})
    assert claims["claimed"] == {"level": "tpm", "sub": "spiffe://x/y"}
    assert (claims["level"], claims["sub"]) == ("software", "spiffe://sallyport.internal/coder")
