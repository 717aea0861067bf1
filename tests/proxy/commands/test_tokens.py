"""Tokens from the command line: the same with a running appliance and without one."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from proxy.commands.tokens import Told
from proxy.control.status import view
from proxy.limits import Limits
from proxy.tokens.file import TokenFile
from proxy.tokens.known import Token, digest
from rules.decision import Reason
from tests.proxy.cli_desk import Desk, running

ROOT = Path(__file__).parents[3]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def known(desk: Desk) -> dict[bytes, Token]:
    file = TokenFile(desk.folder / "sallyport.sqlite", Limits(), os.urandom)
    return asyncio.run(file.read())


def test_without_an_appliance_the_file_is_written(desk: Desk) -> None:
    found = desk.run("app", "token", "coder", "--ttl", "1h", "--bind-uid", "1000")
    assert found.exit_code == 0, found.stderr
    secret = found.stdout.strip()
    token = known(desk)[digest(secret)]
    assert (token.id, token.bind_uid) == ("coder.1", 1000)
    assert 3590 < token.expires - time.time() < 3600


async def test_a_running_appliance_knows_a_new_token_at_once(desk: Desk) -> None:
    async with running(desk) as stand:
        found = await desk.beside("app", "token", "coder")
        assert found.exit_code == 0, found.stderr
        secret = found.stdout.strip()
        assert isinstance(stand.tokens.tokens.find(secret, stand.now), Token)
        await desk.beside("app", "revoke", "coder")
        assert stand.tokens.tokens.find(secret, stand.now) is Reason.REVOKED


async def test_both_ways_say_the_same(desk: Desk) -> None:
    commands = (
        ("app", "token", "coder", "--json"),
        ("app", "rotate", "coder", "--grace", "1m", "--json"),
        ("app", "revoke", "coder", "--json"),
    )
    alone = [json.loads((await desk.beside(*each)).stdout) for each in commands]
    (desk.folder / "sallyport.sqlite").unlink()
    async with running(desk):
        beside = [json.loads((await desk.beside(*each)).stdout) for each in commands]
    assert [sorted(each) for each in alone[:2]] == [sorted(each) for each in beside[:2]]
    assert [each["token"]["id"] for each in alone[:2]] == ["coder.1", "coder.2"]
    assert [each["token"]["id"] for each in beside[:2]] == ["coder.1", "coder.2"]
    assert alone[1]["replaced"]["id"] == beside[1]["replaced"]["id"] == "coder.1"
    assert [each["state"] for each in alone[2]] == [each["state"] for each in beside[2]]


def test_a_secret_stands_on_stdout_alone_and_only_once(desk: Desk) -> None:
    """threats.md, "Identity": tokens leak through environ, .npmrc and logs."""
    made = desk.run("app", "token", "coder")
    secret = made.stdout.strip()
    assert secret.startswith("spt_")
    assert "\n" not in secret
    assert secret not in made.stderr
    for command in (("app", "list"), ("app", "list", "--json"), ("app", "revoke", "coder")):
        found = desk.run(*command)
        assert secret not in found.stdout + found.stderr
    assert all(secret.encode() not in each.read_bytes() for each in desk.folder.glob("*.sqlite*"))


@pytest.mark.parametrize(
    ("command", "code", "words"),
    [
        (("app", "token", "Coder"), 2, "lower-case"),
        (("app", "token", "coder", "--ttl", "soon"), 2, "no duration"),
        (("app", "token", "coder", "--ttl", "1000d"), 1, "366 days"),
        (("app", "token", "coder", "--bind-uid", "-1"), 2, "bind_uid"),
        (("app", "rotate", "coder"), 1, "no token coder"),
        (("app", "rotate", "coder", "--grace", "soon"), 2, "no duration"),
        (("app", "revoke", "coder"), 1, "no valid token coder"),
        (("app", "revoke", "co der"), 2, "NAME.NUMBER"),
        (("app", "rotate", "../tokens"), 2, "NAME.NUMBER"),
        (("app", "revoke", ""), 2, "NAME.NUMBER"),
        (("app", "show", "caf\u00e9"), 2, "lower-case"),
        (("app", "show", "co der"), 2, "lower-case"),
        (("metrics", "rotate"), 1, "sallyport metrics list"),
        (("metrics", "revoke"), 1, "sallyport metrics list"),
    ],
)
async def test_what_cannot_be_is_said_with_its_exit_code(
    desk: Desk, command: tuple[str, ...], code: int, words: str
) -> None:
    alone = await desk.beside(*command)
    assert (alone.exit_code, words in alone.stderr) == (code, True), alone.stderr
    async with running(desk):
        found = await desk.beside(*command)
    assert (found.exit_code, words in found.stderr) == (code, True), found.stderr


async def test_a_file_that_cannot_be_used_ends_with_4_both_ways(desk: Desk) -> None:
    file = desk.folder / "sallyport.sqlite"
    file.write_bytes(b"no database " * 99)
    file.chmod(0o600)
    alone = await desk.beside("app", "token", "coder")
    assert (alone.exit_code, "restore the file" in alone.stderr) == (4, True)
    async with running(desk):
        found = await desk.beside("app", "token", "coder")
    assert (found.exit_code, "restore the file" in found.stderr) == (4, True)


async def test_a_socket_that_is_not_ours_ends_with_4(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(desk):
        from proxy.control.place import Caller  # noqa: PLC0415 - beside what it replaces

        monkeypatch.setattr("proxy.control.client.caller_of", lambda _: Caller(1, 4321, 4321))
        found = await desk.beside("app", "token", "coder")
    assert (found.exit_code, "another user's" in found.stderr) == (4, True)


def test_without_a_control_socket_the_file_is_written(desk: Desk) -> None:
    desk.config.write_text(f'state: {desk.folder}\nlisten: {{control: ""}}\n')
    assert desk.run("app", "token", "coder").exit_code == 0
    assert len(known(desk)) == 1


async def test_a_secret_stands_in_no_file_log_or_command_line(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    """threats.md, "Identity": tokens leak through environ, .npmrc and logs."""
    caplog.set_level("DEBUG")
    said = ""
    secrets = []
    async with running(desk) as stand:
        for command in (
            ("app", "token", "coder"),
            ("app", "rotate", "coder"),
            ("metrics", "token"),
        ):
            found = await desk.beside(*command)
            secrets.append(found.stdout.strip())
            said += found.stderr
        for command in (("app", "show", "coder"), ("status", "--json"), ("app", "revoke", "coder")):
            found = await desk.beside(*command)
            said += found.stdout + found.stderr
        said += repr(stand.tokens.list()) + repr(vars(stand.tokens.tokens))
        said += "".join(stand.tokens.tokens.explain(each, stand.now) for each in secrets)
        octets = b"".join(each.read_bytes() for each in desk.folder.rglob("*") if each.is_file())
    octets += b"".join(each.read_bytes() for each in desk.folder.rglob("*") if each.is_file())
    octets += Path("/proc/self/cmdline").read_bytes() + said.encode() + caplog.text.encode()
    assert len({*secrets}) == 3
    assert not [each for each in secrets if each.encode() in octets]


async def test_a_running_appliance_lists_what_it_knows(desk: Desk) -> None:
    async with running(desk):
        await desk.beside("app", "token", "coder")
        await desk.beside("metrics", "token")
        found = json.loads((await desk.beside("app", "list", "--json")).stdout)
    assert [each["id"] for each in found["tokens"]] == ["coder.1"]


def test_scrapers_and_apps_are_listed_apart(desk: Desk) -> None:
    desk.run("app", "token", "coder", "--bind-uid", "7")
    desk.run("metrics", "token")
    listed = desk.run("metrics", "list")
    assert "scraper.2" in listed.stdout
    assert "coder.1" not in listed.stdout
    found = json.loads(desk.run("app", "list", "--json").stdout)
    assert [each["id"] for each in found["tokens"]] == ["coder.1"]
    assert "uid 7" in desk.run("app", "list").stdout


def test_a_replaced_token_is_listed_as_such(desk: Desk) -> None:
    desk.run("app", "token", "coder")
    rotated = desk.run("app", "rotate", "coder.1")
    assert "coder.1: replaced, good until" in rotated.stderr
    assert "replaced" in desk.run("app", "list").stdout
    desk.run("app", "revoke", "coder.1")
    assert "coder.1: revoked" not in desk.run("app", "revoke", "coder.2").stderr


def test_no_repr_of_what_is_told_shows_the_secret() -> None:
    token = Token(id="coder.1", name="coder", created=0.0, expires=1.0)
    told = Told(view(token, 0.0), "spt_secret")
    assert "spt_secret" not in f"{told} {told!r}"


COMMAND = "import sys; from tests.proxy.cli_desk import app; app(sys.argv[1:])"


def test_kill_9_right_after_app_token_printed_loses_nothing(desk: Desk) -> None:
    """A token whose secret was seen is on the disk: with a real process and a real pipe."""
    child = subprocess.Popen(
        [sys.executable, "-P", "-c", COMMAND, "app", "token", "coder"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **desk.env, "PYTHONPATH": str(ROOT)},
        text=True,
    )
    assert child.stdout is not None
    with child.stdout:
        secret = child.stdout.readline().strip()
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
    assert known(desk)[digest(secret)].name == "coder"
