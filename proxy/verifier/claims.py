"""The claims of an attestation result: an EAT (RFC 9711) as a JWT."""

from collections.abc import Mapping
from hashlib import sha256
from typing import Final

import msgspec

from proxy.attested.binding import Kind
from proxy.attested.result import Result
from proxy.verifier.contents import level_name
from proxy.verifier.octets import text_of

PROFILE: Final = "https://sallyport.internal/attestation"
"""`eat_profile` (RFC 9711, section 4.3.2)."""

_RANDOM: Final = b"\x01"  # RFC 9711, section 4.2.1.1: UEID type RAND, of 32 octets here
_DIGEST_HEX = 64


def claims_of(
    result: Result,
    trust_domain: str,
    nonce: bytes,
    measurements: Mapping[str, object],
    claimed: Mapping[str, str],
) -> bytes:
    """Return the claims of `result` as JSON; its `token_sha256` is not asked.

    `claimed` is what the client says of itself: it stands apart from what was proven.
    """
    claims: dict[str, object] = {
        "iss": trust_domain,
        "sub": result.spiffe_id or f"sallyport:app:{result.app}",
        "aud": trust_domain,
        "iat": int(result.at),
        "exp": int(result.expires),
        "jti": result.id,
        "eat_nonce": text_of(nonce),
        "eat_profile": PROFILE,
        "cnf": _confirmation(result),
        "level": level_name(result.level),
        "ueid": text_of(_RANDOM + _attester_digest(result)),
        "measurements": measurements,
    }
    return msgspec.json.encode({**claims, "claimed": claimed} if claimed else claims)


def _confirmation(result: Result) -> dict[str, str]:
    if result.binding.kind is Kind.LEASE:
        return {"lease": result.binding.value}
    return {"x5t#S256": text_of(bytes.fromhex(result.thumbprint))}  # RFC 8705, section 3.1


def _attester_digest(result: Result) -> bytes:
    """Return what stands for the attester: the digest in a Name, of a key, or of a lease's id."""
    if result.binding.kind is Kind.LEASE and result.attester == result.binding.value:
        return sha256(result.attester.encode()).digest()
    return bytes.fromhex(result.attester[-_DIGEST_HEX:])
