"""A limit may be reached, never passed; an alert is re-armed below half of it."""

import pytest

from rules.budget import Limits, Passed, is_calm, passed
from rules.window import add, meter, roll

LIMITS = Limits(10, 20, 30)


@pytest.mark.parametrize(
    ("later", "amount", "expected"),
    [
        (0, 2, None),
        (0, 3, Passed("2m", 11, 10)),
        (20, 10, None),
        (20, 13, Passed("2m", 13, 10)),
    ],
)
def test_a_limit_may_be_reached_not_passed(
    later: int, amount: int, expected: Passed | None
) -> None:
    of = meter(0)
    add(of, 8)
    roll(of, later)
    assert passed(of, amount, LIMITS) == expected


def test_longer_windows_have_their_own_limits() -> None:
    of = meter(0)
    for tick in (0, 20, 400, 800):
        roll(of, tick)
        assert passed(of, 8, LIMITS) is None or tick == 800
        add(of, 8)
    assert passed(of, 1, LIMITS) == Passed("24h", 33, 30)
    of = meter(0)
    for tick in (0, 20, 40):
        roll(of, tick)
        add(of, 7)
    assert passed(of, 1, LIMITS) == Passed("1h", 22, 20)


def test_it_is_calm_below_half_of_every_limit() -> None:
    of = meter(0)
    add(of, 4)
    assert is_calm(of, LIMITS)
    add(of, 1)
    assert not is_calm(of, LIMITS)


def test_limits_are_widened_together() -> None:
    assert LIMITS.times(16) == Limits(160, 320, 480)
