"""`sallyport demo` as it is: a process, an appliance of its own, and nothing left behind."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from proxy import demo
from proxy.demo import run
from proxy.demo_world import ALLOWED, REBINDING, REFUSED

ROOT = Path(__file__).resolve().parent.parent.parent
WHOLE_S = 30


def members(group: int) -> list[str]:
    """Return the processes that still run in a process group."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:  # ended meanwhile
            continue
        if int(fields[2]) == group and fields[0] != "Z":
            found.append(path.parent.name)
    return found


@pytest.mark.timeout(2 * WHOLE_S)
@pytest.mark.parametrize(
    ("folder", "umask"), [("plain", 0o022), ("a: [odd, 'place'] #1 $HOME %", 0o000)]
)
def test_six_steps_go_as_they_must_and_nothing_is_left(
    tmp_path: Path, folder: str, umask: int
) -> None:
    temporary = tmp_path / folder
    temporary.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "proxy", "demo", "--json"],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(temporary)},
        umask=umask,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    with process:
        out, err = process.communicate(timeout=WHOLE_S)
    assert process.returncode == 0, err
    steps = json.loads(out)
    assert [(step["plane"], step["verdict"]) for step in steps] == [
        *(("DNS", "allowed"), ("DNS", "refused"), ("DNS", "refused")),
        *(("HTTP", "allowed"), ("HTTP", "refused"), ("HTTP", "refused")),
    ]
    for step, name in zip(steps, (ALLOWED, REFUSED, REBINDING) * 2, strict=True):
        assert name in step["asked"]
    assert steps[0]["answer"] == "127.0.0.1"
    assert "hello from the demonstration" in steps[3]["answer"]
    reasons = ["host-not-listed", "address-not-allowed"] * 2
    refusals = [step["answer"] for step in steps if step["verdict"] == "refused"]
    assert all(reason in said for reason, said in zip(reasons, refusals, strict=True))
    assert list(temporary.iterdir()) == []
    assert members(process.pid) == []


@pytest.mark.timeout(WHOLE_S)
def test_a_person_sees_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(as_json=False) == 0
    shown = capsys.readouterr().out
    assert f"{REBINDING} is allowed, but its answer is 127.0.0.1" in shown
    assert shown.count("allowed") >= 2
    assert shown.count("refused") >= 4


@pytest.mark.parametrize("verdict", ["refused", "failed"])
def test_a_step_that_goes_wrong_is_told_and_is_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], verdict: str
) -> None:
    async def demonstrate() -> list[demo.Step]:
        return [demo.Step("DNS", "x A", verdict, "NXDOMAIN [/]")]

    monkeypatch.setattr(demo, "_demonstrate", demonstrate)
    assert run(as_json=False) == 1
    assert verdict in (shown := capsys.readouterr().out)
    assert "NXDOMAIN [/]" in shown


def stand_in(folder: Path, script: str) -> str:
    """Return a program that runs in the place of the appliance."""
    program = folder / "program"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o700)
    return str(program)


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("exit 4", "the appliance ended before it was ready"),
        ("echo no event", "JSON is malformed"),
        ("exec sleep 60", "TimeoutError"),
    ],
)
def test_an_appliance_that_does_not_start_is_told_and_ended(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    script: str,
    says: str,
) -> None:
    ended = tmp_path / "pid"
    program = stand_in(tmp_path, f"echo $$ >{ended}\n{script}")
    monkeypatch.setattr(sys, "executable", program)
    monkeypatch.setattr(demo, "_WHOLE_S", 3.0)
    assert run(as_json=True) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("sallyport: the demonstration failed: ")
    assert says in err
    assert not Path(f"/proc/{ended.read_text().strip()}").exists()
