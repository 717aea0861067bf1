"""The list of checks: each stands alone, and every one is in the manual."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.doctor.examine import CHECKS, Check, Result, examine, is_healthy
from proxy.doctor.patient import Finding, Patient
from tests.live.appliance import ROOT
from tests.proxy.patients import patient_in


def nothing(_patient: Patient) -> Iterator[Finding]:
    yield from ()


def broken(_patient: Patient) -> Iterator[Finding]:
    yield Finding("info", "so far so good", "none")
    raise KeyError("surprise")


def test_a_check_that_breaks_is_a_finding_and_ends_no_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    checks = (Check("a", "breaks", broken), Check("b", "is fine", nothing))
    first, second = examine(patient_in(tmp_path), checks)
    (finding,) = first.findings
    assert finding.severity == "error"
    assert "the check itself failed: KeyError: 'surprise'" in finding.message
    assert second.outcome == "fine"
    assert "the check a is broken" in caplog.text


@pytest.mark.parametrize(
    ("severities", "outcome", "healthy"),
    [
        ((), "fine", True),
        (("info",), "info", True),
        (("info", "warning"), "warning", False),
        (("warning", "error", "info"), "error", False),
    ],
)
def test_the_worst_finding_is_the_outcome(
    severities: tuple[str, ...], outcome: str, *, healthy: bool
) -> None:
    found = tuple(Finding(each, "m", "c") for each in severities)  # type: ignore[arg-type]  # words of its list
    result = Result("check", "title", found)
    assert result.outcome == outcome
    assert is_healthy([result]) == healthy


def test_names_of_checks_are_unique_and_stand_in_the_manual() -> None:
    names = [each.name for each in CHECKS]
    assert len(set(names)) == len(names)
    manual = (ROOT / "docs" / "doctor.md").read_text(encoding="utf-8")
    for name in names:
        assert f"| `{name}` |" in manual
