"""When what waits is a burst, and when it is an overload."""

import pytest

from proxy.resolver.lateness import Lateness

LATE, TIMELY = 0.02, 0.001


@pytest.fixture
def lateness() -> Lateness:
    return Lateness(0.005, 0.5)


def test_a_burst_is_worked_off(lateness: Lateness) -> None:
    assert not any(lateness.is_lost(LATE, now / 100) for now in range(50))
    assert not lateness.is_lost(TIMELY, 0.5)
    assert not any(lateness.is_lost(LATE, 0.51 + now / 100) for now in range(50))


def test_what_is_late_in_an_overload_is_lost_and_nothing_else(lateness: Lateness) -> None:
    """threats.md, "Parser, transport, cache": twice as many queries as can be served."""
    assert not lateness.is_lost(LATE, 0.0)
    assert lateness.is_lost(LATE, 0.5)
    assert not lateness.is_lost(TIMELY, 0.51)
    assert lateness.is_lost(LATE, 0.52)


def test_an_overload_is_over_when_nothing_was_late_for_an_interval(lateness: Lateness) -> None:
    lateness.is_lost(LATE, 0.0)
    assert lateness.is_lost(LATE, 0.5)
    lateness.is_lost(TIMELY, 0.6)
    lateness.is_lost(TIMELY, 1.1)
    assert not lateness.is_lost(LATE, 1.2)


def test_a_clock_that_was_set_back_makes_nothing_late(lateness: Lateness) -> None:
    """threats.md, "Parser, transport, cache": clock jumps."""
    assert not any(lateness.is_lost(-3600.0, float(now)) for now in range(5))


def test_an_overload_is_over_when_nothing_waits_for_a_while(lateness: Lateness) -> None:
    lateness.is_lost(LATE, 0.0)
    assert lateness.is_lost(LATE, 0.5)
    lateness.rest(0.51)  # what was late was given up: the next burst follows at once
    assert lateness.is_lost(LATE, 0.55)
    lateness.rest(0.56)
    assert not lateness.is_lost(TIMELY, 0.8)  # the next burst had time to come
    assert not lateness.is_lost(LATE, 0.82)
