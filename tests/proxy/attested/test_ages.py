"""A result is as old as the older of both clocks says."""

from proxy.attested.ages import SKEW_S, Ages
from tests.proxy.attested.making import NOW, TTL_S, Clock, result


class Two:
    """Both clocks, and the ages by them."""

    def __init__(self) -> None:
        self.wall, self.monotonic = Clock(), Clock(0.0)
        self.ages = Ages(self.wall, self.monotonic)
        self.one = result("a")
        self.ages.begin(self.one)

    def age_s(self, wall: float, monotonic: float) -> float:
        self.monotonic.now = monotonic
        return self.ages.age_s(self.one, NOW + wall)


def test_the_older_of_both_clocks_counts() -> None:
    """threats.md, "Identity": a clock that was set back does not let results live longer."""
    two = Two()
    assert two.age_s(5.0, 3.0) == 5.0
    assert two.age_s(-50.0, 7.0) == 7.0
    two.ages.forget(two.one)
    assert two.age_s(-50.0, 7.0) == -50.0


def test_what_was_proven_before_it_came_is_older_by_that() -> None:
    two = Two()
    older = result("b", at=NOW - 20.0)
    two.ages.begin(older)
    two.monotonic.now = 10.0
    assert two.ages.age_s(older, NOW - 30.0) == 30.0
    assert two.ages.is_fresher(two.one, older)
    assert not two.ages.is_fresher(older, two.one)


def test_a_life_ends_by_either_clock() -> None:
    two = Two()
    assert two.ages.counts(two.one, NOW + TTL_S - 0.5)
    assert not two.ages.counts(two.one, NOW + TTL_S)
    assert not two.ages.counts(two.one, NOW - SKEW_S - 0.5)
    two.monotonic.now = TTL_S
    assert not two.ages.counts(two.one, NOW)


def test_it_tells_when_something_changes_next() -> None:
    two = Two()
    ages = (60, 300)
    assert two.ages.changes(two.one, ages, NOW - SKEW_S - 5) == NOW - SKEW_S
    assert two.ages.changes(two.one, ages, NOW) == NOW + 60
    assert two.ages.changes(two.one, ages, NOW + 61) == NOW + TTL_S
    assert two.ages.changes(two.one, ages, NOW + TTL_S + 1) == NOW + TTL_S + 1
    two.monotonic.now = 50.0
    assert two.ages.changes(two.one, ages, NOW) == NOW + 10


def test_a_clock_that_is_set_back_is_noticed_once() -> None:
    two = Two()
    found = []
    for wall, monotonic in (
        (0.0, 0.0),
        (1.0, 1.0),
        (-9.0, 2.0),
        (-8.0, 3.0),
        (5.0, 4.0),
        (3.0, 5.0),
    ):
        two.monotonic.now = monotonic
        found.append(two.ages.was_set_back(NOW + wall))
    assert found == [False, False, True, False, False, True]
