"""The budget of frames that are no request."""

from proxy.wire.h2_budget import Budget


def test_a_burst_is_spent_and_comes_back_with_time() -> None:
    """threats.md, "HTTP itself": unbounded stream counts, here of streams that are reset."""
    budget = Budget(3, 2, 10.0)
    assert [budget.spend(10.0, 0) for _ in range(4)] == [True, True, True, False]
    assert budget.spend(11.0, 0)


def test_replies_bring_their_window_updates() -> None:
    budget = Budget(2, 0, 0.0)
    assert all(budget.spend(0.0, 1) for _ in range(100))
    assert [budget.spend(0.0, 0) for _ in range(3)] == [True, False, False]


def test_never_holds_more_than_the_burst() -> None:
    budget = Budget(2, 1000, 0.0)
    assert [budget.spend(1e6, 10**6) for _ in range(1)] == [True]
    assert [budget.spend(1e6, 0) for _ in range(2)] == [True, False]
