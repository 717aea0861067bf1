"""Which suffixes several apps ask for, day after day.

A day counts for a suffix when two apps asked for it; one app alone makes nothing popular, however
often it asks.
"""

from rules.changes import Changes

_DAYS = 30  # that are looked back on
_MASK = (1 << _DAYS) - 1


class Asked:
    """The last day that a suffix was asked on, who asked first on it, and the days that count.

    Bit 0 of `days` is `day`, bit 1 the day before it.  `is_stored`: a row of it was given out.
    """

    __slots__ = ("app", "day", "days", "is_stored")

    def __init__(self, day: int, app: str, days: int = 0) -> None:
        self.day, self.app, self.days, self.is_stored = day, app, days, False


class Popularity:
    """The suffixes that were asked lately, the one whose row changed longest ago first.

    Bounded: of what only one app asked, each app has a share, and its newcomer takes the place of
    its own oldest.  What two apps asked stays until nobody asked for thirty days.
    """

    def __init__(self, needed_days: int, app_most: int, all_most: int) -> None:
        self.rows: dict[str, Asked] = {}
        self.changes = Changes()
        self.full = 0  # times that there was no room
        self._needed, self._app_most, self._all_most = needed_days, app_most, all_most
        self._lone: dict[str, dict[str, None]] = {}  # by app, what no other app asked

    def is_popular(self, suffix: str, day: int) -> bool:
        """Return whether two apps asked for `suffix` on enough of the last thirty days."""
        row = self.rows.get(suffix)
        # Rows of few days are most of them.
        if row is None or row.days.bit_count() < self._needed:
            return False
        # A shift by more than what is looked back on leaves nothing, but would cost the more.
        shift = min(max(day - row.day, 0), _DAYS)
        return (row.days << shift & _MASK).bit_count() >= self._needed

    def note(self, suffix: str, app: str, day: int) -> None:
        """Count that `app` asks for `suffix` on `day`; a clock that went back counts nothing."""
        row = self.rows.get(suffix)
        if row is not None and day == row.day and (row.days & 1 or app == row.app):
            return
        if row is None:
            lone = self._lone.get(app)
            if lone and len(lone) < self._app_most and len(self.rows) < self._all_most:
                self.rows[suffix] = Asked(day, app)
                lone[suffix] = None
                self.changes.keys.setdefault(suffix, False)
            elif self._has_room(app, day):
                self._put(suffix, Asked(day, app))
        elif day > row.day:
            self._take_out(suffix, row)
            row.days = row.days << min(day - row.day, _DAYS) & _MASK
            row.day, row.app = day, app
            self._put(suffix, row)
        elif day == row.day:
            self._take_out(suffix, row)
            row.days |= 1
            self._put(suffix, row)

    def restore(self, suffix: str, row: Asked, day: int) -> None:
        """Take in a row, unless it is too old to matter."""
        row.is_stored = True
        if day - row.day < _DAYS and self._has_room(row.app, day):
            self._place(suffix, row)
        else:
            self.changes.gone(suffix, is_stored=True)

    def _has_room(self, app: str, day: int) -> bool:
        lone = self._lone.get(app, {})
        is_full = len(self.rows) >= self._all_most
        if is_full:
            suffix, oldest = next(iter(self.rows.items()))
            if day - oldest.day >= _DAYS:
                self._evict(suffix)
                return True
        if is_full or len(lone) >= self._app_most:
            self.full += 1
            if not lone:
                return False
            self._evict(next(iter(lone)))
        return True

    def _evict(self, suffix: str) -> None:
        row = self.rows[suffix]
        self._take_out(suffix, row)
        self.changes.gone(suffix, is_stored=row.is_stored)

    def _put(self, suffix: str, row: Asked) -> None:
        self._place(suffix, row)
        self.changes.put(suffix, is_stored=row.is_stored)

    def _place(self, suffix: str, row: Asked) -> None:
        self.rows[suffix] = row
        if not row.days:
            self._lone.setdefault(row.app, {})[suffix] = None

    def _take_out(self, suffix: str, row: Asked) -> None:
        del self.rows[suffix]
        if not row.days:
            lone = self._lone[row.app]
            del lone[suffix]
            if not lone:
                del self._lone[row.app]
