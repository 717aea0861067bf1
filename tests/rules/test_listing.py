"""What deny lists make of a fact."""

import pytest

from rules.decision import LocalRecord, Reason, Refuse, Verdict
from rules.listed import NO_LISTS, Listed
from rules.listing import has_below, has_others, listed, listed_address, listed_server
from rules.match import index_app
from rules.name import parse
from rules.rtype import AAAA, TXT, A
from rules.ruleset import AllowRule, App, DenyRule
from tests.rules.naive_lists import NaiveLists
from tests.rules.written import allow, app, connect, deny, endpoint, question, request

ME = App("me", refuse=Refuse.NODATA)


def test_a_listed_name_is_refused_on_both_planes_by_file_and_line() -> None:
    lists = NaiveLists("bad.example")
    for fact in (question("bad.example"), connect("bad.example"), request("bad.example")):
        decision = listed(lists, ME, fact)
        assert decision is not None
        assert (decision.verdict, decision.reason) == (Verdict.DENY, Reason.LIST)
        assert decision.rule == "lists/bad.txt:7"
        assert decision.refuse is Refuse.NODATA
    assert listed(lists, ME, question("good.example")) is None
    assert listed(NO_LISTS, ME, question("bad.example")) is None


def test_a_list_of_other_apps_denies_nothing() -> None:
    assert listed(NaiveLists("bad.example", apps=("other",)), ME, connect("bad.example")) is None


def test_the_lists_own_refusal_beats_the_apps_and_brings_its_records() -> None:
    record = LocalRecord(A, 60, bytes(4))
    entry = Listed("rpz", 3, "x", refuse=Refuse.SINKHOLE, local=(record,))
    decision = listed(NaiveLists("bad.example", listed=entry), ME, question("bad.example"))
    assert decision is not None
    assert (decision.refuse, decision.local) == (Refuse.SINKHOLE, (record,))


def test_a_listed_address_is_refused_as_an_answer_and_as_a_literal() -> None:
    lists = NaiveLists(addresses=("192.0.2.7",))
    assert listed(lists, ME, connect("192.0.2.7")) is not None
    assert listed(lists, ME, connect("192.0.2.8")) is None
    assert listed_address(lists, ME, endpoint("a.example", "192.0.2.7")) is not None
    assert listed_address(lists, ME, endpoint("a.example", "192.0.2.8")) is None
    shielding = NaiveLists(addresses=("192.0.2.7",), shielded=("a.example",))
    assert listed_address(shielding, ME, endpoint("a.example", "192.0.2.7")) is None
    assert listed_address(NO_LISTS, ME, endpoint("a.example", "192.0.2.7")) is None


def test_a_name_of_a_listed_server_is_refused() -> None:
    server, name = parse("ns.bad.example"), parse("a.example")
    refusal = listed_server(NaiveLists(servers=("ns.bad.example",)), ME, server, name)
    assert refusal is not None
    assert refusal.rule == "lists/bad.txt:7"
    assert listed_server(NO_LISTS, ME, server, name) is None
    shielding = NaiveLists(servers=("ns.bad.example",), shielded=("a.example",))
    assert listed_server(shielding, ME, server, name) is None


@pytest.mark.parametrize(
    ("rules", "is_left"),
    [
        ((allow("a.org", "b.a.org"),), True),
        ((allow("**.org"),), True),
        ((allow("a.org"),), False),
        ((allow("**.org"), deny("**.a.org")), False),
        ((allow("**.org"), deny("**.a.org", types=[A])), True),
    ],
)
def test_what_may_be_allowed_below_a_name_is_left(
    rules: tuple[AllowRule | DenyRule, ...], is_left: bool
) -> None:
    assert has_below(index_app(app(*rules)), parse("a.org")) is is_left


@pytest.mark.parametrize(("types", "is_left"), [([A], False), ([AAAA], True), ([A, TXT], True)])
def test_what_else_may_be_allowed_of_an_address_s_name_is_left(
    types: list[int], is_left: bool
) -> None:
    one = index_app(app(allow("a.org", types=types)))
    assert has_others(one, endpoint("a.org", "192.0.2.1")) is is_left
    assert not has_others(one, endpoint(None, "192.0.2.1"))
