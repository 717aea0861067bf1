"""Ages are told apart only where a rule could."""

import pytest

from rules.facts import Attestation, Level
from rules.freshness import ages_of, just_made, thresholds, within
from rules.ruleset import App, Capability, Requirements, Ruleset
from tests.rules.files import load_files, me
from tests.rules.written import allow, deny

ALL = App(
    "me",
    require=Requirements(attested=Level.SOFTWARE, max_age_s=300),
    allows=(
        allow("a.org", require=Requirements(attested=Level.TPM, max_age_s=60)),
        allow("b.org", require=Requirements(mtls=True)),
        allow("c.org", require=Requirements(attested=Level.TPM, max_age_s=300)),
    ),
    denies=(deny("d.org"),),
    capabilities=(
        Capability("f:1", "urn:a", frozenset({"s"}), 60, require=Requirements(max_age_s=5)),
    ),
)


def test_every_age_that_an_app_names_is_a_threshold_once() -> None:
    ruleset = Ruleset(1, {"me": ALL, "other": App("other")})
    assert thresholds(ruleset) == {"me": (5, 60, 300), "other": ()}
    assert ages_of(ALL) == (5, 60, 300)


def test_what_was_gathered_when_the_rules_were_read_is_not_gathered_again() -> None:
    ruleset = Ruleset(1, {"me": App("me", allows=ALL.allows, max_ages_s=(7,))})
    assert thresholds(ruleset) == {"me": (7,)}


def test_rules_from_files_have_theirs() -> None:
    text = me(
        'identity: [{spiffe: "spiffe://a.example/b"}]\n'
        "require: [{attested: {max_age: 1h}}]\n"
        "allow: [{host: a.example, require: [attested]}]\n"
        "capabilities:\n"
        "  - {audience: 'urn:a', scopes: [s], require: [{attested: {max_age: 30s}}]}"
    )
    ruleset = load_files(text).ruleset
    assert ruleset.apps["me"].max_ages_s == (30, 300, 3600)
    assert thresholds(ruleset) == {"me": (30, 300, 3600)}


@pytest.mark.parametrize(
    ("age_s", "expected"),
    [(0.0, 60), (60.0, 60), (60.1, 300), (300.0, 300), (300.1, None), (-0.5, 60), (-1.1, None)],
)
def test_an_age_is_the_least_that_it_meets(age_s: float, expected: int | None) -> None:
    """The attack "clock skew": a clock that is set back makes nothing fresh."""
    assert within(age_s, (60, 300)) == expected


def test_where_no_rule_names_an_age_there_is_none() -> None:
    assert within(0, ()) is None
    assert just_made(Level.TPM, ()) == ()


def test_what_was_made_just_now_meets_the_least() -> None:
    assert just_made(Level.TPM, (60, 300)) == (Attestation(Level.TPM, 60),)
    assert just_made(None, (60, 300)) == ()
