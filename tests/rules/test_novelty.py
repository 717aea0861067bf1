"""What of a name is new: the octets behind the longest beginning that is known."""

from hypothesis import given
from hypothesis import strategies as st

from rules.novelty import (
    DAY_S,
    DIGESTS,
    FADING,
    KNOWN,
    SUFFIX_OCTETS,
    Answers,
    Known,
    digest_of,
    digests_in,
    octets_after,
    thinned,
)
from rules.ration import Ration, Room

SUBS = st.text("ab.", min_size=1, max_size=12)


def room(total: int = 1 << 24) -> Room:
    """Return room for so many octets."""
    return Room(Ration(0, total, total))


def known(*subs: str, within: Room | None = None) -> Known:
    """Return names that were asked at 0."""
    names = Known(within or room(), 0)
    assert [names.add(sub) for sub in subs].count(False) == 0
    return names


def shared(one: str, other: str) -> int:
    """Return the shared beginning, by a loop."""
    count = 0
    for left, right in zip(one, other, strict=False):
        if left != right:
            break
        count += 1
    return count


@given(st.lists(SUBS, max_size=20), SUBS)
def test_the_reach_is_the_longest_beginning_that_any_known_name_has(
    subs: list[str], sub: str
) -> None:
    reach = known(*subs).reach(sub)
    expected = -1 if sub in subs else max((shared(one, sub) for one in subs), default=0)
    assert reach == expected


def test_both_generations_count() -> None:
    names = known("eu.api")
    names.turn(DAY_S)
    names.add("us.api")
    assert names.reach("eu.api") == FADING
    assert names.reach("us.api") == KNOWN
    assert names.reach("us.cdn") == 3
    assert names.reach("eu.cdn") == 3
    assert len(names) == 2


def test_the_suffix_itself_says_nothing() -> None:
    names = known("a")
    assert names.reach("") == -1
    assert names.add("")
    assert len(names) == 1


def test_a_name_is_known_for_a_day_after_it_was_asked_and_no_longer_than_two() -> None:
    names = known("a")
    names.turn(DAY_S - 1)
    assert names.reach("a") == KNOWN
    names.turn(2 * DAY_S - 1)
    assert names.reach("a") == FADING
    names.turn(2 * DAY_S)
    assert names.reach("a") == 0
    late = known("a")
    late.turn(2 * DAY_S)
    assert len(late) == 0


def test_room_is_given_back() -> None:
    within = room()
    names = known("a", "b", within=within)
    names.turn(DAY_S)
    names.add("c")
    names.turn(2 * DAY_S)
    assert within.taken == 65
    names.drop()
    assert within.taken == 0
    other = known("d", within=within)
    other.turn(3 * DAY_S)
    assert within.taken == 0


def test_what_finds_no_room_stays_new() -> None:
    names = Known(room(70), 0)
    assert names.add("abc")
    assert not names.add("abd")
    assert names.reach("abd") == 2
    full = Known(room(), 0)
    full.octets = SUFFIX_OCTETS
    assert not full.add("a")


def test_a_large_tree_has_more_branches_than_an_octet_tells() -> None:
    names = known("a" * 200)
    assert names.branch() == 1
    names.add("b" * 200)
    assert names.branch() == 2
    young = known("a")
    young.turn(DAY_S)
    assert young.branch() == 2


def test_names_come_back_in_their_generations() -> None:
    names = known("a", "b")
    names.turn(DAY_S)
    names.add("c")
    again = Known(room(), 9)
    again.take_in(names.turned, names.fresh, names.old)
    assert (again.fresh, again.old, again.turned, again.octets) == (["c"], ["a", "b"], DAY_S, 1)


def test_records_are_known_by_digest_for_a_day_or_two() -> None:
    within = room()
    records = Answers(within, 0)
    digest = digest_of(b"v=spf1 -all")
    assert not records.is_known(digest)
    assert records.add(digest)
    assert records.add(digest)
    records.turn(5)
    assert records.is_known(digest)
    records.turn(DAY_S)
    assert records.is_known(digest)
    records.turn(3 * DAY_S)
    assert not records.is_known(digest)
    records.add(digest)
    records.turn(5 * DAY_S)
    assert within.taken == 0
    records.add(digest)
    records.drop()
    assert within.taken == 0


def test_records_beyond_the_bound_stay_new() -> None:
    assert not Answers(room(10), 0).add(b"x" * 8)
    full = Answers(room(), 0)
    full.fresh = {bytes([high, low]) for high in range(16) for low in range(256)}
    assert len(full.fresh) == DIGESTS
    assert not full.add(b"x" * 8)


def test_records_come_back_in_their_generations() -> None:
    records = Answers(room(), 0)
    records.add(digest_of(b"old"))
    records.turn(DAY_S)
    records.add(digest_of(b"new"))
    again = Answers(room(), 9)
    again.take_in(
        records.turned,
        digests_in(b"".join(records.fresh)),
        digests_in(b"".join(records.old)),
    )
    assert (again.fresh, again.old, again.turned) == (records.fresh, records.old, DAY_S)


def test_dots_cost_nothing() -> None:
    assert octets_after("eu.api.x1", 0) == 7
    assert octets_after("eu.api.x1", 3) == 5
    assert octets_after("eu.api", 6) == 0


def test_a_common_label_is_worth_one_octet() -> None:
    common = frozenset({"www", "api"})
    assert thinned("www", 0, common) == 1
    assert thinned("secret", 0, common) == 6
    assert thinned("api.secret", 0, common) == 7
    assert thinned("secret.www", 3, common) == 4
    assert thinned("secret.www", 6, common) == 1
    assert thinned("www", 3, common) == 0
    assert thinned("api.www", 1, common) == 2


def test_a_name_of_many_labels_is_thinned_no_further_than_the_fourth() -> None:
    assert thinned(".".join(["www"] * 8), 0, frozenset({"www"})) == 4 + 4 * 3


@given(SUBS, st.integers(0, 12))
def test_thinned_is_never_more_than_the_octets(sub: str, reach: int) -> None:
    least = min(reach, len(sub))
    assert thinned(sub, least, frozenset({"a", "ab"})) <= octets_after(sub, least)


@given(st.text("ab", min_size=14, max_size=40), st.integers(0, 40), st.text("abc.", max_size=6))
def test_long_beginnings_are_found_as_short_ones_are(name: str, kept: int, rest: str) -> None:
    sub = name[:kept] + rest or "c"
    reach = known(name).reach(sub)
    assert reach == (KNOWN if sub == name else shared(name, sub))
