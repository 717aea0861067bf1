"""`sallyport lists`: of the appliance that runs, or of the rule files where none does."""

import io
import json
import sys
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

from proxy.commands import lists as cli_lists
from proxy.commands.lists import lists_of, telling
from proxy.control.lists import ListView
from proxy.reload.progress import Progress, untold
from rules.errors import RuleSyntaxError
from rules.name import parse
from rules.ruleset import ListSource, Ruleset
from tests.proxy.cli_desk import Desk

app = typer.Typer()
app.command()(cli_lists.lists)

VIEWS = [
    ListView(
        place="rules/a.yaml:2",
        file="lists/\x1b[2Jbad.txt",
        path="/etc/lists/bad.txt",
        format="plain",
        names=1_000_000,
        skipped={"too long": 2, "cannot be read": 3},
        excepts=4,
        apps=("coder", "box"),
        refuse=None,
        loaded="2026-11-22T15:47:09.000Z",
    )
]


class Answering(BaseHTTPRequestHandler):
    """The control socket's answer to GET /lists."""

    def do_GET(self) -> None:
        content = msgspec.json.encode(VIEWS if self.path == "/lists" else [])
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


def add_list(desk: Desk, text: str) -> None:
    (desk.rules.parent / "bad.txt").write_text(text)
    with desk.rules.open("a") as file:
        file.write("lists: [{file: bad.txt, apps: [coder], except: [fine.example]}]\n")


def test_a_running_appliance_is_asked(served: Desk) -> None:
    found = run(served)
    assert found.exit_code == 0, found.stderr
    for words in ("bad.txt", "plain", "1,000,000", "5", "coder, box", "rules/a.yaml:2", "2026-11"):
        assert words in found.stdout
    assert "\x1b" not in found.stdout
    as_json = run(served, "--json")
    assert msgspec.convert(json.loads(as_json.stdout), list[ListView])[0].names == 1_000_000


def test_files_are_read_where_none_runs(desk: Desk) -> None:
    add_list(desk, "a.example\nb.example\nc.example\n")
    (view,) = json.loads(run(desk, "--json").stdout)
    assert (view["file"], view["format"], view["names"]) == ("bad.txt", "plain", 3)
    assert (view["apps"], view["excepts"]) == (["coder"], 1)
    assert view["place"].endswith("rules.yaml:8")


def test_files_that_are_named_are_read_though_one_runs(served: Desk) -> None:
    found = run(served, "--rules", str(served.rules.parent))
    assert found.stdout.strip() == "the rules name no deny lists"


def test_a_list_that_cannot_be_read_ends_with_3(desk: Desk) -> None:
    add_list(desk, "a.example\n")
    (desk.rules.parent / "bad.txt").unlink()
    found = run(desk)
    assert found.exit_code == 3
    assert "bad.txt cannot be read" in found.stderr


def test_an_appliance_elsewhere_has_no_files_here(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli_lists, "is_remote", lambda: True)
    found = run(desk)
    assert found.exit_code == 4
    assert "nobody answers there" in found.stderr


def source(path: Path) -> ListSource:
    return ListSource("a.yaml:1", str(path), path.name)


def test_lists_are_read_for_who_explains(tmp_path: Path) -> None:
    (tmp_path / "bad.txt").write_text("a.example\n")
    ruleset = Ruleset(1, {}, (source(tmp_path / "bad.txt"),))
    assert lists_of(ruleset, system=False).lists.find("me", parse("a.example")) is not None
    (tmp_path / "bad.txt").unlink()
    with pytest.raises(RuleSyntaxError):
        lists_of(ruleset, system=False)


class Terminal(io.StringIO):
    """A stderr that a person looks at."""

    @override
    def isatty(self) -> bool:
        return True


def test_a_terminal_sees_how_far_the_reading_is(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with telling() as told:
        told(Progress("\x1b]bad.txt", 1, 1, 65536))
    shown = terminal.getvalue()
    assert "bad.txt (1 of 1), 65,536 lines" in shown
    assert shown.endswith("\r\x1b[K")  # and nothing of it stays
    assert "\x1b]" not in shown


def test_who_is_no_terminal_sees_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with telling() as told:
        assert told is untold
