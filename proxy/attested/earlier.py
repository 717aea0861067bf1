"""Results in whose place a newer one of the same level is: their tokens are known until they end.

Who attests anew goes on with the newer one; what still presents the token from before is no
stranger for that.  They are in memory alone: a restart forgets them.
"""

from collections.abc import Callable

from proxy.attested.binding import Binding
from proxy.attested.result import Result
from proxy.limits import Limits
from rules.facts import Level

type _Slot = tuple[Binding, str, Level]


class Earlier:
    """Holds `limits.attestations_replaced` for each binding, app and level: the oldest goes.

    In all it holds no more than `limits.attestations`: who has none is then given no room.
    `hit_bound` is called with the name of a limit that was met, `forgotten` with each that is no
    more held, or never was.
    """

    def __init__(
        self,
        limits: Limits,
        hit_bound: Callable[[str], object],
        forgotten: Callable[[Result], object],
    ) -> None:
        self._limits = limits
        self._hit_bound = hit_bound
        self._forgotten = forgotten
        self._by_token: dict[str, Result] = {}
        self._slots: dict[_Slot, dict[str, Result]] = {}  # by the digest of the token, oldest first

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._by_token)

    def add(self, result: Result, now: float) -> None:
        """Hold `result`, in whose place there is a newer one."""
        own = self._slots.get(_slot(result), {})
        for each in [each for each in own.values() if each.expires <= now]:
            self._forget(each)
        for limit, held in (
            ("attestations_replaced", len(own)),
            ("attestations", len(self._by_token)),
        ):
            if held >= getattr(self._limits, limit):
                self._hit_bound(limit)
                if not own:
                    self._forgotten(result)
                    return
                self._forget(next(iter(own.values())))
                break
        if now < result.expires:
            self._by_token[result.token_sha256] = result
            self._slots.setdefault(_slot(result), {})[result.token_sha256] = result
        else:
            self._forgotten(result)

    def find(self, token_sha256: str) -> Result | None:
        """Return the result of the token of that digest, if it has expired or not."""
        return self._by_token.get(token_sha256)

    def void(self, which: Callable[[Result], bool]) -> tuple[Result, ...]:
        """Forget every result that `which` is true of; return them."""
        found = tuple(each for each in self._by_token.values() if which(each))
        for each in found:
            self._forget(each)
        return found

    def look(self, now: float) -> None:
        """Forget what has expired, in the order in which they came; to be called now and then."""
        while self._by_token:
            oldest = next(iter(self._by_token.values()))
            if now < oldest.expires:
                return
            self._forget(oldest)

    def _forget(self, result: Result) -> None:
        del self._by_token[result.token_sha256]
        own = self._slots[_slot(result)]
        del own[result.token_sha256]
        if not own:
            del self._slots[_slot(result)]
        self._forgotten(result)


def _slot(result: Result) -> _Slot:
    return result.binding, result.app, result.level
