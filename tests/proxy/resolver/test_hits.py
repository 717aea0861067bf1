"""The hit reader: what it answers is what the pipeline would, and everything is counted."""

from pathlib import Path

import dns.edns
import dns.message
import dns.rcode
import pytest

from proxy.audit_fold import FOLD_S, Fold
from proxy.limits import Limits
from proxy.resolver.hits import KNOWN_OCTETS
from rules.decision import Reason, Verdict
from rules.facts import Evidence, Principal
from rules.match import index_rules
from rules.ruleset import App
from tests.proxy.composed import ME, OTHER, allow, below, ruleset
from tests.proxy.resolver.still import Still, ask, still, under

RULES = ruleset(
    me=App("me", allows=(allow(below("example.net")),)),
    other=App("other", allows=(allow(below("example.net")),)),
)
NAME = "www.example.net"


@pytest.fixture
def it(tmp_path: Path) -> Still:
    made = still(RULES, tmp_path)
    made.know(NAME)
    return made


def with_id(wire: bytes, unique: int) -> bytes:
    return unique.to_bytes(2) + wire[2:]


def counts(it: Still) -> tuple[int, int, int]:
    metrics = it.metrics
    return (
        metrics.dns_queries.value("udp", "answered"),
        metrics.decisions.value("question", Verdict.ALLOW, Reason.RULE),
        metrics.cache.value("hit"),
    )


def lines(it: Still, verdict: Verdict = Verdict.ALLOW) -> list[Fold]:
    return [fold for fold in it.told() if fold.line.verdict is verdict]


def test_the_same_octets_are_answered_as_by_the_pipeline(it: Still) -> None:
    wire = ask("wWw.exAMple.net", edns=True)
    assert it.fast(wire) is None
    said = it.slow(wire)
    again = it.fast(with_id(wire, 7))
    assert again == b"\0\7" + said[2:]
    assert again is not None
    assert str(dns.message.from_wire(again).question[0].name) == "wWw.exAMple.net."


def test_every_repeat_is_counted_before_anybody_looks(it: Still) -> None:
    wire = ask(NAME)
    it.slow(wire)
    for _ in range(41):
        assert it.fast(wire) is not None
    assert counts(it) == (42, 42, 42)
    assert it.metrics.app_decisions.totals()["other"][Verdict.ALLOW] == 42
    assert b'sallyport_dns_queries_total{outcome="answered",transport="udp"} 42' in (
        it.metrics.render()
    )
    assert [fold.count for fold in lines(it)] == [42]


def test_the_line_of_a_second_holds_what_was_repeated_in_it(it: Still) -> None:
    """threats.md, Evidence as a weapon: folding keeps counters exact."""
    wire = ask(NAME)
    it.slow(wire)
    for _ in range(9):
        it.fast(wire)
    it.clock.now += FOLD_S
    assert [fold.count for fold in it.audit._folds.due(it.clock.wall(), 10)] == [10]
    assert it.fast(wire) is None  # its line is closed: the next one opens another
    it.slow(wire)
    assert it.fast(wire) is not None
    assert [fold.count for fold in lines(it)] == [2]
    assert counts(it) == (12, 12, 12)


def test_a_repeat_after_a_second_goes_the_whole_way(it: Still) -> None:
    wire = ask(NAME)
    it.slow(wire)
    it.clock.now += FOLD_S
    assert it.fast(wire) is None
    later = dns.message.from_wire(it.slow(wire))
    assert later.answer[0].ttl == 299


def test_an_answer_is_not_given_after_it_expired(tmp_path: Path) -> None:
    it = still(RULES, tmp_path)
    it.know("brief.example.net", ttl=1)
    it.clock.now += 0.5
    wire = ask("brief.example.net")
    it.slow(wire)
    it.clock.now += 0.4
    assert it.fast(wire) is not None
    it.clock.now += 0.1
    assert it.fast(wire) is None


def test_a_new_generation_is_asked_anew(it: Still) -> None:
    """threats.md, Order of checks: a cached grant that outlives the rule."""
    wire = ask(NAME)
    it.slow(wire)
    it.fast(wire)
    it.authorizer.use(index_rules(under(2, ruleset(me=App("me")))))
    assert it.fast(wire) is None
    assert dns.message.from_wire(it.slow(wire)).rcode() == dns.rcode.NXDOMAIN
    assert counts(it)[0] == 2


def test_another_app_and_other_evidence_are_asked_for_themselves(it: Still) -> None:
    """threats.md, Order of checks: another app's cached grant."""
    wire = ask(NAME)
    it.slow(wire)
    assert it.fast(wire, OTHER) is None
    assert it.fast(wire, Principal("me", (Evidence.PROCESS,))) is None
    assert it.fast(wire, ME, "tcp") is None
    assert it.resolver.hits.table(None, "udp").answer(wire, it.clock.now) is None
    assert it.fast(wire) is not None


def test_without_room_in_audit_nothing_is_answered(it: Still) -> None:
    """threats.md, Evidence as a weapon: what cannot be recorded is not allowed."""
    wire = ask(NAME)
    it.slow(wire)
    it.audit._writer.problem = "disk full"
    assert it.fast(wire) is None
    assert dns.message.from_wire(it.slow(wire)).rcode() == dns.rcode.SERVFAIL
    assert it.fast(wire) is None
    it.audit._writer.problem = None
    it.slow(wire)
    assert it.fast(wire) is not None


def test_an_app_over_its_quota_is_not_answered(it: Still) -> None:
    wire = ask(NAME)
    it.slow(wire)
    it.audit._folds._apps["me"].left_octets = 0.0
    assert it.fast(wire) is None
    assert dns.message.from_wire(it.slow(wire)).rcode() == dns.rcode.SERVFAIL


def test_spellings_of_one_name_are_bounded(tmp_path: Path) -> None:
    """threats.md, Order of checks: exact-byte keys make 2^n entries of one allowed name."""
    it = still(RULES, tmp_path, Limits(known_queries=2))
    it.know(NAME)
    spellings = [ask(spelt) for spelt in ("www.example.net", "Www.example.net", "wWw.example.net")]
    for wire in spellings:
        it.slow(wire)
        it.fast(wire)
    assert [it.fast(wire) is not None for wire in spellings] == [False, True, True]
    assert it.metrics.bounds.value("known_queries") == 1
    assert counts(it)[0] == 8
    assert [fold.count for fold in lines(it)] == [8]


def test_what_is_renewed_stays_when_room_is_made(tmp_path: Path) -> None:
    it = still(RULES, tmp_path, Limits(known_queries=2))
    for name in ("a.example.net", "b.example.net", "c.example.net"):
        it.know(name)
    first, second, third = (ask(f"{label}.example.net") for label in "abc")
    it.slow(first)
    it.slow(second)
    it.slow(first)
    it.slow(third)
    assert [it.fast(wire) is not None for wire in (first, second, third)] == [True, False, True]


def test_cookies_and_long_queries_are_not_kept(it: Still) -> None:
    """threats.md, Order of checks: exact-byte keys: cookies, options and padding."""
    cookie = dns.message.make_query(NAME, "A", use_edns=0)
    cookie.use_edns(0, options=[dns.edns.GenericOption(dns.edns.OptionType.COOKIE, b"12345678")])
    padded = ask(NAME, pad=KNOWN_OCTETS + 100)
    for wire in (cookie.to_wire(), padded):
        it.slow(wire)
        assert it.fast(wire) is None
    assert not any(fold.repeats for fold in it.told())


def test_principals_are_bounded(tmp_path: Path) -> None:
    it = still(RULES, tmp_path, Limits(apps_remembered=2))
    wire = ask("nobody.example.org")
    for app in ("a", "b", "c"):
        it.slow(wire, Principal(app))
        it.slow(wire, Principal(app))
    assert [it.fast(wire, Principal(app)) is not None for app in ("b", "c")] == [True, True]
    assert it.metrics.bounds.value("apps_remembered") >= 1
    assert it.fast(wire, Principal("a")) is None


def test_a_refusal_that_repeats_has_the_id_of_its_line(it: Still) -> None:
    wire = ask("nobody.example.org", edns=True)
    it.slow(wire)
    assert it.fast(wire) is None  # seen once: it may never come again
    said = it.slow(wire)
    assert it.fast(wire) == said
    assert it.metrics.dns_queries.value("udp", "refused") == 3
    (line,) = lines(it, Verdict.DENY)
    assert line.count == 3
    assert line.id.encode() in said


def test_a_hit_says_for_how_long_it_may_be_kept(it: Still) -> None:
    wire = ask(NAME)
    it.clock.now += 10
    it.slow(wire, transport="doh")
    hit = it.resolver.hits.find(ME, "doh", wire, it.clock.now)
    assert hit is not None
    assert hit.ttl_s == 290
    assert b"\0\0" + hit.reply == it.slow(with_id(wire, 0), transport="doh")
    assert it.resolver.hits.find(ME, "doh", ask("else.example.net"), it.clock.now) is None
    assert it.metrics.dns_queries.value("doh", "answered") == 3


def test_a_failure_is_never_repeated(it: Still) -> None:
    wire = ask(NAME)
    it.slow(wire)
    it.audit._folds._apps["me"].left_octets = 0.0
    it.slow(wire)
    it.slow(wire)
    assert not any(fold.repeats for fold in it.told())
