"""Trees of refused names: the same is decided of each name in them, however the rules are made."""

from hypothesis import given, settings
from hypothesis import strategies as st

from rules.beneath import Beneath, beneath
from rules.decide import decide
from rules.decision import Decision, Reason, Verdict
from rules.facts import Principal, Question
from rules.match import RuleIndex, index_rules
from rules.name import ROOT, DomainName, parse
from rules.pattern import HostPattern, PatternKind
from rules.rtype import TXT, A
from rules.ruleset import AllowRule, App, DenyRule, Ruleset
from rules.suffix import PublicSuffixes
from tests.rules.naive_lists import NaiveLists
from tests.rules.test_siblings import (
    LABELS,
    ME,
    NOBODY,
    SUFFIXES,
    apex,
    apps,
    index_of,
    names,
    principals,
)


def found(index: RuleIndex, name: str, suffixes: PublicSuffixes = SUFFIXES) -> Beneath | None:
    question = Question(ME, parse(name), A)
    return beneath(index, suffixes, question, decide(index, question))


def holds(below: Beneath, name: str) -> bool:
    """Whether the tree that `name` is in is one of those that are spoken of."""
    base = "" if below.base == ROOT else f".{below.base}"
    if not name.endswith(base) or name == below.base:
        return False
    child = name.removesuffix(base).rpartition(".")[2] + base
    return not any(child in some for some in below.touched)


def said_apex(below: Beneath, name: DomainName) -> str:
    return below.apex or ".".join(name.split(".")[-below.apex_labels :])


@settings(max_examples=300)
@given(
    apps,
    principals,
    names,
    st.sampled_from((A, TXT)),
    st.lists(st.lists(st.sampled_from((*LABELS, "com", "uk", "new")), max_size=4), max_size=8),
)
def test_what_is_said_of_one_name_holds_in_every_tree_beside_it(
    app: App, principal: Principal, name: DomainName, rtype: int, others: list[list[str]]
) -> None:
    """threats.md, Order of checks: policy before anything that is kept."""
    index = index_of(app)
    question = Question(principal, name, rtype)
    decision = decide(index, question)
    below = beneath(index, SUFFIXES, question, decision)
    if below is None:
        return
    assert decision.verdict is Verdict.DENY
    assert decision.rule is None
    assert holds(below, name)
    base = [] if below.base == ROOT else [below.base]
    for labels in ([name.split(".")[0]], *others):
        if labels and holds(below, other := parse(".".join([*labels, *base]))):
            assert decide(index, Question(principal, other, rtype)) == decision
            assert said_apex(below, other) == apex(other)


def exact(name: str) -> HostPattern:
    return HostPattern(PatternKind.EXACT, parse(name))


def allowing(*hosts: HostPattern, denies: tuple[DenyRule, ...] = ()) -> RuleIndex:
    rule = AllowRule("r", hosts, frozenset({443}), frozenset({A}))
    return index_of(App("me", allows=(rule,), denies=denies))


def test_the_tree_is_the_highest_that_nothing_touches() -> None:
    index = allowing(exact("a.b.example"), exact("d.com"))
    below = found(index, "x.y.evil.example")
    assert below is not None
    assert (below.base, below.apex, below.apex_labels) == ("example", None, 2)
    assert [holds(below, name) for name in ("q.other.example", "b.example", "z.b.example")] == [
        *(True, False, False)
    ]
    below = found(index, "x.y.b.example")
    assert below is not None
    assert (below.base, below.apex) == ("b.example", "b.example")
    below = found(index, "x.d.com")
    assert below is not None
    assert below.base == "d.com"


def test_where_each_child_is_allowed_the_trees_begin_below_them() -> None:
    below = found(allowing(HostPattern(PatternKind.CHILD, parse("net"))), "x.y.evil.net")
    assert below is not None
    assert below.base == "evil.net"


def test_an_unlisted_top_is_a_tree_and_a_listed_one_is_not() -> None:
    index = allowing(exact("a.com"))
    below = found(index, "x.y.random")
    assert below is not None
    assert (below.base, below.apex, below.apex_labels) == (ROOT, None, 2)
    assert holds(below, "z.another")
    assert not holds(below, "x.com")
    assert not holds(below, "x.test")
    assert not holds(below, "use-application-dns.net")


def test_below_a_wild_suffix_each_name_is_decided() -> None:
    assert found(allowing(exact("a.com")), "x.y.wild") is None


def test_a_name_with_a_suffix_below_it_is_decided_by_itself() -> None:
    assert found(allowing(exact("q.example")), "co.uk") is None


def test_what_a_deny_names_is_no_tree_and_many_denies_leave_none() -> None:
    one = DenyRule("d", (exact("a.evil.net"),), types=frozenset({TXT}))
    index = allowing(exact("b.net"), denies=(one,))
    below = found(index, "x.good.net")
    assert below is not None
    assert not holds(below, "q.evil.net")
    tree = DenyRule("d", (HostPattern(PatternKind.BELOW, parse("com")),), types=frozenset({TXT}))
    assert found(allowing(exact("b.net"), denies=(tree,)), "x.a.com") is None
    many = DenyRule("d", tuple(exact(f"n{n}.net") for n in range(300)))
    assert found(allowing(exact("b.net"), denies=(many,)), "x.good.net") is None


def test_special_names_the_root_and_links_of_a_chain_are_no_trees() -> None:
    index = index_of(App("me"))
    refused = Decision(Verdict.DENY, Reason.HOST_NOT_LISTED)
    for question in (
        Question(ME, ROOT, A),
        Question(ME, parse("x.test"), A),
        Question(ME, parse("x.net"), A, via=parse("y.net")),
    ):
        assert beneath(index, NOBODY, question, refused) is None


def test_where_lists_cover_the_app_each_name_is_decided() -> None:
    app = App("me")
    assert found(index_rules(Ruleset(1, {"me": app}), NaiveLists(apps=("other",))), "x.a.com")
    assert found(index_rules(Ruleset(1, {"me": app}), NaiveLists("y.a.com")), "x.a.com") is None
