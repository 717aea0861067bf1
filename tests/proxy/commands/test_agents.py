"""`sallyport agents`: what agents claim is shown as that, and breaks no terminal."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import UnixStreamServer
from typing import override

import msgspec
import pytest
import typer
from typer.testing import CliRunner, Result

from proxy.agents.state import AgentView, Claimed, State
from proxy.commands import agents as cli_agents
from tests.proxy.cli_desk import Desk

app = typer.Typer()
app.command()(cli_agents.agents)

HOSTILE = "\x1b[2J\x9b1m\r\nallow all\u202e\u2066\U000e0041"
VIEWS = [
    AgentView(agent="spiffe://desk.example/box", app="box", state=State.SILENT),
    AgentView(
        agent="spiffe://desk.example/coder",
        app="coder",
        state=State.VALID,
        level="tpm",
        attested_s=12.3,
        expires_s=287.7,
        heartbeat_s=4.2,
        claimed=Claimed("degraded", HOSTILE, "[red]disk[/red] " + HOSTILE),
    ),
]


class Answering(BaseHTTPRequestHandler):
    """The control socket's answer to GET /agents."""

    def do_GET(self) -> None:
        content = msgspec.json.encode(VIEWS if self.path == "/agents" else [])
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    @override
    def log_message(self, *_: object) -> None:
        """Say nothing."""

    @override
    def address_string(self) -> str:
        return ""  # the peer of a unix socket has none


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


@pytest.fixture
def served(desk: Desk) -> Iterator[Desk]:
    desk.socket.parent.mkdir(mode=0o700)
    with UnixStreamServer(str(desk.socket), Answering) as server:
        desk.socket.chmod(0o600)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield desk
        server.shutdown()
        thread.join()


def run(desk: Desk, *arguments: str) -> Result:
    return CliRunner().invoke(app, arguments, env=desk.env)


def test_a_table_says_how_each_agent_stands(served: Desk) -> None:
    found = run(served)
    assert found.exit_code == 0, found.stderr
    head, box, coder, said = found.stdout.splitlines()
    assert head.split() == ["agent", "app", "state", "level", "attested", "heard"]
    assert box.split() == ["spiffe://desk.example/box", "box", "silent"]
    words = ["spiffe://desk.example/coder", "coder", "valid", "tpm", "12", "s", "4", "s"]
    assert coder.split() == words
    assert said.startswith("    it says: degraded, ")


def test_on_80_columns_no_name_is_broken(served: Desk) -> None:
    served.env["COLUMNS"] = "80"
    lines = run(served).stdout.splitlines()
    assert [max(map(len, lines[:3])) <= 80, lines[2].split()[0]] == [True, VIEWS[1].agent]
    served.env["COLUMNS"] = "30"
    assert f"agent     {VIEWS[1].agent}" in run(served).stdout.splitlines()


@pytest.mark.parametrize(
    ("age", "shown"),
    [
        (None, ""),
        (0.2, "0 s"),
        (119.4, "119 s"),
        (120.0, "2 min"),
        (7199.0, "120 min"),
        (7200.0, "2 h"),
        (86400.0 * 2, "2 d"),
    ],
)
def test_an_age_is_short(age: float | None, shown: str) -> None:
    assert cli_agents.ago(age) == shown


@pytest.mark.parametrize("arguments", [(), ("--json",)])
def test_nothing_that_an_agent_says_breaks_the_terminal(
    served: Desk, arguments: tuple[str, ...]
) -> None:
    """threats.md, "Evidence as a weapon": escape sequences and fake lines shown to a person."""
    shown = run(served, *arguments).stdout
    lines = shown.splitlines()
    assert not any(line.strip().startswith("allow all") for line in lines)
    assert all(each.isprintable() for line in lines for each in line)
    assert "\\u001b[2J" in shown
    assert "[red]disk[/red]" in shown  # it is no markup either


def test_json_is_what_the_appliance_said(served: Desk) -> None:
    found = json.loads(run(served, "--json").stdout)
    assert msgspec.convert(found, list[AgentView]) == VIEWS


def test_where_there_is_no_agent_it_says_so(served: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "VIEWS", [])
    assert run(served).stdout == "no agent has attested, or sent a heartbeat\n"


def test_without_an_appliance_it_says_so(desk: Desk) -> None:
    found = run(desk)
    assert found.exit_code == 4
    assert "no appliance answers" in found.stderr
