"""When the next key is due, which one signs, and when an old one may go: arithmetic alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certs.known_domain import Generation, Record
from certs.profile import MOST_JWT_TTL_S, MOST_TTL_S, SKEW_S
from certs.rotation import due, pruned, signing

LIFE = 900_000


def made(name: str, begin: int, *, wait: int = 0, issuer: str = "") -> Generation:
    return Generation(name, begin, begin + LIFE, begin + wait, "", issuer)


def record(
    roots: tuple[Generation, ...] = (),
    intermediates: tuple[Generation, ...] = (),
    jwt_keys: tuple[Generation, ...] = (),
) -> Record:
    return Record(
        "td",
        1,
        roots or (made("r", 0),),
        intermediates or (made("i", 0, issuer="r"),),
        jwt_keys or (made("j", 0),),
    )


def test_the_latest_whose_time_has_come_signs() -> None:
    old, prepared = made("old", 0), made("new", 1000, wait=500)
    for now, name in ((999, "old"), (1499, "old"), (1500, "new"), (LIFE, "new")):
        found = signing((old, prepared), now)
        assert found is not None
        assert found.id == name


def test_where_all_before_have_ended_the_prepared_one_comes_early() -> None:
    prepared = made("new", LIFE - 10, wait=500)
    assert signing((made("old", 0), prepared), LIFE + 1) == prepared


def test_nothing_signs_before_its_time_or_after_its_end() -> None:
    only = (made("only", 1000),)
    assert signing(only, 999) is None
    assert signing(only, 1000) == only[0]
    assert signing(only, 1000 + LIFE) is None
    assert signing((), 0) is None


def test_each_kind_is_due_at_two_thirds_of_its_life() -> None:
    assert due(record(), LIFE * 2 / 3 - 1) == ()
    assert due(record(), LIFE * 2 / 3) == ("root", "intermediate", "jwt")
    fresh = made("j2", LIFE // 2)
    assert due(record(jwt_keys=(made("j", 0), fresh)), LIFE * 2 / 3) == ("root", "intermediate")


def test_a_prepared_root_has_no_intermediate_until_it_signs() -> None:
    new = made("r2", 1000, wait=500)
    both = record(roots=(made("r", 0), new))
    assert due(both, 1499) == ()
    assert due(both, 1500) == ("intermediate",)
    below = (made("i", 0, issuer="r"), made("i2", 1500, issuer="r2"))
    assert due(record(roots=both.roots, intermediates=below), 1501) == ()


def test_after_the_end_of_everything_all_is_due() -> None:
    assert due(record(), LIFE + 1) == ("root", "intermediate", "jwt")


def test_before_its_time_nothing_is_due() -> None:
    assert due(record(), -1) == ()


def test_an_old_intermediate_goes_when_its_last_svid_has_ended() -> None:
    both = record(intermediates=(made("i", 0, issuer="r"), made("i2", 1000, issuer="r")))
    last = 1000 + MOST_TTL_S + SKEW_S
    assert pruned(both, last - 1) == both
    assert [each.id for each in pruned(both, last).intermediates] == ["i2"]


def test_an_old_jwt_key_goes_when_its_last_token_has_ended() -> None:
    both = record(jwt_keys=(made("j", 0), made("j2", 1000, wait=600)))
    last = 1600 + MOST_JWT_TTL_S + SKEW_S
    assert pruned(both, 1601) == both
    assert pruned(both, last - 1) == both
    assert [each.id for each in pruned(both, last).jwt_keys] == ["j2"]


def test_an_old_root_goes_with_the_last_of_its_intermediates() -> None:
    roots = (made("r", 0), made("r2", 1000, wait=500))
    both = (made("i", 0, issuer="r"), made("i2", 1500, issuer="r2"))
    last = 1500 + MOST_TTL_S + SKEW_S
    assert pruned(record(roots, both), last - 1).roots == roots
    assert [each.id for each in pruned(record(roots, both), last).roots] == ["r2"]


def test_what_is_prepared_is_kept() -> None:
    prepared = record(
        roots=(made("r", 0), made("r2", 1000, wait=LIFE // 2)),
        jwt_keys=(made("j", 0), made("j2", 1000, wait=LIFE // 2)),
    )
    assert pruned(prepared, 1000) == prepared


@given(
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 5000)), min_size=1, max_size=6),
    st.integers(-100, LIFE * 2),
)
def test_pruning_keeps_what_signs_and_is_done_at_once(
    begins: list[tuple[int, int]], now: int
) -> None:
    keys = tuple(made(str(at), begin, wait=wait) for at, (begin, wait) in enumerate(sorted(begins)))
    whole = record(jwt_keys=keys)
    left = pruned(whole, now)
    assert signing(left.jwt_keys, now) == signing(keys, now)
    assert left.jwt_keys
    assert pruned(left, now) == left


@pytest.mark.parametrize("now", [0, 1000, 1500, LIFE // 2])
def test_pruning_changes_no_number(now: int) -> None:
    assert pruned(record(), now) == record()


def test_what_a_clock_that_was_ahead_has_made_replaces_nothing_until_its_time() -> None:
    ahead = 10 * LIFE
    keys = (made("j", 0), made("ahead", ahead))
    roots, below = (made("r", 0), made("r2", ahead)), (made("i", 0, issuer="r"),)
    found = record(roots, (*below, made("i2", ahead, issuer="r2")), keys)
    assert due(found, LIFE * 2 / 3 - 1) == ()
    assert due(found, LIFE * 2 / 3) == ("root", "intermediate", "jwt")
    assert due(found, ahead + 1) == ()


def test_nothing_is_due_before_anything_has_begun() -> None:
    keys = record((made("r", 100),), (made("i", 100, issuer="r"),), (made("j", 100),))
    assert due(keys, 99) == ()
