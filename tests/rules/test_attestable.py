"""`check` warns of an attestation that nothing can give, and of no other."""

import pytest

from rules.syntax import load
from rules.text import SourceText
from tests.rules.files import SUFFIXES, load_files, me, warnings_of

DIGEST = "9f2c" * 16
SPIFFE = '{spiffe: "spiffe://a.example/b"}'
PCRS = f'reference_values: {{pcrs: {{7: "{DIGEST}"}}}}\n'
LAUNCHED = f'reference_values: {{launched: [{{file: "{DIGEST}"}}]}}\n'
NO_LAUNCHER = "no launcher grants a `lease` in this version: the line never matches"
NOTHING_TO_BIND = "`attested` has nothing to be bound to: me has no identity line with `spiffe`"


def at_level(level: str) -> str:
    return f"require: [{{attested: {{level: {level}}}}}]\n"


@pytest.mark.parametrize("require", ["[attested]", "[mtls, {attested: {level: tpm}}]"])
@pytest.mark.parametrize("identity", ["", "identity: [{token: me}, {process: {uid: 1}}]\n"])
def test_an_attestation_needs_a_certificate_or_a_lease(require: str, identity: str) -> None:
    line = 4 if identity else 3
    assert warnings_of(me(f"{identity}require: {require}")) == [
        f"a.yaml:{line}:5 {NOTHING_TO_BIND}"
    ]


def test_every_place_that_requires_it_is_named() -> None:
    body = (
        "require: [attested]\n"
        "allow: [{host: a.example, require: [attested]}, {host: b.example, require: [mtls]},\n"
        "        {pack: llm, require: [attested]}, {host: c.example}]\n"
        "capabilities: [{audience: 'urn:x:y', scopes: [a], require: [attested]}]\n"
        "deny: []"
    )
    assert warnings_of(me(body)) == [
        f"a.yaml:3:5 {NOTHING_TO_BIND}",
        f"a.yaml:4:31 {NOTHING_TO_BIND}",
        f"a.yaml:5:25 {NOTHING_TO_BIND}",
        f"a.yaml:6:55 {NOTHING_TO_BIND}",
    ]


def test_the_identity_of_another_file_counts() -> None:
    rules = me("require: [attested]")
    assert warnings_of(rules, me(f"identity: [{SPIFFE}]")) == []
    assert warnings_of(rules, me("identity: [{lease: me}]")) == [f"b.yaml:3:17 {NO_LAUNCHER}"]


def test_level_tpm_needs_values_to_compare_with() -> None:
    body = f"identity: [{SPIFFE}]\n{at_level('tpm')}"
    problem = "level tpm is never reached: me has no `reference_values.pcrs`"
    assert warnings_of(me(body)) == [f"a.yaml:4:5 {problem}"]
    assert warnings_of(me(body + LAUNCHED)) == [f"a.yaml:4:5 {problem}"]
    assert warnings_of(me(body + PCRS)) == []
    assert warnings_of(me(body), me(PCRS)) == []


def test_level_launched_needs_a_lease_and_values_to_compare_with() -> None:
    level = at_level("launched")
    never = "level launched is never reached: me has no"
    assert warnings_of(me(f"identity: [{SPIFFE}]\n{level}{LAUNCHED}")) == [
        f"a.yaml:4:5 {never} identity line with `lease`"
    ]
    assert warnings_of(me(f"identity: [{{lease: me}}]\n{level}")) == [
        f"a.yaml:3:17 {NO_LAUNCHER}",
        f"a.yaml:4:5 {never} `reference_values.launched`",
    ]
    assert warnings_of(me(f"identity: [{{lease: me}}]\n{level}{LAUNCHED}")) == [
        f"a.yaml:3:17 {NO_LAUNCHER}"
    ]


def test_a_tpm_reaches_every_level() -> None:
    for level in ("software", "launched", "tpm"):
        assert warnings_of(me(f"identity: [{SPIFFE}]\n{at_level(level)}{PCRS}")) == []


def test_a_capability_requires_one_without_a_word() -> None:
    body = "capabilities: [{audience: 'urn:x:y', scopes: [a]}]"
    assert warnings_of(me(body)) == [f"a.yaml:3:21 {NOTHING_TO_BIND}"]
    assert warnings_of(me(f"identity: [{SPIFFE}]\n{body}")) == []


def test_what_a_pack_requires_is_warned_of_where_the_pack_is_taken() -> None:
    pack = SourceText("pack.yaml", "allow: [{name: a, host: a.example, require: [attested]}]")
    taken = SourceText("a.yaml", me("allow: [{pack: guarded}]"))
    (warning,) = load([taken], SUFFIXES, 1, {"guarded": pack}).warnings
    assert f"{warning.place} {warning.message}" == f"a.yaml:3:13 {NOTHING_TO_BIND}"


def test_every_warning_comes_with_a_cure() -> None:
    body = f"identity: [{SPIFFE}]\n{at_level('launched')}"
    bodies = (body, f"identity: [{SPIFFE}]\n{at_level('tpm')}", "require: [attested]")
    for each in bodies:
        (warning,) = load_files(me(each)).warnings
        assert "add " in warning.cure
