"""The names beside a refused one: the same is decided of each, however the rules are made."""

from hypothesis import given, settings
from hypothesis import strategies as st

from rules.decide import decide
from rules.decision import Decision, Reason, Refuse, Verdict
from rules.facts import UNKNOWN_APP, Evidence, Principal, Question
from rules.match import RuleIndex, index_rules
from rules.name import DomainName, parse
from rules.pattern import HostPattern, PatternKind
from rules.rtype import TXT, A
from rules.ruleset import AllowRule, App, DenyRule, Ruleset
from rules.siblings import Siblings, siblings
from rules.suffix import PublicSuffixes, read_suffixes
from tests.rules.naive_lists import NaiveLists

LIST = """
com
uk
co.uk
*.wild
!a.wild
// ===BEGIN PRIVATE DOMAINS===
b.com
*.c.com
!a.c.com
"""

SUFFIXES = read_suffixes(LIST.splitlines())
NOBODY = read_suffixes([])
ME = Principal("me", (Evidence.LISTENER,))
LABELS = ("a", "b", "c", "co", "x-y", "_1")
TOPS = ("com", "uk", "wild", "test", "net")
MANY = 5000  # more than one table of `rules.match` holds undivided

labels = st.sampled_from(LABELS)
names = st.builds(
    lambda below, top: parse(".".join([*below, top])),
    st.lists(labels, max_size=3),
    st.sampled_from((*TOPS, "use-application-dns.net")),
)
kinds = st.sampled_from((PatternKind.EXACT, PatternKind.CHILD, PatternKind.BELOW))
patterns = st.lists(st.builds(HostPattern, kinds, names), min_size=1, max_size=3).map(tuple)
types = st.sampled_from((frozenset({A}), frozenset({TXT}), frozenset({A, TXT})))
allows = st.builds(AllowRule, st.just("allow"), patterns, st.just(frozenset({443})), types)
denies = st.builds(
    DenyRule,
    st.just("deny"),
    patterns | st.none(),
    ports=st.none() | st.just(frozenset({25})),
    types=st.none() | types,
)
apps = st.builds(
    App,
    st.just("me"),
    refuse=st.sampled_from(Refuse),
    allows=st.lists(allows, max_size=4).map(tuple),
    denies=st.lists(denies, max_size=2).map(tuple),
)
principals = st.sampled_from(
    (ME, Principal("stranger"), Principal(UNKNOWN_APP, (Evidence.TOKEN,)), Principal(UNKNOWN_APP))
)


def index_of(app: App) -> RuleIndex:
    return index_rules(Ruleset(1, {"me": app}))


def found(index: RuleIndex, name: str, suffixes: PublicSuffixes = NOBODY) -> Siblings | None:
    question = Question(ME, parse(name), A)
    return siblings(index, suffixes, question, decide(index, question))


def holds(beside: Siblings, name: str) -> bool:
    return not any(name in some for some in beside.named)


def apex(name: DomainName) -> DomainName:
    """What the SOA of a refusal is said to be of."""
    return SUFFIXES.registrable(name) or name


@settings(max_examples=300)
@given(apps, principals, names, st.sampled_from((A, TXT)))
def test_what_is_said_of_one_name_holds_for_those_beside_it(
    app: App, principal: Principal, name: DomainName, rtype: int
) -> None:
    index = index_of(app)
    question = Question(principal, name, rtype)
    decision = decide(index, question)
    beside = siblings(index, SUFFIXES, question, decision)
    if beside is None:
        return
    assert decision.verdict is Verdict.DENY
    assert decision.rule is None
    for label in LABELS:
        sibling = parse(f"{label}.{beside.parent}")
        if holds(beside, sibling) and holds(beside, name):
            assert decide(index, Question(principal, sibling, rtype)) == decision
            assert apex(sibling) == apex(name) or (apex(sibling), apex(name)) == (sibling, name)


def test_a_name_that_a_rule_names_is_decided_by_itself() -> None:
    hosts = (
        HostPattern(PatternKind.EXACT, parse("b.a.com")),
        HostPattern(PatternKind.CHILD, parse("c.com")),
    )
    rule = AllowRule("r", hosts, frozenset({443}), frozenset({A}))
    beside = found(index_of(App("me", allows=(rule,))), "x.com")
    assert beside is not None
    assert beside.parent == "com"
    assert [name for name in ("a.com", "b.com", "c.com") if holds(beside, name)] == ["b.com"]


def test_a_public_suffix_and_a_special_name_are_no_siblings() -> None:
    beside = found(index_of(App("me")), "x.com", SUFFIXES)
    assert beside is not None
    assert not holds(beside, "b.com")
    beside = found(index_of(App("me")), "x.net", SUFFIXES)
    assert beside is not None
    assert not holds(beside, "use-application-dns.net")


def test_below_a_wildcard_a_special_name_and_the_root_each_is_decided() -> None:
    deny = DenyRule("d", (HostPattern(PatternKind.BELOW, parse("com")),), types=frozenset({TXT}))
    index = index_of(App("me", denies=(deny,)))
    assert found(index, "x.a.com") is None
    assert found(index, "com") is None
    question = Question(ME, parse("x.test"), A)
    refused = Decision(Verdict.DENY, Reason.HOST_NOT_LISTED)
    assert siblings(index, SUFFIXES, question, refused) is None
    assert found(index, "x.net") is not None


def test_what_follows_a_chain_is_decided_by_itself() -> None:
    question = Question(ME, parse("x.net"), A, via=parse("y.net"))
    refused = Decision(Verdict.DENY, Reason.HOST_NOT_LISTED)
    assert siblings(index_of(App("me")), SUFFIXES, question, refused) is None


def test_divided_tables_are_asked_like_others() -> None:
    hosts = tuple(HostPattern(PatternKind.EXACT, parse(f"n{n}.com")) for n in range(MANY))
    rule = AllowRule("r", hosts, frozenset({443}), frozenset({A}))
    beside = found(index_of(App("me", allows=(rule,))), "other.com")
    assert beside is not None
    assert all(not holds(beside, f"n{n}.com") for n in range(MANY))
    assert holds(beside, "another.com")


def test_where_lists_cover_the_app_each_name_is_decided() -> None:
    app = App("me")
    assert found(index_rules(Ruleset(1, {"me": app}), NaiveLists(apps=("other",))), "x.a.com")
    assert found(index_rules(Ruleset(1, {"me": app}), NaiveLists("y.a.com")), "x.a.com") is None
