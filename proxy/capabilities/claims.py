"""What a capability token says: a JWT access token (RFC 9068)."""

import base64

import msgspec

from proxy.attested.binding import Kind
from proxy.capabilities.token import CapabilityToken, Party


def claims_of(token: CapabilityToken, issuer: str) -> dict[str, object]:
    """Return the claims of `token`; `issuer` is the trust domain."""
    claims: dict[str, object] = {
        # RFC 9068, section 2.2
        "iss": issuer,
        "sub": token.subject.name,
        "aud": token.audience,
        "client_id": token.holder.name,
        "scope": " ".join(token.scopes),
        "iat": token.at,
        "exp": token.expires,
        "jti": token.id,
        "cnf": _confirmation(token),
        "level": token.least.name.lower(),
    }
    act = _act(token.parties[1:])
    return {**claims, "act": act} if act is not None else claims


def encode_claims(token: CapabilityToken, issuer: str) -> bytes:
    """Return the claims of `token` as JSON."""
    return msgspec.json.encode(claims_of(token, issuer))


def _confirmation(token: CapabilityToken) -> dict[str, str]:
    if token.binding.kind is Kind.LEASE:
        return {"lease": token.binding.value}
    # RFC 8705, section 3.1: base64url of the certificate's SHA-256, without padding
    thumbprint = base64.urlsafe_b64encode(bytes.fromhex(token.thumbprint))
    return {"x5t#S256": thumbprint.rstrip(b"=").decode()}


def _act(actors: tuple[Party, ...]) -> dict[str, object] | None:
    """Return the chain of actors: who acts now is outermost (RFC 8693, section 4.1)."""
    act: dict[str, object] | None = None
    for each in actors:
        act = {"sub": each.name} if act is None else {"sub": each.name, "act": act}
    return act
