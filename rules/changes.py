"""Which rows have to be written, so that what is kept on a disk is what is in a table."""

from collections.abc import Iterator


class Changes:
    """Keys of rows that changed, or are gone; bounded by the table and what was written."""

    __slots__ = ("keys",)

    def __init__(self) -> None:
        self.keys: dict[str, bool] = {}  # the value: a row of it was written before

    def put(self, key: str, *, is_stored: bool) -> None:
        """Note that the row of `key` changed; `is_stored`: it was given out before."""
        # What is gone and comes again stays a row that was written.
        self.keys.setdefault(key, is_stored)

    def gone(self, key: str, *, is_stored: bool) -> None:
        """Note that `key` is no more; nothing is to be said of a row that was never written."""
        if self.keys.pop(key, is_stored) or is_stored:
            self.keys[key] = True

    def take(self) -> Iterator[str]:
        """Yield the keys that stand here now, each when it is let go of."""
        for key in list(self.keys):
            if self.keys.pop(key, None) is not None:
                yield key
