"""How far the reading of lists has come, told by who reads to who waits.

The child writes a line into a pipe now and then, and drops it where the pipe is full: nobody who
reads lists waits for anybody who looks on.
"""

import asyncio
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import msgspec
from msgspec import Struct

_EVERY_S = 0.2  # between two lines; a person reads no more, and a pipe holds minutes of them
_NAME_CHARACTERS = 256  # of a file's name, so that a line is one write (pipe(7), PIPE_BUF)
_MOST_OCTETS = 65536  # read at once: what a pipe holds (pipe(7))

_LOGGED_EVERY_S = 5.0  # a million names take as long

logger = logging.getLogger(__name__)

type Clock = Callable[[], float]


class Progress(Struct, frozen=True):
    """Of `files` lists number `number` is being read, `file`; so far it had `lines`."""

    file: str
    number: int
    files: int
    lines: int = 0

    @property
    def text(self) -> str:
        """What a person reads."""
        return f"reading lists: {self.file} ({self.number} of {self.files}), {self.lines:,} lines"


type Told = Callable[[Progress], None]
"""Takes news of the reading; called often, and cheap."""


def untold(_: Progress) -> None:
    """Tell nobody."""


class Seldom:
    """Tells of a new file at once, and of the same one now and then."""

    def __init__(self, told: Told, clock: Clock, every_s: float = _EVERY_S) -> None:
        """`clock` is in seconds; `told` is called once in `every_s` at most, for each file."""
        self._told = told
        self._clock = clock
        self._every_s = every_s
        self._number = 0
        self._next = 0.0

    def __call__(self, progress: Progress) -> None:
        """Pass it on, or not."""
        now = self._clock()
        if progress.number != self._number or now >= self._next:
            self._number = progress.number
            self._next = now + self._every_s
            self._told(progress)


def logged(clock: Clock) -> Told:
    """Return what logs how far a long reading is."""

    def log(progress: Progress) -> None:
        if progress.lines:
            logger.info("%s", progress.text)

    return Seldom(log, clock, _LOGGED_EVERY_S)


class ProgressWriter:
    """The child's end of the pipe."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        os.set_blocking(descriptor, False)

    def __call__(self, progress: Progress) -> None:
        """Write a line, if there is room for it and somebody to read it."""
        short = msgspec.structs.replace(progress, file=progress.file[:_NAME_CHARACTERS])
        with suppress(BlockingIOError, BrokenPipeError):
            os.write(self._descriptor, msgspec.json.encode(short) + b"\n")


class ProgressReader:
    """The other end; `descriptor` blocks nobody."""

    def __init__(self, descriptor: int, told: Told) -> None:
        self._descriptor = descriptor
        self._told = told

    def read(self) -> None:
        """Tell of the last whole line that is there, if there is one."""
        with suppress(BlockingIOError):
            octets = os.read(self._descriptor, _MOST_OCTETS)
            last = octets.rpartition(b"\n")[0].rpartition(b"\n")[2]
            with suppress(msgspec.MsgspecError):
                self._told(msgspec.json.decode(last, type=Progress))


@contextmanager
def hearing(told: Told) -> Iterator[int]:
    """Hear, on the running loop, what is written to the descriptor that this yields."""
    loop = asyncio.get_running_loop()
    reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    loop.add_reader(reading, ProgressReader(reading, told).read)
    try:
        yield writing
    finally:
        loop.remove_reader(reading)
        os.close(reading)
        os.close(writing)
