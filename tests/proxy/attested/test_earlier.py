"""Tokens that a newer one is in the place of: known until they end, and never without bound."""

import pytest

from proxy.attested.earlier import Earlier
from proxy.attested.result import Result
from proxy.limits import Limits
from rules.facts import Level
from tests.proxy.attested.making import NOW, OTHER, TTL_S, result


class Held:
    """An `Earlier` of small bounds, and which of them were met."""

    def __init__(self, **limits: int) -> None:
        self.bounds: list[str] = []
        self.forgotten: list[Result] = []
        self.earlier = Earlier(Limits(**limits), self.bounds.append, self.forgotten.append)

    def add(self, *results: Result, now: float = NOW) -> None:
        for each in results:
            self.earlier.add(each, now)

    def has(self, *results: Result) -> list[bool]:
        return [self.earlier.find(each.token_sha256) == each for each in results]


def test_one_is_found_until_it_is_forgotten() -> None:
    held, one, other = Held(), result("a"), result("b", binding=OTHER)
    held.add(one, other)
    assert held.has(one, other) == [True, True]
    assert held.earlier.void(lambda each: each.binding == OTHER) == (other,)
    assert held.has(one, other) == [True, False]
    held.earlier.look(NOW + TTL_S - 1)
    assert len(held.earlier) == 1
    held.earlier.look(NOW + TTL_S)
    assert (len(held.earlier), held.earlier._slots) == (0, {})


def test_what_has_expired_is_not_held_and_takes_no_room() -> None:
    held, one, two = Held(attestations_replaced=1), result("a"), result("b", at=NOW + TTL_S)
    held.add(one, now=NOW + TTL_S)
    assert len(held.earlier) == 0
    held.add(one)
    held.add(two, now=NOW + TTL_S)
    assert held.has(one, two) == [False, True]
    assert held.bounds == []


def test_who_attests_without_end_loses_his_own_oldest() -> None:
    held = Held(attestations_replaced=2)
    other = result("z", level=Level.TPM)
    one, two, three = (result(each) for each in "abc")
    held.add(other, one, two, three)
    assert held.has(other, one, two, three) == [True, False, True, True]
    assert held.bounds == ["attestations_replaced"]


@pytest.mark.parametrize("is_own", [True, False])
def test_where_it_is_full_none_is_taken_from_others(*, is_own: bool) -> None:
    """threats.md, "Evidence as a weapon": one agent stops everyone through a shared table."""
    held, one, two = Held(attestations=2), result("a"), result("b", binding=OTHER)
    held.add(one, two)
    new = result("c") if is_own else result("c", app="other")
    held.add(new)
    assert held.has(one, two, new) == [not is_own, True, is_own]
    assert held.bounds == ["attestations"]


def test_each_that_is_not_held_any_more_is_told() -> None:
    held = Held(attestations_replaced=1, attestations=1)
    first, second, other = result("a"), result("b"), result("c", binding=OTHER)
    held.add(first, second, other, result("d", expires=NOW))
    assert [each.id for each in held.forgotten] == ["a", "c", "b", "d"]
