"""Rules that are broken, and users who may write them."""

import os
from pathlib import Path

import msgspec
import pytest

from proxy.doctor.patient import Patient
from proxy.doctor.rulefiles import confinement, may_read, may_write, rule_files, rule_writers
from tests.proxy.patients import only, patient_in

AGENT = 64054
RULES = f"""
apps:
  coder:
    identity: [{{process: {{uid: {AGENT}}}}}]
    allow: [{{host: example.com}}]
"""


def ruled(folder: Path, text: str = RULES) -> Patient:
    file = folder / "config" / "rules" / "r.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    file.chmod(0o644)
    return patient_in(folder)


def system(patient: Patient, **changed: object) -> Patient:
    settings = msgspec.structs.replace(patient.settings, system=True)
    return msgspec.structs.replace(patient, settings=settings, **changed)


def test_rules_that_load_are_fine(tmp_path: Path) -> None:
    assert list(rule_files(ruled(tmp_path))) == []


def test_rules_before_the_first_start_are_fine(tmp_path: Path) -> None:
    assert list(rule_files(patient_in(tmp_path))) == []
    assert list(rule_writers(patient_in(tmp_path))) == []


def test_a_folder_that_was_configured_has_to_be_there(tmp_path: Path) -> None:
    finding = only(rule_files(patient_in(tmp_path, f"rules: [{tmp_path}/none]\n")))
    assert finding.message.endswith("the folder does not exist")
    assert finding.cure == f"mkdir -p {tmp_path}/none"


def test_every_error_has_its_place_and_cure(tmp_path: Path) -> None:
    patient = ruled(tmp_path, RULES + "    alow: []\n    refus: x\n")
    found = list(rule_files(patient))
    assert len(found) == 2
    assert all(each.severity == "error" for each in found)
    assert found[0].message.startswith(f"{tmp_path}/config/rules/r.yaml:6:")
    assert list(rule_writers(patient)) == [], "broken rules name no agent"


def test_a_listener_that_is_not_configured_is_told(tmp_path: Path) -> None:
    text = 'apps: {coder: {identity: [{listener: "127.0.0.9:5300"}], allow: []}}\n'
    assert "stands in no list" in only(rule_files(ruled(tmp_path, text))).message


def test_a_spiffe_id_that_nobody_can_have_is_told(tmp_path: Path) -> None:
    text = 'apps: {coder: {identity: [{spiffe: "spiffe://far.example/a"}], allow: []}}\n'
    assert "nobody is believed" in only(rule_files(ruled(tmp_path, text))).message


def test_warnings_of_check_are_for_information(tmp_path: Path) -> None:
    text = RULES + "    deny: [{host: a.example, types: [A], ports: [80]}]\n"
    assert only(rule_files(ruled(tmp_path, text))).severity == "info"


def test_a_deny_list_that_is_not_there_is_an_error_with_its_place(tmp_path: Path) -> None:
    text = RULES + "lists: [{file: bad.txt}]\n"
    finding = only(rule_files(ruled(tmp_path, text)))
    assert finding.severity == "error"
    assert "bad.txt" in finding.message
    (tmp_path / "config" / "rules" / "bad.txt").write_text("bad.example\n")
    assert list(rule_files(ruled(tmp_path, text))) == []


def test_a_deny_list_that_an_agent_may_replace_is_told(tmp_path: Path) -> None:
    patient = ruled(tmp_path, RULES + "lists: [{file: ../../shared/bad.txt}]\n")
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "bad.txt").write_text("bad.example\n")
    os.chown(shared, AGENT, AGENT)
    assert "shared" in only(rule_writers(patient)).message


def test_an_agent_that_may_write_a_rule_file_is_told(tmp_path: Path) -> None:
    """threats.md, "Identity": same-uid agents outside a sandbox rewrite rules."""
    patient = ruled(tmp_path)
    file = tmp_path / "config" / "rules" / "r.yaml"
    guarded = [file, *file.parents]
    if any(may_write(each, AGENT) for each in guarded):
        pytest.fail("the folders of the tests must not be open to everybody")
    assert list(rule_writers(patient)) == []
    os.chown(file, AGENT, -1)
    finding = only(rule_writers(patient))
    assert finding.severity == "info", "enforcement is advisory: that is said, not repaired"
    assert finding.message == f"uid {AGENT}, which the rules know as an agent, may write {file}"
    assert only(rule_writers(system(patient, uid=1))).severity == "error"


def test_an_agent_that_may_write_a_folder_above_is_told(tmp_path: Path) -> None:
    patient = ruled(tmp_path)
    os.chown(tmp_path / "config", AGENT, -1)
    assert f"may write {tmp_path}/config" in only(rule_writers(patient)).message


def test_an_agent_of_our_own_uid_is_told_under_system(tmp_path: Path) -> None:
    finding = only(rule_writers(system(ruled(tmp_path), uid=AGENT)))
    assert finding.message == f"an app is known by uid {AGENT}, which is the appliance's own"


@pytest.mark.parametrize(
    ("owner", "group", "mode", "may"),
    [
        (AGENT, 0, 0o400, True),
        (0, 0, 0o644, False),
        (0, AGENT, 0o664, False),
        (0, 0, 0o666, True),
        (0, 0, 0o660, False),
    ],
)
def test_who_may_write_follows_owner_group_and_mode(
    tmp_path: Path, owner: int, group: int, mode: int, *, may: bool
) -> None:
    file = tmp_path / "file"
    file.touch()
    os.chown(file, owner, group)
    file.chmod(mode)
    assert may_write(file, AGENT) == may
    assert may_write(file, 0)


def test_groups_of_a_user_count(tmp_path: Path) -> None:
    """The first user of every passwd file is `daemon`, 1, with group 1."""
    file = tmp_path / "file"
    file.touch()
    os.chown(file, 0, 1)
    file.chmod(0o664)
    assert may_write(file, 1)
    assert not may_write(file, AGENT)


@pytest.mark.parametrize(
    ("owner", "group", "mode", "may"),
    [
        (AGENT, 0, 0o400, True),
        (AGENT, 0, 0o044, False),
        (0, 0, 0o644, True),
        (0, AGENT, 0o640, False),
        (0, 0, 0o640, False),
    ],
)
def test_who_may_read_follows_owner_group_and_mode(
    tmp_path: Path, owner: int, group: int, mode: int, *, may: bool
) -> None:
    file = tmp_path / "file"
    file.touch()
    os.chown(file, owner, group)
    file.chmod(mode)
    assert may_read(file, AGENT) == may
    assert may_read(file, 0)
    with pytest.raises(FileNotFoundError):
        may_read(tmp_path / "none", AGENT)


def test_groups_of_a_user_count_for_reading(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    os.chown(file, 0, 1)
    file.chmod(0o640)
    assert may_read(file, 1)


def test_a_sticky_folder_lets_nobody_replace_a_file(tmp_path: Path) -> None:
    tmp_path.chmod(0o1777)
    assert not may_write(tmp_path, AGENT)
    assert not may_write(tmp_path / "none", AGENT)


def test_the_claims_of_system_are_findings(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir(mode=0o755)
    (tmp_path / "state").chmod(0o755)
    patient = system(ruled(tmp_path))
    assert any("others may enter it" in each.message for each in confinement(patient))
    assert list(confinement(ruled(tmp_path))) == []
