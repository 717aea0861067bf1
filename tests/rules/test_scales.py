"""What a look-up costs below each of its suffixes, and which limit it would pass."""

from rules import rtype
from rules.account import Account
from rules.budget import Limits
from rules.name import parse
from rules.popularity import Popularity
from rules.ration import Ration
from rules.scales import Part, Scales, weigh_answer
from rules.subname import Splitter
from rules.suffix import read_suffixes
from rules.tally import ANSWERS, CHOICE, NAMES, Limited
from rules.tiers import read_tiers

TEN = Limits(10, 10, 10)
ORDINARY = Limited(Limits(5, 5, 5), TEN, Limits(5, 5, 5), TEN, TEN)
SUFFIXES = read_suffixes(["com", "net", "// ===BEGIN PRIVATE DOMAINS===", "github.io"])


def scales(whole: Limits = TEN, days: int = 1) -> tuple[Scales, Popularity]:
    """Return scales with small limits."""
    popularity = Popularity(days, 10, 10)
    limits = (ORDINARY, ORDINARY.times(16), Limited(whole, whole, whole, whole, whole))
    return Scales(
        Splitter(SUFFIXES), read_tiers({"cdn": "wide.net"}), popularity, limits
    ), popularity


def account() -> Account:
    """Return one that asked nothing."""
    return Account("app", Ration(1, 9, 9), Ration(0, 9999, 9999), 0)


def weighed(
    of: Scales, app: Account, name: str, kind: int = rtype.A, *, is_named: bool = False
) -> list[Part]:
    """Return the parts of a question at 0."""
    parts = of.parts(app, parse(name), 0, 0)
    of.weigh(app, parts, kind, is_named=is_named)
    return parts


def test_a_new_name_costs_its_octets_and_a_branch() -> None:
    of, _ = scales()
    (part,) = weighed(of, account(), "abc.evil.com")
    assert (part.octets, part.bits, part.thin) == (4, 0, 5)
    (common,) = weighed(of, account(), "www.evil.com")
    assert (common.octets, common.thin) == (4, 3)


def test_a_known_name_and_a_named_one_cost_the_choice() -> None:
    of, _ = scales()
    app = account()
    of.count(app, weighed(of, app, "abc.evil.com"), rtype.A, 0)
    (part,) = weighed(of, app, "abc.evil.com")
    assert (part.octets, part.bits, part.thin) == (0, 0 + 1, 0)
    (rare,) = weighed(of, app, "abc.evil.com", rtype.TXT)
    assert rare.bits == 0 + 8
    (named,) = weighed(of, app, "other.evil.com", is_named=True)
    assert (named.octets, named.bits) == (0, 0)
    (named,) = weighed(of, app, "other.evil.com", rtype.TXT, is_named=True)
    assert named.bits == 8
    for label in ("bcd", "cde", "def", "efg"):
        of.count(app, weighed(of, app, f"{label}.evil.com"), rtype.A, 0)
    (one_of_five,) = weighed(of, app, "abc.evil.com")
    assert one_of_five.bits == 3 + 1
    (named,) = weighed(of, app, "other.evil.com", is_named=True)
    assert named.bits == 3


def test_a_tenant_of_a_popular_host_counts_in_the_sum() -> None:
    """Popular is the host: nobody but its tenant sees what is asked below the tenant's name."""
    of, popularity = scales()
    app = account()
    for name in ("one", "other"):
        popularity.note("github.io", name, 0)
    parts = weighed(of, app, "abcdefghijkl.evil.github.io")
    assert [part.tier for part in parts] == ["popular", "ordinary"]
    of.count(app, parts, rtype.A, 0)
    assert app.whole.names[1] == 12 + 1 + 1


def test_limits_of_names_come_before_those_of_all() -> None:
    of, _ = scales()
    app = account()
    parts = weighed(of, app, "abcdefghijkl.evil.com")
    assert [(over.bit, str(over.tally.suffix)) for over in of.over(app, parts)] == [
        (NAMES, "evil.com"),
        (NAMES, "."),
    ]
    assert [over.passed.limit for over in of.loud(parts)] == [5]
    assert of.loud(weighed(of, app, "evil.com")) == []


def test_choices_have_limits_below_a_suffix_and_over_all() -> None:
    of, _ = scales()
    app = account()
    for number in range(2):
        parts = weighed(of, app, "evil.com", rtype.TXT)
        assert (of.over(app, parts) == []) is (number < 1)
        of.count(app, parts, rtype.TXT, 0)
    over = of.over(app, weighed(of, app, "evil.com", rtype.TXT))
    assert [(each.bit, str(each.tally.suffix)) for each in over] == [
        (CHOICE, "evil.com"),
        (CHOICE, "."),
    ]


def test_the_second_tier_is_wider_and_not_in_the_sum() -> None:
    of, popularity = scales()
    app = account()
    parts = weighed(of, app, "abcdefghijkl.wide.net")
    assert of.over(app, parts) == []
    of.count(app, parts, rtype.A, 0)
    assert app.whole.names[1] == 0
    assert popularity.rows == {}
    for name in ("one", "other"):
        popularity.note("much.com", name, 0)
    (part,) = weighed(of, app, "abcdefghijkl.much.com")
    assert part.tier == "popular"


def test_a_tenant_counts_at_both_levels_and_once_in_the_sum() -> None:
    of, _ = scales()
    app = account()
    parts = weighed(of, app, "ab.me.github.io")
    assert [(part.tally.suffix, part.octets) for part in parts] == [
        ("github.io", 5),
        ("me.github.io", 3),
    ]
    of.count(app, parts, rtype.A, 0)
    assert app.whole.names[1] == 6
    assert app.whole.queries == 1


def test_what_was_told_is_rearmed_for_a_suffix_and_for_all() -> None:
    of, _ = scales()
    app = account()
    parts = weighed(of, app, "a.evil.com")
    parts[0].tally.told = app.whole.told = NAMES
    of.parts(app, parse("a.evil.com"), 0, 0)
    assert parts[0].tally.told == app.whole.told == 0


def test_an_answer_costs_its_new_records() -> None:
    of, _ = scales()
    app = account()
    parts = of.parts(app, parse("a.evil.com"), 0, 0)
    digests = weigh_answer(parts, [b"123456", b"123456"])
    assert parts[0].octets == 6
    assert of.answer_over(parts, is_loud=False) == []
    assert len(of.answer_over(parts, is_loud=True)) == 1
    of.count_answer(app, parts, digests, 0)
    weigh_answer(parts, [b"123456"])
    assert parts[0].octets == 0
    assert of.answer_over(parts, is_loud=True) == []
    of.count_answer(app, parts, digests, 0)
    weigh_answer(parts, [b"abcde"])
    assert len(of.answer_over(parts, is_loud=False)) == 1


def test_what_two_apps_asked_on_too_few_days_is_ordinary() -> None:
    of, popularity = scales(days=2)
    for name in ("one", "other"):
        popularity.note("much.com", name, 0)
    (part,) = weighed(of, account(), "abc.much.com")
    assert part.tier == "ordinary"


def test_named_questions_are_counted_and_not_written() -> None:
    of, popularity = scales()
    app = account()
    of.count(app, weighed(of, app, "abc.evil.com", rtype.TXT, is_named=True), rtype.TXT, 0)
    assert (app.whole.queries, app.table[parse("evil.com")].others) == (1, 1)
    assert list(app.changes.take()) == []
    assert popularity.rows == {}
    assert of.counted == {NAMES: 0, ANSWERS: 0, CHOICE: 8}


def test_a_choice_that_only_the_sum_forbids_is_found() -> None:
    of, _ = scales(Limits(9, 9, 9))
    app = account()
    for name in ("one.com", "two.com"):
        of.count(app, weighed(of, app, name, rtype.A), rtype.A, 0)
    parts = of.parts(app, parse("one.com"), 0, 0)
    assert of.weigh(app, parts, rtype.TXT, is_named=True)
    over = of.over(app, parts)
    assert [(each.bit, str(each.tally.suffix)) for each in over] == [(CHOICE, ".")]
