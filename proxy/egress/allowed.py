"""Addresses that were allowed for an origin, for as long as nothing changed.

A decision on an address is a function of the rules, of our own sockets and of this host's
interfaces.  While all three are the very same objects, the same question has the same answer
and is not asked again; when one changes, everything is forgotten.
"""

from msgspec import Struct

from proxy.egress.origin import OriginKey
from proxy.transport.own import OwnSockets
from rules.address import Address

_MOST = 4096  # as many as `pins` may hold for one app


class Grounds(Struct, frozen=True):
    """What a decision depends on, beside its facts; sets are replaced, never changed in place."""

    generation: int
    listeners: set[tuple[Address, int]]
    interfaces: set[Address]


class AllowedAddresses:
    """Remembers ALLOWs only: a refusal is decided, and counted, each time."""

    def __init__(self, own: OwnSockets) -> None:
        self._own = own
        self._grounds = Grounds(0, set(), set())
        self._texts: dict[tuple[OriginKey, Address], str] = {}

    def __len__(self) -> int:
        """Return how many are remembered."""
        return len(self._texts)

    def grounds(self, generation: int) -> Grounds:
        """Return the grounds of now: the very same object for as long as nothing changes."""
        grounds, own = self._grounds, self._own
        if (
            grounds.generation != generation
            or grounds.listeners is not own.listeners
            or grounds.interfaces is not own.interfaces
        ):
            self._texts.clear()
            self._grounds = grounds = Grounds(generation, own.listeners, own.interfaces)
        return grounds

    def find(self, key: OriginKey, address: Address, generation: int) -> str | None:
        """Return `address` as text if it was allowed for `key` on the grounds of now."""
        self.grounds(generation)
        return self._texts.get((key, address))

    def add(self, key: OriginKey, address: Address) -> str:
        """Remember an address that was allowed after `find` did not know it; return its text."""
        if len(self._texts) >= _MOST:
            self._texts.clear()
        text = self._texts[key, address] = str(address)
        return text
