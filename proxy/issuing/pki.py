"""What others need to verify our certificates, over plain HTTP: all of it is public or signed.

Over HTTPS, at `listen.enroll`, there is `GET /jwks.json` beside the bundle.

GET  /crl /crl.pem        what is revoked: of the intermediate that signs now, or of each
POST /ocsp, GET /ocsp/... the status of one certificate (RFC 6960, appendix A)
GET  /bundle /bundle.pem  our bundle as SPIFFE JWKS, and as PEM
"""

import binascii
import datetime as dt
from base64 import b64decode
from urllib.parse import unquote_to_bytes

from aiohttp import web

from certs.crl import make_crl
from certs.known_jwks import MEDIA_TYPE
from certs.ocsp import CertStatus, answer, serial_of
from proxy.issuing.authority import Authority
from proxy.issuing.enrolment import RefusedError

_BUNDLE_AGE_S = 300  # as the refresh hint says
_STATUS_AGE_S = 1  # of a CRL: it is signed once a second at most, however many ask
_REQUEST = "application/ocsp-request"


class Pki:
    """Answers for `authority`."""

    def __init__(self, authority: Authority) -> None:
        self._authority = authority
        self._lists: dict[bool, tuple[int, bytes]] = {}

    def routes(self) -> list[web.RouteDef]:
        """Return what is served."""
        return [
            web.get("/crl", self._crl),
            web.get("/crl.pem", self._crl_pem),
            web.post("/ocsp", self._ocsp),
            web.get("/ocsp/{request:.+}", self._ocsp_get, allow_head=False),
            *self._bundles(),
        ]

    def public(self) -> list[web.RouteDef]:
        """Return what is served over HTTPS: SPIFFE's https_web fetches bundles there.

        So do resource servers the keys of tokens, which nothing but TLS vouches for.
        """
        return [*self._bundles(), web.get("/jwks.json", self._key_set)]

    def _bundles(self) -> list[web.RouteDef]:
        return [web.get("/bundle", self._bundle), web.get("/bundle.pem", self._bundle_pem)]

    async def _crl(self, _: web.Request) -> web.Response:
        return _aged(self._list(as_pem=False), "application/pkix-crl", _STATUS_AGE_S)  # RFC 2585

    async def _crl_pem(self, _: web.Request) -> web.Response:
        return _aged(self._list(as_pem=True), "application/x-pem-file", _STATUS_AGE_S)

    async def _ocsp(self, request: web.Request) -> web.Response:
        if request.content_type != _REQUEST:
            raise RefusedError(415, f"the content is to be {_REQUEST}")
        return await self._status(await request.read())

    async def _ocsp_get(self, request: web.Request) -> web.Response:
        """Answer RFC 6960, appendix A.1: base64 of the request, percent-encoded, in the path."""
        text = unquote_to_bytes(request.raw_path.removeprefix("/ocsp/"))
        try:
            asked = b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            asked = b""  # is answered malformedRequest
        return await self._status(asked)

    async def _status(self, asked: bytes) -> web.Response:
        now = self._now()
        signers = self._authority.domain.signers(now)
        response = answer(asked, signers, await self._of(serial_of(asked)), now)
        # RFC 5019, section 6 would let proxies keep it; a revocation is to be seen at once.
        return web.Response(body=response, content_type="application/ocsp-response")

    async def _of(self, serial: int | None) -> CertStatus:
        if serial is None:
            return "unknown"
        for each in self._authority.revoked_serials():
            if each.serial == serial:
                return each
        return "unknown" if await self._authority.known(serial) is None else "good"

    def _list(self, *, as_pem: bool) -> bytes:
        now = self._now()
        made = self._lists.get(as_pem)
        if made is None or made[0] != int(now.timestamp()):
            signers = self._authority.domain.signers(now)
            revoked = self._authority.revoked_serials()
            lists = [
                make_crl(each, revoked, now, as_pem=as_pem)
                for each in (signers if as_pem else signers[:1])
            ]
            made = self._lists[as_pem] = int(now.timestamp()), b"".join(lists)
        return made[1]

    async def _bundle(self, _: web.Request) -> web.Response:
        return _aged(self._authority.domain.jwks(), "application/json", _BUNDLE_AGE_S)

    async def _bundle_pem(self, _: web.Request) -> web.Response:
        pem = self._authority.domain.anchors_pem.encode()
        return _aged(pem, "application/x-pem-file", _BUNDLE_AGE_S)

    async def _key_set(self, _: web.Request) -> web.Response:
        return _aged(self._authority.domain.key_set(), MEDIA_TYPE, _BUNDLE_AGE_S)

    def _now(self) -> dt.datetime:
        return dt.datetime.fromtimestamp(self._authority.wall(), dt.UTC)


def _aged(content: bytes, media_type: str, age_s: int) -> web.Response:
    headers = {"Content-Type": media_type, "Cache-Control": f"max-age={age_s}"}
    return web.Response(body=content, headers=headers)
