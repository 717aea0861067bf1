"""What the agent is told to do."""

import pytest

from proxy.advice import advise
from rules.decision import Decision, Reason, Verdict
from rules.facts import Attestation, Evidence, Level, Principal
from rules.required import ON_A_PLAIN_PORT, lack
from rules.ruleset import Requirements


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_comes_with_something_to_do(reason: Reason) -> None:
    assert len(advise(Decision(Verdict.DENY, reason), "me")) > 10


def test_names_the_askers_own_app() -> None:
    assert "apps.me.allow" in advise(Decision(Verdict.DENY, Reason.HOST_NOT_LISTED), "me")


def test_a_failure_names_none_of_the_operators_resolvers() -> None:
    failure = Decision(Verdict.FAIL, Reason.UPSTREAM_TIMEOUT, text="udp://192.0.2.1:53: silent")
    assert "192.0.2.1" not in advise(failure, "me")


def test_a_stranger_is_told_to_get_an_identity() -> None:
    told = advise(Decision(Verdict.DENY, Reason.HOST_NOT_LISTED), "unknown")
    assert "identity line" in told
    assert "unknown" not in told


def test_the_admins_own_words_come_first() -> None:
    decision = Decision(Verdict.DENY, Reason.RULE, text="tunnels are out of bounds")
    assert advise(decision, "me").startswith("tunnels are out of bounds; ")


@pytest.mark.parametrize(
    ("evidence", "attested"),
    [
        ((), ()),
        ((Evidence.CERTIFICATE,), ()),
        ((Evidence.LEASE,), (Attestation(Level.SOFTWARE, 86400),)),
        ((Evidence.CERTIFICATE,), (Attestation(Level.TPM, 86400),)),
    ],
)
def test_who_must_attest_is_told_how_within_the_room_of_a_dns_answer(
    evidence: tuple[Evidence, ...], attested: tuple[Attestation, ...]
) -> None:
    require = Requirements(attested=Level.LAUNCHED, max_age_s=3600)
    lacking = lack(require, Principal("me", evidence, attested))
    assert lacking is not None
    told = advise(Decision(Verdict.DENY, lacking.reason, text=lacking.text), "me")
    assert told.startswith(f"{lacking.text}; run `sallyport attest` or POST /attest/nonce ")
    assert told.endswith("there" if lacking.text == ON_A_PLAIN_PORT else "at sallyport.internal")
    said = f"sallyport {lacking.reason} {'0' * 32} how: {told}"
    assert len(said.encode()) <= 200
