"""Each rule of the asker's app says why it matched or not; the decision comes last."""

from typing import Any

import pytest
from msgspec.structs import replace

from rules.decide import decide
from rules.decision import (
    ClientCertificate,
    Decision,
    FileCertificate,
    Reason,
    SvidCertificate,
    UpgradeTls,
    Verdict,
)
from rules.explain import (
    STEPS_ELSEWHERE,
    STEPS_HERE,
    ListAlone,
    Step,
    StepKind,
    assume,
    explain,
)
from rules.facts import Attestation, Evidence, Facts, Level, Principal
from rules.listed import NO_LISTS, Listed, Lists
from rules.match import RuleIndex, index_rules
from rules.name import parse
from rules.rtype import AAAA, TXT, A
from rules.ruleset import AllowRule, App, DenyRule, IdentityLine, ListSource, Requirements, Ruleset
from rules.zones import make_zones, with_zones
from tests.rules.naive_lists import NaiveLists
from tests.rules.written import (
    allow,
    app,
    connect,
    deny,
    endpoint,
    index,
    of_app,
    question,
    request,
)


def steps(rules: RuleIndex, facts: Facts) -> list[tuple[str | None, bool, str]]:
    """Return the rules' steps; the last one must be the decision."""
    *others, last = explain(rules, facts)
    assert last.kind is StepKind.DECISION
    assert last.decision == decide(rules, facts)
    assert all(step.decision is None for step in others)
    return [(step.rule, step.matched, step.why) for step in others]


def why(rule: AllowRule | DenyRule, facts: Facts) -> str:
    ((_, matched, words),) = steps(index(rule), facts)
    assert not matched
    return words


def test_tries_denies_before_allows_and_ends_with_the_decision() -> None:
    rules = index(
        allow("a.org", id="web"),
        allow("**.org", id="deep"),
        deny("b.org", id="bad"),
    )
    told = explain(rules, connect("a.org"))
    assert [(step.rule, step.kind, step.matched) for step in told] == [
        ("bad", StepKind.DENY, False),
        ("web", StepKind.ALLOW, True),
        ("deep", StepKind.ALLOW, True),
        ("web", StepKind.DECISION, True),
    ]
    assert [step.why for step in told] == [
        "[b.org] does not match a.org",
        "it decides",
        "it fits; another decides",
        "the rule says allow",
    ]


def test_says_only_what_the_askers_own_rules_hold() -> None:
    """Closes "never another app's rules"."""
    rules = index_rules(Ruleset(1, {"me": app(allow("a.org")), "you": app(allow("b.org"))}))
    assert steps(rules, connect("b.org")) == [("allow", False, "[a.org] does not match b.org")]
    assert steps(rules, connect("b.org", who=Principal("unknown"))) == []


@pytest.mark.parametrize(
    ("rule", "facts", "expected"),
    [
        (allow("a.org"), connect("a.org", 8443), "port 8443 is not in [443]"),
        (allow("a.org", ports=[443, 80]), connect("a.org", 22), "port 22 is not in [80, 443]"),
        (
            allow("a.org", types=[A, AAAA]),
            question("a.org", TXT),
            "type TXT is not in [A, AAAA]",
        ),
        (allow("a.org"), connect("192.0.2.1"), "it allows names, no literals"),
        (allow(addresses=["192.0.2.1"]), connect("a.org"), "it allows literals, no names"),
        (
            allow(addresses=["192.0.2.1"]),
            connect("192.0.2.2"),
            "192.0.2.2 is not in [192.0.2.1/32]",
        ),
        (
            allow("a.org", types=[TXT]),
            connect("a.org"),
            "an allow without A and AAAA covers look-ups only",
        ),
        (
            allow("a.org", methods=["PUT", "GET"]),
            request("a.org", method="POST"),
            "method POST is not in [GET, PUT]",
        ),
        (allow("a.org", paths=["/x/**"]), request("a.org", "/y"), "/y does not match [/x/**]"),
        (
            allow(*(f"h{n}.org" for n in range(2000))),
            connect("a.org"),
            "[h0.org, h1.org, h2.org, h3.org, 1,996 more] does not match a.org",
        ),
        (
            allow("a.org"),
            endpoint("a.org", "10.0.0.1"),
            "10.0.0.1 is private use (RFC 1918), not in []",
        ),
        (
            allow("a.org", addresses=["10.1.0.0/16"]),
            endpoint("a.org", "64:ff9b::10.0.0.1"),
            "10.0.0.1 is private use (RFC 1918), not in [10.1.0.0/16]",
        ),
        (allow("a.org", types=[A]), endpoint("a.org", "2606::1"), "type AAAA is not in [A]"),
        (
            allow("a.org"),
            endpoint("a.org", "8.8.8.8", own_interface=True),
            "8.8.8.8 is an address of this host, not in []",
        ),
        (
            allow("a.org", addresses=["8.8.8.8"]),
            endpoint("a.org", "8.8.8.8", own_listener=True),
            "8.8.8.8 is a listener of the appliance",
        ),
        (
            allow(addresses=["192.0.2.1"]),
            endpoint(None, "192.0.2.2"),
            "192.0.2.2 is not in [192.0.2.1/32]",
        ),
        (deny("a.org", types=[TXT]), question("a.org"), "type A is not in [TXT]"),
        (
            deny("a.org", ports=[80]),
            question("a.org"),
            "a deny with ports, addresses, methods or paths never covers a look-up",
        ),
        (deny("a.org", types=[A]), connect("a.org"), "a deny with types covers look-ups only"),
        (
            deny("a.org", methods=["PUT"]),
            connect("a.org"),
            "methods and paths cover requests only; to this host only readable HTTP passes",
        ),
        (
            deny("a.org", ports=[80]),
            endpoint("a.org", "8.8.8.8", None),
            "it waits until the port is known",
        ),
        (
            deny(addresses=["10.0.0.0/8"]),
            connect("a.org"),
            "a deny with addresses covers literals and what names resolve to",
        ),
        (
            deny(addresses=["10.0.0.0/8"]),
            endpoint("a.org", "8.8.8.8"),
            "8.8.8.8 is not in [10.0.0.0/8]",
        ),
        (deny("**.org"), connect("192.0.2.1"), "[**.org] does not match 192.0.2.1"),
    ],
)
def test_says_in_words_what_a_rule_lacks(
    rule: AllowRule | DenyRule, facts: Facts, expected: str
) -> None:
    assert why(rule, facts) == expected


@pytest.mark.parametrize(
    ("rule", "facts"),
    [
        (allow("a.org"), question("a.org")),
        (allow("a.org"), question("cdn.net", via="a.org")),
        (allow("a.org"), endpoint("a.org", "8.8.8.8", None)),
        (allow("a.org", addresses=["10.0.0.0/8"]), endpoint("a.org", "10.0.0.1")),
        (allow(addresses=["192.0.2.0/24"]), connect("192.0.2.1")),
        (allow(addresses=["192.0.2.0/24"]), endpoint(None, "192.0.2.1")),
        (allow("a.org", methods=["GET"], paths=["/x/**"]), request("a.org", "/x/y")),
        (allow("a.org", paths=["/x"]), connect("a.org")),
        (deny("*"), question("a.org")),
        (deny("*"), connect("192.0.2.1")),
        (deny("b.net"), question("b.net", via="a.org")),
        (deny(addresses=["10.0.0.0/8"]), connect("::ffff:10.0.0.1")),
        (deny(addresses=["10.0.0.0/8"], ports=[22]), endpoint("a.org", "10.0.0.1", 22)),
        (deny("a.org", paths=["/admin/**"]), request("a.org", "/admin%2Fx")),
    ],
)
def test_a_rule_that_gives_the_decision_says_so(rule: AllowRule | DenyRule, facts: Facts) -> None:
    assert steps(index(rule), facts) == [(rule.id, True, "it decides")]


@pytest.mark.parametrize(
    ("rules", "facts", "words"),
    [
        (index(), question("localhost"), "a special-use name, answered by the appliance itself"),
        (index(), connect("a.org"), "no allow names the host"),
        (index(deny("a.org")), connect("a.org"), "the rule says deny"),
        (index(lists=NaiveLists("a.org")), connect("a.org"), "a deny list names it"),
    ],
)
def test_the_decision_is_told_in_words(rules: RuleIndex, facts: Facts, words: str) -> None:
    last = explain(rules, facts)[-1]
    assert last.why.startswith(words)
    assert last.matched is (decide(rules, facts).verdict is Verdict.ALLOW)


@pytest.mark.parametrize(
    ("rules", "facts"),
    [
        (index(), connect("127.0.0.1")),
        (index(), connect("192.0.2.1")),
        (index(allow("a.org")), question("a.org", TXT)),
        (index(allow("a.org")), connect("a.org", 80)),
        (index(allow("a.org", methods=["GET"])), request("a.org", method="PUT")),
        (index(allow("a.org", paths=["/x"])), request("a.org", "/y")),
        (index(allow("a.org")), endpoint("a.org", "10.0.0.1")),
        (index(), connect("a.org", who=Principal("unknown", (Evidence.TOKEN,)))),
        (index(allow("a.org", require=Requirements(mtls=True))), connect("a.org")),
    ],
)
def test_every_reason_has_words_of_its_own(rules: RuleIndex, facts: Facts) -> None:
    last = explain(rules, facts)[-1]
    assert last.decision is not None
    assert last.decision.reason is not Reason.RULE
    assert "the rule says" not in last.why


def test_of_a_huge_app_the_rules_that_do_not_match_are_counted() -> None:
    elsewhere = [allow(f"h{n}.org", id=f"e{n}") for n in range(5000)]
    here = [allow("a.org", id=f"p{n}", ports=[n]) for n in range(1, 1000)]
    told = explain(index(*elsewhere, *here, allow("a.org", id="web")), connect("a.org"))
    assert len(told) == STEPS_ELSEWHERE + STEPS_HERE + 4
    assert sum(step.matched for step in told) == 3  # web, p443 and the decision
    counted = 5000 - STEPS_ELSEWHERE + 998 - STEPS_HERE
    assert told[-2] == Step(
        None, StepKind.ALLOW, matched=False, why=f"{counted:,} more that do not match"
    )


def test_a_step_of_a_rule_carries_no_decision() -> None:
    decision = Decision(Verdict.DENY, Reason.HOST_NOT_LISTED)
    assert explain(index(), connect("a.org")) == (
        Step(
            None, StepKind.DECISION, matched=False, why="no allow names the host", decision=decision
        ),
    )


def test_says_which_zone_is_asked() -> None:
    rules = with_zones(index(allow("**.corp.internal")), make_zones([parse("corp.internal")]))
    for fact in (question("db.corp.internal"), endpoint("db.corp.internal", "10.0.0.1")):
        told = explain(rules, fact)
        assert told[0].matched
        assert told[-1].why.endswith("in the zone corp.internal, whose resolvers alone are asked")
    assert "zone" not in explain(rules, question("www.corp.internal", TXT))[-1].why
    assert "zone" not in explain(rules, connect("10.0.0.1"))[-1].why
    assert "zone" not in explain(rules, question("internal"))[-1].why


def test_says_that_a_zone_has_no_loopback() -> None:
    rules = with_zones(index(allow("**.corp.internal")), make_zones([parse("corp.internal")]))
    (step, _) = explain(rules, endpoint("db.corp.internal", "127.0.0.1"))
    assert step.why.startswith("127.0.0.1 is loopback")


@pytest.mark.parametrize(
    ("certificate", "words"),
    [
        (None, "without a certificate"),
        (SvidCertificate("spiffe://a.example/b"), "with the certificate of spiffe://a.example/b"),
        (FileCertificate("/c.pem", "/c.key"), "with the certificate in /c.pem"),
    ],
)
def test_says_that_a_request_goes_on_over_tls_and_what_is_shown_there(
    certificate: ClientCertificate | None, words: str
) -> None:
    rules = index(allow("a.org", ports=[80, 8080], upgrade=UpgradeTls(certificate)))
    (step, _) = explain(rules, request("a.org", port=80))
    assert step.why == f"it decides; it goes on over TLS to port 443 (https_upgrade), {words}"
    assert "over TLS to port 8080" in explain(rules, request("a.org", port=8080))[0].why


def test_says_that_nothing_but_upgraded_requests_passes_a_connect() -> None:
    rules = index(allow("a.org", ports=[80, 443], upgrade=UpgradeTls()))
    told = explain(rules, connect("a.org", 80))[0].why
    assert told.endswith(
        "requests may go on over TLS to port 443 (https_upgrade), nothing else passes"
    )
    for fact in (connect("a.org", 443), question("a.org")):
        assert [step.why for step in explain(rules, fact)] == ["it decides", "the rule says allow"]


def test_a_rule_that_upgrades_fits_the_port_that_is_dialled_for_it() -> None:
    rules = index(allow("a.org", ports=[80], upgrade=UpgradeTls()))
    (step, last) = explain(rules, endpoint("a.org", "8.8.8.8", 443, asked=80))
    assert (step.matched, last.matched) == (True, True)
    (step, last) = explain(rules, endpoint("a.org", "8.8.8.8", 443))
    assert step.why == "port 443 is not in [80]"
    (step, last) = explain(rules, endpoint("a.org", "8.8.8.8", 443, asked=81))
    assert step.why == "port 81 is not in [80]"
    assert not last.matched


def test_a_rule_that_does_not_upgrade_says_nothing_of_what_is_upgraded() -> None:
    rules = index(allow("a.org", ports=[80, 443]))
    (step, last) = explain(rules, endpoint("a.org", "8.8.8.8", 443, asked=80))
    assert step.why == "it does not say https_upgrade, by which port 443 is dialled"
    assert not last.matched


# What must be proven

ID = "spiffe://desk.example/me"
TPM = Requirements(mtls=True, attested=Level.TPM, max_age_s=60)
CERTIFIED = Principal("me", (Evidence.CERTIFICATE,))


def last_words(rules: RuleIndex, facts: Facts) -> str:
    return explain(rules, facts)[-1].why


@pytest.mark.parametrize("fact", [question, connect, request])
@pytest.mark.parametrize("where", ["app", "rule"])
def test_says_what_is_required_and_what_the_asker_has(fact: Any, where: str) -> None:
    rules = (
        index(allow("a.org"), require=TPM) if where == "app" else index(allow("a.org", require=TPM))
    )
    required = "required: mtls and attested (level tpm, at most 60 s ago)"
    assert last_words(rules, fact("a.org")) == (
        f"a client certificate is required; {required}; shown: listener; attested: nothing"
    )
    assert last_words(rules, fact("a.org", who=CERTIFIED)) == (
        "an attestation is required: nothing fresh is proven, level tpm is needed; "
        f"{required}; shown: certificate; attested: nothing"
    )
    proven = Principal("me", (Evidence.CERTIFICATE,), (Attestation(Level.TPM, 60),))
    assert last_words(rules, fact("a.org", who=proven)) == (
        f"the rule says allow; {required}; shown: certificate; attested: level tpm at most 60 s ago"
        "; but `attested` has nothing to be bound to: me has no identity line with `spiffe`"
    )
    none = Principal("me")
    assert "shown: nothing; attested: nothing" in last_words(rules, fact("a.org", who=none))


def test_says_nothing_of_proof_where_none_is_asked_for() -> None:
    rules = index(allow("a.org", paths=["/x"], require=TPM), allow("b.org"))
    for fact in (
        connect("a.org"),
        connect("b.org"),
        connect("no.org"),
        endpoint("a.org", "8.8.8.8"),
        question("cdn.net", via="a.org"),
    ):
        assert "required:" not in last_words(rules, fact)
    assert "required: mtls" in last_words(rules, request("a.org", "/x"))


def test_says_that_another_reading_of_the_path_requires_it() -> None:
    rules = index(
        allow("a.org", id="all", ports=[80]),
        allow("a.org", id="some", ports=[80], paths=["/x/**"], require=TPM),
    )
    said = last_words(rules, request("a.org", "//x/y", port=80))
    assert said.endswith("is required; a rule of another reading of the path requires it")


def test_one_may_assume_an_attestation_of_this_moment() -> None:
    rules = app(
        allow("a.org", require=TPM), require=Requirements(attested=Level.SOFTWARE, max_age_s=300)
    )
    ruleset = Ruleset(1, {"me": rules})
    token = Principal("me", (Evidence.TOKEN,))
    assumed = assume(connect("a.org", who=token), ruleset, Level.TPM)
    assert assumed == connect(
        "a.org",
        who=Principal("me", (Evidence.CERTIFICATE, Evidence.TOKEN), (Attestation(Level.TPM, 60),)),
    )
    assert decide(of_app(rules), assumed).verdict is Verdict.ALLOW
    weak = assume(connect("a.org", who=token), ruleset, Level.SOFTWARE)
    assert decide(of_app(rules), weak).reason is Reason.ATTESTATION_REQUIRED
    leased = assume(connect("a.org", who=Principal("me", (Evidence.LEASE,))), ruleset, Level.TPM)
    assert leased.principal.evidence == (Evidence.LEASE,)
    stranger = connect("a.org", who=Principal("nobody"))
    assert assume(stranger, ruleset, Level.TPM).principal.attested == ()
    launched = assume(connect("a.org", who=token), ruleset, Level.LAUNCHED)
    assert launched.principal.evidence == (Evidence.LEASE, Evidence.TOKEN)


@pytest.mark.parametrize(
    ("lines", "evidence"),
    [
        ((IdentityLine("f:1", lease="me"),), Evidence.LEASE),
        ((IdentityLine("f:1", lease="me"), IdentityLine("f:2", spiffe=ID)), Evidence.CERTIFICATE),
        ((IdentityLine("f:1", token="me"),), Evidence.CERTIFICATE),  # noqa: S106 - an app's name
    ],
)
def test_an_assumed_attestation_is_bound_to_what_the_app_is_known_by(
    lines: tuple[IdentityLine, ...], evidence: Evidence
) -> None:
    ruleset = Ruleset(1, {"me": App("me", identity=lines)})
    assumed = assume(connect("a.org", who=Principal("me")), ruleset, Level.TPM)
    assert assumed.principal.evidence == (evidence,)


def test_says_that_what_is_assumed_can_never_be() -> None:
    guarded = app(allow("a.org", require=Requirements(attested=Level.SOFTWARE, max_age_s=60)))
    known = replace(guarded, identity=(IdentityLine("f:1", spiffe=ID),))
    for level, never in (
        (Level.TPM, "level tpm is never reached: me has no `reference_values.pcrs`"),
        (Level.LAUNCHED, "level launched is never reached: me has no identity line with `lease`"),
    ):
        fact = assume(connect("a.org", who=CERTIFIED), Ruleset(1, {"me": known}), level)
        assert last_words(of_app(known), fact).endswith(f"; but {never}")
    fact = assume(connect("a.org", who=CERTIFIED), Ruleset(1, {"me": known}), Level.SOFTWARE)
    assert "but" not in last_words(of_app(known), fact)


def alone(lists: Lists, **fields: object) -> ListAlone:
    source = ListSource("rules/a.yaml:4", "/etc/lists/bad.txt", "lists/bad.txt")
    return ListAlone(replace(source, **fields), lists)


def told_of(facts: Facts, *lists: ListAlone, by: Lists = NO_LISTS) -> list[Step]:
    """Return the steps that are about lists; `by` decides."""
    told = explain(index(allow("a.org", "b.a.org"), lists=by), facts, lists)
    return [step for step in told if step.kind is StepKind.LIST]


@pytest.mark.parametrize("facts", [question("a.org"), connect("a.org"), request("a.org")])
def test_says_which_line_of_which_list_decides(facts: Facts) -> None:
    listed = NaiveLists("a.org")
    (step,) = told_of(facts, alone(listed), by=listed)
    assert (step.rule, step.matched) == ("lists/bad.txt:7", True)
    assert step.why == "it decides: bad"


def test_says_of_a_list_that_another_one_decides() -> None:
    first = NaiveLists("a.org")
    second = NaiveLists("a.org", listed=Listed("lists/b.txt", 2, "a.org"))
    steps = told_of(question("a.org"), alone(first), alone(second, shown="lists/b.txt"), by=first)
    assert [(step.rule, step.why) for step in steps] == [
        ("lists/bad.txt:7", "it decides: bad"),
        ("lists/b.txt:2", "it fits; another decides: a.org"),
    ]


@pytest.mark.parametrize("name", ["a.org", "b.a.org"])
def test_says_that_an_exception_passes_a_name(name: str) -> None:
    excepting = alone(NaiveLists(name), excepts=frozenset({parse("a.org")}))
    (step,) = told_of(question(name), excepting)
    assert (step.rule, step.matched) == ("lists/bad.txt:7", False)
    assert step.why == "bad denies it, but `except: a.org` of rules/a.yaml:4 passes it"


def test_says_that_a_list_names_something_else_or_covers_another_app() -> None:
    others = alone(NaiveLists("c.org")), alone(NaiveLists("a.org", apps=("you",)))
    steps = told_of(question("a.org"), *others)
    assert [(step.rule, step.matched, step.why) for step in steps] == [
        ("lists/bad.txt", False, "it denies no a.org"),
        ("lists/bad.txt", False, "it does not cover me"),
    ]


def test_says_which_line_denies_an_address() -> None:
    listed = NaiveLists(addresses=("1.1.1.1",))
    for facts in (endpoint("a.org", "1.1.1.1"), connect("1.1.1.1")):
        (step,) = told_of(facts, alone(listed), by=listed)
        assert step.matched
    (step,) = told_of(
        endpoint("a.org", "1.1.1.1"), alone(listed, excepts=frozenset({parse("a.org")}))
    )
    assert "`except: a.org`" in step.why


def test_lists_stand_between_denies_and_allows() -> None:
    rules = index(allow("a.org"), deny("b.org"), lists=NaiveLists("a.org"))
    told = explain(rules, question("a.org"), (alone(NaiveLists("a.org")),))
    kinds = [step.kind for step in told]
    assert kinds == [StepKind.DENY, StepKind.LIST, StepKind.ALLOW, StepKind.DECISION]
    assert told[-1].why.startswith("a deny list names it")


def test_a_list_is_told_of_to_an_app_without_rules() -> None:
    told = explain(
        index(allow("a.org")),
        question("a.org", who=Principal("you")),
        (alone(NaiveLists("a.org")),),
    )
    assert [step.kind for step in told] == [StepKind.LIST, StepKind.DECISION]
