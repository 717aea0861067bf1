"""Ends of a tunnel that a test holds, so that a reset can be told from an end."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

PIECE = bytes(65536)
PATIENCE_S = 10.0

type Ending = asyncio.Task[tuple[str, float]]


class Leg:
    """One end of a tunnel."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @property
    def is_full(self) -> bool:
        """Whether more was written than the other end takes."""
        return self.writer.transport.get_write_buffer_size() > 0

    async def ending(self) -> tuple[str, float]:
        """Read until the end; return how it ended, and when."""
        try:
            while await self.reader.read(1 << 18):
                pass
        except ConnectionError:
            return "reset", time.monotonic()
        return "end", time.monotonic()

    async def filled(self) -> tuple[str, float]:
        """Write as much as is taken, and read nothing, until the end; return how, and when."""
        try:
            while True:
                self.writer.write(PIECE)
                await self.writer.drain()
                await asyncio.sleep(0)  # where it is not full it does not wait
        except ConnectionError:
            # A lost connection says so to whoever writes; a reset alone says so to who reads.
            is_reset = isinstance(self.reader.exception(), ConnectionError)
            return "reset" if is_reset else "end", time.monotonic()


async def endings(legs: Iterable[Leg], *, is_saturated: bool) -> list[Ending]:
    """Watch for the end of each leg, both of them full where `is_saturated`.

    Neither end of a full tunnel reads: so it fills up, and stays full, on a busy host too.
    """
    legs = list(legs)
    ends = [asyncio.create_task(leg.filled() if is_saturated else leg.ending()) for leg in legs]
    async with asyncio.timeout(PATIENCE_S):
        while is_saturated and not all(  # noqa: ASYNC110 - no event tells of it
            leg.is_full or end.done() for leg, end in zip(legs, ends, strict=True)
        ):
            await asyncio.sleep(0.01)
    return ends


@asynccontextmanager
async def aborting(legs: Iterable[Leg]) -> AsyncIterator[None]:
    """Abort them at the end, whatever happens: a server waits for its connections."""
    try:
        yield
    finally:
        for leg in legs:
            leg.writer.transport.abort()
