"""State and evidence: each fault is made on a real file system, socket or database."""

import os
import socket
import sqlite3
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import override

import pytest

from proxy.doctor.state import audit, control_folder, database, disk, state_folder
from tests.proxy.patients import only, patient_in

STRANGER = 64054


@contextmanager
def small_disk(folder: Path, options: str = "size=256k") -> Iterator[Path]:
    """Mount a file system of its own, which a test may fill."""
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a small disk")
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_folder_that_is_not_there_yet_is_fine(tmp_path: Path) -> None:
    assert list(state_folder(patient_in(tmp_path))) == []
    (tmp_path / "state").mkdir()
    assert list(state_folder(patient_in(tmp_path))) == []
    assert list((tmp_path / "state").iterdir()) == []


def test_a_file_in_the_place_of_the_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    assert only(state_folder(patient_in(tmp_path))).message == f"{tmp_path}/state is no folder"


def test_a_read_only_file_system_is_told(tmp_path: Path) -> None:
    with small_disk(tmp_path / "state", "ro"):
        finding = only(state_folder(patient_in(tmp_path)))
    assert finding.severity == "error"
    assert "cannot be written: Read-only file system" in finding.message


def test_no_place_for_the_folder_is_told(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "ro"):
        finding = only(state_folder(patient_in(tmp_path / "disk")))
    assert f"{tmp_path}/disk cannot be written" in finding.message


def test_who_does_not_write_does_not_try(tmp_path: Path) -> None:
    with small_disk(tmp_path / "state", "ro"):
        assert list(state_folder(patient_in(tmp_path, uid=STRANGER))) == []


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    with small_disk(tmp_path / "state") as folder:
        assert only(disk(patient_in(tmp_path))).severity == "warning"
        with (folder / "ballast").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, 256 << 10)
        finding = only(disk(patient_in(tmp_path)))
    assert finding.severity == "error"
    assert finding.message == f"the disk of {tmp_path}/state is full: requests are refused"


def test_a_disk_without_inodes_is_told(tmp_path: Path) -> None:
    with small_disk(tmp_path / "state", "size=256m,nr_inodes=4") as folder:
        assert "inodes are free" in only(disk(patient_in(tmp_path))).message
        for number in range(3):
            (folder / str(number)).touch()
        assert only(disk(patient_in(tmp_path))).severity == "error"


def test_room_for_another_file_is_enough(tmp_path: Path) -> None:
    assert list(disk(patient_in(tmp_path, "audit: {rotate: 64 KiB}\n"))) == []


def test_an_audit_file_of_another_user_is_told(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    file = tmp_path / "state" / "audit.jsonl"
    assert list(audit(patient_in(tmp_path))) == []
    file.touch()
    assert list(audit(patient_in(tmp_path))) == []
    finding = only(audit(patient_in(tmp_path, uid=STRANGER)))
    assert f"is owned by uid {os.geteuid()}, and we run as {STRANGER}" in finding.message
    file.unlink()
    os.mkfifo(file)
    assert only(audit(patient_in(tmp_path))).message == f"{file} is no regular file"


@contextmanager
def readiness(content: bytes) -> Iterator[str]:
    """Answer every request with `content`, as the metrics listener does."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(503)
            self.end_headers()
            self.wfile.write(content)

        @override
        def log_message(self, *_arguments: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f'listen: {{metrics: ["127.0.0.1:{server.server_port}"]}}\n'
        server.shutdown()
        thread.join()


def test_what_the_appliance_says_is_passed_on(tmp_path: Path) -> None:
    with readiness(b'{"ready": false, "problems": {"audit": "No space left"}}') as text:
        finding = only(audit(patient_in(tmp_path, text, pid=os.getpid())))
    assert finding.message == "audit is stalled: No space left"
    with readiness(b'{"ready": true, "problems": {}}') as text:
        assert list(audit(patient_in(tmp_path, text, pid=os.getpid()))) == []


def test_an_appliance_that_does_not_answer_is_told(tmp_path: Path) -> None:
    with readiness(b"something else") as text:
        finding = only(audit(patient_in(tmp_path, text, pid=7)))
    assert "the appliance (pid 7) does not answer /readyz" in finding.message
    assert only(audit(patient_in(tmp_path, text, pid=7))).severity == "error"


def test_a_damaged_database_is_told(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    file = tmp_path / "state" / "sallyport.sqlite"
    assert list(database(patient_in(tmp_path))) == []
    file.touch(0o600)
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE token (id TEXT)")
        connection.executemany("INSERT INTO token VALUES (?)", [("x" * 100,)] * 1000)
    connection.close()
    assert list(database(patient_in(tmp_path))) == []
    with file.open("r+b") as opened:
        opened.seek(8192)
        opened.write(b"\xff" * 8192)
    finding = only(database(patient_in(tmp_path)))
    assert finding.message.startswith(f"{file} is damaged: ")
    file.write_bytes(b"no database" * 100)
    assert "file is not a database" in only(database(patient_in(tmp_path))).message


@pytest.mark.parametrize("name", ["attested.sqlite", "capabilities.sqlite", "revoked.sqlite"])
def test_a_database_that_others_may_open_is_told(tmp_path: Path, name: str) -> None:
    file = tmp_path / "state" / name
    file.parent.mkdir()
    sqlite3.connect(file).close()
    for mode in (0o640, 0o604, 0o660):
        file.chmod(mode)
        finding = only(database(patient_in(tmp_path)))
        assert finding.message == f"others may open {file} (mode {mode:04o}): it is not used"
        assert (finding.severity, finding.cure) == ("error", f"chmod 0600 {file}")
    file.chmod(0o600)
    assert list(database(patient_in(tmp_path))) == []


@pytest.mark.parametrize(
    ("name", "cure"),
    [
        ("sallyport.sqlite", "issue the tokens anew"),
        ("revoked.sqlite", "revoke again"),
        ("attested.sqlite", "attest again"),
        ("capabilities.sqlite", "exchange again"),
        ("identity/issued.sqlite", "serial number"),
    ],
)
def test_every_database_is_looked_at(tmp_path: Path, name: str, cure: str) -> None:
    file = tmp_path / "state" / name
    file.parent.mkdir(parents=True)
    file.write_bytes(b"no database" * 100)
    file.chmod(0o600)
    finding = only(database(patient_in(tmp_path)))
    assert "file is not a database" in finding.message
    assert cure in finding.cure


def test_a_database_of_another_user_is_told(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to give files away")
    file = tmp_path / "state" / "revoked.sqlite"
    file.parent.mkdir()
    sqlite3.connect(file).close()
    file.chmod(0o600)
    os.chown(file, STRANGER, -1)
    assert f"owned by uid {STRANGER}" in only(database(patient_in(tmp_path))).message


def test_a_control_folder_of_others_is_told(tmp_path: Path) -> None:
    text = f"listen: {{control: {tmp_path}/run/c.sock}}\n"
    (tmp_path / "run").mkdir(mode=0o700)
    assert list(control_folder(patient_in(tmp_path, text))) == []
    (tmp_path / "run").chmod(0o777)
    finding = only(control_folder(patient_in(tmp_path, text)))
    assert "every user may write it, and may put a control socket" in finding.message
    assert list(control_folder(patient_in(tmp_path, 'listen: {control: ""}\n'))) == []


def test_a_control_socket_that_everybody_may_open_is_told(tmp_path: Path) -> None:
    path = tmp_path / "run" / "c.sock"
    text = f"listen: {{control: {path}}}\n"
    path.parent.mkdir()
    path.parent.chmod(0o755)  # whatever the umask
    path.touch()
    assert only(control_folder(patient_in(tmp_path, text))).message == f"{path} is no socket"
    path.unlink()
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(path))
        path.chmod(0o777)
        assert "every user may open" in only(control_folder(patient_in(tmp_path, text))).message
        path.chmod(0o660)
        assert list(control_folder(patient_in(tmp_path, text))) == []
        path.chmod(0o777)
        path.parent.chmod(0o750)
        assert list(control_folder(patient_in(tmp_path, text))) == []
