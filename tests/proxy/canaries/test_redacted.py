"""A refusal for a secret names the app, the secret and the zone; never a value."""

from collections.abc import Callable
from pathlib import Path

import pytest

from proxy.canaries.known import KnownSecrets
from proxy.canaries.redacted import redacted
from proxy.flow import Flow, Plane
from proxy.limits import Limits
from rules.address import parse_address
from rules.decision import Decision, Reason, Verdict
from rules.facts import Connect, Endpoint, Facts, Question
from rules.fingerprint import fingerprint
from rules.name import parse
from rules.rtype import A
from rules.ruleset import App
from rules.secret_scan import SecretTable
from tests.proxy.composed import ME, allow, below, composed, ruleset
from tests.rules.test_secret_scan import key_of

KEY = bytes(32)
VALUE = key_of(1).decode().lower()
RULES = ruleset(me=App("me", allows=(allow(below("example.com")),)))
NOWHERE = "udp://127.0.0.1:9"


def secrets() -> KnownSecrets:
    known = KnownSecrets(Limits())
    known.use(SecretTable(KEY, {"api-key": fingerprint(key_of(1), KEY)}))
    return known


def question(name: str) -> Question:
    return Question(ME, parse(name), A)


def connect(name: str) -> Connect:
    return Connect(ME, parse(name), 443)


@pytest.mark.parametrize("fact", [question, connect])
@pytest.mark.parametrize("zone", ["example.com", "evil.example"])
async def test_whether_allowed_or_not_it_is_refused_and_told_without_the_value(
    tmp_path: Path, fact: Callable[[str], Facts], zone: str
) -> None:
    """threats.md, "The resolver as a channel": what was refused names the app that tried it."""
    known = secrets()
    facts = fact(f"{VALUE[:20]}.{VALUE[20:]}.{zone}")
    flow = Flow("f" * 32, ME, Plane.DNS)
    async with composed(RULES, NOWHERE, tmp_path, leaks=known) as parts:
        decision = parts.authorizer.authorize(flow, facts)
        told = known.redacted(facts)
        recorded = parts.authorizer.record(flow, told, decision)
        refusal = parts.refusals.get("me", recorded)
        (line,) = await parts.lines()
    assert (decision.verdict, decision.reason) == (Verdict.DENY, Reason.TUNNEL_DETECTED)
    assert (line["app"], line["rule"], line["reason"]) == (
        "me", "secret:api-key", "tunnel-detected",
    )  # fmt: skip
    assert f"*.{zone}" in str(line["target"])
    for text in (repr(line), repr(refusal), decision.text):
        assert VALUE[:12] not in text
        assert VALUE[-12:] not in text


async def test_what_gives_nothing_away_is_decided_by_the_rules(tmp_path: Path) -> None:
    async with composed(RULES, NOWHERE, tmp_path, leaks=secrets()) as parts:
        flow = Flow("f" * 32, ME, Plane.DNS)
        for _ in range(2):
            decision = parts.authorizer.authorize(flow, question("www.example.com"))
            assert decision == Decision(Verdict.ALLOW, Reason.RULE, "allowed", decision.obligations)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        (f"{VALUE}.evil.example", "*.evil.example"),
        (f"{VALUE}.a.evil.co.uk", "*.evil.co.uk"),
        (f"{VALUE}.example", "*.example"),
        (f"www.{VALUE[:15]}.example", "*.example"),
        (f"www.{VALUE[3:16]}.example", "*.example"),
        (VALUE, "*"),
    ],
)
def test_labels_that_may_hold_the_secret_are_left_out(name: str, told: str) -> None:
    assert secrets().redacted(question(name)) == Question(ME, told, A)  # type: ignore[arg-type]  # no name
    found = secrets().redacted(connect(name))
    assert isinstance(found, Connect)
    assert found.host == told


def test_what_has_no_name_that_is_asked_for_stays_as_it_is() -> None:
    address = parse_address("192.0.2.1")
    for facts in (
        Connect(ME, address, 443),
        Endpoint(ME, parse("www.example.com"), address, 443),
    ):
        assert redacted(facts, lambda _: True) == facts
    told = redacted(question("a.b.example"), lambda _: False)
    assert isinstance(told, Question)
    assert told.name == "*.b.example"
