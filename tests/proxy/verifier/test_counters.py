"""What a TPM counts goes on, or it is an older state of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.attested.attester import Attester
from proxy.channel import Verified
from proxy.verifier.counters import gone_back, is_reset

NONCE_S = 60.0


def known(resets: int = 5, restarts: int = 6, clock_ms: int = 100_000) -> Attester:
    return Attester("name", "coder", "", "ek", b"", 0.0, resets, restarts, clock_ms)


def quoted(resets: int, restarts: int, clock_ms: int, *, safe: bool = True) -> Verified:
    return Verified(1, clock_ms=clock_ms, reset_count=resets, restart_count=restarts, is_safe=safe)


@pytest.mark.parametrize(
    ("said", "text"),
    [
        (quoted(5, 6, 100_000), ""),
        (quoted(5, 6, 40_000), ""),
        (quoted(5, 6, 39_999), "Clock went back from 100000 to 39999 ms"),
        (quoted(5, 6, 39_999, safe=False), "Clock went back from 100000 to 39999 ms"),
        (quoted(5, 7, 39_999), "Clock went back from 100000 to 39999 ms"),
        (quoted(5, 7, 39_999, safe=False), ""),
        (quoted(5, 5, 200_000), "restartCount went back from 6 to 5"),
        (quoted(4, 9, 200_000), "resetCount went back from 5 to 4"),
        (quoted(6, 0, 0), ""),
    ],
)
def test_what_went_back_is_named(said: Verified, text: str) -> None:
    assert gone_back(known(), said, NONCE_S) == text


def test_the_first_quote_goes_on_from_nothing() -> None:
    first = Attester("name", "coder", "", "ek", b"", 0.0)
    assert gone_back(first, quoted(0, 0, 0), NONCE_S) == ""
    assert is_reset(first, quoted(0, 0, 0))


def test_a_count_that_rose_is_told() -> None:
    assert not is_reset(known(), quoted(5, 6, 200_000))
    assert is_reset(known(), quoted(5, 7, 0))
    assert is_reset(known(), quoted(6, 0, 0))


@given(st.tuples(*[st.integers(0, 3)] * 2), st.tuples(*[st.integers(0, 3)] * 2))
def test_of_two_quotes_of_different_boots_one_goes_back(
    first: tuple[int, int], second: tuple[int, int]
) -> None:
    forth = gone_back(known(*first), quoted(*second, 100_000), NONCE_S)
    back = gone_back(known(*second), quoted(*first, 100_000), NONCE_S)
    assert bool(forth) == (second < first)
    assert bool(forth and back) is False
