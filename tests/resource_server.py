"""A resource server that takes capability tokens, as one of anybody's would.

It verifies a token by itself (RFC 9068, section 4) with the keys of `GET /jwks.json`: a pinned
algorithm and type, the issuer, itself as the audience, the times, the scope, and that who comes
holds the key of `cnf` where it asks for certificates.  It may ask `POST /introspect` as well.
"""

import base64
import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping
from ssl import SSLContext
from typing import Any

import jwt
from aiohttp import web

TYPE = "at+jwt"
ALGORITHM = "ES256"
MOST_OCTETS = 16384
SKEW_S = 5.0
_REQUIRED = ["iss", "sub", "aud", "client_id", "iat", "exp", "jti", "scope"]
# The library reads the clock for the times; a test says what time it is.
_CLOCKLESS: Any = {
    "require": _REQUIRED, "strict_aud": True, "verify_exp": False, "verify_iat": False,
}  # fmt: skip


class RefusedError(Exception):
    """What a client is told (RFC 6750, section 3.1)."""

    def __init__(self, status: int, error: str, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.error = error


def invalid(text: str) -> RefusedError:
    return RefusedError(401, "invalid_token", text)


class ResourceServer:
    """Serves `GET /documents` to who has `scope`; `jwks` returns the JSON of the key set.

    With `is_bound` only the certificate of `cnf` will do; `introspect` returns the answer of
    `POST /introspect` about a token.
    """

    def __init__(
        self,
        audience: str,
        issuer: str,
        jwks: Callable[[], bytes],
        wall: Callable[[], float],
        *,
        scope: str = "documents:read",
        is_bound: bool = False,
        introspect: Callable[[str], Awaitable[Mapping[str, Any]]] | None = None,
    ) -> None:
        self.port = 0
        self._audience = audience
        self._issuer = issuer
        self._jwks = jwks
        self._wall = wall
        self._scope = scope
        self._is_bound = is_bound
        self._introspect = introspect
        self._runner: web.AppRunner | None = None

    async def start(self, tls: SSLContext | None = None) -> None:
        """Serve on a loopback port of the kernel's choice."""
        app = web.Application()
        app.router.add_get("/documents", self._documents)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=tls).start()
        self.port = self._runner.addresses[0][1]

    async def close(self) -> None:
        """End every connection."""
        if self._runner is not None:
            await self._runner.cleanup()

    def verify(self, token: str, certificate: bytes | None = None) -> dict[str, Any]:
        """Return the claims of a token that was presented with a certificate, None: without one.

        Raises:
            RefusedError: it is not for us, not now, not from them, or not theirs.
        """
        if len(token) > MOST_OCTETS:
            raise invalid("the token is too long")
        try:
            header = jwt.get_unverified_header(token)
            if header.get("typ") != TYPE:  # RFC 8725, section 3.11
                raise invalid("the token is no access token")
            key = self._key(header.get("kid"))
            claims: dict[str, Any] = jwt.decode(
                token, key, algorithms=[ALGORITHM], audience=self._audience, issuer=self._issuer,
                options=_CLOCKLESS,
            )  # fmt: skip
        except jwt.PyJWTError as error:
            raise invalid(f"the token is not valid: {error}") from None
        self._check_times(claims)
        self._check_certificate(claims.get("cnf"), certificate)
        if self._scope not in str(claims["scope"]).split(" "):
            raise RefusedError(403, "insufficient_scope", f"the scope {self._scope} is needed")
        return claims

    def _key(self, kid: object) -> Any:
        for entry in json.loads(self._jwks())["keys"]:
            if entry.get("kid") == kid and (entry.get("kty"), entry.get("crv")) == ("EC", "P-256"):
                return jwt.PyJWK(entry, ALGORITHM).key
        raise invalid("nobody's key has that kid")

    def _check_times(self, claims: Mapping[str, Any]) -> None:
        now, times = self._wall(), (claims["iat"], claims["exp"])
        if not all(type(each) is int for each in times):
            raise invalid("a time is no number")
        if now >= claims["exp"]:
            raise invalid("the token has expired")
        if claims["iat"] > now + SKEW_S:
            raise invalid("the token is from the future")

    def _check_certificate(self, confirmation: Any, certificate: bytes | None) -> None:
        """RFC 8705, section 3: the certificate of the connection is that of `cnf`."""
        if not self._is_bound:
            return
        digest = hashlib.sha256(certificate or b"").digest()
        wanted = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        if certificate is None or not isinstance(confirmation, dict):
            raise invalid("the token is bound, and no certificate came")
        if confirmation.get("x5t#S256") != wanted:
            raise invalid("the token is bound to another certificate")

    async def _documents(self, request: web.Request) -> web.Response:
        try:
            claims = await self._authorized(request)
        except RefusedError as error:
            challenge = f'Bearer error="{error.error}"'
            fields = {"WWW-Authenticate": challenge}
            return web.json_response({"detail": str(error)}, status=error.status, headers=fields)
        return web.json_response({"documents": ["a"], "sub": claims["sub"]})

    async def _authorized(self, request: web.Request) -> dict[str, Any]:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            raise invalid("no token came")
        tls = request.transport.get_extra_info("ssl_object") if request.transport else None
        claims = self.verify(token, None if tls is None else tls.getpeercert(binary_form=True))
        if self._introspect is not None:
            answer = await self._introspect(token)
            if answer.get("active") is not True or answer.get("jti") != claims["jti"]:
                raise invalid("the token is void")
        return claims
