"""Who is at the other end of an adopted connection, and what he is entitled to at the moment."""

import asyncio
import contextlib
from collections.abc import Iterator


class Watched:
    """Something that streams look at again when it has changed."""

    def __init__(self) -> None:
        self._streams: set[asyncio.Event] = set()

    @contextlib.contextmanager
    def watched_by(self, stirred: asyncio.Event) -> Iterator[None]:
        """Set `stirred` at each change, meanwhile."""
        self._streams.add(stirred)
        try:
            yield
        finally:
            self._streams.discard(stirred)

    def stir(self) -> None:
        """Have everybody who watches look again."""
        for stirred in self._streams:
            stirred.set()


class Caller(Watched):
    """The workload of connection `number`, named by the appliance; `entitle` changes it."""

    def __init__(self, number: int, app: str, ids: tuple[str, ...]) -> None:
        super().__init__()
        self.number = number
        self.app = app
        self.ids = ids

    def entitle(self, app: str, ids: tuple[str, ...]) -> None:
        """Be entitled to this from now on."""
        if (app, ids) != (self.app, self.ids):
            self.app, self.ids = app, ids
            self.stir()


async def stirred_within(stirred: asyncio.Event, seconds: float) -> None:
    """Wait until `stirred` is set, or so long; it is unset then."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stirred.wait()
    stirred.clear()
