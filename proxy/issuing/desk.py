"""The issuer's end of the channel: what the appliance says, brought to who does it."""

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Collection, Coroutine, Mapping
from typing import Any

from proxy.channel import (
    Adopt,
    Challenge,
    Entitle,
    Event,
    Gone,
    Judged,
    Look,
    Named,
    Ready,
    Serve,
    Sign,
    SignClaims,
    ToIssuer,
    Trust,
    Verify,
)
from proxy.channel_socket import ChannelSocket
from proxy.config import Settings
from proxy.errors import ProxyError
from proxy.issuing.adopting import SWEEP_S, Adopted
from proxy.issuing.authz import Authorization
from proxy.issuing.bounds import Bounds
from proxy.issuing.bundles import Bundles
from proxy.issuing.caller import Caller
from proxy.issuing.calls import Calls
from proxy.issuing.elsewhere import Elsewhere
from proxy.issuing.evidence import Docket
from proxy.issuing.here import Here
from proxy.issuing.issuer import Shared
from proxy.issuing.keys import Keys
from proxy.issuing.spire import Spire

logger = logging.getLogger(__name__)

EXT_AUTHZ = "ext_authz"
_MOST_PROBLEM_CHARACTERS = 500
_TOO_LARGE = "the bundles are too large together: take some out of identity.federation"
_ERRANDS_S = 0.5  # for what is under way at the end; the appliance waits a second


class Desk:
    """Everything that the process does, for the appliance at the other end of `sock`."""

    def __init__(
        self,
        settings: Settings,
        sock: socket.socket,
        environ: Mapping[str, str],
        wall: Callable[[], float],
    ) -> None:
        self._over = asyncio.Event()
        self._channel = ChannelSocket(sock, ToIssuer, self._receive, self.end)
        self._limits = settings.limits
        self._calls = Calls(self._channel, settings.limits.ext_authz_calls)
        self._bounds = Bounds(self._channel.send)
        self._adopted = Adopted(self._services, settings.limits, self._bounds.hit, self._gone)
        shared = Shared(
            settings=settings,
            send=self._channel.send,
            calls=self._calls,
            bounds=self._bounds,
            bundles=Bundles(),
            wall=wall,
            monotonic=asyncio.get_running_loop().time,
        )
        identity = settings.identity
        self._role: Here | Elsewhere
        if identity.workload_api is None:
            self._role = Here(shared, Keys(settings, environ))
        else:
            self._role = Elsewhere(Spire(identity.workload_api, identity.trust_domain, wall))
        self._docket = Docket(self._role.answer, self._channel.send)
        self._tasks: set[asyncio.Task[None]] = set()
        self._errands: set[asyncio.Task[None]] = set()
        self._bug: BaseException | None = None

    async def run(self) -> None:
        """Serve until the channel ends, or `end` is called.

        Raises:
            CertsError: the keys cannot be used.
            ProxyError: a file cannot be.
        """
        try:
            await self._role.open()
            self._channel.start()
            self._channel.send(Ready())
            self._role.tell(self._tell)
            for each in (*self._role.tasks(), self._sweep()):
                self._begin(each)
            await self._over.wait()
        finally:
            await self._close()
        if self._bug is not None:
            raise self._bug

    def end(self) -> None:
        """End soon."""
        self._over.set()

    def _receive(self, message: ToIssuer, fds: tuple[int, ...]) -> None:
        match message:
            case Adopt():
                self._adopted.adopt(message, fds[0])
            case Entitle():
                self._adopted.entitle(message)
            case Named() | Judged():
                self._calls.answered(message)
            case Sign():
                self._channel.send(self._role.sign(message))
            case Verify() | Challenge() | SignClaims():
                self._docket.take(message)
            case Serve():
                self._run(self._serve(message, socket.socket(fileno=fds[0])))
            case Look():
                self._run(self._role.look())
        for fd in fds[1:]:
            os.close(fd)

    def _services(self, kind: str, caller: Caller) -> Collection[Any]:
        if kind != EXT_AUTHZ:
            return self._role.services(caller)
        timeout_s = self._limits.ext_authz_s
        return (Authorization(self._calls, timeout_s, caller, self._bounds.hit),)

    def _tell(self, trust: Trust) -> None:
        """Say whom to believe; what is too long to be said ends nothing."""
        try:
            self._channel.send(trust)
        except ValueError:
            self._channel.send(Trust({}, _TOO_LARGE))  # no bundle at all is no news

    def _gone(self, connection: int) -> None:
        self._channel.send(Gone(connection))

    async def _serve(self, message: Serve, sock: socket.socket) -> None:
        try:
            await self._role.serve(message.kind, sock, message.label)
        except ProxyError as error:
            sock.close()
            logger.error("%s", error)  # noqa: TRY400 - the text is for the operator, a trace is not
            detail: dict[str, str | int] = {"text": str(error)[:_MOST_PROBLEM_CHARACTERS]}
            event = Event("unserved", "", message.label, False, "internal-error", detail)
            self._channel.send(event)

    async def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(SWEEP_S)
            self._adopted.sweep(loop.time())

    def _begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _run(self, errand: Coroutine[Any, Any, None]) -> None:
        """Begin what ends by itself, and what a file is opened for: it is not cut short."""
        task = self._begin(errand)
        self._errands.add(task)
        task.add_done_callback(self._errands.discard)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._bug = task.exception()
            self.end()

    async def _close(self) -> None:
        self._adopted.close()
        if self._errands:
            await asyncio.wait(self._errands, timeout=_ERRANDS_S)
        tasks = list(self._tasks)
        for each in tasks:
            each.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._role.close()
        self._bounds.tell()
        self._channel.close()
