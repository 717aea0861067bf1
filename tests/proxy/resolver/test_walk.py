"""What an upstream answers reaches the agent only as far as the rules allow it.

The rules here are the real ones: `rules.decide` judges every target and address.
"""

from ipaddress import IPv6Network

import dns.rdata
import pytest
from msgspec.structs import replace

from proxy.limits import Limits
from proxy.resolver.answer import Rcode, Record, soa
from proxy.resolver.response import Response, Soa
from proxy.resolver.walk import Walked, walk
from proxy.wire.question import write_name
from rules import rtype as rr
from rules.address import parse_address, parse_network
from rules.decide import decide
from rules.decision import Decision, Reason, Refuse, Verdict
from rules.facts import Endpoint, Facts, Principal, Question
from rules.listed import Listed, Lists
from rules.match import RuleIndex, index_rules
from rules.name import DomainName, parse
from rules.pattern import HostPattern, PatternKind
from rules.ruleset import AllowRule, App, DenyRule, Ruleset
from tests.rules.naive_lists import NaiveLists

LIMITS = Limits()
CODER = Principal("coder")
NAME = parse("www.example.com")
EDGE, NODE = parse("edge.cdn.example.net"), parse("node.cdn.example.net")
EVIL = parse("a.evil.example")
ZONE = parse("example.com")
ASKED_TYPES = frozenset({rr.A, rr.AAAA, rr.CNAME, rr.HTTPS, rr.SVCB, rr.TXT, rr.MX, rr.DNAME})
ALLOW = AllowRule(
    "www",
    (HostPattern(PatternKind.EXACT, NAME),),
    frozenset({443}),
    ASKED_TYPES,
    addresses=(parse_network("10.1.2.0/24"),),
)
DENIES = (
    DenyRule(
        "evil", (HostPattern(PatternKind.BELOW, parse("evil.example")),), text="out of bounds"
    ),
    DenyRule("block", None, addresses=(parse_network("1.0.0.1"),), text="a bad address"),
)
INDEX = index_rules(Ruleset(7, {"coder": App("coder", allows=(ALLOW,), denies=DENIES)}))


def judge(facts: Facts) -> Decision:
    return decide(INDEX, facts)


def asked(rtype: int = rr.A, name: DomainName = NAME) -> Question:
    return Question(CODER, name, rtype)


def address(owner: DomainName, text: str, ttl: int = 60) -> Record:
    parsed = parse_address(text)
    return Record(owner, rr.A if parsed.version == 4 else rr.AAAA, ttl, parsed.packed)


def alias(owner: DomainName, target: DomainName, ttl: int = 60, rtype: int = rr.CNAME) -> Record:
    return Record(owner, rtype, ttl, write_name(target))


def answered(*records: Record, **fields: object) -> Response:
    return replace(Response(Rcode.NOERROR, records), **fields)


def walked(response: Response, rtype: int = rr.A, limits: Limits = LIMITS) -> Walked:
    return walk(asked(rtype), response, judge, limits)


def handed_out(response: Response, rtype: int = rr.A) -> tuple[Record, ...]:
    answer = walked(response, rtype).answer
    assert answer is not None
    return answer.records


def denied(response: Response, rtype: int = rr.A) -> Decision:
    outcome = walked(response, rtype)
    assert outcome.answer is None
    assert outcome.refusal is not None
    return outcome.refusal


def test_hands_out_a_public_address_and_lists_it_for_the_pin() -> None:
    record = address(NAME, "1.1.1.1")
    outcome = walked(answered(record))
    assert outcome.refusal is None
    assert outcome.answer is not None
    assert (outcome.answer.records, outcome.answer.ttl) == ((record,), 60)
    assert outcome.answer.addresses == (parse_address("1.1.1.1"),)
    assert (outcome.dropped, outcome.chain, outcome.answer.authority) == ((), (), ())


def test_follows_a_chain_in_any_order() -> None:
    final = address(NODE, "1.1.1.1", 20)
    first, second = alias(NAME, EDGE, 90), alias(EDGE, NODE, 30)
    outcome = walked(answered(final, second, first))
    assert outcome.answer is not None
    assert outcome.answer.records == (first, second, final)
    assert outcome.answer.ttl == 20
    assert outcome.chain == outcome.answer.chain == (EDGE, NODE)


def test_judges_each_link_as_a_question_by_way_of_the_asked_name() -> None:
    seen: list[Facts] = []

    def watch(facts: Facts) -> Decision:
        seen.append(facts)
        return judge(facts)

    walk(asked(), answered(alias(NAME, EDGE), address(EDGE, "1.1.1.1")), watch, LIMITS)
    assert seen == [
        Question(CODER, EDGE, rr.A, via=NAME),
        Endpoint(CODER, NAME, parse_address("1.1.1.1"), None),
    ]


def test_drops_what_is_out_of_the_chain() -> None:
    """Closes `additional section unchecked` and `drop what is out of the chain`."""
    final = address(NAME, "1.1.1.1")
    foreign = (address(EDGE, "1.1.1.1"), address(EVIL, "1.1.1.1"), alias(EDGE, NODE))
    others = (address(NAME, "2606:4700::1111"), Record(NAME, rr.TXT, 60, b"\1a"))
    assert handed_out(answered(*foreign, *others, final)) == (final,)


def test_refuses_the_whole_answer_for_a_denied_link() -> None:
    """Closes `CNAME judged only when an address follows (FTL #1421)`.

    The asked name stays allowed, so that the refusal is NODATA and no NXDOMAIN (RFC 8020).
    """
    for records in (
        (alias(NAME, EVIL), address(EVIL, "1.1.1.1")),
        (alias(NAME, EVIL),),
        (alias(NAME, EDGE), alias(EDGE, EVIL), alias(EVIL, NODE), address(NODE, "1.1.1.1")),
    ):
        refusal = denied(answered(*records))
        assert (refusal.verdict, refusal.reason, refusal.rule) == (
            Verdict.DENY,
            Reason.RULE,
            "evil",
        )
        assert refusal.empty
    assert walked(answered(alias(NAME, EVIL))).chain == (EVIL,)


@pytest.mark.parametrize("name", ["localhost", "printer.local", "sallyport.internal"])
def test_refuses_a_link_to_a_special_use_name(name: str) -> None:
    refusal = denied(answered(alias(NAME, parse(name))))
    assert (refusal.reason, refusal.empty) == (Reason.SPECIAL_USE, True)


def test_refuses_a_link_that_a_judge_would_answer_itself() -> None:
    local = Decision(Verdict.ALLOW, Reason.LOCAL)
    outcome = walk(asked(), answered(alias(NAME, EDGE)), lambda _: local, LIMITS)
    assert outcome.refusal == Decision(Verdict.DENY, Reason.SPECIAL_USE, empty=True)


SPECIAL = [
    *("0.0.0.0", "10.0.0.1", "127.0.0.1", "169.254.169.254", "100.100.100.200", "168.63.129.16"),
    *("192.168.1.1", "192.0.0.192", "224.0.0.1", "255.255.255.255", "::", "::1", "fe80::1"),
    *("::ffff:10.0.0.1", "::10.0.0.1", "64:ff9b::10.0.0.1", "2002:a00:1::", "fd00:ec2::254"),
    *("fd20:ce::254", "fd00:c1::a9fe:a9fe", "fd00:42::42", "2001:0:a00:1::", "64:ff9b:1::1"),
]


@pytest.mark.parametrize("text", SPECIAL)
def test_drops_an_address_that_is_not_public(text: str) -> None:
    """Closes `Rebinding`, `0.0.0.0 and ::`, `metadata` and `IPv6-mapped, -compatible, NAT64`."""
    bad = address(NAME, text)
    good = address(NAME, "1.1.1.1" if bad.rtype == rr.A else "2606:4700::1111")
    outcome = walked(answered(bad, good), bad.rtype)
    assert outcome.answer is not None
    assert outcome.answer.records == (good,)
    spelt = str(parse_address(text))
    assert outcome.dropped == ((spelt, Reason.ADDRESS_NOT_ALLOWED),)


def test_answers_nodata_when_no_address_is_left() -> None:
    refusal = denied(answered(address(NAME, "10.0.0.1"), address(NAME, "127.0.0.1")))
    assert (refusal.verdict, refusal.reason) == (Verdict.DENY, Reason.ADDRESS_NOT_ALLOWED)
    assert refusal.empty


def test_names_the_rule_that_denied_the_last_address() -> None:
    refusal = denied(answered(address(NAME, "1.0.0.1")))
    assert (refusal.reason, refusal.rule, refusal.text) == (
        Reason.ADDRESS_NOT_ALLOWED,
        "block",
        "a bad address",
    )
    dropped = walked(answered(address(NAME, "1.0.0.1"))).dropped
    assert dropped == (("1.0.0.1", Reason.ADDRESS_NOT_ALLOWED),)


def test_calls_a_denied_address_not_allowed_whatever_the_judge_called_it() -> None:
    refuses = Decision(Verdict.DENY, Reason.RULE, "block", text="a bad address")
    outcome = walk(asked(), answered(address(NAME, "1.0.0.1")), lambda _: refuses, LIMITS)
    assert outcome.refusal == replace(refuses, reason=Reason.ADDRESS_NOT_ALLOWED, empty=True)


def test_does_not_blame_the_address_for_what_is_ours() -> None:
    full = Decision(Verdict.DENY, Reason.AUDIT_QUOTA)
    outcome = walk(asked(), answered(address(NAME, "1.1.1.1")), lambda _: full, LIMITS)
    assert outcome.refusal == full


def test_hands_out_what_the_rule_says_the_name_may_stand_for() -> None:
    record = address(NAME, "10.1.2.3")
    assert handed_out(answered(record)) == (record,)
    # The name that was asked for counts, and so the rule's addresses hold along its chain.
    chained = (alias(NAME, EDGE), address(EDGE, "10.1.2.3"))
    assert handed_out(answered(*chained)) == chained


def test_unwraps_configured_nat64_prefixes() -> None:
    """Closes `NAT64 (well-known and configured)`."""
    record = address(NAME, "2a00:64::a00:1")
    prefixes = (IPv6Network("2a00:64::/96"),)
    outcome = walk(asked(rr.AAAA), answered(record), judge, LIMITS, prefixes)
    assert outcome.dropped == (("2a00:64::a00:1", Reason.ADDRESS_NOT_ALLOWED),)
    assert walk(asked(rr.AAAA), answered(record), judge, LIMITS).answer is not None


def test_hands_out_a_repeated_record_once() -> None:
    record = address(NAME, "1.1.1.1")
    assert handed_out(answered(record, record)) == (record,)


def test_synthesises_the_cname_of_a_dname() -> None:
    """RFC 6672, section 3.1; the DNAME itself, of another name, is not handed out."""
    dname = alias(ZONE, parse("example.net"), 40, rr.DNAME)
    made = alias(NAME, parse("www.example.net"), 40)
    final = address(parse("www.example.net"), "1.1.1.1")
    for records in ((dname, final), (dname, alias(NAME, parse("www.example.net")), final)):
        assert handed_out(answered(*records)) == (made, final)


def test_refuses_a_denied_target_of_a_dname() -> None:
    """Closes `DNAME unchecked`."""
    dname = alias(ZONE, parse("evil.example"), rtype=rr.DNAME)
    assert denied(answered(dname)).rule == "evil"


def many(count: int) -> list[Record]:
    names = [NAME, *(parse(f"n{n}.example.net") for n in range(count))]
    links = [alias(names[at], names[at + 1]) for at in range(count)]
    return [*links, address(names[-1], "1.1.1.1")]


BROKEN = {
    "a loop of one": (alias(NAME, NAME),),
    "a loop of two": (alias(NAME, EDGE), alias(EDGE, NAME)),
    "a loop further on": (alias(NAME, EDGE), alias(EDGE, NODE), alias(NODE, EDGE)),
    "two aliases": (alias(NAME, EDGE), alias(NAME, NODE)),
    "a CNAME against its DNAME": (
        alias(ZONE, parse("example.net"), rtype=rr.DNAME),
        alias(NAME, EDGE),
    ),
    "a DNAME that makes too long a name": (
        alias(ZONE, parse(".".join(["a" * 62] * 4)), rtype=rr.DNAME),
    ),
    "an odd target": (Record(NAME, rr.CNAME, 60, b"\3a b\0"),),
    "too many links": tuple(many(LIMITS.chain_links + 1)),
}


@pytest.mark.parametrize("records", BROKEN.values(), ids=BROKEN)
def test_fails_on_an_answer_that_contradicts_itself(records: tuple[Record, ...]) -> None:
    refusal = denied(answered(*records))
    assert (refusal.verdict, refusal.reason) == (Verdict.FAIL, Reason.UPSTREAM_MALFORMED)
    assert refusal.text


def test_follows_as_many_links_as_the_bound() -> None:
    assert len(handed_out(answered(*many(LIMITS.chain_links)))) == LIMITS.chain_links + 1


def test_does_not_mind_an_odd_target_out_of_the_chain() -> None:
    odd = Record(EDGE, rr.CNAME, 60, b"\3a b\0")
    final = address(NAME, "1.1.1.1")
    assert handed_out(answered(odd, final)) == (final,)


def test_fails_on_records_of_a_name_that_does_not_exist() -> None:
    refusal = denied(answered(address(NAME, "1.1.1.1"), rcode=Rcode.NXDOMAIN))
    assert refusal.reason is Reason.UPSTREAM_MALFORMED


def test_fails_on_an_answer_that_was_cut_off() -> None:
    refusal = denied(answered(address(NAME, "1.1.1.1"), truncated=True))
    assert refusal.reason is Reason.UPSTREAM_MALFORMED


@pytest.mark.parametrize("rcode", [Rcode.NOERROR, Rcode.NXDOMAIN])
def test_rebuilds_a_negative_answer_under_our_own_soa(rcode: Rcode) -> None:
    """RFC 2308, section 5: the lesser of the SOA's TTL and its minimum, within our bound."""
    for ttl, minimum, kept in ((300, 60, 60), (30, 60, 30), (9999, 9999, LIMITS.negative_ttl_s)):
        outcome = walked(answered(rcode=rcode, soa=Soa(ZONE, ttl, minimum)))
        assert outcome.answer is not None
        assert outcome.answer.rcode == rcode
        assert outcome.answer.authority == (soa(ZONE, kept),)
        assert outcome.answer.ttl == kept
        assert outcome.answer.is_negative


@pytest.mark.parametrize("found", [None, Soa(EVIL, 60, 60), Soa(parse("ample.com"), 60, 60)])
def test_does_not_keep_a_negative_answer_without_an_soa_of_its_name(found: Soa | None) -> None:
    """RFC 2308, section 5."""
    outcome = walked(answered(rcode=Rcode.NXDOMAIN, soa=found))
    assert outcome.answer is not None
    assert (outcome.answer.authority, outcome.answer.ttl) == ((), 0)


def test_says_of_the_chain_s_end_that_it_does_not_exist() -> None:
    """RFC 6604, section 3."""
    link = alias(NAME, EDGE, 10)
    found = Soa(parse("example.net"), 300, 300)
    outcome = walked(answered(link, rcode=Rcode.NXDOMAIN, soa=found))
    assert outcome.answer is not None
    assert outcome.answer.records == (link,)
    assert (outcome.answer.rcode, outcome.answer.ttl) == (Rcode.NXDOMAIN, 10)


def test_caps_ttls() -> None:
    limits = Limits(cache_ttl_s=100)
    chain = answered(alias(NAME, EDGE, 99), address(EDGE, "1.1.1.1", 1 << 30))
    answer = walked(chain, limits=limits).answer
    assert answer is not None
    assert [record.ttl for record in answer.records] == [99, 100]


@pytest.mark.parametrize("rtype", [rr.TXT, rr.MX])
def test_hands_out_other_types_as_they_were_asked(rtype: int) -> None:
    rdata = b"\1a" if rtype == rr.TXT else b"\0\1" + write_name(EVIL)
    wanted = Record(EDGE, rtype, 60, rdata)
    link = alias(NAME, EDGE)
    assert handed_out(answered(link, wanted, address(EDGE, "1.1.1.1")), rtype) == (link, wanted)


@pytest.mark.parametrize("rtype", [rr.CNAME, rr.DNAME])
def test_judges_an_alias_that_was_asked_for_itself(rtype: int) -> None:
    link = alias(NAME, EDGE, rtype=rtype)
    outcome = walked(answered(link, alias(EDGE, NODE), address(NODE, "1.1.1.1")), rtype)
    assert outcome.answer is not None
    assert (outcome.answer.records, outcome.chain) == ((link,), (EDGE,))
    assert denied(answered(alias(NAME, EVIL, rtype=rtype)), rtype).rule == "evil"
    two = answered(link, alias(NAME, NODE, rtype=rtype))
    assert denied(two, rtype).reason is Reason.UPSTREAM_MALFORMED


def test_writes_aliases_from_canonical_names() -> None:
    """No octet of the upstream's choosing, such as the case of a name, goes on."""
    mixed = Record(NAME, rr.CNAME, 60, b"\4EdGe\3cDn\7ExAmPlE\3NeT\0")
    for rtype in (rr.A, rr.CNAME):
        assert handed_out(answered(mixed), rtype) == (alias(NAME, EDGE),)


def https(text: str, owner: DomainName = NAME) -> Record:
    rdata = dns.rdata.from_text("IN", "HTTPS", text).to_wire()
    assert rdata is not None
    return Record(owner, rr.HTTPS, 60, rdata)


def test_prunes_https_records() -> None:
    given = https("1 . alpn=h2,h3 ech=AAT+DQAA ipv4hint=10.0.0.1,1.1.1.1")
    outcome = walked(answered(given), rr.HTTPS)
    assert outcome.answer is not None
    assert outcome.answer.records == (https("1 . alpn=h2 ipv4hint=1.1.1.1"),)
    assert outcome.dropped == (("10.0.0.1", Reason.ADDRESS_NOT_ALLOWED),)
    assert outcome.answer.addresses == ()  # a hint is no answer to A, and pins nothing


def test_takes_the_end_of_the_chain_for_the_owner_of_a_service() -> None:
    link, kept = alias(NAME, EDGE), https("1 . alpn=h2", EDGE)
    named, foreign = (
        https("2 edge.cdn.example.net. alpn=h2", EDGE),
        https("3 www.example.com.", EDGE),
    )
    assert handed_out(answered(link, kept, named, foreign), rr.HTTPS) == (link, kept, named)


def test_answers_nodata_when_no_service_is_left() -> None:
    link = alias(NAME, EDGE)
    outcome = walked(answered(link, https("1 other.example.", EDGE)), rr.HTTPS)
    assert outcome.answer is not None
    assert (outcome.answer.records, outcome.answer.ttl) == ((link,), 5)
    assert outcome.answer.authority == (soa(EDGE, 5),)
    assert outcome.dropped == (("HTTPS", Reason.HOST_NOT_LISTED),)


@pytest.mark.parametrize("refuse", Refuse)
def test_keeps_how_the_app_words_a_refused_link(refuse: Refuse) -> None:
    decision = Decision(Verdict.DENY, Reason.RULE, refuse=refuse)
    outcome = walk(asked(), answered(alias(NAME, EDGE)), lambda _: decision, LIMITS)
    assert outcome.refusal == replace(decision, empty=True)


def by_lists(lists: Lists) -> RuleIndex:
    return index_rules(Ruleset(7, {"coder": App("coder", allows=(ALLOW,))}), lists)


def walked_by(lists: Lists, response: Response, rtype: int = rr.A) -> Walked:
    """Walk as the appliance does where `lists` are in force."""
    index = by_lists(lists)

    def judge_server(question: Question, server: DomainName) -> Decision | None:
        found = lists.find_server(question.principal.app, server)
        return None if found is None else Decision(Verdict.DENY, Reason.LIST, found.id)

    return walk(
        asked(rtype), response, lambda facts: decide(index, facts), LIMITS,
        judge_server=judge_server,
    )  # fmt: skip


def test_a_link_that_a_list_denies_refuses_the_whole_answer() -> None:
    outcome = walked_by(
        NaiveLists(NODE), answered(alias(NAME, EDGE), alias(EDGE, NODE), address(NODE, "1.1.1.1"))
    )
    assert outcome.refusal == Decision(Verdict.DENY, Reason.LIST, "lists/bad.txt:7")
    assert (outcome.answer, outcome.chain) == (None, (EDGE, NODE))


@pytest.mark.parametrize("rtype", [rr.CNAME, rr.DNAME])
def test_an_alias_that_a_list_denies_is_refused_when_asked_for_itself(rtype: int) -> None:
    outcome = walked_by(NaiveLists(EDGE), answered(alias(NAME, EDGE, rtype=rtype)), rtype)
    assert outcome.refusal is not None
    assert outcome.refusal.reason is Reason.LIST
    assert outcome.refusal.empty is (rtype == rr.DNAME)  # which leaves the name's own records


def test_a_service_at_a_name_that_a_list_denies_is_not_handed_out() -> None:
    outcome = walked_by(NaiveLists(EDGE), answered(https(f"1 {EDGE}."), https("2 .")), rr.HTTPS)
    assert outcome.answer is not None
    (kept,) = outcome.answer.records
    assert kept == https("2 .")


def test_an_address_that_a_list_denies_refuses_the_whole_answer() -> None:
    """RPZ: rpz-ip (draft-vixie-dnsop-dns-rpz, section 4.3)."""
    lists = NaiveLists(addresses=("8.8.8.8",), listed=Listed("a.rpz", 3, "ip", Refuse.DROP))
    outcome = walked_by(lists, answered(address(NAME, "1.1.1.1"), address(NAME, "8.8.8.8")))
    assert outcome.answer is None
    assert outcome.refusal == Decision(
        Verdict.DENY, Reason.LIST, "a.rpz:3", refuse=Refuse.DROP, empty=True
    )
    assert outcome.dropped == (("8.8.8.8", Reason.LIST),)


def test_the_first_address_that_a_list_denies_words_the_refusal() -> None:
    """An address that was dropped before for another reason does not."""
    seen = iter((Reason.ADDRESS_NOT_ALLOWED, Reason.LIST, Reason.LIST))
    ids = iter(("first", "second", "third"))
    response = answered(*(address(NAME, f"9.9.9.{last}") for last in range(3)))
    outcome = walk(
        asked(), response, lambda _: Decision(Verdict.DENY, next(seen), next(ids)), LIMITS
    )
    assert outcome.refusal is not None
    assert (outcome.refusal.reason, outcome.refusal.rule) == (Reason.LIST, "second")


def test_a_hint_that_a_list_denies_refuses_the_whole_answer() -> None:
    lists = NaiveLists(addresses=("8.8.8.8",))
    outcome = walked_by(
        lists, answered(https("1 . ipv4hint=1.1.1.1,8.8.8.8"), https("2 .")), rr.HTTPS
    )
    assert outcome.answer is None
    assert outcome.refusal is not None
    assert outcome.refusal.reason is Reason.LIST


def ns(owner: DomainName, server: str) -> Record:
    return Record(owner, rr.NS, 60, write_name(parse(server)))


@pytest.mark.parametrize("owner", [NAME, ZONE, parse("com"), EDGE, parse("example.net")])
def test_a_name_server_that_a_list_denies_refuses_what_it_serves(owner: DomainName) -> None:
    """RPZ: rpz-nsdname (draft-vixie-dnsop-dns-rpz, section 4.5)."""
    lists = NaiveLists(servers=("ns.evil.example",))
    records = alias(NAME, EDGE), address(EDGE, "1.1.1.1")
    servers = ns(owner, "ns.good.example"), ns(owner, "ns.evil.example")
    outcome = walked_by(lists, answered(*records, servers=servers))
    assert outcome.answer is None
    assert outcome.refusal == Decision(Verdict.DENY, Reason.LIST, "lists/bad.txt:7", empty=True)
    assert outcome.servers == (parse("ns.good.example"), parse("ns.evil.example"))


def test_a_name_server_of_something_else_is_nobody_s() -> None:
    lists = NaiveLists(servers=("ns.evil.example",))
    servers = ns(parse("other.example.com"), "ns.evil.example"), alias(NAME, EVIL)
    outcome = walked_by(lists, answered(address(NAME, "1.1.1.1"), servers=servers))
    assert outcome.answer is not None
    assert outcome.servers == ()


def test_a_name_server_that_was_asked_for_is_judged() -> None:
    lists = NaiveLists(servers=("ns.evil.example",))
    refusal = walked_by(lists, answered(ns(NAME, "ns.evil.example")), rr.NS).refusal
    assert refusal is not None
    assert refusal.reason is Reason.LIST


def test_a_negative_answer_of_a_name_server_that_a_list_denies_is_refused() -> None:
    lists = NaiveLists(servers=("ns.evil.example",))
    outcome = walked_by(lists, answered(servers=(ns(ZONE, "ns.evil.example"),)))
    assert outcome.refusal is not None


def test_a_name_server_that_no_list_could_name_is_passed_over() -> None:
    odd = Record(ZONE, rr.NS, 60, b"\x03a.b\x00")
    outcome = walked_by(NaiveLists(), answered(address(NAME, "1.1.1.1"), servers=(odd,)))
    assert outcome.answer is not None
    assert outcome.servers == ()


def test_without_who_judges_them_name_servers_are_only_noted() -> None:
    outcome = walked(answered(address(NAME, "1.1.1.1"), servers=(ns(ZONE, "ns.evil.example"),)))
    assert outcome.answer is not None
    assert outcome.servers == (parse("ns.evil.example"),)
