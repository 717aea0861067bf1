"""What keeps look-ups from carrying anything out, composed: secrets, the detector, the sinkhole.

What each of them costs in memory is loaded when it is needed: the detector's tables with the first
look-up that is watched, the sinkhole where it is configured.
"""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

from proxy.audit import Audit
from proxy.authorize import Authorizer
from proxy.canaries.known import KnownSecrets
from proxy.canaries.live import LiveSecrets
from proxy.canaries.secret import FILE_NAME as SECRETS_FILE
from proxy.config import Settings
from proxy.detection.lines import Lines
from proxy.detection.live import FILE_NAME as DETECTION_FILE
from proxy.detection.live import Ground, LiveDetection
from proxy.held import Held
from proxy.identify import Identifier
from proxy.metrics import Metrics
from proxy.transport.own import OwnSockets
from proxy.workload.events import Clock
from rules.suffix import PublicSuffixes

if TYPE_CHECKING:
    from proxy.sinkhole.listen import Sinkhole


class Guard:
    """The three of them, in the order in which the appliance needs them."""

    def __init__(
        self,
        settings: Settings,
        audit: Audit,
        metrics: Metrics,
        suffixes: PublicSuffixes,
        clock: Clock,
    ) -> None:
        self._settings, self._audit, self._metrics = settings, audit, metrics
        self._suffixes, self._clock = suffixes, clock
        self._tasks: set[asyncio.Future[object]] = set()
        limits = settings.limits
        self.held = Held()
        self.known = KnownSecrets(limits, metrics.bounds.add, metrics.leaks.add)
        file = Path(settings.state) / SECRETS_FILE
        self.secrets = LiveSecrets(file, self.known, limits, clock.wall, clock.entropy)
        self.sinkhole: Sinkhole | None = None
        self.detection: LiveDetection

    def watch(self, authorizer: Authorizer) -> LiveDetection:
        """Make the detector of what `authorizer` allows; it was handed `held` and `known`."""
        settings, clock = self._settings, self._clock
        lines = Lines(self._audit, lambda: authorizer.generation, clock.wall, clock.entropy)
        made = Ground(
            settings.limits, self._metrics, self._suffixes, self.held, authorizer.still,
            lines.write,
        )  # fmt: skip
        file = Path(settings.state) / DETECTION_FILE
        self.detection = LiveDetection(file, made, clock.wall)
        return self.detection

    def sink(
        self, identifier: Identifier, own: OwnSockets, generation: Callable[[], int]
    ) -> "Sinkhole | None":
        """Bind the sinkhole's sockets where it is configured; they are ours from now on."""
        settings = self._settings
        if settings.sinkhole.addresses:
            from proxy.sinkhole.listen import Sinkhole  # noqa: PLC0415 - 0.3 MB, see above
            from proxy.sinkhole.visits import Desk  # noqa: PLC0415 - as above

            listen = settings.listen
            desk = Desk(
                identifier, self._audit, settings.limits, self._metrics, generation,
                self._clock.wall,
            )  # fmt: skip
            self.sinkhole = Sinkhole(
                settings.sinkhole, (*listen.do53, *listen.dot, *listen.doh), desk
            )
            self.sinkhole.bind()
            own.sinkholes = self.sinkhole.addresses
        return self.sinkhole

    async def open(self) -> None:
        """Read what was registered and what is held.

        Raises:
            BindError: nobody knows what must not leak.
        """
        await self.secrets.open()
        await self.detection.open()
        self._metrics.secrets.set(len(self.secrets.list()))

    def follow(self, restate: Callable[[], int], sweep: Callable[[int], Awaitable[object]]) -> None:
        """Have all decided anew when a secret comes or goes, or a suffix is held or let go."""

        def decide_anew() -> None:
            task = asyncio.ensure_future(sweep(restate()))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        def secrets_changed() -> None:
            self._metrics.secrets.set(len(self.secrets.list()))
            decide_anew()

        self.secrets.on_change(secrets_changed)
        self.detection.on_held(decide_anew)

    async def start(self) -> None:
        """Answer at the sinkhole from now on."""
        if self.sinkhole is not None:
            await self.sinkhole.start()

    def stop(self) -> None:
        """Give the sinkhole out no more."""
        if self.sinkhole is not None:
            self.sinkhole.stop()

    async def close(self) -> None:
        """End what is under way, and write what waits."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self.sinkhole is not None:
            await self.sinkhole.close()
        await self.detection.close()
        await self.secrets.close()

    @property
    def problems(self) -> dict[str, str | None]:
        """What is wrong, by what it is about."""
        return {
            "secrets": self.secrets.problem,
            "detection": self.detection.problem,
            "sinkhole": None if self.sinkhole is None else self.sinkhole.problem,
        }
