"""The TCP listeners that the appliance binds and the issuer serves: `enroll` and `pki`.

Enrolment is HTTPS with the certificate of all our listeners ($STATE/ca/server.pem); who has a
certificate of the trust domain may present it.
"""

import asyncio
import contextlib
import os
import socket
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from aiohttp import web

from certs.files import SERVER_KEY, SERVER_PEM, steady
from proxy.channel import Event
from proxy.errors import ProxyError
from proxy.issuing.authority import Authority
from proxy.issuing.device import DeviceFlows, Sleep
from proxy.issuing.enrolment import Enrolment
from proxy.issuing.est import Est
from proxy.issuing.outgoing import Outgoing
from proxy.issuing.pki import Pki
from proxy.issuing.provider import Provider
from proxy.issuing.web_server import WebServer
from proxy.tokens.file import FILE_NAME, TokenFile
from proxy.transport.handshake import ListenerTls, Unverified
from proxy.transport.server_tls import ServerTls

ENROLL, PKI = "enroll", "pki"
LOOK_S = 1.0
_SHOWN = 200  # characters of what OpenSSL says

type _Stamp = tuple[tuple[int, int], ...]


class Listeners:
    """Serves sockets that were handed over, for `authority`.

    `monotonic` gives seconds, `sleep` waits so many.
    """

    def __init__(
        self, authority: Authority, monotonic: Callable[[], float], sleep: Sleep = asyncio.sleep
    ) -> None:
        settings = authority.settings
        self._authority = authority
        self._limits = settings.limits
        self._pki = Pki(authority)
        state = Path(settings.state)
        self._folder = state / "ca"
        tokens = TokenFile(state / FILE_NAME, self._limits, os.urandom)
        self._enrolment = Enrolment(authority, tokens, self._limits)
        self._outgoing: Outgoing | None = None
        self._flows: DeviceFlows | None = None
        oidc = settings.identity.oidc
        if oidc is not None:
            self._outgoing = Outgoing(oidc.ca, self._limits)
            provider = Provider(oidc, self._outgoing)
            self._flows = DeviceFlows(self._enrolment, oidc, provider, monotonic, sleep)
        self._tls: ServerTls | None = None
        self._seen: _Stamp = ()
        self._servers: dict[WebServer, Counter[str]] = {}
        self._timer: asyncio.TimerHandle | None = None

    async def serve(self, kind: str, sock: socket.socket, label: str) -> None:
        """Accept on `sock`, which listens already and is ours to close; `label` names it.

        Raises:
            BindError: the certificate of our listeners cannot be used.
            ValueError: no such kind.
        """
        limits = self._limits
        if kind == PKI:
            server = WebServer(
                self._pki.routes(),
                self._authority.log,
                octets=limits.enroll_octets,
                most=limits.pki_connections,
                limit="pki_connections",
                life_s=limits.enroll_connection_s,
            )
            await server.start(sock, None)
        elif kind == ENROLL:
            server = WebServer(
                self._enroll_routes(),
                self._authority.log,
                octets=limits.enroll_octets,
                most=limits.enroll_connections,
                limit="enroll_connections",
                life_s=limits.enroll_connection_s,
            )
            await server.start(sock, self._listener_tls(label))
        else:
            raise ValueError(f"no listener is called {kind!r}")
        self._servers[server] = Counter()
        if self._timer is None:
            self._tick()

    def look(self) -> None:
        """Take up a new certificate and new roots; tell of bounds that were hit."""
        if self._tls is not None:
            self._refresh(self._tls)
        for server, told in self._servers.items():
            for limit, count in (server.bounds - told).items():
                self._enrolment.at_bound(limit, count)
            told.update(server.bounds - told)

    async def close(self) -> None:
        """Stop accepting, and end what is open."""
        if self._timer is not None:
            self._timer.cancel()
        for server in self._servers:
            await server.close()
        self._servers.clear()
        if self._flows is not None:
            await self._flows.close()
        if self._outgoing is not None:
            await self._outgoing.close()

    def _enroll_routes(self) -> list[web.RouteDef]:
        routes = [*Est(self._enrolment).routes(), *self._pki.public()]
        return routes if self._flows is None else [*routes, *self._flows.routes()]

    def _listener_tls(self, label: str) -> ListenerTls:
        if self._tls is None:
            pem, key = self._folder / SERVER_PEM, self._folder / SERVER_KEY
            self._seen = self._stamp()
            self._tls = ServerTls(pem, key, ("http/1.1",))
            self._tls.ask(self._authority.domain.anchors)
        return ListenerTls(
            self._tls,
            self._limits.tls_handshakes,
            self._limits.tls_handshake_s,
            self._enrolment.at_bound,
            unverified=lambda who: self._unverified(who, label),
        )

    def _tick(self) -> None:
        self.look()
        self._timer = asyncio.get_running_loop().call_later(LOOK_S, self._tick)

    def _refresh(self, tls: ServerTls) -> None:
        stamp = self._stamp()
        try:
            tls.ask(self._authority.domain.anchors)
            if stamp != self._seen:
                with steady(self._folder) as is_steady:
                    if is_steady:
                        # Tried on another one first: what fails may leave a context without a key.
                        ServerTls(self._folder / SERVER_PEM, self._folder / SERVER_KEY, ())
                        tls.load()
                        self._seen = stamp
        except ProxyError as error:
            self._seen = stamp
            self._authority.log.warning("enrolment keeps its old certificate: %s", error)

    def _unverified(self, who: Unverified, label: str) -> None:
        if self._enrolment.tries.refused(str(who.peer[0])) is None:
            return
        detail: dict[str, str | int] = {"peer": str(who.peer[0]), "text": who.text[:_SHOWN]}
        event = Event("refused", "", label, allowed=False, reason="identity-unknown", detail=detail)
        self._authority.event(event)

    def _stamp(self) -> _Stamp:
        found = []
        for name in (SERVER_PEM, SERVER_KEY):
            with contextlib.suppress(OSError):
                stat = (self._folder / name).stat()
                found.append((stat.st_ino, stat.st_mtime_ns))
        return tuple(found)
