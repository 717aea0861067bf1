"""The results and attesters of a running appliance, and their file: `$STATE/attested.sqlite`.

The planes ask `attestations` and never the file.  Results are known at once and written a moment
later: a crash that takes the last ones along costs an agent one more attestation.  What makes
something count for less is on the disk before it is answered.  While the file cannot be used,
`problem` says so, nothing is attested, and nothing in it is believed.
"""

import asyncio
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, override

from proxy.attested.attester import Attester
from proxy.attested.binding import Kind
from proxy.attested.known import Attestations
from proxy.attested.result import Result
from proxy.database.lazy import LazyFile
from proxy.limits import Limits

if TYPE_CHECKING:
    from proxy.attested.file import AttestedFile

FILE_NAME = "attested.sqlite"
"""In the folder of state."""

TICK_S: Final = 0.5  # what has expired opens nothing for longer; `proxy.egress.cut` adds 0.4 s
DROP_S: Final = 600.0  # between looks at what has expired


class LiveAttested(LazyFile["AttestedFile"]):
    """Keeps `attestations`, the enrolled attesters and the file at `path` the same.

    For the loop's thread only.  `wall` returns Unix time in seconds; `hit_bound` is called with the
    name of a limit that was met.
    """

    def __init__(
        self,
        path: Path,
        limits: Limits,
        wall: Callable[[], float],
        hit_bound: Callable[[str], object],
    ) -> None:
        super().__init__(path, wall, TICK_S)
        self.attestations = Attestations(limits, wall, hit_bound)
        self._limits = limits
        self._hit_bound = hit_bound
        self._attesters: dict[tuple[str, str], Attester] = {}
        self._drop_at = 0.0
        self.attestations.on_void(self._drop)

    def keep(self, result: Result) -> bool:
        """Let `result` count from now on; return False where there is no room for it.

        `ready` was awaited before.
        """
        if not self.attestations.add(result):
            return False
        if self._file is not None and self.attestations.holds(result):
            self._file.keep(result)  # else what stands was made of younger evidence
        return True

    def attester(self, name: str, app: str) -> Attester | None:
        """Return the AK of a Name that was enrolled for `app`."""
        return self._attesters.get((name, app))

    def attesters(self) -> tuple[Attester, ...]:
        """Return every attester that is enrolled, the one enrolled first first."""
        return tuple(sorted(self._attesters.values(), key=lambda each: each.enrolled_at))

    def enrol(self, attester: Attester) -> bool:
        """Know an attester from now on; return False where there is no room for it.

        At a bound the app's own that was used longest ago goes, that of the same TPM where it has
        `limits.attesters_per_tpm`, and it is counted.
        """
        key = attester.name, attester.app
        if key not in self._attesters and not self._make_way(attester):
            return False
        self.note(attester)
        return True

    def note(self, attester: Attester) -> None:
        """Know what was learned of an attester."""
        self._attesters[attester.name, attester.app] = attester
        if self._file is not None:
            self._file.keep_attester(attester)

    def remove(self, name: str) -> tuple[Attester, ...]:
        """Forget the attester of a Name, of whatever app; return what was forgotten."""
        found = tuple(each for each in self._attesters.values() if each.name == name)
        self._forget(found)
        return found

    def _make_way(self, attester: Attester) -> bool:
        own = [each for each in self._attesters.values() if each.app == attester.app]
        of_tpm = [each for each in own if each.ek_sha256 == attester.ek_sha256]
        for limit, held, goes in (
            ("attesters_per_tpm", len(of_tpm), of_tpm),
            ("attesters_per_app", len(own), own),
            ("attesters", len(self._attesters), own),
        ):
            if held >= getattr(self._limits, limit):
                self._hit_bound(limit)
                if not goes:
                    return False
                self._forget((min(goes, key=lambda each: (each.used_at, each.enrolled_at)),))
                return True
        return True

    def of_tpm(self, name: str, app: str) -> frozenset[str]:
        """Return the Names of all AKs of `app` in the TPM of that one; of none it is itself."""
        known = self.attester(name, app)
        of_app = (each for each in self._attesters.values() if each.app == app)
        same = (each for each in of_app if known and each.ek_sha256 == known.ek_sha256)
        return frozenset({name, *(each.name for each in same)})

    def _forget(self, attesters: tuple[Attester, ...]) -> None:
        for each in attesters:
            del self._attesters[each.name, each.app]
        if self._file is not None:
            self._file.drop_attesters(attesters)

    def _drop(self, results: tuple[Result, ...], *, is_void: bool) -> None:  # noqa: ARG002 - gone is gone
        """Forget what counts no more; what has expired goes with others, later."""
        if self._file is None:
            return
        now = self.now()
        for each in results:
            if now < each.expires and not self.attestations.holds(each):
                self._file.drop(each)

    @override
    def _look(self, now: float) -> None:
        self.attestations.look(now)
        if self._file is not None and not now < self._drop_at <= now + DROP_S:
            self._drop_at = now + DROP_S
            self._file.drop_expired(now)

    @override
    async def _load(self) -> "AttestedFile":
        # Loading it takes longer than a query may wait.
        module = await asyncio.to_thread(importlib.import_module, "proxy.attested.file")
        file: AttestedFile = module.AttestedFile(self.path, self._limits)
        stored = await file.open(self.now())
        for result in stored.results:
            if result.binding.kind is Kind.LEASE:  # none outlives the appliance that granted it
                file.drop(result)
            else:
                self.attestations.add(result)
        self._attesters = {(each.name, each.app): each for each in stored.attesters}
        return file
