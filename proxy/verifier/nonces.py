"""Nonces: proof that evidence was made just now (RFC 9334, section 10.3).

One counts once, for whom it was given to, and not for long.
"""

from collections.abc import Callable

from msgspec import Struct

from proxy.attested.binding import NONCE_OCTETS, Binding
from proxy.limits import Limits


class _Given(Struct, frozen=True):
    binding: Binding
    app: str
    until: float


class Nonces:
    """Gives and takes them; `entropy(n)` returns n random octets, times are monotonic seconds.

    At `limits.attestation_nonces_per_binding` the binding's own oldest goes; at
    `limits.attestation_nonces` none is given.  Both are counted by `hit_bound`.
    """

    def __init__(
        self, limits: Limits, entropy: Callable[[int], bytes], hit_bound: Callable[[str], object]
    ) -> None:
        self._limits = limits
        self._entropy = entropy
        self._hit_bound = hit_bound
        self._given: dict[bytes, _Given] = {}  # the oldest first
        self._of: dict[Binding, dict[bytes, None]] = {}  # as above

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
        if len(self._given) >= self._limits.attestation_nonces:
            self._hit_bound("attestation_nonces")
            return None
        nonce = self._entropy(NONCE_OCTETS)
        self._given[nonce] = _Given(binding, app, now + self._limits.attestation_nonce_s)
        self._of.setdefault(binding, {})[nonce] = None
        return nonce

    def take(self, nonce: bytes, binding: Binding, app: str, now: float) -> bool:
        """Return whether `nonce` was given to `app` at `binding`, and counts still: this once.

        Another's stays what it is: who guesses it spoils nothing.
        """
        given = self._given.get(nonce)
        if given is None or given.binding != binding:
            return False
        self._forget(nonce)
        return given.app == app and now < given.until

    def _end(self, now: float) -> None:
        """Forget those that have ended: they stand in the order of that."""
        while self._given:
            nonce, oldest = next(iter(self._given.items()))
            if now < oldest.until:
                return
            self._forget(nonce)

    def _forget(self, nonce: bytes) -> None:
        binding = self._given.pop(nonce).binding
        own = self._of[binding]
        del own[nonce]
        if not own:
            del self._of[binding]
