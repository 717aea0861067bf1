"""Whose goes where a table that many share is full: that of the crowd.

A newcomer gets a place while some app has more than one: the app with the most loses one, and of
its bindings the one with the most its oldest.  He counts with what he would have.
"""

from collections import Counter
from collections.abc import Hashable, Sequence


def crowded[H: Hashable](holders: Sequence[tuple[str, H]], newcomer: tuple[str, H]) -> int | None:
    """Return the index of what makes way for `newcomer`; None: nobody has more than he would.

    `holders` are app and binding of each place, the oldest first.
    """
    after = [*holders, newcomer]
    app = _most([app for app, _ in after])
    own = [each for each in after if each[0] == app]
    if own == [newcomer]:
        return None
    most = _most(own)
    return holders.index(most if most in holders else own[0])


def _most[T: Hashable](held: Sequence[T]) -> T:
    """Return who has the most; of several him who came last."""
    counts = Counter(held)
    last = {each: at for at, each in enumerate(held)}
    return max(counts, key=lambda each: (counts[each], last[each]))
