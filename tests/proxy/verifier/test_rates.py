"""So much at once, then one more every few moments; each app for itself."""

from proxy.verifier.rates import Rates


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


def test_the_app_that_asked_longest_ago_is_forgotten() -> None:
    rates = Rates(1, 10.0, 2)
    for app in ("a", "b", "a", "c"):
        rates.take(app, 0.0)
    assert len(rates) == 2
    assert not rates.take("a", 0.0)
    assert rates.take("b", 0.0)
