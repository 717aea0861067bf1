"""`sallyport revoke`, `restore`, `revoked`: the same with a running appliance and without one."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from proxy.certificates.file import RevocationFile
from proxy.certificates.live import LiveRevocations
from proxy.certificates.revoked import FILE_NAME, Kind, Revocation
from proxy.commands import revoke as cli_revoke
from proxy.control.revocations import Cut, Revoking
from proxy.limits import Limits
from tests.proxy.cli_desk import Desk, running

app = typer.Typer()
app.command()(cli_revoke.revoke)
app.command()(cli_revoke.restore)
app.command()(cli_revoke.revoked)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def run(desk: Desk, *arguments: str) -> Result:
    return CliRunner().invoke(app, arguments, env=desk.env)


def known(desk: Desk) -> list[Revocation]:
    return asyncio.run(RevocationFile(desk.folder / FILE_NAME, Limits()).read())


@asynccontextmanager
async def appliance(desk: Desk) -> AsyncIterator[LiveRevocations]:
    async with running(desk) as stand:
        live = LiveRevocations(desk.folder / FILE_NAME, Limits(), time.time)

        async def cut() -> Cut:
            return Cut(2, 0.125)

        stand.revoking = Revoking(live, cut, lambda: stand.ruleset.apps)
        yield live


def test_without_an_appliance_the_file_is_written(desk: Desk) -> None:
    found = run(desk, "revoke", "coder", "--why", "a leaked key")
    assert found.exit_code == 0, found.stderr
    assert "app coder: revoked at" in found.stderr
    (revocation,) = known(desk)
    assert (revocation.kind, revocation.value, revocation.why) == (
        Kind.APP,
        "coder",
        "a leaked key",
    )
    assert json.loads(run(desk, "revoked", "--json").stdout)[0]["value"] == "coder"
    assert "a leaked key" in run(desk, "revoked").stdout
    assert run(desk, "restore", "coder").exit_code == 0
    assert known(desk) == []


async def test_a_running_appliance_is_asked(desk: Desk) -> None:
    async with appliance(desk) as live:
        made = await asyncio.to_thread(run, desk, "revoke", "spiffe://example.org/coder")
        assert made.exit_code == 0, made.stderr
        assert "2 connections cut in 0.125 s" in made.stderr
        assert live.revocations.get(Kind.SPIFFE_ID, "spiffe://example.org/coder") is not None
        listed = await asyncio.to_thread(run, desk, "revoked", "--json")
        assert [each["kind"] for each in json.loads(listed.stdout)] == ["spiffe-id"]
        restored = await asyncio.to_thread(run, desk, "restore", "spiffe://example.org/coder")
        assert restored.exit_code == 0, restored.stderr
        assert live.list() == ()


def test_a_token_is_revoked_by_its_id(desk: Desk) -> None:
    assert desk.run("app", "token", "coder").exit_code == 0
    found = run(desk, "revoke", "coder.1", "--json")
    assert [each["kind"] for each in json.loads(found.stdout)] == ["token"]
    assert run(desk, "restore", "coder.1").exit_code == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("revoke", "codr"), "--kind app"),
        (("revoke", "coder", "--kind", "person"), "one of spiffe-id"),
        (("revoke", "coder.7"), "coder.7"),
        (("revoke", "coder", "--why", "\udcff"), "UTF-8"),
        (("revoke", "coder", "--why", "x" * 1025), "1024 characters"),
        (("restore", "coder"), "not revoked"),
        (("restore", "spiffe://nobody/a"), "sallyport revoked"),
    ],
)
@pytest.mark.parametrize("is_running", [False, True])
async def test_what_cannot_be_ends_with_1_and_the_cure(
    desk: Desk, arguments: tuple[str, ...], words: str, *, is_running: bool
) -> None:
    if is_running:
        async with appliance(desk):
            found = await asyncio.to_thread(run, desk, *arguments)
    else:
        found = await asyncio.to_thread(run, desk, *arguments)
    assert found.exit_code == 1, found.stderr
    assert words in found.stderr


def test_a_file_that_cannot_be_read_ends_with_4(desk: Desk) -> None:
    path = desk.folder / FILE_NAME
    path.write_bytes(b"no database" * 500)
    path.chmod(0o600)
    for arguments in (("revoked",), ("revoke", "coder"), ("restore", "coder")):
        found = run(desk, *arguments)
        assert found.exit_code == 4, found.stderr
        assert "cannot be used" in found.stderr


def test_rules_that_are_broken_still_let_an_app_be_revoked(desk: Desk) -> None:
    desk.rules.write_text("apps: [")
    assert run(desk, "revoke", "coder").exit_code == 1
    found = run(desk, "revoke", "coder", "--kind", "app")
    assert found.exit_code == 0, found.stderr
