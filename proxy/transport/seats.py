"""Seats for connections that are a task each: so many at once, none kept by who says nothing.

Where every seat is taken, a further connection gets that of the one which has waited longest
for its peer, as a SYN cache does (RFC 4987, section 3.4): an honest peer sends what it has to
say with its first packets, so that the oldest is the one that stalls.  One whose request is
being answered is never ended for another.
"""

import asyncio
from collections.abc import Callable, Coroutine


class Seats:
    """`most` connections at once; call it from the loop's thread only."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._seated: set[asyncio.Task[None]] = set()
        self._waiting: dict[asyncio.Task[None], None] = {}  # the one that waits longest first

    @property
    def has_room(self) -> bool:
        """Whether a seat is free."""
        return len(self._seated) < self._most

    def take(self, work: Coroutine[None, None, None], after: Callable[[], object]) -> None:
        """Run `work`, which waits for its peer first, and `after` it, also where it never began."""
        task = asyncio.get_running_loop().create_task(work)
        self._seated.add(task)
        self._waiting[task] = None
        task.add_done_callback(self._left)
        task.add_done_callback(lambda _: after())

    def free(self) -> bool:
        """End the connection that has waited longest; return False where none waits."""
        if not self._waiting:
            return False
        task = next(iter(self._waiting))
        self._left(task)
        task.cancel()
        return True

    def waits(self) -> None:
        """Say, from a connection's own task, that it waits for its peer from now on."""
        task = asyncio.current_task()
        if task in self._seated:
            self._waiting.setdefault(task, None)

    def works(self) -> None:
        """Say, from a connection's own task, that a whole request of its peer was read."""
        task = asyncio.current_task()
        if task is not None:
            self._waiting.pop(task, None)

    async def close(self) -> None:
        """End every connection."""
        seated = tuple(self._seated)
        for task in seated:
            task.cancel()
        await asyncio.gather(*seated, return_exceptions=True)

    def _left(self, task: asyncio.Task[None]) -> None:
        self._seated.discard(task)
        self._waiting.pop(task, None)
