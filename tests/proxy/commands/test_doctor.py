"""`sallyport doctor` as a person and as a program see it."""

import os
import pwd
from pathlib import Path

import msgspec
import pytest

from proxy.commands.doctor import patient_of, report, run, show
from proxy.confinement import USER
from proxy.doctor.examine import Result
from proxy.doctor.patient import Finding
from tests.proxy.patients import patient_in, settings_in

RESULTS = [
    Result("ports", "every listener is ours", ()),
    Result(
        "disk",
        "there is room",
        (Finding("error", "the disk is full [/b]", "free it"), Finding("info", "second", "none")),
    ),
]


def test_the_document_has_every_check_and_finding(tmp_path: Path) -> None:
    found = msgspec.json.decode(report(RESULTS, patient_in(tmp_path)))
    finding = {"severity": "error", "message": "the disk is full [/b]", "cure": "free it"}
    second = {"severity": "info", "message": "second", "cure": "none"}
    assert found == {
        "healthy": False,
        "running": None,
        "enforcement": "advisory",
        "checks": [
            {"check": "ports", "outcome": "fine", "findings": []},
            {"check": "disk", "outcome": "error", "findings": [finding, second]},
        ],
    }


def test_a_person_sees_findings_and_cures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    show(RESULTS, patient_in(tmp_path))
    lines = capsys.readouterr().out.splitlines()
    assert any("ok" in line and "ports" in line for line in lines)
    assert any("ERROR" in line and "the disk is full [/b]" in line for line in lines)
    assert any("cure: free it" in line for line in lines)
    assert lines[-1] == "not running; 1 of 2 checks found something"


def test_a_healthy_installation_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    show(RESULTS[:1], patient_in(tmp_path, pid=7))
    assert capsys.readouterr().out.splitlines()[-1] == "pid 7; nothing to do"


@pytest.mark.parametrize("as_json", [True, False])
def test_findings_are_exit_code_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], *, as_json: bool
) -> None:
    dead = "resolver: {upstreams: ['tcp://127.0.0.1:1']}\n"
    assert run(settings_in(tmp_path, dead), as_json=as_json) == 1
    assert "upstream-unreachable" in capsys.readouterr().out


def test_the_patient_is_this_host_now(tmp_path: Path) -> None:
    patient = patient_of(settings_in(tmp_path))
    assert patient.pid is None
    assert patient.uid == os.geteuid()
    assert patient.environ == dict(os.environ)


def test_the_uid_is_that_of_the_appliance(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    reserve = tmp_path / "state" / "audit.reserve"
    reserve.parent.mkdir()
    reserve.touch()
    proc = tmp_path / "proc"
    proc.mkdir()
    (proc / "locks").write_text(
        f"1: FLOCK  ADVISORY  WRITE 7 fe:00:{reserve.stat().st_ino} 0 EOF\n"
    )
    patient = patient_of(settings, proc)
    assert (patient.pid, patient.uid) == (7, os.geteuid()), "it is another's, or gone"
    (proc / "7").mkdir()
    os.chown(proc / "7", 64054, -1)
    assert patient_of(settings, proc).uid == 64054


def test_under_system_root_asks_for_the_owner_of_the_state(tmp_path: Path) -> None:
    settings = msgspec.structs.replace(settings_in(tmp_path), system=True)
    assert patient_of(settings).uid == users_uid()
    (tmp_path / "state").mkdir()
    os.chown(tmp_path / "state", 64054, -1)
    assert patient_of(settings).uid == 64054


def users_uid() -> int:
    """Return the uid of our user where this host has one already."""
    found = [each.pw_uid for each in pwd.getpwall() if each.pw_name == USER]
    return found[0] if found else os.geteuid()
