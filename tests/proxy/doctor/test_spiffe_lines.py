"""SPIFFE IDs in the rules that nobody can have."""

import pytest

from proxy.config_identity import Federated, IdentitySettings
from proxy.doctor.spiffe_lines import with_spiffe_warnings
from proxy.reload.files import RuleFiles
from rules.errors import Problem, Severity
from rules.ruleset import App, IdentityLine, Ruleset
from rules.syntax import Loaded

OURS, PARTNER = "desk.example", "partner.example"
KNOWN = IdentitySettings(trust_domain=OURS, federation={PARTNER: Federated(file="/bundle")})


def warnings(spiffe_id: str, identity: IdentitySettings = KNOWN) -> tuple[Problem, ...]:
    lines = (IdentityLine("r.yaml:4", uid=1), IdentityLine("r.yaml:5", spiffe=spiffe_id))
    ruleset = Ruleset(1, {"coder": App("coder", identity=lines)})
    loaded = Loaded(ruleset, ())
    return with_spiffe_warnings(RuleFiles(loaded, ("r.yaml",)), identity).loaded.warnings


@pytest.mark.parametrize("name", [OURS, PARTNER])
def test_ids_of_trust_domains_that_are_believed_are_fine(name: str) -> None:
    assert warnings(f"spiffe://{name}/coder") == ()


def test_an_admins_id_is_no_apps() -> None:
    (problem,) = warnings(f"spiffe://{OURS}/sallyport/admin/eve")
    assert str(problem.place) == "r.yaml:5:1"
    assert (problem.severity, problem.cure) == (Severity.WARNING, "name another path")
    assert "kept for admins" in problem.message
    assert warnings(f"spiffe://{PARTNER}/sallyport/admin/eve") == ()
    named = IdentitySettings(trust_domain=OURS, admins=(f"spiffe://{OURS}/eve",))
    assert len(warnings(f"spiffe://{OURS}/eve", named)) == 1


def test_a_trust_domain_that_nobody_believes_is_told() -> None:
    (problem,) = warnings("spiffe://far.example/coder")
    assert f"from far.example: our trust domain is {OURS}" in problem.message
    assert "identity.federation" in problem.cure
    spire = IdentitySettings(trust_domain=OURS, workload_api="/run/spire/agent.sock")
    assert warnings("spiffe://far.example/coder", spire) == ()
