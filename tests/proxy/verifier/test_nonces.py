"""A nonce counts once, for whom it was given to, and not for long."""

import os
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.attested.binding import Binding, Kind
from proxy.limits import Limits
from proxy.verifier.nonces import Nonces

KEY, OTHER = (Binding(Kind.KEY, digit * 64) for digit in "ab")


class Given:
    def __init__(self, limits: Limits | None = None) -> None:
        self.bounds: list[str] = []
        self.nonces = Nonces(limits or Limits(), os.urandom, self.bounds.append)

    def one(self, binding: Binding = KEY, app: str = "coder", now: float = 0.0) -> bytes:
        nonce = self.nonces.give(binding, app, now)
        assert nonce is not None
        return nonce


def test_a_nonce_is_32_random_octets_and_counts_once() -> None:
    """threats.md, "Identity".

    An attestation token copied to another process; a nonce is used once.
    """
    stand = Given()
    first, second = stand.one(), stand.one()
    assert (len(first), first == second) == (32, False)
    assert stand.nonces.take(first, KEY, "coder", 59.9) == 0.0
    assert stand.nonces.take(first, KEY, "coder", 59.9) is None
    assert stand.nonces.take(second, KEY, "coder", 60.0) is None
    assert len(stand.nonces) == 0


@pytest.mark.parametrize(("binding", "app", "left"), [(OTHER, "coder", 1), (KEY, "other", 0)])
def test_it_counts_for_whom_it_was_given_to(binding: Binding, app: str, left: int) -> None:
    stand = Given()
    nonce = stand.one()
    assert stand.nonces.take(nonce, binding, app, 1.0) is None
    assert len(stand.nonces) == left  # another's key does not use it up
    assert (stand.nonces.take(nonce, KEY, "coder", 1.0) is not None) == bool(left)


def test_it_is_told_when_it_was_given() -> None:
    """RFC 9334, section 10.3: evidence is younger than its nonce, and no more is known."""
    stand = Given()
    nonce = stand.one(now=12.5)
    assert stand.nonces.take(nonce, KEY, "coder", 70.0) == 12.5


def test_at_its_bound_a_binding_loses_its_own_oldest() -> None:
    stand = Given(Limits(attestation_nonces_per_binding=2))
    others = stand.one(OTHER)
    first, second, third = stand.one(), stand.one(), stand.one()
    assert stand.bounds == ["attestation_nonces_per_binding"]
    assert stand.nonces.take(first, KEY, "coder", 1.0) is None
    assert stand.nonces.take(second, KEY, "coder", 1.0) is not None
    assert stand.nonces.take(third, KEY, "coder", 1.0) is not None
    assert stand.nonces.take(others, OTHER, "coder", 1.0) is not None


def test_where_all_are_outstanding_none_is_given() -> None:
    """threats.md, "Evidence as a weapon".

    One agent stops everyone through a table that is shared: nobody's nonce goes.
    """
    stand = Given(Limits(attestation_nonces=2))
    kept = [stand.one(), stand.one()]
    assert stand.nonces.give(OTHER, "coder", 1.0) is None
    assert stand.bounds == ["attestation_nonces"]
    assert [stand.nonces.take(each, KEY, "coder", 1.0) for each in kept] == [0.0, 0.0]


def test_an_app_at_its_share_is_given_none_and_others_are() -> None:
    """threats.md, "Evidence as a weapon": one agent stops everyone by asking without end."""
    stand = Given(Limits(attestation_nonces_per_app=2))
    first, _ = stand.one(), stand.one(OTHER)
    assert stand.nonces.give(OTHER, "coder", 1.0) is None
    assert stand.bounds == ["attestation_nonces_per_app"]
    assert stand.one(OTHER, "other", 1.0)
    assert stand.nonces.take(first, KEY, "coder", 1.0) == 0.0
    assert stand.one(now=1.0)
    stand.nonces.give(KEY, "coder", 100.0)
    assert stand.nonces._by_app == {"coder": 1}  # nothing stays of what has ended


def test_what_has_ended_makes_room() -> None:
    stand = Given(Limits(attestation_nonces=2))
    stand.one()
    stand.one(now=30.0)
    stand.one(OTHER, now=60.0)
    assert len(stand.nonces) == 2
    assert stand.bounds == []


@given(st.lists(st.tuples(st.sampled_from([KEY, OTHER]), st.booleans()), max_size=60))
def test_no_nonce_counts_twice(steps: list[tuple[Binding, bool]]) -> None:
    stand = Given(Limits(attestation_nonces=20, attestation_nonces_per_binding=4))
    nonces: list[tuple[bytes, Binding]] = []
    good = 0
    take: Callable[[bytes, Binding], bool] = lambda nonce, binding: (  # noqa: E731 - a name for what is asked
        stand.nonces.take(nonce, binding, "coder", 0.0) is not None
    )
    for binding, is_given in steps:
        if is_given or not nonces:
            nonces.append((stand.one(binding), binding))
        else:
            nonce, owner = nonces[-1]
            found = take(nonce, binding)
            assert not found or binding == owner
            good += found
            if found:
                assert not take(nonce, owner)
    assert good <= len(nonces)
    assert len(stand.nonces) <= 8
