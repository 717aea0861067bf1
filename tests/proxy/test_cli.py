"""The command line: what each command prints, and the exit code that it ends with."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from proxy import cli, demo
from proxy.audit_line import Record, encode
from proxy.commands import status as cli_status
from proxy.flow import Plane
from rules.decision import Reason, Verdict

ROOT = Path(__file__).resolve().parent.parent.parent
WAIT_S = 30
RULES = """\
apps:
  coder:
    identity:
      - process: {uid: 4711}
    allow:
      - name: sites
        host: [example.com, "*.example.org"]
        ports: [80, 443]
    deny:
      - {host: banned.example.org, reason: out of bounds}
"""
# `allow` names what this version cannot tunnel: it loads, with a warning.
WARNED = RULES.replace("ports: [80, 443]", "paths: [/a]")
BROKEN = "apps:\n  coder:\n    allow:\n      - host: example.com\n        port: 443\n"
CONFIG = (
    'listen: {do53: ["127.0.0.1:0"], dot: [], doh: [], proxy: ["127.0.0.1:0"], metrics: []'
    ', control: "", proxy_tls: [], workload: ""}\n'
)

type Run = Callable[..., Result]


class Desk:
    """The folders of one user."""

    def __init__(self, folder: Path) -> None:
        self.config = folder / "config" / "sallyport"
        self.state = folder / "state" / "sallyport"
        self.rules = self.config / "rules"
        self.rules.mkdir(parents=True, mode=0o700)
        self.state.mkdir(parents=True, mode=0o700)
        self.env = {
            "HOME": str(folder),
            "XDG_CONFIG_HOME": str(folder / "config"),
            "XDG_STATE_HOME": str(folder / "state"),
            "COLUMNS": "200",
        }

    def rule(self, text: str, name: str = "rules.yaml") -> Path:
        file = self.rules / name
        file.write_text(text)
        file.chmod(0o600)
        return file

    def configure(self, text: str) -> Path:
        file = self.config / "sallyport.yaml"
        file.write_text(text)
        return file


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


@pytest.fixture
def run(desk: Desk) -> Run:
    """Run a command in this process."""

    def invoke(*arguments: object) -> Result:
        return CliRunner().invoke(cli.app, [*map(str, arguments)], env=desk.env)

    return invoke


@contextlib.contextmanager
def child(
    desk: Desk,
    *arguments: object,
    python: tuple[str, ...] = (),
    cwd: Path = ROOT,
    env: dict[str, str] | None = None,
) -> "Iterator[subprocess.Popen[str]]":
    """Run a command in a process of its own; whatever happens, it is gone afterwards."""
    process = subprocess.Popen(
        [sys.executable, *python, "-m", "proxy", *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env={**os.environ, **desk.env, **(env or {})},
    )
    try:
        with process:
            yield process
            process.kill()
    finally:
        process.kill()


def ended(desk: Desk, *arguments: object) -> tuple[int, str, str]:
    with child(desk, *arguments) as process:
        out, err = process.communicate(timeout=WAIT_S)
    return process.returncode, out, err


# The command itself


@pytest.mark.parametrize("arguments", [["--version"], ["--version", "check"]])
def test_tells_its_version(run: Run, arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.exit_code == 0
    assert result.stdout.startswith("sallyport ")
    assert len(result.stdout.split()) == 2


@pytest.mark.parametrize(
    "arguments", [["no-such"], ["check", "--no-such"], ["explain"], ["up", "too", "much"]]
)
def test_wrong_usage_is_2(run: Run, arguments: list[str]) -> None:
    assert run(*arguments).exit_code == 2


def test_a_bug_of_ours_is_70_and_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def bug(**_: object) -> int:
        raise LookupError("surprise")

    monkeypatch.setattr(demo, "run", bug)
    with pytest.raises(SystemExit) as raised:
        cli.main(["demo"])
    assert raised.value.code == 70
    assert "LookupError: surprise" in (said := capsys.readouterr().err)
    assert "a bug of ours" in said


def test_runs_as_a_module(desk: Desk) -> None:
    code, out, err = ended(desk, "--version")
    assert (code, err) == (0, "")
    assert out.startswith("sallyport ")


# check


def test_check_is_0_when_all_is_well(run: Run, desk: Desk) -> None:
    desk.rule(RULES)
    result = run("check")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == "1 rule files, 0 errors, 0 warnings\n"


def test_check_is_1_for_a_warning(run: Run, desk: Desk) -> None:
    file = desk.rule(WARNED)
    result = run("check")
    assert result.exit_code == 1
    assert f"{file}:" in result.stderr
    assert "warning: " in result.stderr
    assert "cure: " in result.stderr
    shown = json.loads(run("check", "--json").stdout)
    assert (shown["errors"], shown["files"]) == (0, [str(file)])
    assert {problem["severity"] for problem in shown["problems"]} == {"warning"}


def test_check_is_3_for_an_error_and_points_at_it(run: Run, desk: Desk) -> None:
    file = desk.rule(BROKEN)
    result = run("check")
    lines = result.stderr.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith(f"{file}:5:9: error"))
    assert result.exit_code == 3
    assert lines[at + 1] == "            port: 443"
    assert lines[at + 2].index("^") == lines[at + 1].index("port")
    assert "ports" in lines[at + 3]


def test_check_tells_everything_at_once_as_json(run: Run, desk: Desk) -> None:
    one, two = desk.rule(BROKEN, "1.yaml"), desk.rule("aps: {}\n", "2.yaml")
    result = run("check", "--json")
    shown = json.loads(result.stdout)
    assert (result.exit_code, result.stderr) == (3, "")
    assert shown["errors"] == len(shown["problems"])
    places = [(each["place"]["file"], each["place"]["line"]) for each in shown["problems"]]
    assert {(str(one), 5), (str(two), 1)} <= set(places)
    assert all(each["cure"] for each in shown["problems"])


def test_check_writes_no_first_rules(run: Run, desk: Desk) -> None:
    desk.rules.rmdir()
    result = run("check")
    assert result.exit_code == 3
    assert f"mkdir -p {desk.rules}" in result.stderr
    assert not desk.rules.exists()


def test_check_of_named_folders_reads_no_other(run: Run, desk: Desk, tmp_path: Path) -> None:
    desk.rule(BROKEN)
    other = tmp_path / "other"
    other.mkdir(mode=0o700)
    assert run("check", "--rules", other).exit_code == 0


def test_an_unknown_key_of_the_configuration_is_3_with_its_place(run: Run, desk: Desk) -> None:
    file = desk.configure("state: x\nresolver:\n  upstream: []\n")
    for command in (["check"], ["up"], ["why", "--last"], ["explain", "coder", "example.com"]):
        result = run(*command)
        assert result.exit_code == 3
        assert f"{file}:3:3: error: " in result.stderr
        assert "upstreams" in result.stderr
    shown = json.loads(run("check", "--json").stdout)
    assert shown["problems"][0]["place"] == {"file": str(file), "line": 3, "column": 3}


def test_a_configuration_that_is_not_there_is_3(run: Run, tmp_path: Path) -> None:
    result = run("check", "--config", tmp_path / "none.yaml")
    assert result.exit_code == 3
    assert "does not exist" in result.stderr


def test_a_listener_that_is_not_bound_is_told(run: Run, desk: Desk) -> None:
    desk.rule(RULES.replace("process: {uid: 4711}", 'listener: "127.0.0.1:9999"'))
    result = run("check")
    assert result.exit_code == 3
    assert "listener 127.0.0.1:9999 stands in no" in result.stderr


def test_a_spiffe_id_that_nobody_can_have_is_a_warning(run: Run, desk: Desk) -> None:
    for spiffe_id, text in (
        ("spiffe://sallyport.internal/sallyport/admin/eve", "is kept for admins"),
        ("spiffe://far.example/coder", "nobody is believed who comes from far.example"),
    ):
        file = desk.rule(RULES.replace("process: {uid: 4711}", f"spiffe: {spiffe_id}"))
        result = run("check")
        assert result.exit_code == 1
        assert f"{file}:" in result.stderr
        assert text in result.stderr
    desk.configure("identity: {federation: {far.example: {file: /bundle}}}\n")
    assert run("check").exit_code == 0


def test_paths_of_the_configuration_are_expanded(run: Run, desk: Desk, tmp_path: Path) -> None:
    one, two = desk.config / "one", tmp_path / "elsewhere" / "two"
    for folder, app in ((one, "one"), (two, "two")):
        folder.mkdir(parents=True, mode=0o700)
        (folder / "a.yaml").write_text(f"apps: {{{app}: {{allow: []}}}}\n")
    file = tmp_path / "elsewhere" / "my.yaml"
    file.write_text("rules: [$CONFIG/one, two]\n")
    shown = json.loads(run("check", "--json", "--config", file).stdout)
    assert shown["files"] == [f"{one}/a.yaml", f"{two}/a.yaml"]


def test_what_is_shown_moves_no_cursor(run: Run, desk: Desk) -> None:
    """threats.md, "Evidence as a weapon": escape sequences shown to a person."""
    desk.rule(BROKEN + '        reason: "\\e[2J"\n        "\\x1b[1m": [bold]evil[/bold]\n')
    desk.rule("apps: {\x1b[2J: {}}\n", "b.yaml")
    result = run("check")
    assert result.exit_code == 3
    assert "\x1b" not in result.stderr


# explain


def explained(result: Result) -> list[tuple[str, str, str, str | None]]:
    return [
        (each["fact"], each["verdict"], each["reason"], each["rule"])
        for each in json.loads(result.stdout)
    ]


def test_explain_is_0_for_an_allow(run: Run, desk: Desk) -> None:
    desk.rule(RULES)
    result = run("explain", "coder", "https://example.com/", "--json")
    assert result.exit_code == 0
    assert explained(result) == [
        ("question", "allow", "rule", "sites"),
        ("connect", "allow", "rule", "sites"),
    ]


def test_explain_is_1_for_a_deny_anywhere_on_the_way(run: Run, desk: Desk) -> None:
    desk.rule(RULES)
    result = run("explain", "coder", "example.com:22", "--json")
    assert result.exit_code == 1
    assert explained(result) == [
        ("question", "allow", "rule", "sites"),
        ("connect", "deny", "port-not-allowed", None),
    ]


def test_explain_shows_every_rule_that_was_tried(run: Run, desk: Desk) -> None:
    file = desk.rule(RULES)
    result = run("explain", "coder", "http://banned.example.org/")
    assert result.exit_code == 1
    assert [line for line in result.stdout.splitlines() if line in ("Question", "Connect")]
    assert f"deny: rule by {file}:10" in result.stdout
    assert "sites" in result.stdout
    steps = json.loads(run("explain", "coder", "banned.example.org", "--json").stdout)[0]["steps"]
    assert {step["rule"] for step in steps} == {"sites", f"{file}:10"}
    assert all(step["why"] for step in steps)


def test_explain_takes_a_type_and_a_method(run: Run, desk: Desk) -> None:
    desk.rule(RULES)
    typed = run("explain", "coder", "example.com", "--type", "TXT", "--json")
    assert explained(typed) == [("question", "deny", "type-not-allowed", None)]
    asked = run("explain", "coder", "http://example.com/x", "--method", "put", "--json")
    assert explained(asked)[-1] == ("request", "allow", "rule", "sites")


@pytest.mark.parametrize("name", ["nobody", "[red]", "[/]", "\x1b[2J"])
def test_explain_says_when_no_rule_speaks_of_an_app(run: Run, desk: Desk, name: str) -> None:
    desk.rule(RULES)
    result = run("explain", name, "example.com", "--json")
    assert result.exit_code == 1
    assert result.stderr == f"no rule file speaks of the app {name!r} (known: coder)\n"
    assert explained(result) == [("question", "deny", "host-not-listed", None)]


@pytest.mark.parametrize(
    "arguments",
    [
        ["coder", "exa mple.com"],
        ["coder", "ftp://example.com/"],
        ["coder", "http://example.com/%00"],
        ["coder", "example.com", "--type", "NOSUCH"],
    ],
)
def test_explain_is_2_for_what_is_no_target(run: Run, desk: Desk, arguments: list[str]) -> None:
    desk.rule(RULES)
    result = run("explain", *arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith("sallyport: ")


def test_explain_is_3_for_broken_rules(run: Run, desk: Desk) -> None:
    file = desk.rule(BROKEN)
    result = run("explain", "coder", "example.com")
    assert result.exit_code == 3
    assert f"{file}:5:9: error" in result.stderr


# why


def line(number: int, app: str = "coder", verdict: Verdict = Verdict.DENY) -> bytes:
    record = Record(
        time="2026-11-22T01:02:03.000004Z",
        id=f"{number:032x}",
        flow=None,
        app=app,
        evidence=(),
        plane=Plane.DNS,
        fact="question",
        verdict=verdict,
        reason=Reason.HOST_NOT_LISTED,
        rule=None,
        generation=1,
        count=1,
        target=f"{number}.example A",
    )
    return encode(record, {"name": "\x1b[2J[bold]"})


@pytest.fixture
def audit(desk: Desk) -> Path:
    file = desk.state / "audit.jsonl"
    file.write_bytes(line(1) + line(2, "other") + line(3) + line(4, verdict=Verdict.ALLOW))
    return file


@pytest.mark.parametrize(
    ("arguments", "number"),
    [
        ([f"{1:032x}"], 1),
        ([f"urn:uuid:{0:08x}-0000-0000-0000-{2:012x}"], 2),
        (["--last"], 3),
        (["--last", "--app", "other"], 2),
    ],
)
def test_why_shows_the_line(run: Run, audit: Path, arguments: list[str], number: int) -> None:
    result = run("why", "--json", *arguments)
    assert result.exit_code == 0, audit
    assert json.loads(result.stdout)["target"] == f"{number}.example A"
    for_people = run("why", *arguments)
    assert f"{number}.example A" in for_people.stdout
    assert "host-not-listed" in for_people.stdout
    assert "\\u001b[2J[bold]" in for_people.stdout
    assert for_people.exit_code == 0


def test_why_looks_where_it_is_told(run: Run, audit: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    audit.rename(elsewhere / "audit.jsonl")
    assert run("why", "--last").exit_code == 1
    assert run("why", "--last", "--state", elsewhere).exit_code == 0


@pytest.mark.parametrize("arguments", [["0" * 32], ["--last", "--app", "nobody"]])
def test_why_is_1_when_there_is_no_such_refusal(
    run: Run, audit: Path, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli_status, "_FOLD_TRY_S", 0.0)
    result = run("why", *arguments)
    assert result.exit_code == 1, audit
    assert "no such refusal" in result.stderr


@pytest.mark.parametrize("arguments", [[], ["1", "--last"], ["1", "--app", "coder"]])
def test_why_wants_an_id_or_the_last_one(run: Run, arguments: list[str]) -> None:
    result = run("why", *arguments)
    assert result.exit_code == 2
    assert "give an ID, or --last" in result.stderr


def test_why_is_4_when_the_evidence_cannot_be_read(run: Run, desk: Desk) -> None:
    desk.state.rmdir()
    desk.state.touch()
    for arguments in (["--last"], ["1"]):
        result = run("why", *arguments)
        assert result.exit_code == 4
        assert "cannot read" in result.stderr


def test_why_waits_for_a_line_that_is_about_to_be_written(
    run: Run, audit: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            with audit.open("ab") as file:
                file.write(line(9))

    monkeypatch.setattr(time, "sleep", pause)
    assert run("why", f"{9:032x}").exit_code == 0
    assert len(pauses) == 3
    assert run("why", f"{10:032x}").exit_code == 1
    assert sum(pauses[3:]) == pytest.approx(1.5)


def test_the_last_refusal_is_waited_for_only_where_there_is_none(
    run: Run, audit: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    assert run("why", "--last").exit_code == 0
    assert pauses == []
    audit.unlink()
    assert run("why", "--last").exit_code == 1
    assert sum(pauses) == pytest.approx(1.5)


# schema, demo


def test_schema_is_json_schema(run: Run) -> None:
    result = run("schema")
    shown = json.loads(result.stdout)
    assert (result.exit_code, result.stderr) == (0, "")
    assert shown["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert {"apps", "lists"} <= shown["$defs"]["RuleFile"]["properties"].keys()


@pytest.mark.parametrize("code", [0, 1])
def test_demo_ends_as_the_demonstration_does(
    run: Run, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    asked = []

    def demonstration(*, as_json: bool) -> int:
        asked.append(as_json)
        return code

    monkeypatch.setattr(demo, "run", demonstration)
    assert [run("demo").exit_code, run("demo", "--json").exit_code] == [code, code]
    assert asked == [False, True]


# up


def first_line(process: "subprocess.Popen[str]") -> str:
    """Return what it says first; a process that says nothing is ended."""
    assert process.stdout is not None
    alarm = threading.Timer(WAIT_S, process.kill)
    alarm.start()
    try:
        return process.stdout.readline()
    finally:
        alarm.cancel()


def test_check_is_3_for_a_parent_that_is_none(desk: Desk, run: Run) -> None:
    desk.configure("egress: {upstream_proxy: 'ftp://me:hunter2@192.0.2.1:1'}\n")
    desk.rule(RULES)
    result = run("check")
    assert result.exit_code == 3
    assert "upstream_proxy" in result.stderr
    assert "hunter2" not in result.stderr


def test_up_becomes_the_appliance_and_ends_on_sigterm(desk: Desk) -> None:
    desk.configure(CONFIG)
    with child(desk, "up", "--json") as process:
        ready = json.loads(first_line(process))
        assert ready["pid"] == process.pid
        command = Path(f"/proc/{process.pid}/cmdline").read_bytes().split(b"\0")
        assert b"proxy.appliance" in command
        mapped = Path(f"/proc/{process.pid}/maps").read_text()
        assert "typer" not in mapped
        process.send_signal(signal.SIGTERM)
        assert process.wait(WAIT_S) == 0
    assert (desk.rules / "me.yaml").exists()
    assert (desk.state / "audit.jsonl").exists()


def test_up_shows_a_person_what_to_try(desk: Desk) -> None:
    desk.configure(CONFIG)
    desk.rule(RULES)
    with child(desk, "up") as process:
        assert first_line(process).startswith("  listen do53 ")
        process.send_signal(signal.SIGTERM)
        assert process.wait(WAIT_S) == 0
        assert process.stdout is not None
        out = process.stdout.read()
    assert "kdig @127.0.0.1 -p " in out


def test_up_is_3_for_broken_rules(desk: Desk) -> None:
    desk.configure(CONFIG)
    file = desk.rule(BROKEN)
    code, out, err = ended(desk, "up", "--json")
    assert (code, out) == (3, "")
    assert f"{file}:5:9: error" in err


def test_up_is_4_when_a_port_is_taken(desk: Desk) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        desk.configure(CONFIG.replace('proxy: ["127.0.0.1:0"]', f'proxy: ["127.0.0.1:{port}"]'))
        code, out, err = ended(desk, "up", "--json")
    assert (code, out) == (4, "")
    assert f"cannot bind TCP 127.0.0.1 port {port}" in err
    assert "choose another port" in err


def test_up_imports_nothing_from_where_it_is_started(desk: Desk, tmp_path: Path) -> None:
    """An agent's work folder may hold a folder named `rules`, and so may PYTHONPATH."""
    desk.configure(CONFIG)
    work, mark = tmp_path / "work", tmp_path / "evil-ran"
    evil = f"import pathlib\npathlib.Path({str(mark)!r}).touch()\n"
    for package in ("rules", "proxy", "certs", "msgspec", "uvloop"):
        (work / package).mkdir(parents=True)
        (work / package / "__init__.py").write_text(evil)
    (work / "sitecustomize.py").write_text(evil)
    # The command line itself is found as an installed one is; what else stands there ends with it.
    env = {"PYTHONPATH": f"{ROOT}:{tmp_path}"}
    with child(desk, "up", "--json", python=("-P",), cwd=work, env=env) as process:
        ready = json.loads(first_line(process))
        environment = Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0")
        process.send_signal(signal.SIGTERM)
        assert process.wait(WAIT_S) == 0
    assert ready["event"] == "ready"
    assert f"PYTHONPATH={ROOT}".encode() in environment
    assert not mark.exists()
