"""The life of the issuer: a child process that holds the keys, and the channel to it.

It is started when it is first needed, and then kept: when it ends, another one begins, after a
second, two, four, up to a minute.  It is ours alone to end: it gets no signals of our terminal,
and ends by itself when the channel does.

    python -P -m proxy.issuing.main CHANNEL SETTINGS

Both are descriptors: the channel (`proxy.channel_socket`), and the settings as JSON, for they may
hold a parent proxy's password, which is not for `ps` to show.
"""

import asyncio
import contextlib
import logging
import os
import socket
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from proxy.channel import Ready, ToAppliance
from proxy.channel_socket import ChannelSocket, Receive
from proxy.config import Settings
from proxy.limits import Limits
from proxy.metrics import Metrics

logger = logging.getLogger(__name__)

MODULE = "proxy.issuing.main"
_STOP_S = 1.0  # between asking it to end and ending it: what it writes is small
_LAST_S = 0.5  # for its last messages, which the kernel holds still, or for its end after them
_ROOT = Path(__file__).resolve().parent.parent.parent


class Told(Struct, frozen=True):
    """Who is told of what: of a message, that it serves now, that it has ended."""

    receive: Receive
    ready: Callable[[], None]
    ended: Callable[[], None]


class Issuer:
    """Starts, watches and ends it; call it from the loop's thread only."""

    def __init__(
        self, settings: Settings, told: Told, metrics: Metrics, module: str = MODULE
    ) -> None:
        self._settings = settings
        self._told = told
        self._metrics = metrics
        self._module = module
        self._task: asyncio.Task[None] | None = None
        self._channel: ChannelSocket | None = None
        self._turned = asyncio.Event()  # it serves, or the channel has ended
        self._wait_s = 0.0
        self.pid = 0
        """Of its process; 0 where there is none."""
        self.is_ready = False
        """Whether it serves."""
        self.is_resting = False
        """Whether it has ended, and the next one is not to begin yet."""
        self.problem: str | None = None
        """Why it does not serve although it was needed; None where nothing is wrong."""
        metrics.issuer_up.read_by(lambda: int(self.is_ready))

    def wake(self) -> None:
        """See that it runs, sooner or later; returns at once."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._live())

    def send(self, message: Struct, fds: Sequence[int] = ()) -> None:
        """Send `message` with copies of `fds`; nothing is sent while it does not serve.

        Raises:
            ValueError: it is too long for the channel.
        """
        if self._channel is not None and self.is_ready:
            self._channel.send(message, fds)

    async def close(self) -> None:
        """End it, for good."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _live(self) -> None:
        limits = self._settings.limits
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            try:
                why = await self._once()
            except OSError as error:  # no descriptor or process is left just now
                why = f"cannot be started: {error.strerror}"
            self._wait_s = next_wait(self._wait_s, loop.time() - began, limits)
            self.problem = f"the issuer {why}; it is started again"
            logger.warning("%s in %g s", self.problem, self._wait_s)
            self.is_resting = True
            self._told.ended()
            await asyncio.sleep(self._wait_s)
            self.is_resting = False
            self._metrics.issuer_restarts.add()

    async def _once(self) -> str:
        """Run one process to its end, and return why it ended.

        Raises:
            OSError: there is none.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with theirs:
                process = await self._started(theirs)
        except (OSError, asyncio.CancelledError):
            ours.close()
            raise
        self._turned.clear()
        self._channel = channel = ChannelSocket(ours, ToAppliance, self._receive, self._turned.set)
        self.pid = process.pid
        try:
            channel.start()
            return await self._watched(process)
        finally:
            self.is_ready = False
            channel.close()
            self._channel = None
            await _stop(process)
            self.pid = 0

    async def _watched(self, process: Process) -> str:
        end = asyncio.get_running_loop().create_task(process.wait())
        start_s = self._settings.limits.issuer_start_s
        try:
            await self._turn(end, start_s)
            if not self.is_ready and not end.done() and not self._is_cut():
                self._metrics.bounds.add("issuer_start_s")
                return f"was not ready within {start_s:g} s"
            while self.is_ready and not end.done() and not self._is_cut():
                await self._turn(end, None)
            if end.done():
                await self._last_words()
            else:
                await asyncio.wait((end,), timeout=_LAST_S)
            if end.done():
                return f"ended with {process.returncode}"
            return "closed the channel"
        finally:
            end.cancel()

    async def _last_words(self) -> None:
        """Let what it sent before its end be received: audit events are among it."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_S):
                while not self._is_cut():
                    self._turned.clear()
                    await self._turned.wait()

    async def _turn(self, end: asyncio.Task[int], time_s: float | None) -> None:
        """Wait until something has happened: it serves, it ended, or the channel did."""
        self._turned.clear()
        if self._is_cut():
            return
        turned = asyncio.get_running_loop().create_task(self._turned.wait())
        try:
            await asyncio.wait((turned, end), timeout=time_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            turned.cancel()

    def _is_cut(self) -> bool:
        return self._channel is None or self._channel.closed

    def _receive(self, message: object, fds: tuple[int, ...]) -> None:
        if isinstance(message, Ready):
            for fd in fds:
                os.close(fd)
            self.is_ready = True
            self.problem = None
            self._turned.set()
            self._told.ready()
        else:
            self._told.receive(message, fds)

    async def _started(self, theirs: socket.socket) -> Process:
        settings = os.memfd_create("sallyport-settings", os.MFD_CLOEXEC)
        try:
            os.write(settings, msgspec.json.encode(self._settings))
            os.lseek(settings, 0, os.SEEK_SET)
            fds = theirs.fileno(), settings
            return await asyncio.create_subprocess_exec(
                # -P: a folder named `certs` where we were started must not be imported as ours.
                *(sys.executable, "-P", "-m", self._module, *map(str, fds)),
                env={**os.environ, "PYTHONPATH": str(_ROOT)},
                stdin=DEVNULL,
                stdout=DEVNULL,
                pass_fds=fds,
                start_new_session=True,
            )
        finally:
            os.close(settings)


def next_wait(before_s: float, lived_s: float, limits: Limits) -> float:
    """Return how long to wait after one that lived for `lived_s`; before it that was `before_s`.

    One that lived longer than the longest wait had begun well: the next one comes soon.
    """
    if before_s == 0 or lived_s >= limits.issuer_restart_most_s:
        return limits.issuer_restart_s
    return min(2 * before_s, limits.issuer_restart_most_s)


async def _stop(process: Process) -> None:
    """End the process, of which the channel has been closed."""
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), _STOP_S)
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
