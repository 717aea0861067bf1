"""Keeping the certificate of our listeners fresh while connections stay open.

The root's key is read by a child process that lives for a tenth of a second, never by this one.
A new certificate is tried on a context of its own first: one that refuses it would lose the old
one as well.  Then each listener's context gets it: OpenSSL copies the certificate when a connection
begins, so that those which are open, or in their handshake, keep theirs.
"""

import asyncio
import contextlib
import datetime as dt
import logging
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Callable, Sequence
from pathlib import Path

from certs.errors import CertsError
from certs.files import SERVER_KEY, SERVER_PEM, steady
from certs.leaf import Leaf, read_leaf
from certs.names import server_names
from proxy.config import Settings, read_socket
from proxy.errors import ProxyError
from proxy.transport.server_tls import ServerTls, server_context

logger = logging.getLogger(__name__)

LOOK_S = 60.0  # a look costs two small files; a laptop that slept past the end is soon right again
RETRY_S = 600.0  # between children, each 0.2 s of a processor; 60 days are left for failures
CHILD_S = 30.0  # for what takes 0.2 s; Python's imports from a cold disk are most of it
_SAID_CHARACTERS = 500  # of what the child says
_ROOT = Path(__file__).resolve().parent.parent

type _Stamp = tuple[tuple[int, int, int], ...]


class RenewalError(ProxyError):
    """A new certificate could not be made or used; the text says what to do."""


def certificate_folder(settings: Settings) -> Path:
    """Return where keys and certificates are."""
    return Path(settings.state) / "ca"


def certificate_names(settings: Settings) -> tuple[str, ...]:
    """Return the names that the certificate of our TLS listeners is to have."""
    return server_names(str(read_socket(each)[0]) for each in settings.listen.tls)


class Renewal:
    """Watches the files of `folder` for `contexts`; `clock` gives seconds since 1970.

    `names` are those of `certificate_names`.
    """

    def __init__(
        self,
        folder: Path,
        names: tuple[str, ...],
        contexts: Sequence[ServerTls],
        clock: Callable[[], float],
    ) -> None:
        self._folder = folder
        self._names = names
        self._contexts = tuple(contexts)
        self._clock = clock
        self._loaded = self._stamp()
        self._try_at = 0.0  # by the loop's clock
        self.problem = ""
        """Why the certificate is not as it should be; empty where it is."""
        self.leaf: Leaf | None = None
        """What the last look found."""

    async def run(self) -> None:
        """Look now and then, until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_S)

    async def look(self) -> None:
        """Renew what is due and load what changed.  Never raises; `problem` says what failed."""
        try:
            await self._renew()
            await self._load()
        except (ProxyError, CertsError) as error:
            self._note(str(error))

    async def _renew(self) -> None:
        self.leaf = read_leaf(self._folder)
        now = self._clock()
        if self.leaf is not None and self.leaf.is_good(self._names, now):
            self._note("")
            return
        loop = asyncio.get_running_loop()
        if loop.time() < self._try_at:
            return
        self._try_at = loop.time() + RETRY_S
        try:
            await _child(self._folder, int(now), self._names)
            self.leaf = read_leaf(self._folder)
        except (RenewalError, CertsError) as error:
            raise RenewalError(f"{self._until()} and cannot be renewed: {error}") from None
        self._note("")

    async def _load(self) -> None:
        stamp = self._stamp()
        if stamp == self._loaded:
            return
        paths = self._folder / SERVER_PEM, self._folder / SERVER_KEY
        with steady(self._folder) as is_steady:
            if not is_steady:  # somebody writes just now: the next look will do
                return
            server_context(*paths, alpn=())
            for context in self._contexts:
                context.load()
                await asyncio.sleep(0)  # 0.6 ms each: queries go first
        self._loaded = stamp
        logger.info("a new server certificate: %s", self._until())

    def _until(self) -> str:
        if self.leaf is None:
            return "the server certificate is not what we wrote"
        end = dt.datetime.fromtimestamp(self.leaf.not_after, dt.UTC)
        return f"the server certificate ends {end:%Y-%m-%d %H:%M} UTC"

    def _note(self, problem: str) -> None:
        if problem and problem != self.problem:
            logger.warning("%s", problem)
        self.problem = problem

    def _stamp(self) -> _Stamp:
        """Return what changes when a file is replaced."""
        found = []
        for name in (SERVER_PEM, SERVER_KEY):
            with contextlib.suppress(OSError):
                status = (self._folder / name).stat()
                found.append((status.st_ino, status.st_mtime_ns, status.st_size))
        return tuple(found)


async def _child(folder: Path, now: int, names: tuple[str, ...]) -> None:
    """Have a new leaf made.

    Raises:
        RenewalError: the child could not be started, failed, or took too long.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            # -P: a folder named `certs` where we were started must not be imported as ours.
            *(sys.executable, "-P", "-m", "certs.renew", str(folder), str(now), *names),
            env={**os.environ, "PYTHONPATH": str(_ROOT)},
            stdin=DEVNULL,
            stdout=DEVNULL,
            stderr=PIPE,
        )
    except OSError as error:  # no descriptor or process is left just now, or Python has gone
        raise RenewalError(f"the child process cannot be started: {error.strerror}") from None
    said = await _end_of(process)
    if process.returncode:
        text = said.decode(errors="replace").strip()[-_SAID_CHARACTERS:]
        raise RenewalError(text or f"the child process ended with {process.returncode}")


async def _end_of(process: Process) -> bytes:
    """Wait for the end of a child and return what it said; it never outlives this."""
    try:
        _, said = await asyncio.wait_for(process.communicate(), CHILD_S)
    except TimeoutError:
        raise RenewalError(f"the child process took longer than {CHILD_S:.0f} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return said
