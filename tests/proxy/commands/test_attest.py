"""`sallyport attest`, as it is typed."""

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from proxy.commands.attest import attest
from tests.proxy.attester.verifier import Verifier, serving

ROOT = Path(__file__).resolve().parents[3]
PROGRAM = "import typer; from proxy.commands.attest import attest; typer.run(attest)"
PATIENCE_S = 20

app = typer.Typer()
app.command()(attest)


@pytest.fixture
def verifier(tmp_path: Path) -> Iterator[Verifier]:
    with serving(Verifier(tmp_path)) as found:
        yield found


def options(verifier: Verifier) -> list[str]:
    url = f"https://localhost:{verifier.port}"
    return ["--url", url, "--folder", str(verifier.folder)]


def run(verifier: Verifier, *more: str) -> Result:
    return CliRunner().invoke(app, [*options(verifier), *more])


def run_until(is_there: Callable[[], bool], verifier: Verifier, *more: str) -> Result:
    """Keep fresh here, in the main thread, until `is_there`; then SIGTERM ends it."""

    def end() -> None:
        for _ in range(PATIENCE_S * 100):
            with contextlib.suppress(OSError):
                if is_there():
                    break
            time.sleep(0.01)
        if signal.getsignal(signal.SIGTERM) is signal.default_int_handler:  # it stays
            os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=end)
    thread.start()
    result = run(verifier, "--keep-fresh", *more)
    thread.join()
    return result


@contextmanager
def staying(verifier: Verifier, *more: str) -> Iterator[subprocess.Popen[str]]:
    """A process that keeps fresh, until the block ends; it must end well."""
    command = [sys.executable, "-P", "-c", PROGRAM, *options(verifier), "--keep-fresh", *more]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=env)
    try:
        yield process
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0
    finally:
        process.kill()
        process.wait()
        if process.stderr is not None:
            process.stderr.close()


def heard(process: subprocess.Popen[str], text: str) -> str:
    """Wait until the process says so on stderr; return all that it said meanwhile."""
    assert process.stderr is not None
    said = ""
    while text not in said:
        assert select.select([process.stderr], [], [], PATIENCE_S)[0], said
        line = process.stderr.readline()
        assert line, said
        said += line
    return said


def test_it_prints_the_token_alone(verifier: Verifier) -> None:
    result = run(verifier)
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{verifier.tokens[0]}\n"


def test_json_has_everything(verifier: Verifier) -> None:
    found = json.loads(run(verifier, "--json", "--version", "1.2").stdout)
    assert found["token"] == verifier.tokens[0]
    assert found["level"] == "software"
    assert found.keys() >= {"expires_in", "id", "binding", "attested_at", "token_type"}
    whole = [type(found[name]) for name in ("expires_in", "attested_at")]
    assert whole == [int, int]  # as what is shown elsewhere
    assert verifier.contents[1]["version"] == "1.2"


def test_files_of_any_name_serve(verifier: Verifier) -> None:
    own = verifier.own
    named = ["--cert", str(own.chain), "--key", str(own.key), "--ca", str(own.ca)]
    url = f"https://localhost:{verifier.port}"
    assert CliRunner().invoke(app, ["--url", url, *named]).exit_code == 0


def test_in_a_lease_it_goes_through_the_proxy(tmp_path: Path) -> None:
    with serving(Verifier(tmp_path), plain=True) as verifier:
        verifier.changes["/attest/nonce"] = {"evidence": ["launched"]}
        proxy = f"http://127.0.0.1:{verifier.port}"
        result = CliRunner().invoke(app, ["--launched", "--proxy", proxy])
        assert result.stdout == f"{verifier.tokens[0]}\n"


def test_a_refusal_says_why_and_what_to_do(verifier: Verifier) -> None:
    problem = {"detail": "the PCR 7 is another", "how": "ask the admin", "reason": "rule"}
    verifier.answers["/attest"] = (403, problem)
    result = run(verifier)
    assert result.exit_code == 1
    assert "the PCR 7 is another; ask the admin" in result.stderr
    assert not result.stdout


def test_nobody_there_is_4(tmp_path: Path) -> None:
    verifier = Verifier(tmp_path)
    verifier.port = 1
    assert run(verifier).exit_code == 4


def test_no_certificate_is_3(verifier: Verifier) -> None:
    verifier.own.chain.unlink()
    result = run(verifier)
    assert result.exit_code == 3
    assert "enrol first" in result.stderr


@pytest.mark.parametrize(
    "more",
    [
        ["--file", "token"],
        ["--heartbeat"],
        ["--keep-fresh", "--file", "token", "--fd", "7"],
        ["--pcrs", "24"],
    ],
)
def test_usage_is_2(verifier: Verifier, more: list[str]) -> None:
    assert run(verifier, *more).exit_code == 2
    assert not verifier.calls


def test_a_descriptor_that_is_none_is_3(verifier: Verifier) -> None:
    assert run(verifier, "--keep-fresh", "--fd", "199").exit_code == 3


def test_a_memfd_holds_the_token_until_the_end(verifier: Verifier) -> None:
    fd = os.memfd_create("token")
    found: list[bytes] = []

    def read() -> bool:
        found.append(os.pread(fd, 4096, 0))
        return bool(found[-1])

    result = run_until(read, verifier, "--fd", str(fd))
    assert result.exit_code == 0, result.output
    assert found[-1].decode() == f"{verifier.tokens[0]}\n"
    assert os.pread(fd, 4096, 0) == b""
    os.close(fd)


def test_a_socket_gives_the_token_until_the_end(verifier: Verifier) -> None:
    path = verifier.folder / "token.sock"
    found: list[str] = []

    def read() -> bool:
        with socket.socket(socket.AF_UNIX) as caller:
            caller.connect(os.fspath(path))
            found.append(caller.makefile().read())
        return bool(found[-1])

    result = run_until(read, verifier, "--socket", str(path))
    assert result.exit_code == 0, result.output
    assert found[-1] == f"{verifier.tokens[0]}\n"
    assert not path.exists()


def test_without_a_place_the_certificate_is_kept_attested(verifier: Verifier) -> None:
    result = run_until(lambda: bool(verifier.tokens), verifier)
    assert (result.exit_code, result.stdout) == (0, "")


def test_a_file_follows_the_certificate_and_what_the_appliance_says(verifier: Verifier) -> None:
    path = verifier.folder / "token"
    with staying(verifier, "--file", str(path), "--heartbeat") as process:
        said = heard(process, "attested as software")
        verifier.issue()
        said += heard(process, "the certificate is a new one")
        said += heard(process, "attested as software")
        assert path.read_text().strip() in verifier.tokens[1:]
        verifier.answers["/attest"] = (403, {"detail": "changed"})
        verifier.issue()
        said += heard(process, "the token is void")
        assert path.read_text() == ""
    assert not path.exists()
    assert "/heartbeat" in verifier.calls
    assert not any(each in said for each in verifier.tokens)


@pytest.mark.parametrize("option", ["--socket", "--file"])
def test_a_refusal_at_the_start_leaves_nothing_behind(verifier: Verifier, option: str) -> None:
    verifier.answers["/attest"] = (403, {"detail": "no"})
    path, before = verifier.folder / "token", signal.getsignal(signal.SIGTERM)
    result = run(verifier, "--keep-fresh", option, str(path))
    assert result.exit_code == 1, result.output
    assert not path.exists()
    assert signal.getsignal(signal.SIGTERM) is before
