"""A flood whose parents change: each is answered as the pipeline would answer it, and counted."""

import tempfile
from pathlib import Path

import dns.message
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.limits import Limits
from rules.decision import Reason, Verdict
from rules.facts import Principal
from rules.pattern import HostPattern, PatternKind
from rules.ruleset import App, DenyRule
from tests.proxy.composed import ME, allow, exact, ruleset
from tests.proxy.resolver.still import Still, ask, still
from tests.proxy.resolver.test_refused import FLOOD, LIMITS, NOBODY, UNPROVEN, app, apps, counts

LABELS = ("a", "b", "c", "x-1", "_sip", "COM", "com", "net", "test", "www", "random")


def flooded(it: Still, base: str, principal: Principal = ME, *, edns: bool = False) -> None:
    """Ask, below a parent that is another each time, until trees are refused by their octets."""
    for n in range(2 + FLOOD):
        it.slow(ask(f"x.first{n}{base}", edns=edns), principal)


@pytest.fixture
def it(tmp_path: Path) -> Still:
    return still(ruleset(me=app()), tmp_path, LIMITS)


@pytest.mark.parametrize("edns", [False, True])
@pytest.mark.parametrize(
    ("base", "name"),
    [
        (".evil.net", "x.nExt.evil.net"),
        (".com", "q.r.s.another.com"),
        (".com", "bare.com"),
        ("", "x.y.rAndom"),
        ("", "y.other"),
        ("", "single"),
        (".b.example", "q.next.a.example"),
    ],
)
def test_a_name_of_another_tree_is_refused_in_the_same_words(
    it: Still, base: str, name: str, *, edns: bool
) -> None:
    flooded(it, base, edns=edns)
    wire = ask(name, edns=edns)
    said = it.fast(wire)
    assert said is not None
    assert said == it.slow(wire)
    assert str(dns.message.from_wire(said).question[0].name) == f"{name}."


def test_every_one_is_counted_before_anybody_looks(it: Still) -> None:
    """threats.md, Evidence as a weapon: folding keeps counters exact."""
    flooded(it, ".evil.net")
    for n in range(95):
        assert it.fast(ask(f"x.u{n}.evil.net")) is not None
    assert counts(it) == (100, 100, 98)
    assert sum(fold.count for fold in it.told()) == 100
    assert it.metrics.decisions.value("question", Verdict.DENY, Reason.HOST_NOT_LISTED) == 100


def test_names_that_a_rule_or_the_suffix_list_touches_are_read_whole(it: Still) -> None:
    """threats.md, Order of checks: policy before anything that is kept."""
    flooded(it, ".com")
    assert it.fast(ask("x.y.com")) is not None
    for name in ("a.com", "x.a.com", "b.com", "x.b.com"):
        assert it.fast(ask(name)) is None
    flooded(it, "")
    for name in ("q.w.localhost", "com", "r.com.test", "x.y.local"):
        assert it.fast(ask(name)) is None


def test_after_its_second_a_tree_is_over(it: Still) -> None:
    flooded(it, ".evil.net")
    it.clock.now += 1
    assert it.fast(ask("x.y.evil.net")) is None


def test_many_denies_leave_no_tree(tmp_path: Path) -> None:
    deny = DenyRule("d", tuple(exact(f"n{n}.org") for n in range(40)))
    it = still(ruleset(me=app(denies=(deny,))), tmp_path, LIMITS)
    flooded(it, ".evil.net")
    assert it.fast(ask("x.y.evil.net")) is None


@pytest.mark.parametrize(
    "wire",
    [
        ask("q.w.evil.net", "AAAA"),
        ask("q.w.evil.net", edns=True),
        ask("q.w.evil.net")[:-1],
        ask("q.w.evil.net") + b"\0",
        ask("q.w.evil.net")[:12],
        ask("q.w.evil.net")[:18],
        b"",
        ask("-q.w.evil.net"),
        ask("q.w-.evil.net"),
        ask("q\\.w.x.evil.net"),
        ask("q\\000.w.evil.net"),
        ask("q\\255.w.evil.net"),
        ask("q.w.evil.net").replace(b"\1q", b"\xc1q"),
        ask("q.w.evil.net").replace(b"\1q", b"\x40" + b"q" * 0x40),
        ask(f"{'q.' * 20}evil.net"),
        ask(f"{('q' * 60 + '.') * 3}evil.net").replace(b"\x3c" + b"q" * 60, b"\3" + b"q" * 3, 0)[
            :12
        ]
        + b"".join(b"\x3f" + b"q" * 63 for _ in range(4))
        + ask("evil.net")[12:],
    ],
)
def test_what_is_not_exactly_a_name_of_a_tree_is_read_whole(it: Still, wire: bytes) -> None:
    """threats.md, One name, many spellings: labels with a dot or a NUL, 63/255 limits, pointers."""
    flooded(it, ".net")
    assert it.fast(ask("q.w.evil.net")) is not None
    assert it.fast(wire) is None


def test_what_would_not_fit_is_read_whole(tmp_path: Path) -> None:
    limits = Limits(refusals_a_second=2, refusal_samples=2, dns_udp_octets=140)
    it = still(ruleset(me=app()), tmp_path, limits)
    flooded(it, ".net")
    assert it.fast(ask("x.y.net")) is not None
    assert it.fast(ask(f"{'x' * 60}.y.net")) is None


def test_a_reply_without_its_text_or_with_padding_is_no_pattern(tmp_path: Path) -> None:
    limits = Limits(refusals_a_second=2, refusal_samples=2, dns_udp_octets=160)
    it = still(ruleset(me=app()), tmp_path, limits)
    flooded(it, ".net", edns=True)
    assert it.fast(ask("x.y.net", edns=True)) is None
    for n in range(8):
        it.slow(ask(f"x.n{n}.net", pad=128), transport="dot")
    assert it.fast(ask("x.y.net", pad=128), transport="dot") is None


def test_trees_are_bounded(tmp_path: Path) -> None:
    limits = Limits(refusals_a_second=2, refusal_samples=2, known_queries=1)
    hosts = tuple(exact(f"a.{label}.net") for label in "pqr")
    it = still(ruleset(me=App("me", allows=(allow(*hosts),))), tmp_path, limits)
    for label in "pqr":
        flooded(it, f".{label}.net")
    assert it.fast(ask("x.y.r.net")) is not None
    assert it.fast(ask("x.y.q.net")) is None
    assert it.metrics.bounds.value("known_queries") > 0


children = st.builds(
    HostPattern,
    st.sampled_from((PatternKind.EXACT, PatternKind.CHILD, PatternKind.BELOW)),
    st.sampled_from(("com", "net", "a.net", "b.a.net")).map(lambda name: exact(name).base),
)
more = st.builds(
    App,
    st.just("me"),
    allows=st.lists(st.builds(allow, children), max_size=2).map(tuple),
    denies=st.lists(st.builds(lambda host: DenyRule("d", (host,)), children), max_size=1).map(
        tuple
    ),
)


@settings(max_examples=120, deadline=None)
@given(
    apps | more,
    st.sampled_from((ME, NOBODY, UNPROVEN)),
    st.sampled_from(("", ".com", ".net", ".a.net", ".b.com", ".c.net", ".refused.example")),
    st.booleans(),
    st.sampled_from(("A", "AAAA", "TXT")),
    st.lists(st.lists(st.sampled_from(LABELS), min_size=1, max_size=3), max_size=20),
)
def test_whatever_the_rules_the_octets_are_those_of_the_pipeline(
    rules: App, principal: Principal, base: str, edns: bool, rtype: str, asked: list[list[str]]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        it = still(ruleset(me=rules), Path(folder), LIMITS)
        for n in range(2 + FLOOD):
            wire = ask(f"x.f{n}{base}", rtype, edns=edns)
            it.resolver.serve(wire, it.asker(principal))
        for labels in asked:
            wire = ask(".".join(labels) + base, rtype, edns=edns)
            said = it.fast(wire, principal)
            if said is not None:
                assert said == it.slow(wire, principal)
