"""`sallyport secrets`: the same with a running appliance and without one."""

import asyncio
import json
import os
import pty
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from proxy.canaries.known import KnownSecrets
from proxy.canaries.live import LiveSecrets
from proxy.canaries.secret import FILE_NAME
from proxy.commands import secrets as cli_secrets
from proxy.leak import Leak
from proxy.limits import Limits
from rules.name import parse
from tests.proxy.cli_desk import Desk, running
from tests.rules.test_secret_scan import key_of

VALUE = key_of(1).decode()
NAME = parse(f"{VALUE}.evil.example")


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def run(desk: Desk, *arguments: str, stdin: str | bytes = "") -> Result:
    return CliRunner().invoke(cli_secrets.app, arguments, env=desk.env, input=stdin)


def live_of(desk: Desk) -> LiveSecrets:
    limits = Limits()
    known = KnownSecrets(limits)
    return LiveSecrets(desk.folder / FILE_NAME, known, limits, lambda: 0.0, os.urandom)


def leak_in(desk: Desk, name: str) -> Leak | None:
    """Return what an appliance that starts now finds in `name`."""

    async def work() -> Leak | None:
        live = live_of(desk)
        await live.reload()
        await live.close()
        return live.known.found("coder", parse(name))

    return asyncio.run(work())


@asynccontextmanager
async def appliance(desk: Desk) -> AsyncIterator[LiveSecrets]:
    """Serve secrets on the control socket."""
    live = live_of(desk)
    async with running(desk) as stand:
        stand.secrets = live
        yield live
    await live.close()


def test_without_an_appliance_the_file_is_read_and_written(desk: Desk) -> None:
    added = run(desk, "add", "api-key", stdin=f"{VALUE}\r\n")
    assert added.exit_code == 0, added.stderr
    assert leak_in(desk, NAME) == Leak("api-key", "plain")
    [listed] = json.loads(run(desk, "list", "--json").stdout)
    assert (listed["name"], listed["kind"], listed["by_uid"]) == ("api-key", "secret", os.getuid())
    removed = run(desk, "remove", "api-key")
    assert (removed.exit_code, removed.stderr) == (0, "api-key: forgotten\n")
    assert leak_in(desk, NAME) is None
    assert run(desk, "list").stdout == "no secret is registered\n"


def test_a_value_is_read_from_a_file_and_stands_in_no_output(desk: Desk) -> None:
    file = desk.folder / "key"
    file.write_text(VALUE + "\n")
    for name, more in (("one", ()), ("two", ("--json",))):
        added = run(desk, "add", name, "--file", str(file), *more)
        assert added.exit_code == 0, added.stderr
        assert VALUE not in added.output
    listed = run(desk, "list")
    assert "one     secret" in listed.stdout
    assert VALUE not in listed.output


def test_there_is_no_way_to_give_a_value_on_the_command_line(desk: Desk) -> None:
    assert run(desk, "add", "one", VALUE).exit_code == 2
    assert run(desk, "add", "one", "--value", VALUE).exit_code == 2


def test_a_canary_is_printed_once_and_found(desk: Desk) -> None:
    made = run(desk, "canary", "trap")
    assert made.exit_code == 0, made.stderr
    text = made.stdout.removesuffix("\n")
    assert text.startswith("sk-")
    assert text not in made.stderr
    assert leak_in(desk, f"{text}.evil.example") == Leak("trap", "plain")
    other = json.loads(run(desk, "canary", "other", "--json").stdout)
    assert (other["secret"]["kind"], other["value"] != text) == ("canary", True)
    assert text not in run(desk, "list").output


@pytest.mark.parametrize(
    ("arguments", "stdin", "code"),
    [
        (("add", "one"), "short", 1),
        (("add", "one"), "ghp_abcdef", 1),
        (("add", "one"), "x" * 5000, 1),
        (("add", "A B"), VALUE, 2),
        (("add", "one", "--file", "/nonexistent/file"), "", 1),
        (("remove", "one"), "", 1),
        (("remove", "../x"), "", 2),
    ],
)
def test_what_cannot_be_done_is_said_without_the_value(
    desk: Desk, arguments: tuple[str, ...], stdin: str, code: int
) -> None:
    found = run(desk, *arguments, stdin=stdin)
    assert found.exit_code == code, found.output
    assert not stdin or stdin not in found.output
    assert not (desk.folder / FILE_NAME).exists() or run(desk, "list", "--json").stdout == "[]\n"


def test_a_file_that_cannot_be_used_is_said(desk: Desk) -> None:
    (desk.folder / FILE_NAME).mkdir()
    assert run(desk, "list").exit_code == 4
    assert run(desk, "add", "one", stdin=VALUE).exit_code == 4


def test_what_is_typed_at_a_terminal_is_not_shown(desk: Desk) -> None:
    ours, theirs = pty.openpty()
    command = (sys.executable, "-c", "from proxy.commands.secrets import app; app()", "add", "one")
    program = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        env=os.environ | desk.env,
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    while b"value: " not in shown:
        shown += os.read(ours, 1024)
    os.write(ours, f"{VALUE}\n".encode())
    while b"registered" not in shown:
        shown += os.read(ours, 1024)
    assert program.wait(30) == 0
    os.close(ours)
    assert VALUE.encode() not in shown
    assert leak_in(desk, NAME) == Leak("one", "plain")


async def test_a_running_appliance_is_asked(desk: Desk) -> None:
    async with appliance(desk) as live:
        added = await asyncio.to_thread(run, desk, "add", "one", stdin=VALUE)
        assert added.exit_code == 0, added.stderr
        assert live.known.found("coder", NAME) == Leak("one", "plain")
        again = await asyncio.to_thread(run, desk, "add", "one", stdin=VALUE)
        assert (again.exit_code, "already" in again.stderr) == (1, True)
        listed = await asyncio.to_thread(run, desk, "list", "--json")
        assert [each["name"] for each in json.loads(listed.stdout)] == ["one"]
        removed = await asyncio.to_thread(run, desk, "remove", "one", "--json")
        assert json.loads(removed.stdout)["name"] == "one"
        missing = await asyncio.to_thread(run, desk, "remove", "one")
        assert (missing.exit_code, "no such secret" in missing.stderr) == (1, True)
        assert live.known.found("coder", NAME) is None
    lines = [json.loads(line) for line in desk.audit.read_text().splitlines()]
    changes = [(line["target"], line["change"]) for line in lines]
    assert changes == [("secret one", "secret-added"), ("secret one", "secret-removed")]
    assert lines[0]["by_uid"] == os.getuid()
    assert VALUE not in desk.audit.read_text()
