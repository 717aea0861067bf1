"""A real issuer without a process: its keys and log on the disk, what it sends in a list."""

import asyncio
import datetime as dt
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from proxy.certificates.revoked import Kind, Revocation, Revocations
from proxy.channel import Event, Judged, Named, ToIssuer
from proxy.channel_socket import ChannelSocket
from proxy.issuing.bounds import Bounds
from proxy.issuing.bundles import Bundles
from proxy.issuing.caller import Caller
from proxy.issuing.calls import Calls
from proxy.issuing.issued import IssuedLog
from proxy.issuing.issuer import Issuer, Shared
from proxy.issuing.keys import Keys
from proxy.limits import Limits
from tests.proxy.issuing.desk import APP, ID, WAIT_S, Clock, settings


class Stand:
    """An issuer whose clock can be set, and everything that it sent."""

    def __init__(self, folder: Path, limits: Limits | None = None, **identity: Any) -> None:
        (folder / "identity").mkdir(mode=0o700, parents=True, exist_ok=True)
        self.settings = settings(folder, limits, **identity)
        self.clock = Clock()
        self.sent: list[Any] = []
        ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.channel = ChannelSocket(ours, ToIssuer, self._receive, lambda: None)
        self.calls = Calls(self.channel, self.settings.limits.ext_authz_calls)
        self.bounds = Bounds(self.sent.append)
        self.shared = Shared(
            settings=self.settings,
            send=self.sent.append,
            calls=self.calls,
            bounds=self.bounds,
            bundles=Bundles(),
            wall=self.clock,
            monotonic=asyncio.get_running_loop().time,
        )
        self.keys = Keys(self.settings, {})
        self.keys.ensure(self.now())
        path = folder / "identity" / "issued.sqlite"
        self.log = IssuedLog(path, self.settings.limits.issued_queue)
        self.revocations = Revocations()
        self.issuer = Issuer(self.shared, self.keys.load(), self.log, self.revocations)
        self.caller = Caller(1, APP, (ID,))

    def now(self) -> dt.datetime:
        """The time of its clock, aware."""
        return dt.datetime.fromtimestamp(self.clock(), dt.UTC)

    def revoke(self, kind: Kind, value: str) -> None:
        """Revoke one more thing."""
        self.revocations.use((*self.revocations.all(), Revocation(kind, value, self.clock())))

    def events(self, change: str) -> list[Event]:
        """Return the events of a kind until now."""
        return [each for each in self.sent if isinstance(each, Event) and each.change == change]

    def _receive(self, message: Any, _: tuple[int, ...]) -> None:
        if isinstance(message, Named | Judged):
            self.calls.answered(message)


async def until(holds: Callable[[], bool]) -> None:
    """Let the loop run until something holds."""
    async with asyncio.timeout(WAIT_S):
        while not holds():  # noqa: ASYNC110 - what is awaited sets no event
            await asyncio.sleep(0.001)


@asynccontextmanager
async def standing(
    folder: Path, limits: Limits | None = None, **identity: Any
) -> AsyncIterator[Stand]:
    """Open a stand, and close it."""
    stand = Stand(folder, limits, **identity)
    stand.channel.start()
    await stand.log.open(stand.clock())
    try:
        yield stand
    finally:
        await stand.log.close()
        stand.bounds.tell()
        stand.channel.close()
        stand.theirs.close()
