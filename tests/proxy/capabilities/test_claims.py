"""What stands in a token (RFC 9068, section 2.2)."""

import msgspec

from proxy.attested.binding import Binding, Kind
from proxy.capabilities.claims import claims_of, encode_claims
from proxy.capabilities.token import CapabilityToken, party_of
from rules.facts import Level

TOKEN = CapabilityToken(
    id="1", token_sha256="", parties=(party_of("a", "spiffe://d/a"), party_of("b", "")),
    audience="docs", scopes=("r", "w"), level=Level.TPM, least=Level.LAUNCHED,
    binding=Binding(Kind.LEASE, "l"), attester="k", result="9", rule="a.yaml:1", at=5, expires=9,
)  # fmt: skip


def test_every_claim_of_an_access_token_is_there() -> None:
    assert claims_of(TOKEN, "d") == {
        "iss": "d", "sub": "spiffe://d/a", "aud": "docs", "client_id": "sallyport:app:b",
        "scope": "r w", "iat": 5, "exp": 9, "jti": "1", "cnf": {"lease": "l"},
        "level": "launched", "act": {"sub": "sallyport:app:b"},
    }  # fmt: skip
    assert msgspec.json.decode(encode_claims(TOKEN, "d")) == claims_of(TOKEN, "d")


def test_the_actor_of_now_is_outermost() -> None:
    """RFC 8693, section 4.1."""
    parties = tuple(party_of(each, "") for each in "abcd")
    token = msgspec.structs.replace(TOKEN, parties=parties)
    assert claims_of(token, "d")["act"] == {
        "sub": "sallyport:app:d",
        "act": {"sub": "sallyport:app:c", "act": {"sub": "sallyport:app:b"}},
    }
    alone = msgspec.structs.replace(TOKEN, parties=parties[:1])
    assert "act" not in claims_of(alone, "d")


def test_a_key_is_named_by_the_digest_of_its_certificate() -> None:
    """RFC 8705, section 3.1."""
    token = msgspec.structs.replace(TOKEN, binding=Binding(Kind.KEY, "00"), thumbprint="ff" * 32)
    assert claims_of(token, "d")["cnf"] == {
        "x5t#S256": "__________________________________________8"
    }
