"""Sliding sums never forget too early, and forget within a bucket more than the window."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rules.window import Meter, add, meter, raised, restored, roll, sums, take

SECONDS = {"2m": 120, "1h": 3600, "24h": 86400}
BUCKET = {"2m": 10, "1h": 300, "24h": 7200}
EVENTS = st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 1000)), max_size=40)


def play(events: list[tuple[int, int]]) -> tuple[Meter, list[tuple[int, int]]]:
    """Return a meter and the ticks and amounts that it was told."""
    of, tick = meter(0), 0
    told: list[tuple[int, int]] = []
    for step, amount in events:
        tick += step
        roll(of, tick)
        add(of, amount)
        told.append((tick, amount))
    return of, told


@settings(max_examples=150, deadline=None)
@given(EVENTS)
def test_a_sum_is_at_least_what_the_window_holds_and_at_most_a_bucket_more(
    events: list[tuple[int, int]],
) -> None:
    of, told = play(events)
    now = of[0] * 10
    for window, total in sums(of).items():
        held = sum(amount for tick, amount in told if now - tick * 10 < SECONDS[window])
        most = SECONDS[window] + BUCKET[window]
        more = sum(amount for tick, amount in told if now - tick * 10 <= most)
        assert held <= total <= more


@settings(max_examples=100, deadline=None)
@given(EVENTS, EVENTS)
def test_what_inherits_counts_at_least_as_much_as_each(
    one: list[tuple[int, int]], other: list[tuple[int, int]]
) -> None:
    left, right = play(one)[0], play(other)[0]
    both = raised(left, right)
    tick = max(left[0], right[0])
    assert both[0] == tick
    for of in (left, right):
        roll(of, tick)
        assert all(both[item] >= of[item] for item in range(len(of)))


def test_what_inherits_into_nothing_is_a_copy() -> None:
    of, _ = play([(5, 7)])
    copy = raised(None, of)
    add(copy, 1)
    assert (of[1], copy[1]) == (7, 8)


def test_a_clock_that_goes_back_forgets_nothing() -> None:
    of, _ = play([(100, 7)])
    roll(of, 3)
    assert sums(of) == {"2m": 7, "1h": 7, "24h": 7}
    assert of[0] == 100


def test_a_clock_that_was_days_ahead_keeps_the_sums_and_lets_them_go_in_time() -> None:
    of, _ = play([(1_000_000, 7)])
    roll(of, 500)
    assert (of[0], sums(of)) == (500, {"2m": 7, "1h": 7, "24h": 7})
    add(of, 1)
    roll(of, 500 + 14)
    assert sums(of) == {"2m": 0, "1h": 8, "24h": 8}
    take(of, 7, 1_000_000)
    assert sums(of) == {"2m": 0, "1h": 8, "24h": 8}
    roll(of, 500 + 8640 + 720)
    assert sums(of) == {"2m": 0, "1h": 0, "24h": 0}


def test_all_is_forgotten_after_a_long_silence() -> None:
    of, _ = play([(100, 7)])
    roll(of, 100_000)
    assert sums(of) == {"2m": 0, "1h": 0, "24h": 0}


def test_a_full_meter_stays_full() -> None:
    of, _ = play([(1, 0xFFFF_FFF0), (0, 100)])
    assert sums(of)["24h"] == 0xFFFF_FFFF


def test_a_meter_comes_back_from_its_items() -> None:
    of, _ = play([(3, 5), (40, 6)])
    assert restored(list(of)) == of


@pytest.mark.parametrize("items", [[], [1, 2], [1 << 32] * 43, [-1] * 43])
def test_what_is_no_meter_does_not_come_back(items: list[int]) -> None:
    with pytest.raises(ValueError, match="a meter"):
        restored(items)


@settings(max_examples=150, deadline=None)
@given(EVENTS, st.data())
def test_what_is_taken_back_was_never_there(
    events: list[tuple[int, int]], data: st.DataObject
) -> None:
    of, told = play(events)
    taken = data.draw(st.lists(st.sampled_from(told), unique_by=id) if told else st.just([]))
    for tick, amount in taken:
        take(of, amount, tick)
    rest = list(told)
    for each in taken:
        rest.remove(each)
    again = meter(0)
    for tick, amount in rest:
        roll(again, tick)
        add(again, amount)
    roll(again, of[0])
    assert sums(of) == sums(again)


def test_of_a_full_meter_no_more_is_taken_than_is_there() -> None:
    of = meter(0)
    add(of, 0xFFFF_FFFF)
    add(of, 7)
    take(of, 0xFFFF_FFFF, 0)
    take(of, 7, 0)
    assert set(sums(of).values()) == {0}


def test_buckets_go_one_by_one() -> None:
    of, _ = play([(100, 7), (5, 2), (1, 1)])
    assert [_two_minutes(of, tick) for tick in (112, 113, 117, 118, 119)] == [10, 3, 3, 1, 0]


def _two_minutes(of: Meter, tick: int) -> int:
    roll(of, tick)
    return sums(of)["2m"]


def test_a_full_window_is_summed_up_anew_when_a_bucket_goes() -> None:
    one, other = play([(1, 0xFFFF_FFF0)])[0], play([(5, 0xFFFF_FFF0)])[0]
    both = raised(one, other)
    assert sums(both)["2m"] == 0xFFFF_FFFF
    again = both[:]
    roll(both, 15)
    assert sums(both)["2m"] == 0xFFFF_FFF0
    roll(again, 17)
    roll(again, 18)
    assert sums(again)["2m"] == 0


def test_sums_of_a_row_are_those_of_its_buckets() -> None:
    of, _ = play([(3, 5)])
    items = list(of)
    items[1] = 0
    assert restored(items) == of
