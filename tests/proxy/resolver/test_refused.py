"""A flood of refused names: each is answered as the pipeline would answer it, and counted."""

import tempfile
from pathlib import Path

import dns.flags
import dns.message
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.audit_fold import Width
from proxy.limits import Limits
from rules.decision import Reason, Refuse, Verdict
from rules.facts import UNKNOWN_APP, Evidence, Principal
from rules.match import index_rules
from rules.pattern import HostPattern, PatternKind
from rules.ruleset import App, DenyRule
from tests.proxy.composed import ME, allow, below, exact, ruleset
from tests.proxy.resolver.still import Still, ask, still, under

LIMITS = Limits(refusals_a_second=2, refusal_samples=2)
FLOOD = 3  # refusals until the samples of the flood's line are full: its first one is a sample
NOBODY = Principal("stranger")
UNPROVEN = Principal(UNKNOWN_APP, (Evidence.TOKEN,))


def flooded(it: Still, parent: str, principal: Principal = ME, *, edns: bool = False) -> bytes:
    """Ask until the siblings of what was asked are refused by their octets; return the last."""
    wires = [ask(f"first{n}.{parent}", edns=edns) for n in range(2 + FLOOD)]
    return [it.slow(wire, principal) for wire in wires][-1]


def app(**more: object) -> App:
    return App("me", allows=(allow(exact("a.com"), below("b.com")),), **more)  # type: ignore[arg-type] # fields of App


@pytest.fixture
def it(tmp_path: Path) -> Still:
    return still(ruleset(me=app()), tmp_path, LIMITS)


def counts(it: Still) -> tuple[int, int, int]:
    metrics = it.metrics
    return (
        metrics.dns_queries.value("udp", "refused"),
        metrics.decisions.value("question", Verdict.DENY, Reason.HOST_NOT_LISTED),
        metrics.bounds.value("refusals_a_second"),
    )


@pytest.mark.parametrize("edns", [False, True])
def test_a_sibling_is_refused_in_the_same_words(it: Still, *, edns: bool) -> None:
    flooded(it, "refused.example", edns=edns)
    wire = ask("nExt-1_x.refused.example", edns=edns)
    said = it.fast(wire)
    assert said is not None
    assert said == it.slow(wire)
    message = dns.message.from_wire(said)
    assert str(message.question[0].name) == "nExt-1_x.refused.example."
    assert message.id == int.from_bytes(wire[:2])


def test_every_one_is_counted_before_anybody_looks(it: Still) -> None:
    """threats.md, Evidence as a weapon: folding keeps counters exact."""
    flooded(it, "refused.example")
    for n in range(95):
        assert it.fast(ask(f"u{n}.refused.example")) is not None
    assert counts(it) == (100, 100, 98)
    folds = it.told()
    assert sum(fold.count for fold in folds) == 100
    assert max(fold.count for fold in folds) == 98


def test_after_its_second_each_refusal_is_told_again(it: Still) -> None:
    flooded(it, "refused.example")
    it.clock.now += 1
    wire = ask("later.refused.example")
    assert it.fast(wire) is None
    assert dns.message.from_wire(it.slow(wire)).rcode() == dns.rcode.NXDOMAIN
    assert it.fast(ask("still.refused.example")) is None


def test_below_the_rate_each_refusal_has_a_line_and_an_id(tmp_path: Path) -> None:
    it = still(ruleset(me=app()), tmp_path)
    for n in range(100):
        wire = ask(f"u{n}.refused.example")
        assert it.fast(wire) is None
        it.slow(wire)
    assert len({fold.id for fold in it.told()}) == 100


def test_a_flood_beyond_the_quota_is_refused_by_its_octets_too(it: Still) -> None:
    """threats.md, Evidence as a weapon: an app over its quota is slowed, and slows nobody else."""
    flooded(it, "refused.example")
    it.clock.now += 1
    it.told()
    it.audit._folds._apps["me"].left_octets = 0.0
    flooded(it, "refused.example")
    wire = ask("next.refused.example")
    assert it.fast(wire) == it.slow(wire)
    (fold,) = it.told()
    assert fold.width is Width.OVER_QUOTA
    assert fold.count == 2 + FLOOD + 2


def test_the_line_keeps_its_samples(it: Still) -> None:
    flooded(it, "refused.example")
    it.fast(ask("next.refused.example"))
    (line,) = [fold for fold in it.told() if fold.samples]
    assert len(line.samples or ()) == LIMITS.refusal_samples


def test_a_new_generation_decides_anew(it: Still) -> None:
    flooded(it, "b.net")
    it.authorizer.use(index_rules(under(2, ruleset(me=App("me", allows=(allow(below("b.net")),))))))
    assert it.fast(ask("x.b.net")) is None


def test_names_of_rules_are_never_refused_by_their_octets(it: Still) -> None:
    """threats.md, Order of checks: policy before anything that is kept."""
    flooded(it, "com")
    assert it.fast(ask("x.com")) is not None
    assert it.fast(ask("A.com")) is None
    assert it.fast(ask("b.com")) is None
    assert it.fast(ask("x.b.com")) is None
    assert it.fast(ask("x.a.com")) is None


def test_below_a_deny_each_name_is_decided(tmp_path: Path) -> None:
    deny = DenyRule("d", (HostPattern(PatternKind.BELOW, below("bad.org").base),))
    it = still(ruleset(me=app(denies=(deny,))), tmp_path, LIMITS)
    flooded(it, "bad.org")
    assert it.fast(ask("x.bad.org")) is None


@pytest.mark.parametrize(
    "wire",
    [
        ask("x.refused.example", "AAAA"),
        ask("x.refused.example", edns=True),
        ask("x.refused.example")[:-1],
        ask("x.refused.example") + b"\0",
        ask("x.refused.example")[:12],
        ask("x.refused.example")[:5],
        b"",
        ask("-x.refused.example"),
        ask("x-.refused.example"),
        ask("x\\.y.refused.example"),
        ask("x\\000.refused.example"),
        ask("x\\255.refused.example"),
        ask("x.refused.example").replace(b"\1x", b"\xc1" + b"x" * 0xC1),
        ask("x.refused.example").replace(b"\1x", b"\x40" + b"x" * 0x40),
        ask("x.refused.example").replace(b"\1x", b"\0"),
    ],
)
def test_what_is_not_exactly_a_sibling_is_read_whole(it: Still, wire: bytes) -> None:
    """threats.md, One name, many spellings: labels with a dot or a NUL, 63 octets, pointers."""
    flooded(it, "refused.example")
    assert it.fast(ask("x.refused.example")) is not None
    assert it.fast(wire) is None


def test_a_name_that_is_too_long_is_read_whole(it: Still) -> None:
    """threats.md, One name, many spellings: 63/255 limits."""
    parent = ".".join(["p" * 60] * 3)
    flooded(it, parent)
    assert it.fast(ask(f"{'x' * 63}.{parent}")) is not None
    longer = f"{'p' * 60}.{parent}"
    it.slow(ask(f"x.{longer}"))
    assert it.fast(ask(f"{'x' * 9}.{longer}")) is not None
    wire = ask(f"x.{longer}").replace(b"\1x", b"\x0a" + b"x" * 10)  # 254 characters
    assert it.fast(wire) is None


def test_a_refusal_without_room_for_its_text_is_no_pattern(tmp_path: Path) -> None:
    limits = Limits(refusals_a_second=2, refusal_samples=2, dns_udp_octets=160)
    it = still(ruleset(me=app()), tmp_path, limits)
    flooded(it, "refused.example", edns=True)
    assert it.fast(ask("x.refused.example", edns=True)) is None


def test_what_would_not_fit_is_read_whole(tmp_path: Path) -> None:
    limits = Limits(refusals_a_second=2, refusal_samples=2, dns_udp_octets=140)
    it = still(ruleset(me=app()), tmp_path, limits)
    flooded(it, "refused.example")
    assert it.fast(ask("x.refused.example")) is not None
    wire = ask(f"{'x' * 60}.refused.example")
    assert it.fast(wire) is None
    assert dns.message.from_wire(it.slow(wire)).flags & dns.flags.TC


def test_padded_queries_are_padded_one_by_one(it: Still) -> None:
    wires = [ask(f"n{n}.refused.example", pad=128) for n in range(8)]
    for wire in wires:
        it.slow(wire, transport="dot")
    assert it.fast(wires[-1], transport="dot") is None
    assert len(it.slow(wires[-1], transport="dot")) == 468


def test_floods_are_bounded(tmp_path: Path) -> None:
    limits = Limits(refusals_a_second=2, refusal_samples=2, known_queries=2)
    many = DenyRule("d", tuple(exact(f"n{n}.org") for n in range(40)))  # so that no tree is found
    it = still(ruleset(me=app(denies=(many,))), tmp_path, limits)
    flooded(it, "a.example")
    for parent in ("b.example", "c.example"):
        it.slow(ask(f"x.{parent}"))
    assert it.metrics.bounds.value("known_queries") == 1
    fits = [it.fast(ask(f"z.{label}.example")) is not None for label in "abc"]
    assert fits == [False, True, True]


LABELS = ("a", "b", "c", "www", "x-1", "_sip", "COM")
PARENTS = ("com", "net", "b.com", "a.com", "refused.example", "c.net", "local", "a.test")
patterns = st.builds(
    HostPattern,
    st.sampled_from((PatternKind.EXACT, PatternKind.CHILD, PatternKind.BELOW)),
    st.builds(
        lambda label, parent: exact(f"{label}.{parent}".lower()).base,
        st.sampled_from(LABELS),
        st.sampled_from(PARENTS),
    ),
)
hosts = st.lists(patterns, min_size=1, max_size=3)
apps = st.builds(
    App,
    st.just("me"),
    refuse=st.sampled_from(Refuse),
    allows=st.lists(st.builds(lambda some: allow(*some), hosts), max_size=2).map(tuple),
    denies=st.lists(st.builds(lambda some: DenyRule("d", tuple(some)), hosts), max_size=1).map(
        tuple
    ),
)


@settings(max_examples=120, deadline=None)
@given(
    apps,
    st.sampled_from((ME, NOBODY, UNPROVEN)),
    st.sampled_from(PARENTS),
    st.booleans(),
    st.sampled_from(("A", "AAAA", "TXT")),
)
def test_whatever_the_rules_the_octets_are_those_of_the_pipeline(
    rules: App, principal: Principal, parent: str, edns: bool, rtype: str
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        it = still(ruleset(me=rules), Path(folder), LIMITS)
        for n in range(2 + FLOOD):
            it.resolver.serve(ask(f"f{n}.{parent}", rtype, edns=edns), it.asker(principal))
        for label in LABELS:
            wire = ask(f"{label}.{parent}", rtype, edns=edns)
            said = it.fast(wire, principal)
            if said is not None:
                assert said == it.slow(wire, principal)
