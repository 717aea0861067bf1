"""The trust domain under the doctor: each fault is made in its real folder."""

import asyncio
import datetime as dt
import os
import socket
import time
from pathlib import Path

import pytest

from certs.domain import init_domain
from certs.known_domain import DOMAIN_JSON, read_record
from proxy.control.identity import IdentityState, Issuing
from proxy.doctor.identity import identity_clock, issuer, key_files, trust_domain
from proxy.doctor.patient import Patient
from tests.proxy.control.remote_stand import RemoteStand, serving
from tests.proxy.control_stand import standing
from tests.proxy.patients import only, patient_in

DAY_S = 86400.0
STRANGER = 64054


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "state" / "identity"
    init_domain(made, "sallyport.internal", dt.datetime.now(dt.UTC), None)
    return made


@pytest.fixture
def patient(folder: Path, tmp_path: Path) -> Patient:
    assert folder.is_dir()
    return patient_in(tmp_path)


def test_what_was_just_made_is_fine(patient: Patient) -> None:
    for check in (trust_domain, identity_clock, key_files, issuer):
        assert list(check(patient)) == []


def test_what_is_not_there_yet_is_fine(tmp_path: Path) -> None:
    for check in (trust_domain, identity_clock, key_files, issuer):
        assert list(check(patient_in(tmp_path))) == []


def test_a_folder_of_another_trust_domain_is_told(tmp_path: Path, folder: Path) -> None:
    assert folder.is_dir()
    finding = only(trust_domain(patient_in(tmp_path, "identity: {trust_domain: desk.example}\n")))
    assert finding.severity == "error"
    assert "is of sallyport.internal, and we are desk.example" in finding.message


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b"x" * 70000])
def test_a_record_that_is_damaged_is_told(patient: Patient, folder: Path, content: bytes) -> None:
    (folder / DOMAIN_JSON).write_bytes(content)
    assert only(trust_domain(patient)).severity == "error"
    assert list(identity_clock(patient)) == []


@pytest.mark.parametrize(
    ("days", "what", "severity"),
    [
        (26, "JWT key", "warning"),
        (31, "JWT key", "error"),
        (76, "intermediate", "warning"),
        (91, "intermediate", "error"),
        (3200, "root", "warning"),
        (3700, "root", "error"),
    ],
)
def test_keys_whose_successor_is_late_are_told(
    tmp_path: Path, folder: Path, days: int, what: str, severity: str
) -> None:
    assert folder.is_dir()
    later = patient_in(tmp_path, now=time.time() + days * DAY_S)
    found = [each for each in trust_domain(later) if f"the {what} of" in each.message]
    assert [each.severity for each in found] == [severity]


def test_a_clock_that_was_set_back_is_told(tmp_path: Path, folder: Path) -> None:
    record = read_record(folder)
    assert record is not None
    before = record.intermediates[0].not_before - 3600.0
    finding = only(identity_clock(patient_in(tmp_path, now=before)))
    assert finding.severity == "error"
    assert "a key was made at" in finding.message


def test_keys_that_others_may_read_are_told(patient: Patient, folder: Path) -> None:
    key = min(folder.glob("*.key"))
    key.chmod(0o640)
    finding = only(key_files(patient))
    assert (finding.severity, f"others may read {key} (mode 0640)" in finding.message) == (
        "error", True,
    )  # fmt: skip


def test_a_folder_that_others_may_enter_is_told(patient: Patient, folder: Path) -> None:
    folder.chmod(0o750)
    assert f"others may read {folder}" in only(key_files(patient)).message


def test_keys_of_another_user_are_told(tmp_path: Path, folder: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to give files away")
    key = min(folder.glob("*.key"))
    os.chown(key, STRANGER, -1)
    finding = only(key_files(patient_in(tmp_path, uid=0)))
    assert f"{key} is owned by uid {STRANGER}" in finding.message


class TestPassphrase:
    """`identity.key_file`."""

    @pytest.fixture
    def named(self, tmp_path: Path) -> Path:
        path = tmp_path / "passphrase"
        path.write_text("correct horse\n")
        path.chmod(0o600)
        return path

    def at(self, tmp_path: Path, named: Path) -> Patient:
        return patient_in(tmp_path, f"identity: {{key_file: {named}}}\n")

    def test_encrypted_keys_are_fine(self, tmp_path: Path, named: Path) -> None:
        now = dt.datetime.now(dt.UTC)
        init_domain(tmp_path / "state" / "identity", "sallyport.internal", now, b"correct horse")
        assert list(key_files(self.at(tmp_path, named))) == []

    def test_one_that_others_may_read_is_told(self, tmp_path: Path, named: Path) -> None:
        named.chmod(0o644)
        assert f"others may read {named}" in only(key_files(self.at(tmp_path, named))).message

    def test_one_that_is_lost_is_told(self, tmp_path: Path, named: Path) -> None:
        named.unlink()
        assert "is not there" in only(key_files(self.at(tmp_path, named))).message

    def test_keys_in_the_clear_beside_it_are_told(
        self, tmp_path: Path, named: Path, folder: Path
    ) -> None:
        found = list(key_files(self.at(tmp_path, named)))
        assert len(found) == len(list(folder.glob("*.key")))
        assert {each.severity for each in found} == {"warning"}
        assert "is not encrypted" in found[0].message


class TestIssuer:
    """Who issues, where the appliance runs."""

    async def asked(self, stand: RemoteStand, tmp_path: Path) -> Patient:
        await asyncio.sleep(0)
        text = f"listen: {{control: {stand.path}, do53: [], proxy: [], metrics: []}}\n"
        return patient_in(tmp_path, text, pid=os.getpid())

    async def test_one_that_answers_is_fine(self, tmp_path: Path) -> None:
        async with serving(tmp_path) as stand:
            patient = await self.asked(stand, tmp_path)
            assert await asyncio.to_thread(lambda: list(issuer(patient))) == []

    async def test_one_that_is_stalled_is_told(self, tmp_path: Path) -> None:
        async with serving(tmp_path) as stand:
            state = IdentityState(
                trust_domain="desk.example", anchors=(), issuer=False, connections=0,
                problem="the passphrase is not its own",
            )  # fmt: skip
            made = stand.made_issuing()
            stand.issuing = Issuing(
                lambda: state, made.look, made.sign, made.bundle, made.is_admin, made.is_reserved
            )
            patient = await self.asked(stand, tmp_path)
            finding = only(await asyncio.to_thread(lambda: list(issuer(patient))))
        assert finding.message == "the issuer is stalled: the passphrase is not its own"

    async def test_an_appliance_without_one_is_told(self, tmp_path: Path) -> None:
        async with standing(tmp_path) as stand:
            text = f"listen: {{control: {stand.path}}}\n"
            patient = patient_in(tmp_path, text, pid=os.getpid())
            finding = only(await asyncio.to_thread(lambda: list(issuer(patient))))
        assert "no issuer" in finding.message

    def test_a_socket_that_is_no_control_socket_is_for_information(self, tmp_path: Path) -> None:
        path = tmp_path / "control.sock"
        path.write_text("")
        path.chmod(0o600)
        patient = patient_in(tmp_path, f"listen: {{control: {path}}}\n", pid=os.getpid())
        assert [each.severity for each in issuer(patient)] in ([], ["info"])

    def test_without_a_process_or_a_socket_nobody_is_asked(self, tmp_path: Path) -> None:
        text = f"listen: {{control: {tmp_path}/none.sock}}\n"
        assert list(issuer(patient_in(tmp_path, text, pid=os.getpid()))) == []
        text = 'listen: {control: ""}\n'
        assert list(issuer(patient_in(tmp_path, text, pid=os.getpid()))) == []

    def test_another_agent_in_our_place_is_looked_for(self, tmp_path: Path) -> None:
        path = tmp_path / "agent.sock"
        text = f"identity: {{workload_api: unix:{path}}}\n"
        finding = only(issuer(patient_in(tmp_path, text)))
        assert f"nobody answers at identity.workload_api {path}" in finding.message
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(path))
            listening.listen()
            assert list(issuer(patient_in(tmp_path, text))) == []

    def test_our_own_keys_do_not_matter_then(self, tmp_path: Path, folder: Path) -> None:
        (folder / DOMAIN_JSON).write_bytes(b"")
        text = f"identity: {{workload_api: unix:{tmp_path}/agent.sock}}\n"
        assert list(trust_domain(patient_in(tmp_path, text))) == []


@pytest.mark.parametrize("check", [trust_domain, key_files])
def test_what_may_not_be_read_is_for_information(
    patient: Patient, folder: Path, check: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed(self: Path, *_: object, **__: object) -> object:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", closed)
    monkeypatch.setattr(Path, "stat", closed)
    monkeypatch.setattr(Path, "is_dir", closed)
    assert callable(check)
    assert only(check(patient)).severity == "info"
    assert str(folder)
