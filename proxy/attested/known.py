"""What was proven, as the planes see it: a binding and an app come in, attestations out.

Nothing here lasts: a result counts until it expires, is voided, or a newer one of the same level
takes its place.  All times are Unix time in seconds.
"""

import heapq
import time
from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256
from math import inf
from typing import Final, Protocol

from proxy.attested.ages import Ages
from proxy.attested.binding import Binding
from proxy.attested.earlier import Earlier
from proxy.attested.result import Result
from proxy.limits import Limits
from rules.facts import Attestation, Level
from rules.freshness import within

_SLACK = 64

type Holder = tuple[Binding, str]
"""To what results belong: a binding, and the app that it was when it attested."""

_NOTHING: Final[tuple[Attestation, ...]] = ()


class Lessened(Protocol):
    """Hears of results that count for less than before."""

    def __call__(self, results: tuple[Result, ...], *, is_void: bool) -> object:
        """Act on them; `is_void`: somebody voided them, and it was not time alone."""


class Attestations:
    """Every result that stands; ask it from the loop's thread only.

    `epoch` changes with every answer of `of` that does: who keeps an answer asks again when it
    has changed.  `hit_bound` is called with the name of a limit that was met.  `clock` returns
    monotonic time in seconds: a `wall` clock that is set back lets no result live longer.
    """

    def __init__(
        self,
        limits: Limits,
        wall: Callable[[], float],
        hit_bound: Callable[[str], object],
        clock: Callable[[], float] = time.monotonic,  # noqa: TID251 - tests give another
    ) -> None:
        self.epoch = 0
        self.now = wall
        self._limits = limits
        self._hit_bound = hit_bound
        self._thresholds: Mapping[str, tuple[int, ...]] = {}
        self._held: dict[Binding, dict[tuple[str, Level], Result]] = {}
        self._by_token: dict[str, Result] = {}
        self._by_app: dict[str, dict[str, Result]] = {}  # by id, the oldest first
        self._ages = Ages(wall, clock)
        self._earlier = Earlier(limits, hit_bound, self._ages.forget)
        self._answers: dict[Holder, tuple[Attestation, ...]] = {}
        self._heap: list[tuple[float, int, Holder]] = []  # when an answer may change by itself
        self._due: dict[Holder, float] = {}
        self._pushed = 0
        self._looked = -inf
        self._callbacks: list[Lessened] = []

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._by_token)

    def on_void(self, callback: Lessened) -> None:
        """Call `callback` with results that count for less than before, once `epoch` has changed.

        They were voided, or they have merely expired or outlived a `max_age` of the rules.
        Callbacks run in the order in which they were given, and must not raise.
        """
        self._callbacks.append(callback)

    def use(self, thresholds: Mapping[str, tuple[int, ...]]) -> None:
        """Tell ages apart by these from now on: `rules.freshness.thresholds` of the rules."""
        if thresholds == self._thresholds:
            return
        self._thresholds = dict(thresholds)
        self._settle(self._holders(), self.now())

    def of(self, binding: Binding, app: str) -> tuple[Attestation, ...]:
        """Return what is proven of `app` at `binding` now, the strongest first."""
        holder = binding, app
        answer = self._answers.get(holder)
        if answer is None:
            return _NOTHING
        now = self.now()
        if self._looked <= now < self._due[holder]:
            return answer
        return self._answer(holder, now)  # `look` tells of it when it comes to that

    def find(self, token: str) -> Result | None:
        """Return the result that `token` is the text of; None where none stands.

        One that has a newer one in its place stands no less, until it expires or is voided.
        """
        digest = sha256(token.encode("utf-8", "replace")).hexdigest()
        result = self._by_token.get(digest) or self._earlier.find(digest)
        return result if result is not None and self._ages.counts(result, self.now()) else None

    def current(self, binding: Binding) -> tuple[Result, ...]:
        """Return the results that stand for `binding`, whichever app it was then."""
        now = self.now()
        held = self._held.get(binding, {}).values()
        return tuple(each for each in held if self._ages.counts(each, now))

    def all(self) -> tuple[Result, ...]:
        """Return every result that is held."""
        return tuple(self._by_token.values())

    def holds(self, result: Result) -> bool:
        """Return whether `result` itself is held still."""
        return self._by_token.get(result.token_sha256) is result

    def has_room(self, app: str) -> bool:
        """Return whether a result of `app` could be added: only its own make way for it."""
        return bool(self._by_app.get(app)) or len(self) < self._limits.attestations

    def add(self, result: Result) -> bool:
        """Hold `result` in place of one of the same level; return whether there was room.

        At a bound the app's own oldest goes, and it is counted.  Where what stands was made of
        younger evidence it goes on: `result` is then one of those that were replaced.
        """
        now = self.now()
        gone: tuple[Result, ...] = ()
        self._ages.begin(result)
        standing = self._held.get(result.binding, {}).get((result.app, result.level))
        if standing is None:
            gone = self._made_way(result.app)
        elif self._ages.counts(standing, now) and self._ages.is_fresher(standing, result):
            self._earlier.add(result, now)
            return True
        else:
            self._take(standing)
            self._earlier.add(standing, now)
        if len(self) >= self._limits.attestations:
            self._ages.forget(result)
            return False
        self._held.setdefault(result.binding, {})[result.app, result.level] = result
        self._by_token[result.token_sha256] = result
        self._by_app.setdefault(result.app, {})[result.id] = result
        self._settle(map(_holder, (result, *gone)), now, gone)
        return True

    def void(self, which: Callable[[Result], bool]) -> tuple[Result, ...]:
        """Let every result that `which` is true of count no more; return them.

        Among them are those that newer ones are in the place of.
        """
        voided = tuple(each for each in self.all() if which(each))
        earlier = self._earlier.void(which)
        for each in voided:
            self._forget(each)
        self.epoch += bool(earlier)
        self._settle(map(_holder, voided), self.now(), voided, is_void=True)
        return (*voided, *earlier)

    def look(self, now: float) -> None:
        """Notice what time has changed; to be called about once a second."""
        self._earlier.look(now)
        due = []
        while self._heap and self._heap[0][0] <= now:
            at, _, holder = heapq.heappop(self._heap)
            if self._due.get(holder) == at:
                del self._due[holder]
                due.append(holder)
        self._settle(due, now)
        if len(self._heap) > 2 * len(self) + _SLACK:  # holders that went before their moment
            self._due = {each: self._due[each] for each in self._holders()}
            self._heap = [(at, n, each) for n, (each, at) in enumerate(self._due.items())]
            heapq.heapify(self._heap)

    def _made_way(self, app: str) -> tuple[Result, ...]:
        """Forget the app's own oldest where there is no room for another."""
        own = self._by_app.get(app, {})
        for limit, held in (("attestations_per_app", len(own)), ("attestations", len(self))):
            if held >= getattr(self._limits, limit):
                self._hit_bound(limit)
                if own:
                    oldest = next(iter(own.values()))
                    self._forget(oldest)
                    return (oldest,)
        return ()

    def _holders(self) -> tuple[Holder, ...]:
        return tuple(map(_holder, self.all()))

    def _forget(self, result: Result) -> None:
        self._take(result)
        self._ages.forget(result)

    def _take(self, result: Result) -> None:
        held, own = self._held[result.binding], self._by_app[result.app]
        del held[result.app, result.level], self._by_token[result.token_sha256], own[result.id]
        if not held:
            del self._held[result.binding]
        if not own:
            del self._by_app[result.app]

    def _settle(
        self,
        holders: Iterable[Holder],
        now: float,
        gone: Iterable[Result] = (),
        *,
        is_void: bool = False,
    ) -> None:
        """Answer anew for `holders`, and tell of what counts for less, `gone` among it."""
        less = {each.id: each for each in gone}
        is_changed = False
        if self._ages.was_set_back(now) or now < self._looked:  # any answer may be another
            holders = (*holders, *self._holders())
        self._looked = now
        for holder in dict.fromkeys(holders):
            before = self._answers.pop(holder, _NOTHING)
            held = self._of(holder)
            for each in held:
                if self._ages.has_expired(each, now):
                    self._forget(each)
                    less[each.id] = each
            answer = self._answer(holder, now)
            self._watch(holder, answer, now)
            if answer != before:
                is_changed = True
                less |= {each.id: each for each in held if _is_worse(each.level, before, answer)}
        self.epoch += is_changed
        if less:
            for callback in self._callbacks:
                callback(tuple(less.values()), is_void=is_void)

    def _watch(self, holder: Holder, answer: tuple[Attestation, ...], now: float) -> None:
        """Know when the answer for `holder` changes next; that may be found too early, never late.

        There is one entry a holder in the heap but for those whose moment came nearer.
        """
        held = self._of(holder)
        if not held:
            return
        self._answers[holder] = answer
        thresholds = self._thresholds.get(holder[1], ())
        due = min(self._ages.changes(each, thresholds, now) for each in held)
        if due < self._due.get(holder, inf):
            self._due[holder] = due
            self._pushed += 1
            heapq.heappush(self._heap, (due, self._pushed, holder))

    def _of(self, holder: Holder) -> tuple[Result, ...]:
        binding, app = holder
        return tuple(each for each in self._held.get(binding, {}).values() if each.app == app)

    def _answer(self, holder: Holder, now: float) -> tuple[Attestation, ...]:
        thresholds = self._thresholds.get(holder[1], ())
        found = []
        for result in self._of(holder):
            if self._ages.counts(result, now):
                within_s = within(max(0.0, self._ages.age_s(result, now)), thresholds)
                if within_s is not None:
                    found.append(Attestation(result.level, within_s))
        return tuple(sorted(found, key=lambda each: -each.level))


def _holder(result: Result) -> Holder:
    return result.binding, result.app


def _is_worse(
    level: Level, before: tuple[Attestation, ...], answer: tuple[Attestation, ...]
) -> bool:
    old = next((each.within_s for each in before if each.level == level), None)
    new = next((each.within_s for each in answer if each.level == level), None)
    return old is not None and (new is None or new > old)
