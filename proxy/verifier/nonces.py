"""Nonces: proof that evidence was made just now (RFC 9334, section 10.3).

One counts once, for whom it was given to, and not for long.
"""

from collections import Counter
from collections.abc import Callable

from msgspec import Struct

from proxy.attested.binding import NONCE_OCTETS, Binding
from proxy.limits import Limits


class _Given(Struct, frozen=True):
    binding: Binding
    app: str
    at: float
    until: float


class Nonces:
    """Gives and takes them; `entropy(n)` returns n random octets, times are monotonic seconds.

    At `limits.attestation_nonces_per_binding` the binding's own oldest goes; at
    `limits.attestation_nonces_per_app`, and at `limits.attestation_nonces` of all, none is given.
    Each is counted by `hit_bound`.
    """

    def __init__(
        self, limits: Limits, entropy: Callable[[int], bytes], hit_bound: Callable[[str], object]
    ) -> None:
        self._limits = limits
        self._entropy = entropy
        self._hit_bound = hit_bound
        self._given: dict[bytes, _Given] = {}  # the oldest first
        self._of: dict[Binding, dict[bytes, None]] = {}  # as above
        self._by_app: Counter[str] = Counter()

    def __len__(self) -> int:
        """Return how many are outstanding; of those that have ended some are still among them."""
        return len(self._given)

    def give(self, binding: Binding, app: str, now: float) -> bytes | None:
        """Return a new nonce for `app` at `binding`; None where there are too many."""
        self._end(now)
        own = self._of.get(binding, {})
        if len(own) >= self._limits.attestation_nonces_per_binding:
            self._hit_bound("attestation_nonces_per_binding")
            self._forget(next(iter(own)))
        for limit, held in (
            ("attestation_nonces_per_app", self._by_app[app]),
            ("attestation_nonces", len(self._given)),
        ):
            if held >= getattr(self._limits, limit):
                self._hit_bound(limit)
                return None
        nonce = self._entropy(NONCE_OCTETS)
        self._given[nonce] = _Given(binding, app, now, now + self._limits.attestation_nonce_s)
        self._of.setdefault(binding, {})[nonce] = None
        self._by_app[app] += 1
        return nonce

    def take(self, nonce: bytes, binding: Binding, app: str, now: float) -> float | None:
        """Return when `nonce` was given to `app` at `binding`, where it counts still: this once.

        Another's stays what it is: who guesses it spoils nothing.
        """
        given = self._given.get(nonce)
        if given is None or given.binding != binding:
            return None
        self._forget(nonce)
        return given.at if given.app == app and now < given.until else None

    def _end(self, now: float) -> None:
        """Forget those that have ended: they stand in the order of that."""
        while self._given:
            nonce, oldest = next(iter(self._given.items()))
            if now < oldest.until:
                return
            self._forget(nonce)

    def _forget(self, nonce: bytes) -> None:
        given = self._given.pop(nonce)
        own = self._of[given.binding]
        del own[nonce]
        if not own:
            del self._of[given.binding]
        self._by_app[given.app] -= 1
        if not self._by_app[given.app]:
            del self._by_app[given.app]
