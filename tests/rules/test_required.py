"""What is required adds up, and what of it lacks is said in the same words at any time."""

import pytest

from rules.decision import Reason
from rules.facts import Attestation, Evidence, Level, Principal
from rules.required import (
    NOTHING,
    ON_A_PLAIN_PORT,
    Lack,
    describe,
    describe_proven,
    lack,
    total,
    union,
)
from rules.ruleset import Requirements

MTLS = Requirements(mtls=True)
SOFTWARE = Requirements(attested=Level.SOFTWARE, max_age_s=300)
TPM = Requirements(attested=Level.TPM, max_age_s=60)
BOUND = (Evidence.CERTIFICATE,)


def who(*attested: tuple[Level, int], evidence: tuple[Evidence, ...] = BOUND) -> Principal:
    return Principal("me", evidence, tuple(Attestation(*one) for one in attested))


def text_of(require: Requirements, principal: Principal) -> str:
    found = lack(require, principal)
    assert found is not None
    assert found.reason is Reason.ATTESTATION_REQUIRED
    return found.text


def test_a_union_has_the_highest_level_and_the_smallest_age() -> None:
    weak = Requirements(attested=Level.LAUNCHED, max_age_s=5)
    assert union(TPM, weak) == Requirements(attested=Level.TPM, max_age_s=5)
    assert union(MTLS, SOFTWARE) == Requirements(mtls=True, attested=Level.SOFTWARE, max_age_s=300)
    assert union(TPM, NOTHING) == TPM
    assert union(NOTHING, NOTHING) == NOTHING


def test_a_total_is_the_union_of_all() -> None:
    assert total([]) == NOTHING
    assert total([NOTHING, SOFTWARE, NOTHING]) is SOFTWARE
    assert total([SOFTWARE, MTLS, TPM]) == Requirements(mtls=True, attested=Level.TPM, max_age_s=60)


@pytest.mark.parametrize(
    ("require", "principal"),
    [
        (NOTHING, who(evidence=())),
        (MTLS, who()),
        (SOFTWARE, who((Level.SOFTWARE, 300))),
        (SOFTWARE, who((Level.TPM, 60))),
        (TPM, who((Level.SOFTWARE, 10), (Level.TPM, 60))),
        (SOFTWARE, who((Level.LAUNCHED, 60), evidence=(Evidence.LEASE,))),
        (Requirements(attested=Level.SOFTWARE), who((Level.SOFTWARE, 10**9))),
        (union(MTLS, SOFTWARE), who((Level.SOFTWARE, 1))),
    ],
)
def test_what_is_proven_meets_it(require: Requirements, principal: Principal) -> None:
    assert lack(require, principal) is None


def test_a_certificate_is_asked_for_before_an_attestation() -> None:
    both = union(MTLS, TPM)
    assert lack(both, who(evidence=(Evidence.TOKEN,))) == Lack(Reason.MTLS_REQUIRED)
    assert lack(both, who((Level.TPM, 1), evidence=(Evidence.LEASE,))) == Lack(Reason.MTLS_REQUIRED)
    assert text_of(both, who()) == "nothing fresh is proven, level tpm is needed"


@pytest.mark.parametrize("evidence", [(), (Evidence.TOKEN,), (Evidence.LISTENER, Evidence.PROCESS)])
def test_who_has_neither_certificate_nor_lease_is_sent_to_a_port_with_tls(
    evidence: tuple[Evidence, ...],
) -> None:
    assert text_of(SOFTWARE, who(evidence=evidence)) == ON_A_PLAIN_PORT


def test_says_what_is_proven_and_what_is_needed() -> None:
    leased = who(evidence=(Evidence.LEASE,))
    assert text_of(SOFTWARE, leased) == "nothing fresh is proven, level software is needed"
    weak = who((Level.SOFTWARE, 60), (Level.LAUNCHED, 300))
    assert text_of(TPM, weak) == "proven is level launched, needed is tpm"


def test_what_is_old_is_said_without_its_age() -> None:
    """A text that held the age would make a new decision of each moment."""
    assert text_of(TPM, who((Level.TPM, 300))) == "proven more than 60 s ago, the most here"
    # Each of two may meet a half: neither meets both.
    halves = who((Level.SOFTWARE, 60), (Level.TPM, 300))
    assert text_of(TPM, halves) == "proven more than 60 s ago, the most here"


def test_what_is_required_and_proven_has_words() -> None:
    assert describe(NOTHING) == ""
    assert describe(union(MTLS, TPM)) == "mtls and attested (level tpm, at most 60 s ago)"
    assert describe(Requirements(attested=Level.LAUNCHED)) == "attested (level launched)"
    assert describe_proven(()) == "nothing"
    assert describe_proven(who((Level.SOFTWARE, 60), (Level.TPM, 300)).attested) == (
        "level software at most 60 s ago, level tpm at most 300 s ago"
    )
