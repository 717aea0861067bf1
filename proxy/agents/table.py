"""Which agents there are: bounded, for each app as well; who is silent makes room."""

from collections import Counter
from collections.abc import Callable
from itertools import islice

from msgspec import Struct

from proxy.agents.state import Claimed
from proxy.attested.binding import Binding
from proxy.limits import Limits

_FULL_S = 1.0  # between two searches for room
_LOOKED_AT = 256  # agents in one: who is silent stands in front

type Key = tuple[str, str]
"""An app, and the name of its agent."""


class Known(Struct):
    """One agent; times are Unix time in seconds.

    `word` is when it last attested or sent a heartbeat, `heard` its last heartbeat, None: never.
    """

    app: str
    name: str
    spiffe_id: str
    serial: str
    binding: Binding | None
    word: float
    heard: float | None = None
    claimed: Claimed | None = None


class Table:
    """The agents, who was not heard of for longest first."""

    def __init__(self, limits: Limits, hit_bound: Callable[[str], object]) -> None:
        self._limits = limits
        self._hit_bound = hit_bound
        self._known: dict[Key, Known] = {}
        self._of_app: Counter[str] = Counter()
        self._full_until: dict[str, float] = {}  # by app; "": for all of them

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._known)

    def get(self, key: Key) -> Known | None:
        """Return an agent; None where it is not known."""
        return self._known.get(key)

    def all(self) -> tuple[Known, ...]:
        """Return all of them."""
        return tuple(self._known.values())

    def touch(self, known: Known, now: float) -> None:
        """Note that `known` had a word at `now`."""
        key = known.app, known.name
        self._known[key] = self._known.pop(key)
        known.word = now

    def add(self, known: Known, may_go: Callable[[Known], bool], now: float) -> bool:
        """Know one more at `now`; return whether there is room.

        At a bound, which is counted, the one that was not heard of for longest and `may_go` goes.
        """
        if not self._has_room(known, may_go, now):
            return False
        self._known[known.app, known.name] = known
        self._of_app[known.app] += 1
        return True

    def forget(self, before: float) -> None:
        """Forget who had no word since `before`."""
        for each in self.all():
            if each.word < before:
                self._drop(each)

    def _has_room(self, new: Known, may_go: Callable[[Known], bool], now: float) -> bool:
        limits = self._limits
        if self._of_app[new.app] >= limits.agents_per_app:
            self._hit_bound("agents_per_app")
            return self._made_room(may_go, new.app, now)
        if len(self._known) >= limits.agents:
            self._hit_bound("agents")
            return self._made_room(may_go, "", now)
        return True

    def _made_room(self, may_go: Callable[[Known], bool], app: str, now: float) -> bool:
        if 0 < self._full_until.get(app, now) - now <= 2 * _FULL_S:  # else the clock was set back
            return False
        own = (each for each in self._known.values() if app in {"", each.app})
        found = next(filter(may_go, islice(own, _LOOKED_AT)), None)
        if found is not None:
            self._drop(found)
            return True
        self._full_until[app] = now + _FULL_S
        return False

    def _drop(self, known: Known) -> None:
        del self._known[known.app, known.name]
        self._of_app[known.app] -= 1
        if not self._of_app[known.app]:
            del self._of_app[known.app]
        self._full_until.pop(known.app, None)
        self._full_until.pop("", None)
