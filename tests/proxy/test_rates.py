"""So much at once, then one more every few moments; each app for itself."""

from hypothesis import given
from hypothesis import strategies as st

from proxy.rates import Rates


def test_a_burst_is_taken_at_once_and_comes_back_with_time() -> None:
    rates = Rates(3, 2.0, 10)
    assert [rates.take("coder", 0.0) for _ in range(4)] == [True, True, True, False]
    assert not rates.take("coder", 1.9)
    assert rates.take("coder", 2.0)
    assert not rates.take("coder", 2.0)
    assert [rates.take("coder", 100.0) for _ in range(4)] == [True, True, True, False]


def test_an_app_takes_nothing_of_another() -> None:
    """threats.md, "Evidence as a weapon": one agent stops everyone by asking without end."""
    rates = Rates(1, 1.0, 10)
    assert rates.take("coder", 0.0)
    assert not rates.take("coder", 0.0)
    assert rates.take("other", 0.0)


def test_trying_while_it_is_empty_costs_nothing() -> None:
    rates = Rates(1, 1.0, 10)
    assert rates.take("coder", 0.0)
    for step in range(1, 10):
        assert not rates.take("coder", step / 10)
    assert rates.take("coder", 1.0)


def test_the_app_that_asked_longest_ago_is_forgotten() -> None:
    rates = Rates(1, 10.0, 2)
    for app in ("a", "b", "a", "c"):
        rates.take(app, 0.0)
    assert len(rates) == 2
    assert not rates.take("a", 0.0)
    assert rates.take("b", 0.0)  # forgotten, and begins anew


@given(st.lists(st.floats(0, 10), max_size=60))
def test_never_more_than_the_burst_and_what_time_brought(gaps: list[float]) -> None:
    rates, now, taken = Rates(5, 0.5, 10), 0.0, 0
    for gap in gaps:
        now += gap
        taken += rates.take("coder", now)
    assert taken <= 5 + 2.0 * now + 1e-6
