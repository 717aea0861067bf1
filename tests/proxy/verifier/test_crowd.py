"""Where a table that many share is full the crowd makes way."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.verifier.crowd import crowded


@pytest.mark.parametrize(
    ("holders", "newcomer", "goes"),
    [
        ("a1 a1 b1", "c1", 0),  # the app with the most
        ("a1 b1 b1", "a2", 0),  # his app would have as many as b: its own goes
        ("a1 b1 b1 b1", "a2", 1),
        ("a1 a2 b1", "b2", 2),  # he would have as many: his own goes
        ("a1 a2 a2 b1", "c1", 1),  # of its bindings the one with the most
        ("a1 a2 a2", "a3", 1),
        ("a1 a2", "a2", 1),  # as many, and one more: his own
        ("a1 a2", "a3", 0),  # nobody of the app has two: the oldest
        ("a1 b1", "c1", None),
        ("a1 b1", "a2", 0),
        ("a1", "a1", 0),
    ],
)
def test_who_has_the_most_loses_the_oldest(holders: str, newcomer: str, goes: int | None) -> None:
    """threats.md, "Evidence as a weapon": one agent stops everyone through a shared table."""
    held = [(each[0], each[1]) for each in holders.split()]
    assert crowded(held, (newcomer[0], newcomer[1])) == goes


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3)), min_size=1, max_size=20),
    st.tuples(st.sampled_from("abcd"), st.integers(0, 3)),
)
def test_nobody_loses_to_who_has_more(
    holders: list[tuple[str, int]], newcomer: tuple[str, int]
) -> None:
    apps = [app for app, _ in holders]
    goes = crowded(holders, newcomer)
    if goes is None:
        assert newcomer[0] not in apps
        assert max(map(apps.count, apps)) == 1
    else:
        assert apps.count(apps[goes]) >= apps.count(newcomer[0])
