from hypothesis import given
from hypothesis import strategies as st

from proxy.issuing.rates import Rates


def test_a_burst_is_taken_at_once_and_comes_back_with_time() -> None:
    rates = Rates(3, 0.5, 10)
    assert [rates.take("coder", 100.0) for _ in range(4)] == [True, True, True, False]
    assert not rates.take("coder", 101.9)
    assert rates.take("coder", 102.0)
    assert not rates.take("coder", 102.1)
    assert rates.take("other", 102.1)


def test_trying_while_it_is_empty_costs_nothing() -> None:
    rates = Rates(1, 1.0, 10)
    assert rates.take("coder", 0.0)
    for step in range(1, 10):
        assert not rates.take("coder", step / 10)
    assert rates.take("coder", 1.0)


def test_the_app_of_the_longest_ago_is_forgotten() -> None:
    rates = Rates(1, 0.001, 2)
    for app in ("a", "b", "a", "c"):
        rates.take(app, 0.0)
    assert len(rates) == 2
    assert not rates.take("c", 0.0)
    assert rates.take("b", 0.0)  # forgotten, and begins anew


@given(st.lists(st.floats(0, 10), max_size=60))
def test_never_more_than_the_burst_and_what_time_brought(gaps: list[float]) -> None:
    rates, now, taken = Rates(5, 2.0, 10), 0.0, 0
    for gap in gaps:
        now += gap
        taken += rates.take("coder", now)
    assert taken <= 5 + 2.0 * now + 1e-6
