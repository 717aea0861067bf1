"""The policy enforcement point: it decides, counts and records, and never raises."""

import json
from pathlib import Path

import pytest
from msgspec import structs

from proxy.certificates.revoked import Kind, Revocation
from proxy.flow import Flow, Plane
from proxy.held import Held, Hold
from proxy.leak import Leak
from rules.address import parse_address
from rules.decide import decide
from rules.decision import Decision, Reason, Verdict
from rules.facts import Connect, Endpoint, Facts, Principal, Question, Request
from rules.match import RuleIndex, index_rules
from rules.name import DomainName, parse
from rules.rtype import A
from rules.ruleset import App
from tests.proxy.composed import ME, SUFFIXES, allow, composed, exact, ruleset

FLOW = Flow("f" * 32, ME, Plane.DNS)
NAME = parse("example.com")
RULES = ruleset(me=App("me", allows=(allow(exact("example.com")),)))
NOWHERE = "udp://127.0.0.1:9"


async def test_an_allow_is_counted_and_recorded(tmp_path: Path) -> None:
    question = Question(ME, NAME, A)
    async with composed(RULES, NOWHERE, tmp_path) as parts:
        decision = parts.authorizer.authorize(FLOW, question)
        recorded = parts.authorizer.record(FLOW, question, decision, extra="more")
        counted = parts.metrics.decisions.value("question", Verdict.ALLOW, Reason.RULE)
        (line,) = await parts.lines()
    assert decision.verdict is Verdict.ALLOW
    assert counted == 1
    assert line["id"] == recorded
    assert line["flow"] == FLOW.id
    assert line["evidence"] == ["listener"]
    assert line["rule"] == "allowed"
    assert line["extra"] == "more"


async def test_a_refusal_can_be_asked_about_by_its_app_alone(tmp_path: Path) -> None:
    connect = Connect(ME, parse("example.org"), 443)
    async with composed(RULES, NOWHERE, tmp_path) as parts:
        decision = parts.authorizer.authorize(FLOW, connect)
        recorded = parts.authorizer.record(FLOW, connect, decision)
        refusal = parts.refusals.get("me", recorded)
        assert parts.refusals.get("other", recorded) is None
        assert parts.refusals.last("me", "example.org") == refusal
    assert refusal is not None
    assert (refusal.reason, refusal.target) == (Reason.HOST_NOT_LISTED, "example.org:443")
    assert "apps.me.allow" in refusal.how


async def test_what_cannot_be_decided_is_denied(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with composed(RULES, NOWHERE, tmp_path) as parts:
        broken = Question(Principal([]), NAME, A)  # type: ignore[arg-type]  # unhashable: a bug
        decision = parts.authorizer.authorize(FLOW, broken)
    assert decision == Decision(Verdict.DENY, Reason.INTERNAL_ERROR)
    assert "no decision" in caplog.text


async def test_an_allow_without_room_in_audit_is_a_denial(tmp_path: Path) -> None:
    async with composed(RULES, NOWHERE, tmp_path) as parts:
        await parts.audit.close()
        decision = parts.authorizer.authorize(FLOW, Question(ME, NAME, A))
    assert decision.reason is Reason.AUDIT_UNAVAILABLE


async def test_new_rules_count_from_the_next_decision_on(tmp_path: Path) -> None:
    async with composed(RULES, NOWHERE, tmp_path) as parts:
        index: RuleIndex = index_rules(ruleset(2, me=App("me")))
        parts.authorizer.use(index)
        decision = parts.authorizer.authorize(FLOW, Question(ME, NAME, A))
        assert parts.authorizer.generation == 2
    assert decision.reason is Reason.HOST_NOT_LISTED


async def test_a_failure_is_an_outcome_and_no_denial(tmp_path: Path) -> None:
    async with composed(RULES, NOWHERE, tmp_path) as parts:
        failure = parts.authorizer.fails(Reason.UPSTREAM_TIMEOUT, "5 s")
        parts.authorizer.record(FLOW, Question(ME, NAME, A), failure)
        (line,) = await parts.lines()
    assert (line["verdict"], line["reason"]) == ("fail", "upstream-timeout")


async def test_an_unknown_app_is_told_nothing_of_others(tmp_path: Path) -> None:
    stranger = Principal("unknown")
    flow = Flow("e" * 32, stranger, Plane.HTTP)
    connect = Connect(stranger, NAME, 443)
    async with composed(RULES, NOWHERE, tmp_path) as parts:
        decision = parts.authorizer.authorize(flow, connect)
        recorded = parts.authorizer.record(flow, connect, decision)
        refusal = parts.refusals.get("unknown", recorded)
    assert decision.rule is None
    assert "me" not in json.dumps(str(refusal)).replace("time", "").replace("name", "").split()


async def test_what_was_allowed_is_not_decided_anew_until_the_rules_change(tmp_path: Path) -> None:
    """threats.md, "Order of checks": "Another app's cached grant. Reload half applied"."""
    connect = Connect(ME, NAME, 443)
    asked: list[Facts] = [connect, Request(ME, "GET", NAME, 443, "/"), Connect(ME, NAME, 80)]
    async with composed(RULES, NOWHERE, tmp_path) as parts:
        authorizer = parts.authorizer
        verdicts = [authorizer.authorize(FLOW, facts).verdict for facts in asked * 2]
        assert verdicts == [Verdict.ALLOW, Verdict.ALLOW, Verdict.DENY] * 2
        assert parts.metrics.decisions.value("connect", Verdict.ALLOW, Reason.RULE) == 2
        other = Flow("e" * 32, Principal("other"), Plane.HTTP)
        stranger = Connect(other.principal, NAME, 443)
        assert authorizer.authorize(other, stranger).verdict is Verdict.DENY
        authorizer.use(index_rules(ruleset(me=App("me"))))
        assert {authorizer.authorize(FLOW, facts).verdict for facts in asked} == {Verdict.DENY}


async def test_room_in_audit_is_asked_for_each_time(tmp_path: Path) -> None:
    connect = Connect(ME, NAME, 443)
    async with composed(RULES, NOWHERE, tmp_path) as parts:
        assert parts.authorizer.authorize(FLOW, connect).verdict is Verdict.ALLOW
        await parts.lines()  # ends the audit
        refused = parts.authorizer.authorize(FLOW, connect)
        assert (refused.verdict, refused.reason) == (Verdict.DENY, Reason.AUDIT_UNAVAILABLE)
        still = parts.authorizer.still(connect)
    assert still.verdict is Verdict.ALLOW


async def test_what_stands_already_is_decided_and_not_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with composed(RULES, NOWHERE, tmp_path) as parts:
        assert parts.authorizer.still(Connect(ME, NAME, 443)).verdict is Verdict.ALLOW
        broken = Question(Principal([]), NAME, A)  # type: ignore[arg-type]  # unhashable: a bug
        assert parts.authorizer.still(broken).reason is Reason.INTERNAL_ERROR
        assert parts.metrics.decisions.value("connect", Verdict.ALLOW, Reason.RULE) == 0
    assert "no decision" in caplog.text


async def test_what_is_remembered_of_allows_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.authorize._MOST_KNOWN", 2)
    decided: list[Facts] = []

    def told(index: RuleIndex, facts: Facts) -> Decision:
        decided.append(facts)
        return decide(index, facts)

    monkeypatch.setattr("proxy.authorize.decide", told)
    async with composed(RULES, NOWHERE, tmp_path) as parts:
        requests = [Request(ME, "GET", NAME, 443, f"/{path}") for path in ("a", "b", "c" * 300)]
        for facts in (*requests, *requests):
            parts.authorizer.authorize(FLOW, facts)
        assert decided == [*requests, requests[2]]  # long paths are not kept
        parts.authorizer.authorize(FLOW, Connect(ME, NAME, 443))
        parts.authorizer.authorize(FLOW, requests[0])
        assert decided[-2:] == [Connect(ME, NAME, 443), requests[0]]


async def test_a_target_may_be_what_was_said(tmp_path: Path) -> None:
    async with composed(RULES, NOWHERE, tmp_path) as parts:
        connect = Connect(ME, NAME, 0)
        denied = Decision(Verdict.DENY, Reason.NAME_MALFORMED)
        recorded = parts.authorizer.record(FLOW, connect, denied, target="a..b:443")
        refusal = parts.refusals.get("me", recorded)
        (line,) = await parts.lines()
    assert refusal is not None
    assert (line["target"], refusal.target) == ("a..b:443", "a..b:443")
    assert "host" not in line


REVOKED = {"me": Revocation(Kind.APP, "me", 1.0)}


@pytest.mark.parametrize(
    "fact",
    [
        Question(ME, NAME, A),
        Question(ME, NAME, A, via=NAME),
        Question(ME, parse("sallyport.internal"), A),
        Connect(ME, NAME, 443),
        Endpoint(ME, NAME, parse_address("93.184.215.14"), 443),
        Request(ME, "GET", NAME, 443, "/"),
    ],
)
async def test_of_a_revoked_app_everything_is_refused(tmp_path: Path, fact: Facts) -> None:
    """threats.md, "Identity": a revocation holds on every plane, at one door."""
    async with composed(RULES, NOWHERE, tmp_path) as parts:
        parts.authorizer.authorize(FLOW, fact)
        parts.authorizer.use(index_rules(structs.replace(RULES, generation=2)), REVOKED)
        decision = parts.authorizer.authorize(FLOW, fact)
        assert parts.authorizer.still(fact) == decision
        parts.authorizer.record(FLOW, fact, decision)
        assert parts.authorizer.revocation("me") == decision
        assert parts.authorizer.revocation("other") is None
        (line,) = await parts.lines()
    assert (decision.verdict, decision.reason) == (Verdict.DENY, Reason.REVOKED)
    assert line["reason"] == "revoked"
    assert line["revoked_at"] == "1970-01-01T00:00:01.000000Z"


async def test_new_rules_restore_nobody(tmp_path: Path) -> None:
    connect = Connect(ME, NAME, 443)
    async with composed(RULES, NOWHERE, tmp_path) as parts:
        parts.authorizer.use(index_rules(structs.replace(RULES, generation=2)), REVOKED)
        parts.authorizer.use(index_rules(structs.replace(RULES, generation=3)))
        assert parts.authorizer.authorize(FLOW, connect).reason is Reason.REVOKED
        parts.authorizer.use(index_rules(structs.replace(RULES, generation=4)), {})
        assert parts.authorizer.authorize(FLOW, connect).verdict is Verdict.ALLOW


async def test_a_revocation_needs_a_generation_of_its_own(tmp_path: Path) -> None:
    """What is remembered of decisions holds under its generation alone."""
    async with composed(RULES, NOWHERE, tmp_path) as parts:
        with pytest.raises(AssertionError, match="generation"):
            parts.authorizer.use(index_rules(RULES), REVOKED)


FACTS = (
    Question(ME, NAME, A),
    Connect(ME, NAME, 443),
    Request(ME, "GET", NAME, 80, "/"),
    Endpoint(ME, NAME, parse_address("8.8.8.8"), 443),
)


@pytest.mark.parametrize("fact", FACTS, ids=lambda fact: type(fact).__name__)
async def test_what_is_held_is_refused_on_both_planes_until_it_is_let_go(
    tmp_path: Path, fact: Facts
) -> None:
    held = Held()
    async with composed(RULES, NOWHERE, tmp_path, held=held) as parts:
        before = parts.authorizer.authorize(FLOW, fact)
        held.hold("me", NAME, Hold("0192", 1.0))
        meanwhile = parts.authorizer.authorize(FLOW, fact)
        literal = parts.authorizer.still(Connect(ME, parse_address("192.0.2.1"), 443))
        held.let_go("me", NAME)
        after = parts.authorizer.authorize(FLOW, fact)
    assert meanwhile == Decision(Verdict.DENY, Reason.TUNNEL_DETECTED, "held:example.com")
    assert before == after
    assert before.reason is not Reason.TUNNEL_DETECTED
    assert literal.reason is Reason.LITERAL_NOT_ALLOWED


class Finding:
    """Finds the secret `deploy-key` in one name, and notes what it was asked about."""

    def __init__(self, name: str) -> None:
        self._name = parse(name)
        self.asked: list[str] = []

    def __bool__(self) -> bool:
        """Return whether any is registered."""
        return True

    def found(self, app: str, name: DomainName, /) -> Leak | None:
        self.asked.append(f"{app} {name}")
        return Leak("deploy-key", "hex") if name == self._name else None

    def redacted(self, facts: Facts, /) -> Facts:
        return Question(facts.principal, parse("redacted.example"), A)

    def purged(self, text: str, /) -> str:
        return text.replace("deploy", "...")


@pytest.mark.parametrize("name", ["example.com", "example.org"])
async def test_a_registered_secret_is_refused_and_named_whether_allowed_or_not(
    tmp_path: Path, name: str
) -> None:
    question = Question(ME, parse(name), A)
    async with composed(RULES, NOWHERE, tmp_path, leaks=Finding(name)) as parts:
        decision = parts.authorizer.authorize(FLOW, question)
        parts.authorizer.record(FLOW, question, decision)
        connect = parts.authorizer.authorize(FLOW, Connect(ME, parse(name), 443))
        (line,) = await parts.lines()
    assert (decision.verdict, decision.reason) == (Verdict.DENY, Reason.TUNNEL_DETECTED)
    assert connect == decision
    assert (line["app"], line["rule"]) == ("me", "secret:deploy-key")
    assert line["target"] == "redacted.example A"
    assert name not in str(line)


async def test_targets_literals_and_requests_are_not_looked_at_for_secrets(tmp_path: Path) -> None:
    """A target is the answer's to choose, and a Request follows a look-up of its host."""
    finding = Finding("example.org")
    async with composed(RULES, NOWHERE, tmp_path, leaks=finding) as parts:
        for fact in (
            Question(ME, NAME, A, via=NAME),
            Connect(ME, parse_address("192.0.2.1"), 443),
            *FACTS[2:],
        ):
            parts.authorizer.authorize(FLOW, fact)
        assert finding.asked == []
        parts.authorizer.authorize(FLOW, FACTS[0])
    assert finding.asked == ["me example.com"]


async def test_what_no_fact_is_made_of_is_written_down_without_secrets(tmp_path: Path) -> None:
    connect = Connect(ME, parse("example.org"), 443)
    malformed = Decision(Verdict.DENY, Reason.REQUEST_MALFORMED, text="deploy is no host")
    async with composed(RULES, NOWHERE, tmp_path, leaks=Finding("example.org")) as parts:
        record = parts.authorizer.record
        record(FLOW, connect, malformed, target="deploy:443", text=malformed.text, octets=3)
        (line,) = await parts.lines()
    assert (line["target"], line["text"], line["octets"]) == ("...:443", "... is no host", 3)


async def test_while_secrets_are_registered_every_refused_name_is_looked_at(tmp_path: Path) -> None:
    question = Question(ME, parse("x.example.org"), A)
    async with composed(RULES, NOWHERE, tmp_path) as parts:
        decision = parts.authorizer.authorize(FLOW, question)
        assert parts.authorizer.siblings(SUFFIXES, question, decision) is not None
        assert parts.authorizer.beneath(SUFFIXES, question, decision) is not None
    async with composed(RULES, NOWHERE, tmp_path, leaks=Finding("y.example.org")) as parts:
        assert parts.authorizer.siblings(SUFFIXES, question, decision) is None
        assert parts.authorizer.beneath(SUFFIXES, question, decision) is None
