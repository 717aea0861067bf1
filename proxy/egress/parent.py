"""The corporate parent: every connection to an origin is made by CONNECT through it.

It is given the address that was decided on, never a name: a second look-up, by whoever runs the
parent, could differ from ours (docs/decisions/0020).  Proxy environment variables are not read.
"""

import asyncio
import re
import ssl
from base64 import b64encode
from pathlib import Path
from typing import cast, override
from urllib.parse import unquote

from msgspec import Struct

from proxy.egress.origin import OriginConnection
from proxy.errors import ConfigError, PeerError, ProxyError, UpstreamError
from proxy.limits import Limits
from proxy.target import authority
from proxy.transport.tls import upstream_context
from proxy.wire.head import read_response, write_request
from proxy.wire.host import parse_authority
from rules.address import Address
from rules.decision import Reason

_URL = re.compile(
    r"(?P<scheme>https?)://(?:(?P<user>[^:@/#]*):(?P<password>[^@/#]*)@)?"
    r"(?P<where>[^@/#]+)/?(?:#(?P<name>[A-Za-z0-9._-]+))?"
)
_FINAL, _SUCCESS_END = 200, 300  # RFC 9110, section 9.3.6: any 2xx
_INTERIM = 8  # 1xx before the answer; Go allows 5


class Parent(Struct, frozen=True, repr_omit_defaults=True):
    """A proxy that is asked for every connection.

    With `tls` it is spoken to over TLS, and its certificate is for `server_name`.
    `authorization` is the value of Proxy-Authorization, a secret.
    """

    address: Address
    port: int
    tls: ssl.SSLContext | None = None
    server_name: str | None = None
    authorization: bytes = b""

    @override
    def __repr__(self) -> str:
        return f"Parent({self.where})"

    @property
    def where(self) -> str:
        """Its `ADDRESS:PORT`, for texts."""
        return authority(self.address, self.port)


def parse_parent(text: str, anchors: Path | None) -> Parent:
    """Return the parent that `egress.upstream_proxy` names.

    `http://[USER:PASSWORD@]ADDRESS:PORT`, or https, then with `#NAME` where the certificate is
    not for the address; `anchors` (PEM) or the system's verify it.

    Raises:
        ConfigError: anything else; the text holds no password.
    """
    url = _URL.fullmatch(text)
    try:
        where = parse_authority(url["where"].encode(), None) if url is not None else None
    except PeerError:
        where = None
    if url is None or where is None or isinstance(where[0], str):
        raise ConfigError(
            "egress.upstream_proxy: write http://[USER:PASSWORD@]ADDRESS:PORT or"
            " https://[USER:PASSWORD@]ADDRESS:PORT#NAME; an address, because nothing is looked up"
            " to reach it"
        )
    tls = upstream_context(anchors) if url["scheme"] == "https" else None
    if tls is None and url["name"]:
        raise ConfigError("egress.upstream_proxy: #NAME is for https, whose certificate it names")
    authorization = b""
    if url["user"] is not None:
        pair = f"{unquote(url['user'])}:{unquote(url['password'])}".encode()
        authorization = b"Basic " + b64encode(pair)  # RFC 7617, section 2
    return Parent(where[0], where[1], tls, url["name"] or str(where[0]), authorization)


async def through(
    parent: Parent, origin: OriginConnection, where: str, limits: Limits
) -> OriginConnection:
    """Return `origin`, connected by the parent to `where`, the `ADDRESS:PORT` decided on.

    Raises:
        UpstreamError: the parent cannot be reached or says no; the text names it.
    """
    loop = asyncio.get_running_loop()
    asking = _Asking(parent, where, limits)
    try:
        await loop.create_connection(
            lambda: asking,
            str(parent.address),
            parent.port,
            ssl=parent.tls,
            server_hostname=parent.server_name if parent.tls is not None else None,
        )
    except ssl.SSLError as error:
        raise _blame(parent, Reason.UPSTREAM_TLS, error.reason or "TLS fails") from None
    except OSError as error:
        text = error.strerror or type(error).__name__
        raise _blame(parent, Reason.UPSTREAM_UNREACHABLE, text) from None
    try:
        await asking.answered
    except BaseException:  # a refusal, or nobody waits any more
        asking.transport.abort()
        raise
    origin.early = asking.rest
    asking.transport.set_protocol(origin)
    origin.connection_made(asking.transport)
    asking.transport.resume_reading()
    return origin


class _Asking(asyncio.Protocol):
    """The CONNECT to the parent, until it has answered."""

    def __init__(self, parent: Parent, where: str, limits: Limits) -> None:
        self.answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.rest = b""  # what came with the answer: the origin speaks first
        self.transport: asyncio.Transport
        self._parent = parent
        self._where = where.encode()
        self._limits = limits
        self._buffer = b""

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports do not derive from asyncio's.
        self.transport = cast("asyncio.Transport", transport)
        fields = [(b"host", self._where)]  # RFC 9112, section 3.2
        if self._parent.authorization:
            fields.append((b"proxy-authorization", self._parent.authorization))
        self.transport.write(write_request("CONNECT", self._where, fields))

    @override
    def data_received(self, data: bytes) -> None:
        self._buffer += data
        try:
            status = self._read_status()
        except ProxyError as error:
            self._fail(Reason.UPSTREAM_MALFORMED, str(error))
            return
        if status is None:
            return
        self.transport.pause_reading()
        if status < _SUCCESS_END:
            self.rest = self._buffer
            if not self.answered.done():
                self.answered.set_result(None)
        else:
            self._fail(*_refusal(status))

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(Reason.UPSTREAM_UNREACHABLE, "it closed before it answered")

    def _read_status(self) -> int | None:
        for _ in range(_INTERIM):
            parsed = read_response(self._buffer, "CONNECT", self._limits)
            if parsed is None:
                return None
            head, octets = parsed
            self._buffer = self._buffer[octets:]
            if head.status >= _FINAL:
                return head.status
        raise UpstreamError(Reason.UPSTREAM_MALFORMED, "too many interim responses")

    def _fail(self, reason: Reason, text: str) -> None:
        if not self.answered.done():
            self.answered.set_exception(_blame(self._parent, reason, text))
            self.answered.exception()  # seen: whoever gave up does not ask any more


def _refusal(status: int) -> tuple[Reason, str]:
    match status:
        case 407:
            return Reason.UPSTREAM_UNREACHABLE, "it wants other credentials (407)"
        case 504:
            return Reason.UPSTREAM_TIMEOUT, "it reached nobody in time (504)"
        case _:
            return Reason.UPSTREAM_UNREACHABLE, f"it refuses the CONNECT ({status})"


def _blame(parent: Parent, reason: Reason, text: str) -> UpstreamError:
    return UpstreamError(reason, f"the parent proxy {parent.where}: {text}")
