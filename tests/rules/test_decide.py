"""Deny wins, the most specific allow decides, nothing listed is nothing allowed."""

import itertools

import pytest
from msgspec.structs import replace

from rules.decide import decide
from rules.decision import (
    Decision,
    FileCertificate,
    Obligation,
    OnlyReadable,
    PeekTls,
    Reason,
    Refuse,
    Resolve,
    TunnelUnread,
    UpgradeTls,
    Verdict,
    Watch,
)
from rules.facts import (
    Attestation,
    Endpoint,
    Evidence,
    Facts,
    Level,
    Principal,
    Question,
    Request,
)
from rules.match import RuleIndex, index_rules
from rules.name import parse
from rules.path import parse_glob
from rules.required import ON_A_PLAIN_PORT
from rules.rtype import AAAA, ANY, CNAME, HTTPS, MX, TXT, A
from rules.ruleset import AllowRule, DenyRule, Requirements, Ruleset
from rules.watch import Detect, Mode
from rules.zones import make_zones, with_zones
from tests.rules.naive_lists import NaiveLists
from tests.rules.written import (
    ME,
    allow,
    app,
    connect,
    deny,
    endpoint,
    index,
    of_app,
    outcome,
    question,
    request,
)

ALLOW, DENY = Verdict.ALLOW, Verdict.DENY
MTLS = Requirements(mtls=True)
ATTESTED = Requirements(attested=Level.SOFTWARE, max_age_s=300)
PROVEN = Principal("me", (Evidence.CERTIFICATE,))
BOTH = Resolve(frozenset({A, AAAA}))


def reason(rules: RuleIndex, facts: Facts) -> Reason:
    decision = decide(rules, facts)
    assert decision.verdict is DENY
    return decision.reason


def obligations(rules: RuleIndex, facts: Facts) -> tuple[Obligation, ...]:
    decision = decide(rules, facts)
    assert decision.verdict is ALLOW
    return decision.obligations


# Nothing listed is nothing allowed


@pytest.mark.parametrize(
    ("fact", "expected"),
    [
        (question("example.com"), Reason.HOST_NOT_LISTED),
        (connect("example.com"), Reason.HOST_NOT_LISTED),
        (request("example.com"), Reason.HOST_NOT_LISTED),
        (endpoint("example.com", "8.8.8.8"), Reason.HOST_NOT_LISTED),
        (connect("8.8.8.8"), Reason.LITERAL_NOT_ALLOWED),
        (request("8.8.8.8"), Reason.LITERAL_NOT_ALLOWED),
        (endpoint(None, "8.8.8.8"), Reason.ADDRESS_NOT_ALLOWED),
    ],
)
@pytest.mark.parametrize("rules", [index(), index(allow("other.example.com")), index(deny("a.b"))])
def test_denies_what_no_rule_mentions(rules: RuleIndex, fact: Facts, expected: Reason) -> None:
    """Closes "empty or absent allow list taken as open"."""
    assert outcome(decide(rules, fact)) == (DENY, expected, None)


@pytest.mark.parametrize("fact", [question("a.org"), connect("a.org"), request("a.org")])
def test_an_app_that_no_rule_file_knows_has_no_rules(fact: Facts) -> None:
    assert reason(of_app(app()), fact) is Reason.HOST_NOT_LISTED
    assert reason(index_rules(Ruleset(1, {})), fact) is Reason.HOST_NOT_LISTED


@pytest.mark.parametrize(
    ("evidence", "host", "expected"),
    [
        ((), "a.org", Reason.HOST_NOT_LISTED),
        ((), "192.0.2.1", Reason.LITERAL_NOT_ALLOWED),
        ((Evidence.TOKEN,), "a.org", Reason.IDENTITY_UNKNOWN),
        ((Evidence.TOKEN,), "192.0.2.1", Reason.IDENTITY_UNKNOWN),
        ((Evidence.TOKEN,), "a.test", Reason.SPECIAL_USE),
    ],
)
def test_a_presented_credential_of_no_app_is_told_apart_from_none(
    evidence: tuple[Evidence, ...], host: str, expected: Reason
) -> None:
    who = Principal("unknown", evidence)
    assert reason(index(allow("a.org")), connect(host, who=who)) is expected


def test_an_app_named_unknown_may_have_rules_like_any_other() -> None:
    rules = index_rules(Ruleset(1, {"unknown": app(allow("a.org"))}))
    fact = question("a.org", who=Principal("unknown"))
    assert outcome(decide(rules, fact)) == (ALLOW, Reason.RULE, "allow")


def test_one_apps_rules_say_nothing_to_another() -> None:
    rules = index_rules(Ruleset(1, {"me": app(allow("a.org")), "you": app(deny("*"))}))
    assert decide(rules, question("a.org")).verdict is ALLOW
    assert reason(rules, question("a.org", who=Principal("you"))) is Reason.RULE


# Names


@pytest.mark.parametrize(
    ("host", "matching", "others"),
    [
        ("example.com", ["example.com"], ["a.example.com", "com", "evilexample.com"]),
        (
            "*.example.com",
            ["a.example.com"],
            ["example.com", "b.a.example.com", "a.evilexample.com"],
        ),
        (
            "**.example.com",
            ["a.example.com", "b.a.example.com"],
            ["example.com", "evilexample.com"],
        ),
    ],
)
def test_patterns_match_by_whole_labels(host: str, matching: list[str], others: list[str]) -> None:
    """Closes "suffix without label boundary" and "trailing dot and case"."""
    rules = index(allow(host))
    for name in matching:
        for spelling in (name, name.upper(), name + "."):
            assert decide(rules, question(spelling)).verdict is ALLOW
            assert decide(rules, connect(spelling)).verdict is ALLOW
    for name in others:
        assert reason(rules, question(name)) is Reason.HOST_NOT_LISTED
        assert reason(rules, connect(name)) is Reason.HOST_NOT_LISTED


# Questions


def test_a_question_is_decided_by_the_most_specific_allow_that_holds_its_type() -> None:
    rules = index(
        allow("**.example.com", id="deep", types=[A, MX]),
        allow("*.example.com", id="child", types=[A, TXT]),
        allow("a.example.com", id="exact", types=[A]),
    )
    assert decide(rules, question("a.example.com", A)).rule == "exact"
    assert decide(rules, question("a.example.com", TXT)).rule == "child"
    assert decide(rules, question("a.example.com", MX)).rule == "deep"
    assert reason(rules, question("a.example.com", AAAA)) is Reason.TYPE_NOT_ALLOWED


def test_a_question_of_a_type_that_no_allow_holds_is_an_empty_answer() -> None:
    """Closes "refused TXT answered with NXDOMAIN kills the allowed A"."""
    decision = decide(index(allow("a.org")), question("a.org", TXT))
    assert outcome(decision) == (DENY, Reason.TYPE_NOT_ALLOWED, None)
    assert decision.empty


@pytest.mark.parametrize("rtype", [TXT, ANY, MX, 10, 65280])
def test_types_outside_the_default_are_refused(rtype: int) -> None:
    """Closes "TXT, NULL, KEY, private types" and "HTTPS/SVCB question outside the rule"."""
    assert reason(index(allow("a.org")), question("a.org", rtype)) is Reason.TYPE_NOT_ALLOWED
    assert reason(index(allow("b.org")), question("a.org", HTTPS)) is Reason.HOST_NOT_LISTED


def test_methods_and_paths_are_ignored_by_questions() -> None:
    rules = index(allow("a.org", methods=["GET"], paths=["/x"], require=MTLS))
    assert decide(rules, question("a.org", who=PROVEN)).verdict is ALLOW
    assert reason(rules, question("a.org")) is Reason.MTLS_REQUIRED


def test_an_allow_without_address_types_matches_questions_only() -> None:
    rules = index(allow("a.org", types=[TXT]))
    assert decide(rules, question("a.org", TXT)).verdict is ALLOW
    assert reason(rules, connect("a.org")) is Reason.HOST_NOT_LISTED
    assert reason(rules, request("a.org")) is Reason.HOST_NOT_LISTED
    assert reason(rules, endpoint("a.org", "8.8.8.8")) is Reason.ADDRESS_NOT_ALLOWED


@pytest.mark.parametrize(
    "name",
    ["localhost", "x.localhost", "a.test", "b.invalid", "c.onion", "sallyport.internal",
     "1.0.0.127.in-addr.arpa", "_dns.resolver.arpa", "use-application-dns.net"],
)  # fmt: skip
@pytest.mark.parametrize(
    "rules", [index(), index(deny("*")), index(lists=NaiveLists("x.localhost"))]
)
def test_special_use_names_are_answered_here_whatever_is_listed(
    name: str, rules: RuleIndex
) -> None:
    assert outcome(decide(rules, question(name))) == (ALLOW, Reason.LOCAL, None)


# A target of a chain


def test_a_target_inherits_the_allow_of_the_name_whose_chain_it_is() -> None:
    rules = index(allow("a.org", id="asked", require=MTLS), deny("**.bad.net", id="bad"))
    fact = question("edge.cdn.net", A, via="a.org", who=PROVEN)
    assert outcome(decide(rules, fact)) == (ALLOW, Reason.RULE, "asked")


def test_a_target_is_denied_by_deny_rules_and_special_use() -> None:
    """Closes "CNAME judged only when an address follows" and "ServiceMode target unchecked"."""
    rules = index(allow("a.org"), deny("**.bad.net", id="bad"), deny(types=[HTTPS], id="types"))
    assert outcome(decide(rules, question("x.bad.net", A, via="a.org")))[1:] == (Reason.RULE, "bad")
    assert decide(rules, question("x.net", HTTPS, via="a.org")).rule == "types"
    assert reason(rules, question("localhost", A, via="a.org")) is Reason.SPECIAL_USE


def test_a_target_of_a_name_that_lost_its_allow_has_no_rule_to_name() -> None:
    assert outcome(decide(index(), question("x.net", via="a.org"))) == (ALLOW, Reason.RULE, None)


def test_a_list_denies_targets_too() -> None:
    rules = index(allow("a.org"), lists=NaiveLists("x.net"))
    assert reason(rules, question("x.net", via="a.org")) is Reason.LIST
    assert decide(rules, question("y.net", via="a.org")).verdict is ALLOW


# Deny wins


@pytest.mark.parametrize(
    "denied", ["a.example.com", "*.example.com", "**.example.com", "**.com", "*"]
)
@pytest.mark.parametrize("fact", [question, connect, request])
def test_any_deny_beats_the_most_specific_allow(denied: str, fact: type[Question]) -> None:
    rules = index(allow("a.example.com"), deny(denied, id="no", text="out of bounds"))
    decision = decide(rules, fact("a.example.com"))  # type: ignore[call-arg,arg-type]  # a maker
    assert outcome(decision) == (DENY, Reason.RULE, "no")
    assert decision.text == "out of bounds"


def test_a_deny_of_types_is_of_questions_only() -> None:
    rules = index(allow("a.org"), deny("a.org", types=[AAAA]))
    assert reason(rules, question("a.org", AAAA)) is Reason.RULE
    assert decide(rules, question("a.org", A)).verdict is ALLOW
    assert decide(rules, connect("a.org")).verdict is ALLOW
    assert decide(rules, request("a.org")).verdict is ALLOW
    assert decide(rules, endpoint("a.org", "2606::1")).verdict is ALLOW


def test_a_deny_of_ports_is_never_of_questions() -> None:
    rules = index(allow("a.org", ports=[80, 443]), deny(ports=[80], id="plain"))
    assert decide(rules, question("a.org")).verdict is ALLOW
    assert decide(rules, connect("a.org", 443)).verdict is ALLOW
    assert decide(rules, connect("a.org", 80)).rule == "plain"
    assert decide(rules, request("a.org", port=80)).rule == "plain"
    assert decide(rules, endpoint("a.org", "8.8.8.8", None)).verdict is ALLOW
    assert decide(rules, endpoint("a.org", "8.8.8.8", 80)).rule == "plain"


def test_a_deny_of_types_and_ports_matches_nothing() -> None:
    rules = index(allow("a.org"), deny(types=[A], ports=[443]))
    assert decide(rules, question("a.org")).verdict is ALLOW
    assert decide(rules, connect("a.org")).verdict is ALLOW


@pytest.mark.parametrize("keys", [{"methods": ["POST"]}, {"paths": ["/admin/**"]}])
def test_a_deny_of_methods_or_paths_is_of_requests_only(keys: dict[str, list[str]]) -> None:
    rules = index(allow("a.org"), deny("a.org", **keys))  # type: ignore[arg-type]  # by name
    assert decide(rules, question("a.org")).verdict is ALLOW
    assert decide(rules, endpoint("a.org", "8.8.8.8")).verdict is ALLOW
    assert obligations(rules, connect("a.org")) == (BOTH, OnlyReadable())
    assert decide(rules, request("a.org", "/x")).verdict is ALLOW
    assert reason(rules, request("a.org", "/admin/x", "POST")) is Reason.RULE


def test_a_list_beats_every_allow_and_is_beaten_by_denies() -> None:
    lists = NaiveLists("a.org", "b.org", addresses=("192.0.2.1",))
    literal = allow(ports=[443], addresses=["192.0.2.0/24"])
    rules = index(
        allow("a.org", "b.org", "c.org"), literal, deny("b.org", id="no"), lists=lists,
        refuse=Refuse.NODATA,
    )  # fmt: skip
    for fact in (question("a.org"), connect("a.org"), request("a.org"), connect("192.0.2.1")):
        assert outcome(decide(rules, fact)) == (DENY, Reason.LIST, "lists/bad.txt:7")
    assert reason(rules, endpoint("c.org", "192.0.2.1")) is Reason.LIST
    assert decide(rules, endpoint("c.org", "8.8.8.8")).verdict is ALLOW
    assert decide(rules, connect("192.0.2.2")).verdict is ALLOW
    assert decide(rules, question("c.org")).verdict is ALLOW
    assert decide(rules, question("b.org")).rule == "no"
    assert decide(rules, question("a.org")).refuse is Refuse.NODATA


def test_a_listed_name_above_an_allowed_one_is_said_to_be_empty() -> None:
    """RFC 8020: NXDOMAIN of the listed one would deny what is allowed below it."""
    rules = index(allow("a.bad.org", "*.bad.net"), lists=NaiveLists("bad.org", "x.bad.net"))
    assert decide(rules, question("bad.org")).empty
    assert not decide(index(lists=NaiveLists("bad.org")), question("bad.org")).empty


@pytest.mark.parametrize(
    ("allowed", "is_empty"),
    [(("a.org",), False), (("a.org", "b.a.org"), True), (("*.a.org", "a.org"), True)],
)
def test_an_alias_of_a_listed_name_is_empty_where_something_is_below_it(
    allowed: tuple[str, ...], is_empty: bool
) -> None:
    """RFC 8020: every type of an alias leads to its target, names below it do not."""
    rules = index(allow(*allowed), lists=NaiveLists("x.net"))
    assert decide(rules, question("x.net", via="a.org")).empty is is_empty


@pytest.mark.parametrize(
    ("name", "types", "is_empty"),
    [
        ("a.org", [A], False),
        ("a.org", [AAAA], True),
        ("a.org", [A, TXT], True),
        ("*.a.org", [A], False),
        ("**.org", [A], True),
    ],
)
def test_a_listed_address_is_that_of_an_empty_name_where_other_data_may_be_had(
    name: str, types: list[int], is_empty: bool
) -> None:
    """RFC 8020: NXDOMAIN would deny the other types of the name and what is below it."""
    rules = index(allow(name, types=types), lists=NaiveLists(addresses=("192.0.2.1",)))
    host = name.replace("*.a.org", "b.a.org").replace("**.org", "b.org")
    decision = decide(rules, endpoint(host, "192.0.2.1"))
    assert (decision.reason, decision.empty) == (Reason.LIST, is_empty)
    assert not decide(rules, endpoint(None, "192.0.2.1")).empty


def test_an_allowed_look_up_is_watched_as_the_app_or_the_rule_says() -> None:
    alert = Detect(Mode.ALERT)
    own = replace(allow("**.b.org"), detect=alert)
    rules = index(allow("a.org", "*.a.org"), own)
    assert obligations(rules, question("a.org")) == (Watch(Detect(), is_named=True),)
    assert obligations(rules, question("x.a.org")) == (Watch(Detect()),)
    assert obligations(rules, question("x.b.org")) == (Watch(alert),)
    assert obligations(rules, question("x.b.org", via="x.b.org")) == (Watch(alert),)
    assert obligations(rules, question("gone.org", via="gone.org")) == (Watch(Detect()),)


# How a refused Question is worded


@pytest.mark.parametrize("refuse", list(Refuse))
def test_a_refusal_carries_the_apps_wording(refuse: Refuse) -> None:
    assert decide(index(refuse=refuse), question("a.org")).refuse is refuse


@pytest.mark.parametrize(
    ("rules", "name", "expected"),
    [
        ([], "a.org", False),
        ([], ".", False),
        ([allow("b.a.org")], "a.org", True),
        ([allow("b.a.org")], "org", True),
        ([allow("b.a.org")], ".", True),
        ([allow("b.a.org")], "c.b.a.org", False),
        ([allow("b.a.org")], "c.a.org", False),
        ([allow("*.a.org")], "a.org", True),
        ([allow("*.a.org")], "c.b.a.org", False),
        ([allow("*.a.org"), deny("b.a.org")], "b.a.org", False),
        ([allow("**.a.org")], "a.org", True),
        ([allow("**.a.org"), deny("b.a.org")], "b.a.org", True),
        ([allow("**.a.org"), deny("b.a.org", "**.b.a.org")], "b.a.org", False),
        ([allow("**.a.org"), deny("**.a.org")], "a.org", False),
        ([allow("**.a.org"), deny("**.org")], "c.a.org", False),
        ([allow("**.a.org"), deny("*")], "a.org", False),
        ([allow("**.a.org"), deny("*")], ".", False),
        ([allow("a.org"), deny("a.org")], "a.org", False),
        ([allow("a.org"), deny("a.org", types=[A])], "a.org", True),
        ([allow("a.org"), deny(types=[A])], "a.org", True),
        ([allow("**.a.org"), deny("**.a.org", types=[A])], "b.a.org", True),
        ([allow("b.a.org"), deny("a.org")], "a.org", True),
        ([allow("b.a.org"), deny("**.a.org", ports=[80]), deny("a.org")], "a.org", True),
    ],
)
def test_a_refused_name_is_empty_when_it_or_one_below_may_be_allowed(
    rules: list[AllowRule | DenyRule], name: str, expected: bool
) -> None:
    """RFC 8020: NXDOMAIN denies the subtree."""
    decision = decide(index(*rules), question(name))
    assert decision.verdict is DENY
    assert decision.empty is expected


# What must be proven


@pytest.mark.parametrize("fact", [question, connect, request])
@pytest.mark.parametrize("where", ["app", "rule"])
def test_a_requirement_of_the_app_or_the_rule_must_be_met(fact: type[Question], where: str) -> None:
    def decided(require: Requirements, who: Principal) -> Decision:
        rules = (
            index(allow("a.org"), require=require)
            if where == "app"
            else index(allow("a.org", require=require))
        )
        return decide(rules, fact("a.org", who=who))  # type: ignore[call-arg,arg-type]  # a maker

    assert outcome(decided(MTLS, ME)) == (DENY, Reason.MTLS_REQUIRED, "allow")
    assert decided(MTLS, PROVEN).verdict is ALLOW
    assert outcome(decided(ATTESTED, PROVEN)) == (DENY, Reason.ATTESTATION_REQUIRED, "allow")
    assert outcome(decided(ATTESTED, attested((Level.SOFTWARE, 300)))) == (
        ALLOW,
        Reason.RULE,
        "allow",
    )


def attested(*entries: tuple[Level, int]) -> Principal:
    return Principal("me", PROVEN.evidence, tuple(Attestation(*entry) for entry in entries))


@pytest.mark.parametrize("fact", [question, connect, request])
def test_what_lacks_of_an_attestation_is_said(fact: type[Question]) -> None:
    rules = index(allow("a.org", require=Requirements(attested=Level.TPM, max_age_s=60)))

    def text(who: Principal) -> str:
        decision = decide(rules, fact("a.org", who=who))  # type: ignore[call-arg,arg-type]  # a maker
        assert outcome(decision) == (DENY, Reason.ATTESTATION_REQUIRED, "allow")
        return decision.text

    assert text(ME) == ON_A_PLAIN_PORT
    assert text(PROVEN) == "nothing fresh is proven, level tpm is needed"
    assert text(attested((Level.SOFTWARE, 60))) == "proven is level software, needed is tpm"
    assert text(attested((Level.TPM, 300))) == "proven more than 60 s ago, the most here"


def test_the_attestation_of_another_app_proves_nothing() -> None:
    """The attack "token copied": what was proven of another app is nothing here."""
    rules = index(allow("a.org", require=ATTESTED))
    other = Principal("other", PROVEN.evidence, (Attestation(Level.TPM, 1),))
    assert decide(rules, connect("a.org", who=other)).verdict is DENY


def test_a_refused_look_up_says_that_more_is_needed_rather_than_that_nothing_is_there() -> None:
    decision = decide(index(allow("a.org", require=ATTESTED)), question("a.org", who=PROVEN))
    assert (decision.reason, decision.empty) == (Reason.ATTESTATION_REQUIRED, True)


def test_a_target_of_an_attested_look_up_needs_no_attestation_of_its_own() -> None:
    rules = index(allow("a.org", require=ATTESTED), allow("b.org", require=ATTESTED))
    assert decide(rules, question("b.org", via="a.org")).verdict is ALLOW


def test_requirements_of_app_and_rule_add_up() -> None:
    rules = index(allow("a.org", require=MTLS), require=ATTESTED)
    assert reason(rules, connect("a.org")) is Reason.MTLS_REQUIRED
    assert reason(rules, connect("a.org", who=PROVEN)) is Reason.ATTESTATION_REQUIRED
    strong = Requirements(attested=Level.TPM, max_age_s=600)
    both = index(allow("a.org", require=strong), require=ATTESTED)
    assert decide(both, connect("a.org", who=attested((Level.TPM, 300)))).verdict is ALLOW
    # The highest level and the smallest age, of one attestation: not the one here, the other there.
    halves = attested((Level.SOFTWARE, 300), (Level.TPM, 600))
    assert reason(both, connect("a.org", who=halves)) is Reason.ATTESTATION_REQUIRED


def test_a_method_or_path_may_need_what_its_host_does_not() -> None:
    rules = index(
        allow("a.org", id="read", ports=[80]),
        allow("a.org", id="write", ports=[80], methods=["PUT"], require=ATTESTED),
        allow("a.org", id="secret", ports=[80], paths=["/secret/**"], require=ATTESTED),
    )
    for who, expected in ((PROVEN, DENY), (attested((Level.SOFTWARE, 300)), ALLOW)):
        assert decide(rules, request("a.org", "/x", port=80, who=who)).verdict is ALLOW
        assert decide(rules, request("a.org", "/x", "PUT", 80, who)).verdict is expected
        assert decide(rules, request("a.org", "/secret/x", port=80, who=who)).verdict is expected
        assert decide(rules, connect("a.org", 80, who)).verdict is ALLOW


def test_a_less_specific_allow_does_not_heal_an_unmet_requirement() -> None:
    rules = index(allow("a.org", require=MTLS), allow("**.org", id="deep"))
    assert reason(rules, question("a.org")) is Reason.MTLS_REQUIRED
    assert reason(rules, connect("a.org")) is Reason.MTLS_REQUIRED
    assert reason(rules, request("a.org")) is Reason.MTLS_REQUIRED


def test_equal_allows_merge_what_they_require() -> None:
    rules = index(allow("a.org", id="a"), allow("a.org", id="b", require=MTLS))
    for fact in (question("a.org"), connect("a.org"), request("a.org")):
        assert outcome(decide(rules, fact)) == (DENY, Reason.MTLS_REQUIRED, "a")


def test_what_a_rule_with_paths_requires_is_asked_of_the_request() -> None:
    rules = index(allow("a.org", paths=["/secret/**"], require=MTLS))
    assert decide(rules, connect("a.org")).verdict is ALLOW
    assert reason(rules, request("a.org", "/secret/x")) is Reason.MTLS_REQUIRED
    mixed = index(allow("a.org", id="all"), allow("a.org", id="a", paths=["/x"], require=MTLS))
    assert decide(mixed, connect("a.org")).rule == "all"
    assert decide(mixed, request("a.org", "/y")).rule == "all"
    assert reason(mixed, request("a.org", "/x")) is Reason.MTLS_REQUIRED


def test_what_the_app_requires_is_asked_of_a_connect_even_where_rules_have_paths() -> None:
    rules = index(allow("a.org", paths=["/x"]), require=MTLS)
    assert reason(rules, connect("a.org")) is Reason.MTLS_REQUIRED


# Connect


@pytest.mark.parametrize("name", ["localhost", "x.test", "sallyport.internal", "a.onion"])
def test_a_special_use_name_is_no_origin(name: str) -> None:
    rules = index(allow(name, types=[A]))
    for fact in (connect(name), request(name)):
        assert outcome(decide(rules, fact)) == (DENY, Reason.SPECIAL_USE, None)


def test_a_port_that_no_allow_of_the_host_holds_is_named_as_what_is_missing() -> None:
    rules = index(allow("a.org", ports=[80, 443]), allow("**.org", ports=[8443], id="deep"))
    assert decide(rules, connect("a.org", 80)).rule == "allow"
    assert decide(rules, connect("a.org", 8443)).rule == "deep"
    assert reason(rules, connect("a.org", 22)) is Reason.PORT_NOT_ALLOWED
    assert reason(rules, request("a.org", port=22)) is Reason.PORT_NOT_ALLOWED


@pytest.mark.parametrize(
    ("types", "resolved"),
    [([A, AAAA, CNAME], {A, AAAA}), ([A, TXT], {A}), ([AAAA], {AAAA})],
)
def test_the_proxys_look_up_asks_only_the_address_types_of_the_allow(
    types: list[int], resolved: set[int]
) -> None:
    rules = index(allow("a.org", types=types))
    expected = Resolve(frozenset(resolved))
    assert obligations(rules, connect("a.org")) == (expected, PeekTls())
    assert obligations(rules, request("a.org")) == (expected,)


@pytest.mark.parametrize(
    ("allows", "expected"),
    [
        ([allow("a.org")], PeekTls()),
        ([allow("a.org", accept_ech=True)], PeekTls(accept_ech=True)),
        ([allow("a.org", accept_ech=True), allow("a.org", id="b")], PeekTls()),
        ([allow("a.org", tls=False)], TunnelUnread()),
        ([allow("a.org", tls=False), allow("a.org", id="b")], PeekTls()),
        ([allow("a.org", types=[A]), allow("a.org", id="b", types=[AAAA])], PeekTls()),
    ],
)
def test_equal_allows_merge_their_obligations(
    allows: list[AllowRule], expected: Obligation
) -> None:
    for order in itertools.permutations(allows):
        assert obligations(index(*order), connect("a.org")) == (BOTH, expected)


def test_the_most_specific_allow_brings_its_own_obligations() -> None:
    rules = index(allow("**.org", id="deep"), allow("a.org", tls=False))
    assert obligations(rules, connect("a.org")) == (BOTH, TunnelUnread())


def test_an_apps_own_allow_outranks_a_packs_of_the_same_pattern() -> None:
    own, packed = allow("a.org", id="own", tls=False), allow("a.org", id="a", from_pack=True)
    decision = decide(index(own, packed), connect("a.org"))
    assert decision.rule == "own"
    assert TunnelUnread() in decision.obligations
    other = allow("a.org", id="p", from_pack=True, ports=[80])
    assert decide(index(own, other), connect("a.org", 80)).rule == "p"


@pytest.mark.parametrize(
    "extra",
    [
        allow("a.org", id="x", methods=["GET"]),
        allow("**.org", id="x", paths=["/x"]),
        deny("*", id="x", methods=["POST"]),
        deny(id="x", paths=["/x"], ports=[443]),
    ],
)
def test_where_any_rule_has_methods_or_paths_only_readable_http_passes(
    extra: AllowRule | DenyRule,
) -> None:
    rules = index(allow("a.org", "b.org", ports=[443, 80]), extra)
    assert obligations(rules, connect("a.org")) == (BOTH, OnlyReadable())


@pytest.mark.parametrize(
    "extra",
    [
        allow("b.org", id="x", methods=["GET"]),
        allow("a.org", id="x", methods=["GET"], ports=[80]),
        allow("a.org", id="x", methods=["GET"], types=[TXT]),
        deny("b.org", id="x", methods=["POST"]),
        deny(id="x", paths=["/x"], ports=[80]),
        deny(id="x", paths=["/x"], addresses=["192.0.2.0/24"]),
    ],
)
def test_rules_with_paths_elsewhere_leave_a_tunnel_alone(extra: AllowRule | DenyRule) -> None:
    assert obligations(index(allow("a.org"), extra), connect("a.org")) == (BOTH, PeekTls())


# Literals


def test_only_a_rule_that_names_addresses_allows_a_literal() -> None:
    rules = index(
        allow("**.org", addresses=["192.0.2.0/24"]),
        allow(id="ssh", addresses=["192.0.2.7/32", "2001:db8::/32"], ports=[22], tls=False),
    )
    assert outcome(decide(rules, connect("192.0.2.7", 22))) == (ALLOW, Reason.RULE, "ssh")
    assert obligations(rules, connect("2001:db8::1", 22)) == (TunnelUnread(),)
    assert obligations(rules, request("192.0.2.7", port=22)) == ()
    assert reason(rules, connect("192.0.2.7", 443)) is Reason.PORT_NOT_ALLOWED
    assert reason(rules, request("192.0.2.7", port=443)) is Reason.PORT_NOT_ALLOWED
    assert reason(rules, connect("192.0.2.8", 22)) is Reason.LITERAL_NOT_ALLOWED
    assert reason(rules, question("7.2.0.192.in-addr.example", A)) is Reason.HOST_NOT_LISTED


@pytest.mark.parametrize(
    "literal",
    ["127.0.0.1", "127.9.9.9", "0.0.0.0", "0.1.2.3", "::1", "::", "::ffff:127.0.0.1",
     "64:ff9b::7f00:1", "2002:7f00:1::1"],
)  # fmt: skip
def test_literals_of_this_host_are_special_unless_a_rule_names_them(literal: str) -> None:
    """Closes "0.0.0.0 and ::" and "IPv6-mapped, -compatible, NAT64, 6to4"."""
    assert reason(index(), connect(literal)) is Reason.SPECIAL_USE
    block = "::/0" if ":" in literal else "0.0.0.0/0"
    assert decide(index(allow(addresses=[block])), connect(literal)).verdict is ALLOW


def test_longer_prefixes_are_more_specific() -> None:
    rules = index(
        allow(id="wide", addresses=["192.0.2.0/24"]),
        allow(id="narrow", addresses=["192.0.2.7/32"], tls=False),
    )
    assert decide(rules, connect("192.0.2.7")).rule == "narrow"
    assert decide(rules, connect("192.0.2.8")).rule == "wide"


@pytest.mark.parametrize(
    ("rule", "literal", "denied"),
    [
        (deny(addresses=["10.0.0.0/8"]), "10.1.2.3", True),
        (deny(addresses=["10.0.0.0/8"]), "::ffff:10.1.2.3", True),
        (deny(addresses=["10.0.0.0/8"]), "64:ff9b::a01:203", True),
        (deny(addresses=["10.0.0.0/8"]), "2002:a01:203::1", True),
        (deny(addresses=["10.0.0.0/8"]), "11.1.2.3", False),
        (deny("*", addresses=["10.0.0.0/8"]), "10.1.2.3", True),
        (deny("a.org", addresses=["10.0.0.0/8"]), "10.1.2.3", False),
        (deny(addresses=["10.0.0.0/8"], ports=[22]), "10.1.2.3", False),
        (deny(addresses=["10.0.0.0/8"], types=[A]), "10.1.2.3", False),
        (deny("*"), "10.1.2.3", True),
        (deny("*"), "2606::1", True),
        (deny(ports=[443]), "10.1.2.3", True),
        (deny("**.org"), "10.1.2.3", False),
    ],
)
def test_denies_of_addresses_and_of_everything_cover_literals(
    rule: DenyRule, literal: str, denied: bool
) -> None:
    rules = index(allow(addresses=["0.0.0.0/0", "::/0"]), rule)
    for fact in (connect(literal), request(literal), endpoint(None, literal)):
        assert (decide(rules, fact).verdict is DENY) is denied


def test_a_deny_of_requests_to_an_address_judges_them_one_by_one() -> None:
    rules = index(
        allow(addresses=["192.0.2.0/24"]), deny(addresses=["192.0.2.7/32"], paths=["/admin/**"])
    )
    assert obligations(rules, connect("192.0.2.7")) == (OnlyReadable(),)
    assert obligations(rules, connect("192.0.2.8")) == (PeekTls(),)
    assert reason(rules, request("192.0.2.7", "/admin/")) is Reason.RULE
    assert decide(rules, request("192.0.2.8", "/admin/")).verdict is ALLOW


# Endpoint


@pytest.mark.parametrize(
    "address",
    ["10.0.0.1", "127.0.0.1", "0.0.0.0", "169.254.169.254", "100.100.100.200", "168.63.129.16",
     "192.0.0.192", "::1", "::", "::ffff:10.0.0.1", "::8.8.8.8", "64:ff9b::10.0.0.1",
     "2002:a00:1::1", "fd00:ec2::254", "fd20:ce::254", "fd00:c1::a9fe:a9fe", "fd00:42::42",
     "fe80::1", "2001:0:808:808::f5ff:fffe", "2001:0:a00:1::f7f7:f7f7", "4000::1"],
)  # fmt: skip
def test_a_public_name_may_not_stand_for_a_special_purpose_address(address: str) -> None:
    """Closes "Rebinding: first answer public, second private" and its metadata addresses."""
    decision = decide(index(allow("a.org")), endpoint("a.org", address, None))
    assert outcome(decision) == (DENY, Reason.ADDRESS_NOT_ALLOWED, "allow")


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "2606:4700::1", "64:ff9b::808:808", "2002:808:808::1"]
)
def test_an_allowed_name_may_stand_for_a_public_address(address: str) -> None:
    decision = decide(index(allow("a.org")), endpoint("a.org", address))
    assert outcome(decision) == (ALLOW, Reason.RULE, "allow")


def test_a_name_may_stand_for_the_addresses_that_its_rule_lists() -> None:
    rules = index(allow("a.org", addresses=["10.1.2.0/24"]), allow("**.org", id="deep"))
    assert decide(rules, endpoint("a.org", "10.1.2.3")).verdict is ALLOW
    assert decide(rules, endpoint("a.org", "8.8.8.8")).verdict is ALLOW
    assert reason(rules, endpoint("a.org", "10.1.3.3")) is Reason.ADDRESS_NOT_ALLOWED
    assert reason(rules, endpoint("b.org", "10.1.2.3")) is Reason.ADDRESS_NOT_ALLOWED
    assert reason(rules, endpoint("a.org", "::ffff:10.1.2.3")) is Reason.ADDRESS_NOT_ALLOWED


def test_the_port_of_an_endpoint_is_held_by_the_rule_or_unknown() -> None:
    rules = index(
        allow("a.org", ports=[443]), allow("a.org", id="db", ports=[5432], addresses=["10.0.0.1"])
    )
    assert decide(rules, endpoint("a.org", "10.0.0.1", 5432)).rule == "db"
    assert decide(rules, endpoint("a.org", "10.0.0.1", None)).verdict is ALLOW
    assert reason(rules, endpoint("a.org", "10.0.0.1", 443)) is Reason.ADDRESS_NOT_ALLOWED
    assert reason(rules, endpoint("a.org", "8.8.8.8", 22)) is Reason.ADDRESS_NOT_ALLOWED


def test_an_address_needs_an_allow_of_its_own_type() -> None:
    rules = index(allow("a.org", types=[A]))
    assert decide(rules, endpoint("a.org", "8.8.8.8")).verdict is ALLOW
    assert reason(rules, endpoint("a.org", "2606::1")) is Reason.ADDRESS_NOT_ALLOWED


@pytest.mark.parametrize("name", ["a.org", None])
def test_our_own_listeners_are_refused_whatever_is_listed(name: str | None) -> None:
    """Closes "own listeners and own interface addresses"."""
    rules = index(allow("a.org", addresses=["0.0.0.0/0"]), allow(id="all", addresses=["0.0.0.0/0"]))
    fact = endpoint(name, "192.0.2.1", own_listener=True)
    assert outcome(decide(rules, fact)) == (DENY, Reason.ADDRESS_NOT_ALLOWED, None)


def test_an_address_of_our_own_interface_must_be_listed() -> None:
    """Closes "own listeners and own interface addresses"."""
    fact = endpoint("a.org", "8.8.8.8", own_interface=True)
    assert reason(index(allow("a.org")), fact) is Reason.ADDRESS_NOT_ALLOWED
    assert decide(index(allow("a.org", addresses=["8.8.8.8"])), fact).verdict is ALLOW


@pytest.mark.parametrize(
    ("rule", "fact", "denied"),
    [
        (deny(addresses=["8.8.8.0/24"]), endpoint("a.org", "8.8.8.8", None), True),
        (deny(addresses=["8.8.8.0/24"]), endpoint("a.org", "64:ff9b::808:808", None), True),
        (deny(addresses=["8.8.8.0/24"]), endpoint("a.org", "8.8.9.8", None), False),
        (deny("a.org", addresses=["8.8.8.8"]), endpoint("a.org", "8.8.8.8"), True),
        (deny("b.org", addresses=["8.8.8.8"]), endpoint("a.org", "8.8.8.8"), False),
        (deny(addresses=["8.8.8.8"], ports=[443]), endpoint("a.org", "8.8.8.8", 443), True),
        (deny(addresses=["8.8.8.8"], ports=[22]), endpoint("a.org", "8.8.8.8", 443), False),
        (deny(addresses=["8.8.8.8"], ports=[22]), endpoint("a.org", "8.8.8.8", None), False),
        (deny(addresses=["8.8.8.8"], methods=["POST"]), endpoint("a.org", "8.8.8.8"), False),
        (deny(addresses=["8.8.8.8"], types=[A]), endpoint("a.org", "8.8.8.8"), False),
    ],
)
def test_a_deny_of_addresses_beats_every_allow_of_a_name(
    rule: DenyRule, fact: Endpoint, denied: bool
) -> None:
    decision = decide(index(allow("a.org", addresses=["8.8.8.8"]), rule), fact)
    expected = (
        (DENY, Reason.ADDRESS_NOT_ALLOWED, "deny") if denied else (ALLOW, Reason.RULE, "allow")
    )
    assert outcome(decision) == expected


def test_a_denied_name_stands_for_no_address() -> None:
    rules = index(
        allow("a.org"), deny("a.org", text="no"), allow(id="all", addresses=["0.0.0.0/0"])
    )
    decision = decide(rules, endpoint("a.org", "8.8.8.8"))
    assert outcome(decision) == (DENY, Reason.RULE, "deny")
    assert decision.text == "no"
    assert decide(rules, endpoint(None, "8.8.8.8")).verdict is ALLOW


def test_a_literal_endpoint_needs_a_rule_of_addresses_and_port() -> None:
    rules = index(allow(id="ssh", addresses=["192.0.2.0/24", "127.0.0.0/8"], ports=[22]))
    assert outcome(decide(rules, endpoint(None, "127.0.0.1", 22))) == (ALLOW, Reason.RULE, "ssh")
    assert reason(rules, endpoint(None, "192.0.2.1", 443)) is Reason.ADDRESS_NOT_ALLOWED
    assert reason(rules, endpoint("a.org", "192.0.2.1", 22)) is Reason.HOST_NOT_LISTED


# Request


@pytest.mark.parametrize(
    ("path", "rule"),
    [
        ("/repos/acme/x", "acme"),
        ("/repos/acme/", "acme"),
        ("/repos/acme", "star"),
        ("/repos/other", "star"),
        ("/repos/other/x", "deep"),
        ("/repos/acme%2Fx", "star"),
        ("/", "all"),
    ],
)
def test_the_most_specific_path_decides(path: str, rule: str) -> None:
    allows = [
        allow("a.org", id="all"),
        allow("a.org", id="deep", paths=["/repos/**"]),
        allow("a.org", id="star", paths=["/repos/*"]),
        allow("a.org", id="acme", paths=["/repos/acme/**", "/x"]),
    ]
    for order in (allows, allows[::-1]):
        assert decide(index(*order), request("a.org", path)).rule == rule


def test_a_rule_with_methods_beats_one_without_of_the_same_path() -> None:
    rules = index(
        allow("a.org", id="a", paths=["/x"]),
        allow("a.org", id="get", paths=["/x"], methods=["GET"], require=MTLS),
    )
    assert outcome(decide(rules, request("a.org", "/x"))) == (DENY, Reason.MTLS_REQUIRED, "get")
    assert decide(rules, request("a.org", "/x", "PUT")).rule == "a"
    pathless = index(allow("a.org", id="a"), allow("a.org", id="get", methods=["GET"]))
    assert decide(pathless, request("a.org", "/x")).rule == "get"
    assert decide(pathless, request("a.org", "/x", "PUT")).rule == "a"


def test_equal_paths_of_two_rules_merge() -> None:
    rules = index(
        allow("a.org", id="b", paths=["/x/**"], require=MTLS),
        allow("a.org", id="a", paths=["/x/**"], types=[A]),
    )
    assert outcome(decide(rules, request("a.org", "/x/y"))) == (DENY, Reason.MTLS_REQUIRED, "a")
    assert obligations(rules, request("a.org", "/x/y", who=PROVEN)) == (BOTH,)


def test_a_less_specific_pattern_is_tried_when_the_path_does_not_fit() -> None:
    rules = index(allow("a.org", paths=["/x"]), allow("**.org", id="deep", methods=["GET"]))
    assert decide(rules, request("a.org", "/x", "PUT")).rule == "allow"
    assert decide(rules, request("a.org", "/y")).rule == "deep"
    assert reason(rules, request("a.org", "/y", "PUT")) is Reason.PATH_NOT_ALLOWED


@pytest.mark.parametrize(
    ("fact", "expected"),
    [
        (request("a.org", "/x", port=80), Reason.PORT_NOT_ALLOWED),
        (request("a.org", "/x", "PUT"), Reason.METHOD_NOT_ALLOWED),
        (request("a.org", "/x", "get"), Reason.METHOD_NOT_ALLOWED),
        (request("a.org", "/X"), Reason.PATH_NOT_ALLOWED),
        (request("b.org", "/x"), Reason.HOST_NOT_LISTED),
    ],
)
def test_says_what_is_missing_of_a_request(fact: Request, expected: Reason) -> None:
    assert reason(index(allow("a.org", methods=["GET"], paths=["/x"])), fact) is expected


@pytest.mark.parametrize(
    "path", ["/admin/x", "/admin%2Fx", "/%2Fadmin/x", "//admin//x", "/admin/", "/a%2F%2Fb"]
)
def test_a_deny_is_tried_on_every_reading_of_a_path(path: str) -> None:
    """Closes "dot segments and encoded slashes in paths"."""
    rules = index(allow("a.org"), deny("a.org", id="no", paths=["/admin/**", "/a/b"]))
    assert outcome(decide(rules, request("a.org", path))) == (DENY, Reason.RULE, "no")
    assert decide(rules, request("a.org", "/admin")).verdict is ALLOW


def test_a_deny_with_method_and_path_needs_both() -> None:
    rules = index(
        allow("a.org"),
        deny("a.org", id="b", methods=["PUT"], paths=["/x"], ports=[443]),
        deny("a.org", id="a", methods=["PUT"], paths=["/*"], text="no"),
        deny("a.org", id="c", methods=["DELETE"], ports=[80]),
    )
    decision = decide(rules, request("a.org", "/x", "PUT"))
    assert (decision.rule, decision.text) == ("a", "no")
    assert decide(rules, request("a.org", "/x")).verdict is ALLOW
    assert decide(rules, request("a.org", "/x/y", "PUT")).verdict is ALLOW
    assert decide(rules, request("a.org", "/x", "DELETE")).verdict is ALLOW


def test_a_rule_for_another_port_with_the_same_path_does_not_fit() -> None:
    rules = index(
        allow("a.org", id="80", ports=[80], paths=["/x"]), allow("a.org", id="443", paths=["/x"])
    )
    assert decide(rules, request("a.org", "/x", port=80)).rule == "80"
    assert decide(rules, request("a.org", "/x", port=443)).rule == "443"


def test_a_thousand_patterns_decide_as_one_would() -> None:
    globs = [f"/repos/org{n}/**" for n in range(500)] + [f"/**/x{n}*" for n in range(500)]
    rules = index(*(allow("a.org", id=f"r{n:03}", paths=[glob]) for n, glob in enumerate(globs)))
    assert decide(rules, request("a.org", "/repos/org7/x")).rule == "r007"
    assert decide(rules, request("a.org", "/q/x42-1")).rule == "r542"  # and x4*, less specific
    assert reason(rules, request("a.org", "/repos/org7")) is Reason.PATH_NOT_ALLOWED
    assert parse_glob("/**/x42*").rank > parse_glob("/**/x4*").rank


# Zones


def zoned(*rules: AllowRule | DenyRule, suffixes: str = "corp.example corp.internal") -> RuleIndex:
    return with_zones(index(*rules), make_zones(map(parse, suffixes.split())))


PRIVATE_NAME = "db.corp.internal"


def test_a_special_use_name_of_a_zone_is_for_the_rules_to_allow() -> None:
    assert reason(zoned(), question(PRIVATE_NAME)) is Reason.HOST_NOT_LISTED
    assert reason(zoned(), connect(PRIVATE_NAME)) is Reason.HOST_NOT_LISTED
    rules = zoned(allow(PRIVATE_NAME))
    for fact in (question(PRIVATE_NAME), connect(PRIVATE_NAME), request(PRIVATE_NAME)):
        assert outcome(decide(rules, fact)) == (ALLOW, Reason.RULE, "allow")
    denied = zoned(allow(PRIVATE_NAME), deny("**.internal"))
    assert reason(denied, question(PRIVATE_NAME)) is Reason.RULE


def test_outside_its_zone_a_special_use_name_stays_here() -> None:
    rules = zoned(allow("db.other.internal"))
    assert decide(rules, question("db.other.internal")) == Decision(ALLOW, Reason.LOCAL)
    assert reason(rules, connect("db.other.internal")) is Reason.SPECIAL_USE


@pytest.mark.parametrize(
    "name",
    ["localhost", "sallyport.internal", "a._why.sallyport.internal", "_dns.resolver.arpa",
     "use-application-dns.net"],
)  # fmt: skip
def test_what_is_about_ourselves_stays_here_though_a_zone_covers_it(name: str) -> None:
    """Closes "`use-application-dns.net`, `_dns.resolver.arpa`" for zones."""
    rules = zoned(allow(name), suffixes="internal arpa net localhost")
    assert decide(rules, question(name)).reason is Reason.LOCAL
    assert reason(rules, connect(name)) is Reason.SPECIAL_USE


def test_a_name_above_a_zone_is_said_to_exist() -> None:
    """RFC 8020: NXDOMAIN for it would deny the zone."""
    assert decide(zoned(), question("internal")).empty
    assert not decide(zoned(), question("other.internal")).empty


@pytest.mark.parametrize(
    ("via", "verdict"), [("www.corp.internal", ALLOW), ("www.example.net", DENY)]
)
def test_a_special_use_target_is_followed_inside_its_zone_alone(via: str, verdict: Verdict) -> None:
    rules = zoned(allow(via))
    assert decide(rules, question(PRIVATE_NAME, via=via)).verdict is verdict


@pytest.mark.parametrize("address", ["10.0.0.1", "192.168.7.7", "172.20.0.1", "fd12::1"])
@pytest.mark.parametrize("port", [443, None])
def test_a_name_of_a_zone_may_stand_for_a_private_address(address: str, port: int | None) -> None:
    rules = zoned(allow("db.corp.example"), allow("a.org"))
    assert decide(rules, endpoint("db.corp.example", address, port)).verdict is ALLOW
    assert reason(rules, endpoint("a.org", address, port)) is Reason.ADDRESS_NOT_ALLOWED
    assert reason(rules, endpoint(None, address, port)) is Reason.ADDRESS_NOT_ALLOWED


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "::1", "0.0.0.0", "169.254.169.254", "fe80::1", "100.100.100.200",
     "168.63.129.16", "fd00:ec2::254", "::ffff:10.0.0.1", "64:ff9b::10.0.0.1", "224.0.0.1"],
)  # fmt: skip
def test_a_name_of_a_zone_may_stand_for_nothing_else_that_is_special(address: str) -> None:
    """Closes "Rebinding: first answer public, second private" for loopback and metadata."""
    rules = zoned(allow("db.corp.example"))
    assert reason(rules, endpoint("db.corp.example", address)) is Reason.ADDRESS_NOT_ALLOWED


def test_a_zone_opens_no_door_of_this_host() -> None:
    """Closes "own listeners and own interface addresses" for zones."""
    rules = zoned(allow("db.corp.example"))
    fact = endpoint("db.corp.example", "10.0.0.1")
    assert reason(rules, replace(fact, own_interface=True)) is Reason.ADDRESS_NOT_ALLOWED
    assert reason(rules, replace(fact, own_listener=True)) is Reason.ADDRESS_NOT_ALLOWED
    assert reason(zoned(), fact) is Reason.HOST_NOT_LISTED


def test_a_deny_of_addresses_holds_in_a_zone() -> None:
    rules = zoned(allow("db.corp.example"), deny(addresses=["10.0.0.0/24"]))
    assert reason(rules, endpoint("db.corp.example", "10.0.0.1")) is Reason.ADDRESS_NOT_ALLOWED
    assert decide(rules, endpoint("db.corp.example", "10.0.1.1")).verdict is ALLOW


def test_an_app_that_no_rule_file_knows_gains_nothing_by_a_zone() -> None:
    rules = with_zones(of_app(app()), make_zones([parse("corp.internal")]))
    assert reason(rules, question(PRIVATE_NAME)) is Reason.HOST_NOT_LISTED


# https_upgrade

UPGRADE, SHOWING = UpgradeTls(), UpgradeTls(FileCertificate("c.pem", "c.key"))


def test_a_request_is_upgraded_by_the_allow_that_decides_it() -> None:
    rules = index(allow("a.org", ports=[80, 8080], upgrade=SHOWING), allow("b.org", ports=[80]))
    assert obligations(rules, request("a.org", port=80)) == (BOTH, SHOWING)
    assert obligations(rules, request("a.org", port=8080)) == (BOTH, SHOWING)
    assert obligations(rules, request("b.org", port=80)) == (BOTH,)
    assert obligations(index(allow("b.org", ports=[80])), request("b.org", port=80)) == (BOTH,)


def test_of_equal_allows_one_that_upgrades_wins_in_any_order() -> None:
    for first, second in itertools.permutations("ab"):
        plain = allow("a.org", id=first, ports=[80])
        rules = index(plain, allow("a.org", id=second, ports=[80], upgrade=SHOWING))
        assert obligations(rules, request("a.org", port=80)) == (BOTH, SHOWING)
        assert obligations(rules, connect("a.org", 80)) == (BOTH, PeekTls(), UPGRADE)


def test_an_upgrade_of_a_less_specific_allow_counts_for_nothing() -> None:
    rules = index(allow("a.org", ports=[80]), allow("**.org", ports=[80], upgrade=UPGRADE))
    assert obligations(rules, request("a.org", port=80)) == (BOTH,)
    assert obligations(rules, connect("a.org", 80)) == (BOTH, PeekTls())


def test_a_connect_to_port_80_waits_for_requests_that_may_be_upgraded() -> None:
    """threats.md: an upgrade that a tunnel would get around."""
    rules = index(allow("a.org", ports=[80, 443, 8080], upgrade=SHOWING))
    assert obligations(rules, connect("a.org", 80)) == (BOTH, PeekTls(), UPGRADE)
    # What is dialled as it is is the client's own TLS, and read as such.
    assert obligations(rules, connect("a.org", 443)) == (BOTH, PeekTls())
    assert obligations(rules, connect("a.org", 8080)) == (BOTH, PeekTls())


def test_a_connect_is_told_of_every_allow_that_may_decide_a_request() -> None:
    get = allow("a.org", id="get", ports=[80], methods=["GET"])
    wide = allow("**.org", id="wide", ports=[80], upgrade=UPGRADE)
    assert obligations(index(get, wide), connect("a.org", 80)) == (BOTH, OnlyReadable(), UPGRADE)
    other = allow("**.org", id="wide", ports=[443], upgrade=UPGRADE)
    assert obligations(index(get, other), connect("a.org", 80)) == (BOTH, OnlyReadable())
    path = allow("a.org", id="in", ports=[80], paths=["/in"], upgrade=SHOWING)
    rules = index(path, allow("a.org", id="all", ports=[80]))
    assert obligations(rules, connect("a.org", 80)) == (BOTH, OnlyReadable(), UPGRADE)
    assert obligations(rules, request("a.org", "/in", port=80)) == (BOTH, SHOWING)
    assert obligations(rules, request("a.org", "/out", port=80)) == (BOTH,)


def test_the_port_that_is_dialled_is_asked_for_and_no_other() -> None:
    rules = index(allow("a.org", ports=[80], upgrade=UPGRADE))
    assert decide(rules, endpoint("a.org", "8.8.8.8", 443, asked=80)).verdict is ALLOW
    for asked in (None, 81):
        other = endpoint("a.org", "8.8.8.8", 443, asked=asked)
        assert reason(rules, other) is Reason.ADDRESS_NOT_ALLOWED
    own = endpoint("a.org", "8.8.8.8", 443, own_listener=True, asked=80)
    assert reason(rules, own) is Reason.ADDRESS_NOT_ALLOWED
    assert reason(rules, connect("a.org", 443)) is Reason.PORT_NOT_ALLOWED
    assert reason(rules, request("a.org", port=443)) is Reason.PORT_NOT_ALLOWED


@pytest.mark.parametrize("wide", ["a.org", "*.org"])
@pytest.mark.parametrize("is_inside", [False, True])
def test_what_is_upgraded_and_what_is_dialled_as_it_is_share_no_addresses(
    wide: str, *, is_inside: bool
) -> None:
    """threats.md, "Between name and address": port 80 of a rule gives no right to port 443.

    Nor does a rule of port 443 say whither a request to port 80 goes on.
    """
    networks = ["10.1.2.0/24"]
    upgraded, tunnelled = ((), networks) if is_inside else (networks, ())
    rules = index(
        allow("a.org", id="up", ports=[80], addresses=upgraded, upgrade=UPGRADE),
        allow(wide, id="tunnel", ports=[443], addresses=tunnelled),
    )
    assert decide(rules, endpoint("a.org", "8.8.8.8", 443)).rule == "tunnel"
    assert decide(rules, endpoint("a.org", "8.8.8.8", 443, asked=80)).rule == "up"
    inside = {asked: decide(rules, endpoint("a.org", "10.1.2.3", 443, asked=asked)).verdict is ALLOW
              for asked in (None, 80)}  # fmt: skip
    assert inside == {None: is_inside, 80: not is_inside}


def test_a_deny_of_the_port_that_is_dialled_wins() -> None:
    rules = index(allow("a.org", ports=[80], upgrade=UPGRADE), deny("a.org", ports=[443]))
    assert reason(rules, endpoint("a.org", "8.8.8.8", 443, asked=80)) is Reason.RULE


def test_a_literal_is_upgraded_too() -> None:
    rules = index(allow(addresses=["192.0.2.0/24"], ports=[80], upgrade=UPGRADE))
    assert obligations(rules, request("192.0.2.1", port=80)) == (UPGRADE,)
    assert decide(rules, endpoint(None, "192.0.2.1", 443, asked=80)).verdict is ALLOW


@pytest.mark.parametrize("path", ["//secret/x", "/secret%2Fx", "/%2Fsecret//x"])
def test_what_a_path_requires_holds_where_the_server_may_read_another_one_as_it(path: str) -> None:
    """The attack "dot segments and encoded slashes in paths": of what must be proven, too."""
    rules = index(
        allow("a.org", id="read", ports=[80]),
        allow("a.org", id="secret", ports=[80], paths=["/secret/**"], require=ATTESTED),
    )
    fact = request("a.org", path, port=80, who=PROVEN)
    assert outcome(decide(rules, fact)) == (DENY, Reason.ATTESTATION_REQUIRED, "read")
    proven = attested((Level.SOFTWARE, 300))
    assert decide(rules, request("a.org", path, port=80, who=proven)).rule == "read"
    assert decide(rules, request("a.org", "//x", port=80, who=PROVEN)).verdict is ALLOW


def test_what_a_path_of_a_nearer_host_requires_holds_for_its_other_spellings() -> None:
    rules = index(
        allow("*.org", id="wide", ports=[80]),
        allow("a.org", id="secret", ports=[80], paths=["/secret/**"], require=ATTESTED),
    )
    for path in ("//secret/x", "/secret%2Fx"):
        fact = request("a.org", path, port=80, who=PROVEN)
        assert outcome(decide(rules, fact)) == (DENY, Reason.ATTESTATION_REQUIRED, "wide")
