"""What resource servers read: the keys that our tokens are verified with, and where all is.

Both are public.  A key is published an hour before it signs (`certs.rotation`), so that what was
fetched within `MAX_AGE_S` knows it.
"""

from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from certs.errors import CertsError
from certs.known_domain import DOMAIN_JSON, REFRESH_HINT_S, record_of
from certs.known_jwks import MEDIA_TYPE, jwt_jwks
from proxy.agent_api.api import Route
from proxy.agent_api.asked import Answer, Asked, ProblemError, encoded
from rules.decision import Reason
from rules.special import OUR_ZONE

BASE: Final = f"http://{OUR_ZONE}"
"""Where the API is, through the proxy."""

MAX_AGE_S: Final = REFRESH_HINT_S

_JWKS, _METADATA = "/jwks.json", "/.well-known/oauth-authorization-server"
_FRESH = ((b"cache-control", b"public, max-age=%d" % MAX_AGE_S),)  # RFC 9111, section 5.2.2
_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"


class ServerMetadata(Struct, frozen=True):
    """The authorization server as RFC 8414, section 2 describes one.

    `issuer` is what stands as `iss` in tokens (RFC 9068, section 4), which is no URL here: the
    trust domain.
    """

    issuer: str
    token_endpoint: str = BASE + "/token"
    introspection_endpoint: str = BASE + "/introspect"
    revocation_endpoint: str = BASE + "/revoke"
    jwks_uri: str = BASE + _JWKS
    response_types_supported: tuple[str, ...] = ()  # there is no authorization endpoint
    grant_types_supported: tuple[str, ...] = (_EXCHANGE,)
    # RFC 8705, sections 2.1.1 and 3.3: the certificate of the connection is who asks
    token_endpoint_auth_methods_supported: tuple[str, ...] = ("tls_client_auth",)
    introspection_endpoint_auth_methods_supported: tuple[str, ...] = ("tls_client_auth",)
    revocation_endpoint_auth_methods_supported: tuple[str, ...] = ("tls_client_auth",)
    tls_client_certificate_bound_access_tokens: bool = True


class Published:
    """The two documents; `folder` is of our trust domain, None where another one issues.

    The keys are read again when their file has changed: who asks just after a rotation gets both.
    """

    def __init__(self, folder: Path | None, trust_domain: str) -> None:
        self._folder = folder
        self._metadata = encoded(ServerMetadata(trust_domain))
        self._stamp: tuple[int, int] | None = None
        self._jwks = b""

    def routes(self) -> tuple[Route, ...]:
        """Return what answers for them."""
        return (
            Route("GET", _JWKS, "The keys that verify our tokens (RFC 7517)", self._keys),
            Route(
                "GET",
                _METADATA,
                "Where tokens are exchanged, introspected and revoked (RFC 8414)",
                self._described,
                gives=ServerMetadata,
            ),
        )

    async def _keys(self, _: Asked) -> Answer:
        if self._folder is None:
            text = "no token is signed here: another one issues"
            raise ProblemError(404, Reason.LOCAL, text)
        try:
            self._look(self._folder)
        except (OSError, CertsError):
            # Which file it is, the operator sees in `sallyport status`; it is not for agents.
            text = "the keys cannot be read just now"
            raise ProblemError(503, Reason.INTERNAL_ERROR, text, "try again") from None
        return Answer(200, self._jwks, MEDIA_TYPE, _FRESH)

    async def _described(self, _: Asked) -> Answer:
        return msgspec.structs.replace(self._metadata, fields=_FRESH)

    def _look(self, folder: Path) -> None:
        found = (folder / DOMAIN_JSON).stat()
        stamp = found.st_mtime_ns, found.st_ino
        if stamp != self._stamp:
            self._jwks = jwt_jwks(record_of(folder))
            self._stamp = stamp
