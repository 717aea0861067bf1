"""The process as a whole: how it begins, how it ends, and that no key leaves it."""

import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from spiffe import WorkloadApiClient

from proxy.channel import ToAppliance, Trust
from proxy.issuing import main
from proxy.issuing.desk import Desk as IssuingDesk
from proxy.issuing.here import Here
from proxy.issuing.main import EXIT_BUG, EXIT_KEYS
from tests.proxy.issuing.desk import ID, WAIT_S, Desk, settings


def test_it_ends_when_the_channel_does(tmp_path: Path) -> None:
    with Desk(settings(tmp_path)) as desk:
        desk.ready()
    assert desk.process is not None
    assert desk.process.returncode == 0
    assert desk.log == ""


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_upon_a_signal_with_everything_written(
    tmp_path: Path, sign: signal.Signals
) -> None:
    with Desk(settings(tmp_path)) as desk:
        desk.ready()
        serial = desk.sign(ID).serial
        assert desk.process is not None
        desk.process.send_signal(sign)
        assert desk.process.wait(WAIT_S) == 0
    octets = b"".join(each.read_bytes() for each in (tmp_path / "identity").glob("issued.sqlite*"))
    assert serial.encode() in octets


def test_keys_that_cannot_be_opened_are_a_problem_that_the_appliance_is_told(
    tmp_path: Path,
) -> None:
    secret = tmp_path / "secret"
    for text in (b"correct horse", b"wrong battery"):
        secret.write_bytes(text)
        secret.chmod(0o600)
        with Desk(settings(tmp_path / "state", key_file=str(secret))) as desk:
            told = desk.wait(Trust)
            assert desk.process is not None
            if text == b"correct horse":
                assert told.problem == ""
                continue
            assert desk.process.wait(WAIT_S) == EXIT_KEYS
        assert told.bundles == {}
        assert told.problem
        assert told.problem in desk.log
        assert "battery" not in desk.log + told.problem


def test_no_core_is_written_and_no_key_is_said(tmp_path: Path) -> None:
    """The issue: private keys never in logs, core dumps, audit or error texts."""
    with Desk(settings(tmp_path)) as desk:
        desk.ready()
        assert desk.process is not None
        limits = Path(f"/proc/{desk.process.pid}/limits").read_text()
        (core,) = [line for line in limits.splitlines() if line.startswith("Max core file size")]
        assert core.split()[-3:-1] == ["0", "0"]
        desk.listen(tmp_path / "w.sock")
        client = WorkloadApiClient(f"unix:{tmp_path / 'w.sock'}", default_timeout=WAIT_S)
        token = client.fetch_jwt_svid({"a"}).token
        client.fetch_x509_svid()
        client.close()
        desk.sign(ID + "/../x")
        cmdline = Path(f"/proc/{desk.process.pid}/cmdline").read_bytes()
        environ = Path(f"/proc/{desk.process.pid}/environ").read_bytes()
    said = desk.log + repr([each for each in desk.said if type(each).__name__ != "Signed"])
    keys = [each.read_text().splitlines()[1] for each in (tmp_path / "identity").glob("*.key")]
    assert len(keys) == 3
    for secret in (*keys, token, "PRIVATE"):
        assert secret not in said
        assert secret.encode() not in cmdline + environ


def test_its_settings_are_in_no_list_of_processes(tmp_path: Path) -> None:
    asked = msgspec.structs.replace(settings(tmp_path), upstream_proxy="http://u:secret@[::1]:1")
    with Desk(asked) as desk:
        desk.ready()
        assert desk.process is not None
        cmdline = Path(f"/proc/{desk.process.pid}/cmdline").read_bytes()
    assert b"secret" not in cmdline
    assert "secret" not in desk.log


def run(tmp_path: Path, handed_over: bytes = b"") -> tuple[int, list[object]]:
    """Run it in this process, to its end; return its exit code and what it said."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    memory = os.memfd_create("settings")
    os.write(memory, handed_over or msgspec.json.encode(settings(tmp_path)))
    os.lseek(memory, 0, os.SEEK_SET)
    with ours:
        code = main.main([str(theirs.detach()), str(memory)])
        said = []
        while octets := ours.recv(1 << 20):
            said.append(msgspec.json.decode(octets, type=ToAppliance))
    return code, said


@pytest.fixture
def open_to_debuggers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What is for good is not done to the process of the tests; the rest is given back."""
    monkeypatch.setattr(main, "close_to_debuggers", lambda: None)
    umask, interval = os.umask(0o077), sys.getswitchinterval()
    yield
    os.umask(umask)
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("open_to_debuggers")
def test_a_bug_has_an_exit_code_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def run_into_a_bug(_: IssuingDesk) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(IssuingDesk, "run", run_into_a_bug)
    assert run(tmp_path) == (EXIT_BUG, [])
    assert "a bug of ours" in caplog.text


@pytest.mark.usefixtures("open_to_debuggers")
def test_a_folder_that_is_not_ours_is_told_with_its_cure(tmp_path: Path) -> None:
    (tmp_path / "identity").mkdir(mode=0o700)
    (tmp_path / "identity" / "domain.json").write_bytes(b"{")
    (tmp_path / "identity" / "domain.json").chmod(0o600)
    code, said = run(tmp_path)
    assert code == EXIT_KEYS
    (told,) = said
    assert isinstance(told, Trust)
    assert told.problem


@pytest.mark.usefixtures("open_to_debuggers")
def test_a_run_that_is_told_to_end_ends_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "identity").mkdir(mode=0o700)
    tell = Here.tell

    def tell_and_end(here: Here, told: object) -> None:
        tell(here, told)  # type: ignore[arg-type]  # as it comes
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Here, "tell", tell_and_end)
    code, said = run(tmp_path)
    assert code == 0
    assert [type(each).__name__ for each in said] == ["Ready", "Trust"]


@pytest.mark.usefixtures("open_to_debuggers")
def test_settings_of_another_version_ask_for_a_restart(tmp_path: Path) -> None:
    """The files were replaced under an appliance that runs: that is no bug."""
    code, (told,) = run(tmp_path, b'{"state": 1}')
    assert code == EXIT_KEYS
    assert isinstance(told, Trust)
    assert "restart sallyport" in told.problem
