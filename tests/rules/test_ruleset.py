"""Rules are values whose defaults restrict nothing that was not written."""

import pytest

from rules.decision import Refuse
from rules.facts import Level
from rules.ruleset import (
    App,
    Capability,
    DenyRule,
    IdentityLine,
    ReferenceValues,
    Requirements,
    Ruleset,
)
from rules.watch import Detect


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (IdentityLine("f:1", lease="coder"), False),
        (IdentityLine("f:1", listener="127.0.0.1:53"), False),
        (IdentityLine("f:1", uid=0), True),
        (IdentityLine("f:1", cgroup="/user.slice"), True),
        (IdentityLine("f:1", exe_sha256="0" * 64), True),
        (IdentityLine("f:1", token="coder", uid=1000), True),  # noqa: S106 - an app's name
    ],
)
def test_a_line_is_of_a_process_when_any_key_is(line: IdentityLine, expected: bool) -> None:
    assert line.is_process is expected


def test_an_app_without_rules_requires_and_allows_nothing() -> None:
    app = App("a")
    assert app.require == Requirements(mtls=False, attested=None, max_age_s=None)
    assert app.refuse is Refuse.NXDOMAIN
    assert (app.allows, app.denies, app.identity, app.detect) == ((), (), (), Detect())
    assert (app.reference_values, app.capabilities) == (ReferenceValues(), ())
    assert Ruleset(1, {"a": app}).apps["a"] is app


def test_without_reference_values_no_quote_and_nothing_launched_is_known_and_any_key_is() -> None:
    values = ReferenceValues()
    assert (values.pcrs, values.launched, values.tpms, values.keys) == ({}, (), None, None)


def test_a_capability_wants_an_attestation_unless_it_says_which() -> None:
    capability = Capability("f:1", "urn:a:b", frozenset({"read"}), 60)
    assert capability.require == Requirements(attested=Level.SOFTWARE, max_age_s=300)
    assert capability.on_behalf_of == frozenset()


def test_a_deny_with_nothing_written_restricts_nothing() -> None:
    rule = DenyRule("f:1", None)
    assert {getattr(rule, name) for name in rule.__struct_fields__} == {"f:1", None, ""}
