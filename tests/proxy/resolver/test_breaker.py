"""A breaker opens after failures in a row, and closes again by a trial."""

from proxy.resolver.breaker import Breaker, BreakerState

CLOSED, OPEN, HALF_OPEN = BreakerState


class Told:
    """A breaker of three failures, one second and four, and what it told."""

    def __init__(self) -> None:
        self.changes: list[tuple[BreakerState, BreakerState]] = []
        self.breaker = Breaker(3, 1.0, 4.0, lambda *change: self.changes.append(change))

    def fail(self, times: int, now: float = 0.0) -> None:
        for _ in range(times):
            self.breaker.fail(now)


def test_opens_after_failures_in_a_row() -> None:
    told = Told()
    told.fail(2)
    assert told.breaker.is_closed
    told.fail(1)
    assert told.breaker.state is OPEN
    assert told.changes == [(CLOSED, OPEN)]


def test_an_answer_between_failures_starts_the_count_again() -> None:
    told = Told()
    for _ in range(5):
        told.fail(2)
        told.breaker.succeed()
    assert told.changes == []


def test_a_trial_is_due_after_the_back_off_and_only_once() -> None:
    told = Told()
    assert not told.breaker.is_due(100.0)  # closed
    told.fail(3, now=10.0)
    assert not told.breaker.is_due(10.9)
    assert told.breaker.is_due(11.0)
    told.breaker.begin_trial()
    assert not told.breaker.is_due(11.0)
    assert not told.breaker.is_closed


def test_the_back_off_doubles_up_to_its_cap_and_begins_anew_after_an_answer() -> None:
    told = Told()
    told.fail(3)
    waits = []
    for _ in range(4):
        now = told.breaker.retry_at
        told.breaker.begin_trial()
        told.fail(1, now)
        waits.append(told.breaker.retry_at - now)
    assert waits == [2.0, 4.0, 4.0, 4.0]
    told.breaker.begin_trial()
    told.breaker.succeed()
    told.fail(3, now=100.0)
    assert told.breaker.retry_at == 101.0


def test_an_answer_to_the_trial_closes_it() -> None:
    told = Told()
    told.fail(3)
    told.breaker.begin_trial()
    told.breaker.succeed()
    assert told.changes == [(CLOSED, OPEN), (OPEN, HALF_OPEN), (HALF_OPEN, CLOSED)]


def test_a_trial_that_was_given_up_says_nothing() -> None:
    told = Told()
    told.breaker.give_up_trial(5.0)  # there is none
    assert told.breaker.is_closed
    told.fail(3)
    told.breaker.begin_trial()
    told.breaker.give_up_trial(5.0)
    assert (told.breaker.state, told.breaker.retry_at) == (OPEN, 6.0)


def test_a_failure_while_open_changes_nothing() -> None:
    """Queries that were under way when it opened fail later, and put no trial off."""
    told = Told()
    told.fail(3)
    told.fail(50, now=0.9)
    assert told.breaker.retry_at == 1.0
    assert told.changes == [(CLOSED, OPEN)]
