"""One query from its octets to its reply: the order of the pipeline, and what never leaves."""

import asyncio
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import dns.edns
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import pytest

from proxy.limits import Limits
from proxy.resolver.query import Asker, Miss
from rules.facts import Principal
from rules.match import index_rules
from rules.ruleset import App, DenyRule
from tests.proxy.composed import ME, OTHER, Composed, allow, below, composed, exact, ruleset
from tests.proxy.resolver.hostile import Hostile, answer, hostile

PUBLIC = "93.184.215.14"
NOWHERE = "udp://127.0.0.1:9"


def public(query: bytes) -> Iterable[bytes]:
    return (answer(query, PUBLIC),)


def asker(principal: Principal | None = ME) -> Asker:
    return Asker(principal, "udp", 1232, ("127.0.0.1", 40000), "127.0.0.1:5300")


def query(name: str, rtype: str = "A", *, edns: bool = True) -> bytes:
    return dns.message.make_query(name, rtype, use_edns=edns).to_wire()


async def ask(
    parts: Composed, wire: bytes, principal: Principal | None = ME
) -> dns.message.Message:
    reply = parts.resolver.serve(wire, asker(principal))
    if isinstance(reply, Miss):
        reply = await parts.resolver.finish(reply)
    assert reply is not None
    return dns.message.from_wire(reply)


def errors(reply: dns.message.Message) -> list[tuple[int, str]]:
    options = [each for each in reply.options if isinstance(each, dns.edns.EDEOption)]
    return [(int(each.code), each.text or "") for each in options]


RULES = ruleset(
    me=App("me", allows=(allow(exact("example.com"), below("example.net")),)),
    other=App("other"),
)


async def test_an_allowed_name_is_answered(tmp_path: Path) -> None:
    async with hostile(public) as upstream, composed(RULES, upstream.url("udp"), tmp_path) as parts:
        reply = await ask(parts, query("example.com"))
    assert [str(item) for rrset in reply.answer for item in rrset] == [PUBLIC]
    assert reply.flags & dns.flags.RA


async def test_a_second_question_is_answered_from_the_cache_of_the_app(tmp_path: Path) -> None:
    async with hostile(public) as upstream, composed(RULES, upstream.url("udp"), tmp_path) as parts:
        await ask(parts, query("example.com"))
        reply = await ask(parts, query("EXAMPLE.com"))
        asked = len(upstream.queries)
    assert asked == 1
    assert [str(item) for rrset in reply.answer for item in rrset] == [PUBLIC]


async def test_a_refused_name_never_leaves_the_host(tmp_path: Path) -> None:
    """threats.md, The resolver as a channel: forwarding a denied name at all."""
    async with hostile(public) as upstream, composed(RULES, upstream.url("udp"), tmp_path) as parts:
        reply = await ask(parts, query("secret.example.org"))
        assert upstream.queries == []
    assert reply.rcode() == dns.rcode.NXDOMAIN
    ((code, text),) = errors(reply)
    assert code == 15
    assert text.startswith("sallyport host-not-listed ")


async def test_policy_comes_before_the_cache(tmp_path: Path) -> None:
    """threats.md, Order of checks: policy after cache; another app's cached grant."""
    async with hostile(public) as upstream, composed(RULES, upstream.url("udp"), tmp_path) as parts:
        await ask(parts, query("example.com"))
        reply = await ask(parts, query("example.com"), OTHER)
    assert reply.rcode() == dns.rcode.NXDOMAIN
    assert not reply.answer


@pytest.mark.parametrize("turns", [0, 1])
async def test_what_new_rules_refuse_does_not_leave_the_host_any_more(
    tmp_path: Path, turns: int
) -> None:
    """threats.md, Order of checks: decided under generation N, asked under that of N+1."""
    async with hostile(public) as upstream, composed(RULES, upstream.url("udp"), tmp_path) as parts:
        miss = parts.resolver.serve(query("example.com"), asker())
        assert isinstance(miss, Miss)
        loop = asyncio.get_running_loop()
        change = partial(parts.authorizer.use, index_rules(ruleset(2, me=App("me"))))
        if turns == 0:
            change()
        finishing = asyncio.create_task(parts.resolver.finish(miss))
        for _ in range(turns):  # once: between the task of the reply and that of the look-up
            loop.call_soon(change)
        octets = await finishing
        assert octets is not None
        reply = dns.message.from_wire(octets)
        assert upstream.queries == []
        lines = await parts.lines()
    assert reply.rcode() == dns.rcode.NXDOMAIN
    assert [(line["reason"], line["count"]) for line in lines] == [("host-not-listed", 1)]


async def test_a_refused_type_of_an_allowed_name_is_nodata(tmp_path: Path) -> None:
    """threats.md, Order of checks: refused TXT answered with NXDOMAIN kills the allowed A."""
    async with composed(RULES, NOWHERE, tmp_path) as parts:
        reply = await ask(parts, query("example.com", "TXT"))
    assert reply.rcode() == dns.rcode.NOERROR
    assert not reply.answer
    assert errors(reply)[0][1].startswith("sallyport type-not-allowed ")


async def test_an_ancestor_of_an_allowed_name_is_nodata(tmp_path: Path) -> None:
    async with composed(RULES, NOWHERE, tmp_path) as parts:
        reply = await ask(parts, query("example.net"))
    assert reply.rcode() == dns.rcode.NOERROR


async def test_an_answer_that_turns_inwards_is_refused(tmp_path: Path) -> None:
    """threats.md, Order of checks: allow list short-circuits the answer checks."""

    def inward(data: bytes) -> Iterable[bytes]:
        return (answer(data, "169.254.169.254"),)

    async with hostile(inward) as upstream, composed(RULES, upstream.url("udp"), tmp_path) as parts:
        reply = await ask(parts, query("example.com"))
        (line,) = await parts.lines()
    assert reply.rcode() == dns.rcode.NOERROR
    assert not reply.answer
    assert errors(reply)[0][1].startswith("sallyport address-not-allowed ")
    assert line["reason"] == "address-not-allowed"
    assert "169.254.169.254" in str(line["walk"])


async def test_a_malformed_query_gets_formerr(tmp_path: Path) -> None:
    async with composed(RULES, NOWHERE, tmp_path) as parts:
        reply = await ask(parts, query("example.com", edns=False) + b"trailing")
        (line,) = await parts.lines()
    assert reply.rcode() == dns.rcode.FORMERR
    assert line["reason"] == "request-malformed"


async def test_a_name_outside_the_alphabet_is_malformed(tmp_path: Path) -> None:
    """threats.md, One name, many spellings: a label that contains a dot or a NUL byte."""
    wire = query("example.com").replace(b"\x07example", b"\x07exam\x00le")
    async with composed(RULES, NOWHERE, tmp_path) as parts:
        reply = await ask(parts, wire)
        (line,) = await parts.lines()
    assert reply.rcode() == dns.rcode.FORMERR
    assert line["reason"] == "name-malformed"
    assert errors(reply)[0][1].startswith(f"sallyport name-malformed {line['id']} ")


async def test_what_is_no_query_gets_no_reply(tmp_path: Path) -> None:
    async with composed(RULES, NOWHERE, tmp_path) as parts:
        assert parts.resolver.serve(b"short", asker()) is None


async def test_without_a_principal_the_answer_is_truncated(tmp_path: Path) -> None:
    """threats.md, Identity: UDP has no SO_PEERCRED; TC=1 for process evidence."""
    async with composed(RULES, NOWHERE, tmp_path) as parts:
        reply = await ask(parts, query("example.com"), None)
    assert reply.flags & dns.flags.TC
    assert not reply.answer


async def test_special_use_names_are_answered_here(tmp_path: Path) -> None:
    async with composed(RULES, NOWHERE, tmp_path) as parts:
        loopback = await ask(parts, query("localhost"))
        canary = await ask(parts, query("use-application-dns.net"))
        designated = await ask(parts, query("_dns.resolver.arpa", "SVCB"))
    assert str(loopback.answer[0][0]) == "127.0.0.1"
    assert canary.rcode() == dns.rcode.NXDOMAIN
    assert (designated.rcode(), designated.answer) == (dns.rcode.NOERROR, [])


async def test_any_is_answered_with_hinfo_and_asked_of_nobody(tmp_path: Path) -> None:
    rules = ruleset(
        me=App("me", allows=(allow(exact("example.com")).__class__(
            "any", (exact("example.com"),), frozenset({443}), frozenset({255})),))
    )  # fmt: skip
    async with composed(rules, NOWHERE, tmp_path) as parts:
        reply = await ask(parts, query("example.com", "ANY"))
    assert reply.answer[0].rdtype == dns.rdatatype.HINFO


async def test_why_tells_the_asker_its_own_last_refusal(tmp_path: Path) -> None:
    async with composed(RULES, NOWHERE, tmp_path) as parts:
        refused = await ask(parts, query("example.org"))
        told = await ask(parts, query("example.org._why.sallyport.internal", "TXT"))
        others = await ask(parts, query("example.org._why.sallyport.internal", "TXT"), OTHER)
    unique = errors(refused)[0][1].split()[2]
    assert unique in str(told.answer[0][0])
    assert not others.answer


async def test_a_dead_upstream_is_servfail_with_its_reason(tmp_path: Path) -> None:
    limits = Limits(upstream_timeout_s=0.3, upstream_try_s=0.3)
    async with hostile() as upstream, composed(
        RULES, upstream.url("udp"), tmp_path, limits
    ) as parts:  # fmt: skip
        reply = await ask(parts, query("example.com"))
    assert reply.rcode() == dns.rcode.SERVFAIL
    assert errors(reply)[0][0] in (22, 23)


async def test_shedding_is_servfail_and_counted(tmp_path: Path) -> None:
    async with composed(RULES, NOWHERE, tmp_path) as parts:
        miss = parts.resolver.serve(query("example.com"), asker())
        assert isinstance(miss, Miss)
        reply = dns.message.from_wire(parts.resolver.shed(miss, "dns_udp_in_flight"))
        assert parts.metrics.bounds.value("dns_udp_in_flight") == 1
    assert reply.rcode() == dns.rcode.SERVFAIL
    assert errors(reply)[0][1].startswith("sallyport capacity ")


async def test_an_audit_that_cannot_be_written_refuses_what_is_allowed(tmp_path: Path) -> None:
    async with composed(RULES, NOWHERE, tmp_path) as parts:
        await parts.audit.close()
        reply = await ask(parts, query("example.com"))
    assert reply.rcode() == dns.rcode.SERVFAIL
    assert errors(reply)[0][1].startswith("sallyport audit-unavailable ")


async def test_the_question_reaches_upstream_without_the_clients_octets(tmp_path: Path) -> None:
    """threats.md, The resolver as a channel: EDNS options, case bits, ids, trailing bytes."""
    message = dns.message.make_query("ExAmPlE.com", "A", use_edns=0)
    message.use_edns(0, options=[dns.edns.GenericOption("65001", b"smuggled-payload")])
    async with hostile(public) as upstream, composed(RULES, upstream.url("udp"), tmp_path) as parts:
        await ask(parts, message.to_wire())
        seen = asked(upstream)
    assert b"smuggled-payload" not in seen
    assert seen[:2] != message.to_wire()[:2] or seen != message.to_wire()


def asked(upstream: Hostile) -> bytes:
    (only,) = upstream.queries
    return only


async def test_a_deny_rule_wins_over_the_wildcard(tmp_path: Path) -> None:
    denied = App(
        "me",
        allows=(allow(below("example.net")),),
        denies=(DenyRule("no", (exact("bad.example.net"), below("bad.example.net")), text="bad"),),
    )
    async with composed(ruleset(me=denied), NOWHERE, tmp_path) as parts:
        reply = await ask(parts, query("x.bad.example.net"))
    assert reply.rcode() == dns.rcode.NXDOMAIN
    assert "bad" in errors(reply)[0][1]


@pytest.mark.parametrize("rtype", ["TXT", "NULL", "KEY", "TYPE65280", "SRV", "PTR", "ANY"])
async def test_no_type_of_a_refused_name_leaves(tmp_path: Path, rtype: str) -> None:
    """threats.md, The resolver as a channel: TXT, NULL, KEY, private types."""
    async with hostile(public) as upstream, composed(RULES, upstream.url("udp"), tmp_path) as parts:
        await ask(parts, query("4d2.example.org", rtype))
        assert upstream.queries == []


async def test_a_bug_of_ours_is_answered_and_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An exception ends one query with `internal-error`, never the plane."""

    def broken(*_: object, **__: object) -> str:
        raise ArithmeticError("a bug")

    async with hostile(public) as upstream, composed(RULES, upstream.url("udp"), tmp_path) as parts:
        monkeypatch.setattr(parts.authorizer, "record", broken)
        at_once = await ask(parts, query("denied.example"))
        after_a_miss = await ask(parts, query("example.com"))
    for reply in (at_once, after_a_miss):
        assert reply.rcode() == dns.rcode.SERVFAIL
        ((_, text),) = errors(reply)
        assert text.startswith("sallyport internal-error ")
        assert text.split()[2] in caplog.text
    assert "ArithmeticError: a bug" in caplog.text
