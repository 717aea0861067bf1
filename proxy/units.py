"""Sizes and durations as people write them in sallyport.yaml."""

import re
from collections.abc import Callable

from msgspec import Struct

_SIZE = re.compile(r"(\d{1,15}) ?(KiB|MiB|GiB)?", re.ASCII)
_DURATION = re.compile(r"(\d{1,12}) ?(ms|s|m|h|d)?", re.ASCII)
_OCTETS = {None: 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_SECONDS = {None: 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def read_octets(value: int | str) -> int:
    """Return a size in octets: an integer, or one with KiB, MiB or GiB.

    Raises:
        ValueError: no size; the text says how one is written.
    """
    match = _SIZE.fullmatch(str(value))
    if match is None:
        raise ValueError(f"{value!r} is no size; write octets, or 64 KiB, 16 MiB, 1 GiB")
    return int(match[1]) * _OCTETS[match[2]]


def read_seconds(value: float | str) -> float:
    """Return a duration in seconds: a number, or one with ms, s, m, h or d.

    Raises:
        ValueError: no duration; the text says how one is written.
    """
    if isinstance(value, float) and value >= 0:
        return value
    match = _DURATION.fullmatch(str(value))
    if match is None:
        raise ValueError(f"{value!r} is no duration; write seconds, or 500ms, 10s, 5m, 1h, 7d")
    return int(match[1]) * _SECONDS[match[2]]


def read_count(value: int | str) -> int:
    """Return a whole number.

    Raises:
        ValueError: something else.
    """
    if isinstance(value, str):
        raise ValueError(f"{value!r} is no whole number")  # noqa: TRY004 - one error for all kinds
    return value


class Life(Struct, frozen=True):
    """How long something may live, in whole seconds; `what` it is and the `cure` are for errors."""

    what: str
    default_s: int
    least_s: int
    most_s: int
    cure: str

    def read(
        self, key: str, value: int | str | None, problem: Callable[[str, str, str], None]
    ) -> int:
        """Return the seconds of `value` (None: the default); `problem(key, text, cure)` is told."""
        try:
            seconds = int(read_seconds(self.default_s if value is None else value))
        except ValueError as error:
            problem(key, str(error), "see docs/configuration.md")
            return self.default_s
        if not self.least_s <= seconds <= self.most_s:
            problem(key, f"{seconds} s is no life of {self.what}", self.cure)
            return self.default_s
        return seconds
