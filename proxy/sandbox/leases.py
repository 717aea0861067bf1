"""Leases in force: which listener is whose."""

from collections.abc import Callable, Iterable

from proxy.limits import Limits
from proxy.sandbox.lease import Lease, LeaseError, is_lent


class Leases:
    """Every lease, `limits.leases` of them; call it from the loop's thread only.

    At the bound none is granted.  `hit_bound` is called with the name of a limit that was met.
    """

    def __init__(self, limits: Limits, hit_bound: Callable[[str], None]) -> None:
        self._limits = limits
        self._hit_bound = hit_bound
        self._listeners: dict[str, Lease] = {}
        self._leases: dict[str, Lease] = {}
        self._callbacks: list[Callable[[Lease], object]] = []
        self.epoch = 0
        """Changes with everything that may change an answer of `at`."""

    def on_end(self, callback: Callable[[Lease], object]) -> None:
        """Call `callback` with each lease that ends, once `epoch` has; it must not raise."""
        self._callbacks.append(callback)

    def grant(self, lease: Lease, listeners: Iterable[str]) -> None:
        """Let connections at `listeners` be evidence of `lease` (`Lease.listener` names them).

        Raises:
            LeaseError: the id is in use, a listener is not its own, or there are too many.
        """
        named = tuple(listeners)
        if lease.id in self._leases:
            raise LeaseError(f"the lease {lease.id} is in force already: each has an id of its own")
        if not all(is_lent(each) and each not in self._listeners for each in named):
            raise LeaseError("a lease has listeners that nobody else reaches")
        if len(self._leases) >= self._limits.leases:
            self._hit_bound("leases")
            raise LeaseError(f"{self._limits.leases} leases are in force: limits.leases")
        self._leases[lease.id] = lease
        self._listeners.update(dict.fromkeys(named, lease))
        self.epoch += 1

    def end(self, unique: str) -> Lease | None:
        """Let a lease count for nothing from now on; return it, None where none is in force."""
        lease = self._leases.pop(unique, None)
        if lease is not None:
            kept = self._listeners.items()
            self._listeners = {name: each for name, each in kept if each.id != unique}
            self.epoch += 1
            for callback in self._callbacks:
                callback(lease)
        return lease

    def at(self, listener: str) -> Lease | None:
        """Return whose listener it is; None where no lease has it, or has it no more."""
        return self._listeners.get(listener)

    def get(self, unique: str) -> Lease | None:
        """Return the lease of an id, while it is in force."""
        return self._leases.get(unique)

    def all(self) -> tuple[Lease, ...]:
        """Return those in force, the oldest first."""
        return tuple(self._leases.values())
