"""How much room an app may take of what all apps share, so that none starves another."""


class Ration:
    """The bounds of one kind of room, and how much of it is taken in all.

    An app always gets `floor`; above it, `most`, and only while all together keep below `total`.
    `refused` counts how often there was none.
    """

    __slots__ = ("floor", "most", "refused", "taken", "total")

    def __init__(self, floor: int, most: int, total: int) -> None:
        self.floor, self.most, self.total = floor, most, total
        self.taken = self.refused = 0


class Room:
    """What one app has taken of a ration."""

    __slots__ = ("_ration", "taken")

    def __init__(self, ration: Ration) -> None:
        self._ration = ration
        self.taken = 0

    def take(self, amount: int) -> bool:
        """Return whether `amount` more was to be had; it is taken then."""
        ration, taken = self._ration, self.taken + amount
        fits = taken <= ration.most and ration.taken + amount <= ration.total
        if fits or taken <= ration.floor:
            self.taken = taken
            ration.taken += amount
            return True
        ration.refused += 1
        return False

    def give_back(self, amount: int) -> None:
        """Let go of `amount`."""
        self.taken -= amount
        self._ration.taken -= amount
