"""Sliding sums over two minutes, an hour and a day, which never forget too early.

A `Meter` is one array of integers: the last tick, the three sums, and the buckets of each window as
a ring.  A bucket counts whole until all of it has left the window, so that a sum is at least what
the window holds, and at most what a window one bucket longer holds.  What is counted (octets, or
bits) is the caller's affair.
"""

from array import array
from collections.abc import Sequence

TICK_S = 10
"""The bucket of the shortest window, in seconds; time is a whole number of these."""

WINDOWS = ("2m", "1h", "24h")
_SLOTS = 13  # twelve buckets, and the one that is leaving
_HOUR, _DAY = 30, 720  # ticks of a bucket of the longer windows: 5 min, 2 h
_WIDTHS = (1, _HOUR, _DAY)
_HEAD = 4  # the tick and the sums
_HOUR_HEAD, _DAY_HEAD = _HEAD + _SLOTS, _HEAD + 2 * _SLOTS
_FULL = 0xFFFF_FFFF  # an item of the array; a sum stays there
_NONE = array("I", bytes(4 * _SLOTS))
_NEW = array("I", bytes(4 * (_HEAD + _SLOTS * len(_WIDTHS))))

type Meter = array[int]
"""Made by `meter`, moved by `roll`, filled by `add`."""


def meter(tick: int) -> Meter:
    """Return an empty meter at `tick`."""
    empty = _NEW[:]
    empty[0] = tick
    return empty


def restored(items: Sequence[int]) -> Meter:
    """Return the meter whose items these are.

    Raises:
        ValueError: no meter has such items.
    """
    if len(items) != _HEAD + _SLOTS * len(_WIDTHS):
        raise ValueError("a meter of another length")
    try:
        of = array("I", items)
    except OverflowError as error:
        raise ValueError("a meter counts up to 32 bits") from error
    for window in range(len(_WIDTHS)):
        _sum_up(of, window)
    return of


def roll(of: Meter, tick: int) -> None:
    """Let go of what has left the windows at `tick`; a clock that went back moves nothing.

    One that was more than a day ahead, as it seems now, was wrong: its sums are of now.
    """
    last = of[0]
    if tick <= last:
        if last - tick > _SLOTS * _DAY:
            _set_back(of, tick)
        return
    of[0] = tick
    if not of[3]:
        return  # nothing in the day, so nothing at all
    if of[1]:
        _expire(of, 0, last, tick)
    before, bucket = last // _HOUR, tick // _HOUR
    if of[2] and before != bucket:
        _expire(of, 1, before, bucket)
    before, bucket = last // _DAY, tick // _DAY
    if before != bucket:
        _expire(of, 2, before, bucket)


def _set_back(of: Meter, tick: int) -> None:
    counted = of[1:_HEAD]
    of[:] = meter(tick)
    for window, (width, amount) in enumerate(zip(_WIDTHS, counted, strict=True)):
        of[1 + window] = of[_HEAD + window * _SLOTS + tick // width % _SLOTS] = amount


def _expire(of: Meter, window: int, last: int, bucket: int) -> None:
    start = _HEAD + window * _SLOTS
    if bucket - last >= _SLOTS:
        of[start : start + _SLOTS] = _NONE
        of[1 + window] = 0
        return
    left = of[1 + window]
    is_full = left == _FULL
    for gone in range(last + 1, bucket + 1):
        at = start + gone % _SLOTS
        octets = of[at]
        if octets:
            of[at] = 0
            left -= octets
            if not left and not is_full:
                break
    if is_full:  # the buckets may hold more than that
        _sum_up(of, window)
    else:
        of[1 + window] = left


def _sum_up(of: Meter, window: int) -> None:
    start = _HEAD + window * _SLOTS
    of[1 + window] = min(sum(of[start : start + _SLOTS]), _FULL)


def add(of: Meter, amount: int) -> None:
    """Count `amount` now, that is at the tick that the meter was rolled to."""
    tick = of[0]
    if of[3] + amount > _FULL:
        amount = _FULL - of[3]  # no bucket is fuller than the day, which is full now
    of[1] += amount
    of[2] += amount
    of[3] += amount
    of[_HEAD + tick % _SLOTS] += amount
    of[_HOUR_HEAD + tick // _HOUR % _SLOTS] += amount
    of[_DAY_HEAD + tick // _DAY % _SLOTS] += amount


def take(of: Meter, amount: int, tick: int) -> None:
    """Count `amount` less, which was added at `tick`; what left a window is not in it to take."""
    for window, width in enumerate(_WIDTHS):
        bucket = tick // width
        if 0 <= of[0] // width - bucket < _SLOTS:
            start = _HEAD + window * _SLOTS
            slot = start + bucket % _SLOTS
            of[slot] -= min(amount, of[slot])  # a full one has less than was added
            of[1 + window] = min(sum(of[start : start + _SLOTS]), _FULL)


def sums(of: Meter) -> dict[str, int]:
    """Return what is in each window."""
    return dict(zip(WINDOWS, of[1:_HEAD], strict=True))


def raised(of: Meter | None, other: Meter) -> Meter:
    """Return a meter of which each bucket is the greater one of the two's; `of` is used up."""
    late = other[:]
    if of is None:
        return late
    early = of
    if of[0] > late[0]:
        late, early = of, late
    roll(early, late[0])
    for window in range(len(_WIDTHS)):
        if early[1 + window]:
            start = _HEAD + window * _SLOTS
            end = start + _SLOTS
            late[start:end] = array("I", map(max, late[start:end], early[start:end]))
            _sum_up(late, window)
    return late
