"""The control API for admins elsewhere: HTTPS, and a client certificate without which nothing is.

The handshake fails for whoever shows no certificate, or one that no anchor of ours has signed.
Who is named is looked at before each request, where anything changed, and once a second: a
certificate that ends or is revoked cuts what is open (RFC 8446 knows no way to ask again).
"""

import asyncio
import logging
import socket
import ssl
import struct
from functools import partial
from pathlib import Path
from typing import override

from msgspec import Struct

from proxy.certificates.trust import TrustBundles
from proxy.control.admins import Admin, Admins, Chain, NoAdmin
from proxy.control.asked import RefusedError
from proxy.control.exchange import EndedError, Exchanges
from proxy.control.routes import Routes
from proxy.errors import ProxyError
from proxy.limits import Limits
from proxy.metrics import Metrics
from proxy.transport.handshake import ListenerTls, Unverified
from proxy.transport.listen import Listener
from proxy.transport.presented import chain_of
from proxy.transport.server_tls import ServerTls
from proxy.wire.head import RequestHead
from rules.decision import Reason

_TICK_S = 0.5  # a cut comes within the second
_ABORT = struct.pack("ii", 1, 0)  # SO_LINGER 0: what was sent and not read is thrown away


logger = logging.getLogger(__name__)


class AdminTls(ServerTls):
    """TLS that nobody speaks to us without a certificate of `trust`, as that is now."""

    def __init__(self, cert: Path, key: Path, trust: TrustBundles) -> None:
        """Raise BindError where our own certificate or its key cannot be used."""
        super().__init__(cert, key, ("http/1.1",))
        self._trust = trust
        self.ask(trust.store)
        trust.on_change(self._follow)

    @override
    def ask(self, anchors: tuple[bytes, ...] | None) -> bool:
        """Require a certificate of these authorities; without any, nobody gets in."""
        is_new = super().ask(anchors or ())
        self.current.verify_mode = ssl.CERT_REQUIRED
        self.current.minimum_version = ssl.TLSVersion.TLSv1_3
        return is_new

    def _follow(self) -> None:
        try:
            self.ask(self._trust.store)
        except ProxyError as error:  # who is believed no more is refused by `Admins` all the same
            logger.warning("control_tls goes on with the trust anchors of before: %s", error)


class RemoteControl:
    """Serves admins on TCP sockets.

    What a certificate is worth is asked again whenever the epoch of `admins` has changed.
    """

    def __init__(
        self, routes: Routes, admins: Admins, tls: AdminTls, limits: Limits, metrics: Metrics
    ) -> None:
        self._routes = routes
        self._admins = admins
        self._tls = tls
        self._limits = limits
        self._metrics = metrics
        self._exchanges = Exchanges(routes, limits, metrics)
        self._listeners: list[Listener] = []
        self._visits: dict[asyncio.StreamWriter, _Visit] = {}
        self._timer: asyncio.TimerHandle | None = None

    async def start(self, sock: socket.socket, label: str) -> None:
        """Serve on `sock`, which listens already; `label` is what `listen:` calls it."""
        listener = Listener(
            sock,
            self._made,
            self._limits.control_connections,
            lambda: self._metrics.bounds.add("control_connections"),
            label,
            ListenerTls(
                self._tls,
                self._limits.tls_handshakes,
                self._limits.tls_handshake_s,
                self._metrics.bounds.add,
                unverified=partial(self._unverified, label),
            ),
        )
        await listener.start()
        self._listeners.append(listener)
        if self._timer is None:
            self._tick()

    async def close(self) -> None:
        """Stop accepting and cut what is open."""
        if self._timer is not None:
            self._timer.cancel()
        await asyncio.gather(*(each.close() for each in self._listeners))
        await self._exchanges.close()

    def look(self) -> None:
        """Cut whoever may no longer be connected."""
        for visit in tuple(self._visits.values()):
            if isinstance(visit.who, Admin) and not self._may_stay(visit, "open connection"):
                _cut(visit.writer)

    def _tick(self) -> None:
        self.look()
        self._timer = asyncio.get_running_loop().call_later(_TICK_S, self._tick)

    def _unverified(self, label: str, found: Unverified) -> None:
        who = NoAdmin(Reason.IDENTITY_UNKNOWN, found.text)
        self._routes.refused(who, "handshake", label)

    def _made(self, listener: Listener) -> asyncio.BaseProtocol:
        reader = asyncio.StreamReader(limit=self._limits.admin_head_octets)
        return asyncio.StreamReaderProtocol(
            reader, lambda reader, writer: self._accept(reader, writer, listener.name)
        )

    def _accept(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, label: str
    ) -> None:
        chain = chain_of(writer.transport)
        visit = _Visit(writer, chain, label, self._admins.of(chain), self._admins.epoch)
        self._visits[writer] = visit
        self._exchanges.take(
            reader,
            writer,
            lambda head: self._admit(visit, head),
            after=lambda: self._visits.pop(writer, None),
        )

    def _admit(self, visit: "_Visit", head: RequestHead) -> Admin:
        target = head.target.decode("ascii").partition("?")[0]
        asked = f"{head.method} {target}"
        if isinstance(visit.who, NoAdmin):
            self._routes.refused(visit.who, asked, visit.label)
            raise RefusedError(403, visit.who.text)
        if not self._may_stay(visit, asked):
            raise EndedError
        return visit.who

    def _may_stay(self, visit: "_Visit", asked: str) -> bool:
        """Look at him again, where anything may have changed; one who may not is told of once."""
        if not isinstance(visit.who, Admin):
            return False
        now = self._routes.now()
        if visit.epoch == self._admins.epoch and visit.who.svid.not_after > now:
            return True
        visit.epoch, visit.who = self._admins.epoch, self._admins.of(visit.chain)
        if isinstance(visit.who, NoAdmin):
            self._routes.refused(visit.who, asked, visit.label)
            return False
        return True


class _Visit(Struct):
    """An open connection: what it showed, who that was when anything last changed."""

    writer: asyncio.StreamWriter
    chain: Chain
    label: str
    who: Admin | NoAdmin
    epoch: int


def _cut(writer: asyncio.StreamWriter) -> None:
    """End a connection at once: no octet that waits for its peer is sent any more."""
    sock = writer.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
    writer.transport.abort()
