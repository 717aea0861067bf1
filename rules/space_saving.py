"""Who makes room for a newcomer in a bounded table: after Metwally et al., "Space-Saving", 2005.

The newcomer inherits what the evicted one was counted with, so that a count is never less than the
truth.  It is over it by at most what the least one had.  Counts that leave a window do so at their
own time, so that the heir gets more than its predecessor's: of each bucket, the most that any
evicted one had there (`Meter`s, joined by `raise_to`).
"""

from collections import OrderedDict

_RANKS = 33  # of the counts of a meter


def rank_of(count: int) -> int:
    """Return the class of a count: those of one class differ by a factor of two at most."""
    return count.bit_length()


class Ranks:
    """Keys by the class of their count, and within it by when they were last used."""

    __slots__ = ("_ranks",)

    def __init__(self) -> None:
        # Of a plain dict the first key is slow to find after those before it were taken out.
        self._ranks: list[OrderedDict[str, None] | None] = [None] * _RANKS

    def move(self, key: str, before: int, after: int) -> None:
        """Put `key` to the end of the class `after`; it stood in `before` (-1: in none)."""
        keys = self._ranks[after]
        if before == after and keys is not None:
            keys.move_to_end(key)
            return
        if before >= 0:
            self.drop(key, before)
        if keys is None:
            keys = self._ranks[after] = OrderedDict()
        keys[key] = None

    def drop(self, key: str, rank: int) -> None:
        """Forget `key`."""
        keys = self._ranks[rank]
        if keys is not None:
            keys.pop(key, None)

    def least(self, spare: str | None = None) -> str:
        """Return the key of the lowest class that was not used for longest.

        It is `spare` only where there is no other.

        Raises:
            StopIteration: there is none.
        """
        keys = (key for keys in self._ranks if keys for key in keys)
        least = next(keys)
        return next(keys, least) if least == spare else least
