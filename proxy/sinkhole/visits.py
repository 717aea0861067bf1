"""Connections to the sinkhole: what each says first is heard, recorded once, answered and closed.

Each has `sinkhole_s` seconds to say it, and `linger_s` to read the answer.  Where every seat is
taken, the one that has waited longest gives up its own (`proxy.transport.seats`); no app has more
than `sinkhole_connections_per_app`, nor have all whom nothing names.
"""

import asyncio
import contextlib
import socket
from collections import Counter
from collections.abc import Callable
from functools import partial

from msgspec import Struct, structs

from proxy.audit import Audit, Line
from proxy.flow import Plane
from proxy.identify import Identifier
from proxy.limits import Limits
from proxy.metrics import Metrics
from proxy.sinkhole.answer import ALERT, answer_http, reason_of
from proxy.sinkhole.heard import SILENT, Heard, hear_http, hear_tls
from proxy.sinkhole.told import Names, Told
from proxy.target import authority
from proxy.transport.listen import BACKLOG
from proxy.transport.peer import SocketAddress
from proxy.transport.seats import Seats
from rules.decision import Verdict
from rules.facts import UNKNOWN_APP, Principal

_DRAIN_OCTETS = 65536


class Desk(Struct, frozen=True):
    """What visits need: who comes, where it is written, `generation` of the rules, the clock."""

    identifier: Identifier
    audit: Audit
    limits: Limits
    metrics: Metrics
    generation: Callable[[], int]
    wall: Callable[[], float]


class _Guest(Struct, frozen=True):
    """Who came, from `peer` to our socket `local`, where TLS is spoken or HTTP in plain."""

    principal: Principal
    peer: SocketAddress
    local: SocketAddress
    is_tls: bool

    @property
    def app(self) -> str | None:
        """The app; None where nothing names it."""
        app = self.principal.app
        return None if app == UNKNOWN_APP else app


class Visits:
    """Serves any number of listening sockets."""

    def __init__(self, desk: Desk, names: Names) -> None:
        self._desk = desk
        self._names = names
        limits = desk.limits
        self._limits = structs.replace(
            limits, head_octets=limits.sinkhole_octets, hello_octets=limits.sinkhole_octets
        )
        self._servers: list[asyncio.Server] = []
        self._seats = Seats(limits.sinkhole_connections)
        self._shares: Counter[str] = Counter()

    async def start(self, sock: socket.socket, *, is_tls: bool) -> None:
        """Serve on `sock`, which listens already."""
        accept = partial(self._accept, is_tls)
        limit = self._limits.sinkhole_octets
        self._servers.append(
            await asyncio.start_server(accept, sock=sock, limit=limit, backlog=BACKLOG)
        )

    def stop(self) -> None:
        """Stop accepting; what is open stays."""
        for server in self._servers:
            server.close()

    async def close(self) -> None:
        """Stop accepting and cut what is open."""
        self.stop()
        await self._seats.close()

    def _accept(
        self, is_tls: bool, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        # Who it is is asked before its first octet is read: its socket may be gone later.
        guest = self._guest(writer, is_tls=is_tls)
        share = guest.app or str(guest.peer[0])
        if not self._has_room(share):
            self._desk.metrics.sinkhole_connections.add("refused")
            writer.transport.abort()
            return
        self._shares[share] += 1

        def leave() -> None:
            self._shares -= Counter((share,))
            writer.close()

        self._seats.take(self._serve(guest, reader, writer), leave)

    def _guest(self, writer: asyncio.StreamWriter, *, is_tls: bool) -> _Guest:
        peer, local = writer.get_extra_info("peername"), writer.get_extra_info("sockname")
        listener = authority(local[0], local[1])
        return _Guest(self._desk.identifier.tcp(peer, local, listener), peer, local, is_tls)

    def _has_room(self, share: str) -> bool:
        bounds, limits = self._desk.metrics.bounds, self._limits
        if self._shares[share] >= limits.sinkhole_connections_per_app:
            bounds.add("sinkhole_connections_per_app")
            return False
        if self._seats.has_room:
            return True
        bounds.add("sinkhole_connections")
        return self._seats.free()

    async def _serve(
        self, guest: _Guest, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            heard = await self._hear(guest, reader)
        except asyncio.CancelledError:  # another was given its seat
            self._record(guest, SILENT, None)
            raise
        told = self._told(guest, heard)
        unique = self._record(guest, heard, told)
        if heard.outcome == "tls":
            await self._end(ALERT, reader, writer)
        elif heard.outcome == "silent" or guest.is_tls:
            writer.transport.abort()
        else:
            await self._end(answer_http(heard, told, guest.principal.app, unique), reader, writer)

    async def _hear(self, guest: _Guest, reader: asyncio.StreamReader) -> Heard:
        hear = hear_tls if guest.is_tls else hear_http
        try:
            async with asyncio.timeout(self._limits.sinkhole_s):
                heard = await hear(reader, self._limits)
        except TimeoutError:
            self._desk.metrics.bounds.add("sinkhole_s")
            return SILENT
        except OSError:  # the peer has gone
            return SILENT
        self._desk.metrics.bounds.add("sinkhole_octets", n=int(heard.is_long))
        return heard

    async def _end(
        self, octets: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Send the last octets, and read on until the peer has them: a close would be a reset."""
        with contextlib.suppress(TimeoutError, OSError):
            async with asyncio.timeout(self._limits.linger_s):
                writer.write(octets)
                writer.write_eof()
                while await reader.read(_DRAIN_OCTETS):
                    pass
                return
        writer.transport.abort()

    def _told(self, guest: _Guest, heard: Heard) -> Told | None:
        if not isinstance(heard.host, str):
            return None
        return self._names.find(guest.app, heard.host, self._desk.wall())

    def _record(self, guest: _Guest, heard: Heard, told: Told | None) -> str:
        """Count a visit and write its only line; return the line's id."""
        desk = self._desk
        desk.metrics.sinkhole_connections.add(heard.outcome)
        host, port = heard.host or guest.local[0], guest.local[1]
        detail: dict[str, object] = {
            "sinkhole": heard.outcome,
            "peer": authority(guest.peer[0], guest.peer[1]),
        }
        if told is not None:
            detail |= {"refusal": told.id, "asked_by": told.app}
        line = Line(
            flow="",
            app=guest.principal.app,
            evidence=guest.principal.evidence,
            plane=Plane.HTTP,
            fact=None,
            verdict=Verdict.DENY,
            reason=reason_of(heard, told),
            rule=None if told is None else told.decision.rule,
            generation=desk.generation(),
            target=authority(host, port),
            detail=detail,
        )
        return desk.audit.write(line)
