"""EST (RFC 7030): what devices enrol by that have nothing of ours; `curl` and `openssl` are enough.

    GET  /.well-known/est/cacerts           the roots and intermediates, for everybody
    POST /.well-known/est/simpleenroll      with a join token, as user `app` or as Bearer
    POST /.well-known/est/simplereenroll    with the certificate that is to be renewed

Requests and answers are base64 of DER (RFC 8951, section 3).
"""

import base64

from aiohttp import web

from certs.csr import certs_only
from proxy.issuing.authority import BY_CERTIFICATE, BY_TOKEN
from proxy.issuing.enrolment import Enrolment, RefusedError, read, read_base64
from proxy.transport.presented import chain_of
from proxy.wire.credential import Credential, read_credential
from rules.decision import Reason

_PATH = "/.well-known/est"  # RFC 7030, section 3.2.2; a label would come after it
_REQUEST = "application/pkcs10"  # RFC 5967
_MESSAGE = "application/pkcs7-mime; smime-type=certs-only"
_COLUMNS = 64


class Est:
    """The operations of EST that we have; CSR attributes we want none (section 4.5.2)."""

    def __init__(self, enrolment: Enrolment) -> None:
        self._enrolment = enrolment

    def routes(self) -> list[web.RouteDef]:
        """Return what is served."""
        return [
            web.get(f"{_PATH}/cacerts", self._authorities, allow_head=True),
            web.get(f"{_PATH}/csrattrs", self._attributes, allow_head=False),
            web.post(f"{_PATH}/simpleenroll", self._enroll),
            web.post(f"{_PATH}/simplereenroll", self._renew),
        ]

    async def _authorities(self, _: web.Request) -> web.Response:
        """Answer what a device needs to verify us by (section 4.1.3)."""
        return _message(self._enrolment.authorities())

    async def _attributes(self, _: web.Request) -> web.Response:
        return web.Response(status=204)

    async def _enroll(self, request: web.Request) -> web.Response:
        shown = request.headers.getall("Authorization", [])
        if not shown:  # section 3.2.3: clients may ask without, to learn how
            text = "show a join token: user is the app, password what `sallyport app join` printed"
            raise RefusedError(401, text)
        with self._enrolment.told(BY_TOKEN, peer_of(request)) as attempt:
            credential = _credential(shown)
            csr = read(await _request(request))
            issued = await self._enrolment.by_token(credential, csr, attempt)
        return _message(issued.chain[:1])  # section 4.2.3: the certificate alone

    async def _renew(self, request: web.Request) -> web.Response:
        chain = () if request.transport is None else chain_of(request.transport)
        with self._enrolment.told(BY_CERTIFICATE, peer_of(request)) as attempt:
            csr = read(await _request(request))
            issued = await self._enrolment.by_certificate(chain, csr, attempt)
        return _message(issued.chain[:1])


def peer_of(request: web.Request) -> str:
    """Return the address of who asks."""
    return request.remote or ""


def _credential(shown: list[str]) -> Credential:
    found = read_credential(shown[0].encode("utf-8", "surrogateescape"))
    if len(shown) > 1 or found is None:
        raise RefusedError(401, "show one join token, by Basic or Bearer")
    return found


async def _request(request: web.Request) -> bytes:
    if request.content_type != _REQUEST:  # section 4.2.1
        raise RefusedError(415, f"the content is to be {_REQUEST}", Reason.REQUEST_MALFORMED)
    return read_base64(await request.read())


def _message(certificates: tuple[bytes, ...]) -> web.Response:
    text = base64.b64encode(certs_only(certificates))
    lines = [text[at : at + _COLUMNS] for at in range(0, len(text), _COLUMNS)]
    return web.Response(
        body=b"\n".join(lines) + b"\n",
        headers={
            "Content-Type": _MESSAGE,
            "Content-Transfer-Encoding": "base64",  # section 4.1.3; RFC 8951: readers ignore it
        },
    )
