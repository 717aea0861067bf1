"""The bundles of other trust domains: read from a file, or fetched over HTTPS, again and again.

A bundle that cannot be had or read is a problem that the operator is told of, and the one before is
believed further, as the SPIFFE Federation standard has it (section 5.2).
"""

import asyncio
import logging
import os
import stat

from certs.bundle import MOST_HINT_S
from certs.errors import SpiffeError
from proxy.config_identity import Federated
from proxy.errors import ConfigError
from proxy.issuing.bundles import Bundles
from proxy.issuing.outgoing import Outgoing, UnreachableError
from proxy.limits import Limits

logger = logging.getLogger(__name__)

FILE_S = 5.0  # between looks at a file
HINT_S = 300.0  # between fetches where the bundle gives no hint; SPIFFE Federation, section 5.2.1
LEAST_S = 60.0  # between fetches, whatever the hint is
RETRY_S = 30.0


class Federation:
    """Keeps the bundle of one other trust domain in `bundles`."""

    def __init__(
        self, trust_domain: str, source: Federated, bundles: Bundles, limits: Limits
    ) -> None:
        self._trust_domain = trust_domain
        self._source = source
        self._bundles = bundles
        self._most = limits.outgoing_octets
        self._outgoing = Outgoing(source.ca, limits)
        self._problem = ""
        self._got: float | None = (
            None  # when the bundle that is believed was had, on the loop's clock
        )

    async def follow(self) -> None:
        """Have it, and have it again in time, for ever; to be run as a task."""
        try:
            while True:
                wait_s = await self.refresh()
                await asyncio.sleep(wait_s)
        finally:
            await self._outgoing.close()

    async def refresh(self) -> float:
        """Have the bundle once; return in how many seconds it is wanted again."""
        source = self._source
        try:
            octets = await (self._fetched() if source.file is None else self._read(source.file))
            hint_s = self._bundles.other(self._trust_domain, octets).refresh_hint_s or HINT_S
        except (UnreachableError, ConfigError, SpiffeError) as error:
            self._failed(f"the bundle of {self._trust_domain}: {error}")
            return RETRY_S if source.file is None else FILE_S
        self._problem = ""
        self._got = asyncio.get_running_loop().time()
        return min(max(hint_s, LEAST_S), MOST_HINT_S) if source.file is None else FILE_S

    def _failed(self, problem: str) -> None:
        if problem != self._problem:
            logger.warning("%s", problem)
            self._problem = problem
        self._bundles.failed(self._trust_domain, f"{problem}; {self._believed()}")

    def _believed(self) -> str:
        """Say how old the bundle is that is believed meanwhile."""
        if self._got is None:
            return "none has come since the issuer began"
        age_s = asyncio.get_running_loop().time() - self._got
        return f"the one from {age_s // 60:.0f} min ago is believed further"

    async def _fetched(self) -> bytes:
        return await self._outgoing.get(str(self._source.url))

    async def _read(self, file: str) -> bytes:
        def read() -> bytes:
            # One descriptor is looked at and read, and a FIFO keeps no thread waiting.
            with open(file, "rb", opener=_without_waiting) as opened:
                if not stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
                    raise UnreachableError(f"{file}: it is no regular file; put the bundle there")
                return opened.read(self._most + 1)

        try:
            return await asyncio.to_thread(read)
        except OSError as error:
            raise UnreachableError(f"{file}: {error.strerror}; put it there") from None


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)
