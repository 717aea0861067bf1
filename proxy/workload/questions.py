"""What the appliance asks the issuer, and waits for: each question within its time, apps in turn.

Only so many are at the issuer at once, so that what workloads ask of it there has its turn too; the
others wait here.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Callable
from itertools import count

from msgspec import Struct

from proxy.channel import Challenged, Signed, SignedClaims, Verified
from proxy.limits import Limits
from proxy.metrics import Metrics
from proxy.workload.issuer import Issuer


class Room(Struct, frozen=True):
    """How many may wait: `most`, `per_app` of them of one app, and `at_once` at the issuer.

    Each comes with the limit that is counted when it is met.
    """

    most: tuple[str, int]
    per_app: tuple[str, int]
    at_once: int


class _Waiting(Struct, frozen=True):
    question: Struct
    app: str
    answer: asyncio.Future[object]  # what came, or a text that says why nothing did


class Questions:
    """Asks `issuer`, at most as many as `room` has; call it from the loop's thread only."""

    def __init__(self, issuer: Issuer, limits: Limits, metrics: Metrics, room: Room) -> None:
        self._issuer = issuer
        self._limits = limits
        self._room = room
        self._hit_bound: Callable[[str], None] = metrics.bounds.add
        self._numbers = count(1)
        self._waiting: dict[int, _Waiting] = {}
        self._of_app: Counter[str] = Counter()
        self._unsent: dict[str, deque[int]] = {}  # by app, whose turn is next first
        self._sent: set[int] = set()

    def __len__(self) -> int:
        """Return how many wait."""
        return len(self._waiting)

    async def ask[A: (Signed, Verified, Challenged, SignedClaims)](
        self, question: Callable[[int], Struct], kind: type[A], app: str = ""
    ) -> A:
        """Return the answer, a `kind`, to what `question` makes of its number; never raises.

        Where there is none, its `problem` says why, and it is `unanswered`.
        """
        number = next(self._numbers)
        refusal = self._refusal(app)
        if refusal:
            return kind(number, problem=refusal, unanswered=True)
        answer: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self._waiting[number] = _Waiting(question(number), app, answer)
        self._of_app[app] += 1
        self._unsent.setdefault(app, deque()).append(number)
        self._issuer.wake()
        self._send()
        try:
            found = await asyncio.wait_for(answer, self._time_s())
        except TimeoutError:
            self._hit_bound("issuer_answer_s")
            found = "the issuer did not answer in time; see its log"
        finally:
            self._forget(number)
        if isinstance(found, kind):
            return found
        text = found if isinstance(found, str) else "the issuer answered another question"
        return kind(number, problem=text, unanswered=True)

    def ready(self) -> None:
        """Ask what waited until the issuer serves."""
        self._send()

    def ended(self) -> None:
        """Fail what the issuer did not live to answer."""
        for waiting in self._waiting.values():
            _settle(waiting, "the issuer ended; try again")
        self._unsent.clear()
        self._sent.clear()

    def answered(self, answer: Signed | Verified | Challenged | SignedClaims) -> None:
        """Give an answer to whoever waits for it still.

        Only now is there room for another: the issuer works on what it was sent although nobody
        waits any more, and whoever asks and goes would fill it with more and more.
        """
        waiting = self._waiting.get(answer.call)
        if waiting is not None:
            _settle(waiting, answer)
        self._sent.discard(answer.call)
        self._send()

    def _refusal(self, app: str) -> str:
        """Return why nothing more can wait; empty where it can."""
        room = self._room
        for (limit, most), waiting in (
            (room.most, len(self._waiting)),
            (room.per_app, self._of_app[app]),
        ):
            if waiting >= most:
                self._hit_bound(limit)
                return "too many wait for the issuer; try again"
        if self._issuer.is_resting:
            return self._issuer.problem or "the issuer has ended; try again"
        return ""

    def _send(self) -> None:
        """Send what there is room for at the issuer, an app's next question after another's."""
        while self._unsent and self._issuer.is_ready and len(self._sent) < self._room.at_once:
            app = next(iter(self._unsent))
            numbers = self._unsent.pop(app)
            number = numbers.popleft()
            if numbers:
                self._unsent[app] = numbers  # at the end
            waiting = self._waiting.get(number)
            if waiting is not None and not waiting.answer.done():
                self._sent.add(number)
                self._pass(number, waiting)

    def _pass(self, number: int, waiting: _Waiting) -> None:
        try:
            self._issuer.send(waiting.question)
        except ValueError:  # an agent's, and it is longer than the channel takes
            self._sent.discard(number)
            _settle(waiting, "this is too long; send less")

    def _forget(self, number: int) -> None:
        app = self._waiting.pop(number).app
        self._of_app[app] -= 1
        if not self._of_app[app]:
            del self._of_app[app]
        unsent = self._unsent.get(app)
        if unsent is not None and number in unsent:
            unsent.remove(number)
            if not unsent:
                del self._unsent[app]

    def _time_s(self) -> float:
        limits = self._limits
        return limits.issuer_answer_s + (0 if self._issuer.is_ready else limits.issuer_start_s)


def _settle(waiting: _Waiting, answer: object) -> None:
    if not waiting.answer.done():
        waiting.answer.set_result(answer)
