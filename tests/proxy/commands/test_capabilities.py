"""`sallyport capabilities`: the same with a running appliance and without one."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from msgspec import structs
from typer.testing import CliRunner, Result

from proxy.capabilities.live import FILE_NAME, LiveCapabilities
from proxy.capabilities.token import CapabilityToken, digest
from proxy.commands import capabilities as cli_capabilities
from proxy.limits import Limits
from tests.proxy.capabilities.stand import Stand as Tokens
from tests.proxy.capabilities.stand import by_certificate, payload, standing
from tests.proxy.capabilities.test_known import token
from tests.proxy.cli_desk import Desk, running

SECRET = "head.body.signature"  # noqa: S105 - of a test


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def run(desk: Desk, *arguments: str) -> Result:
    return CliRunner().invoke(cli_capabilities.app, arguments, env=desk.env)


def made(name: str, **more: object) -> CapabilityToken:
    now = int(time.time())
    return structs.replace(token(name), **{"at": now, "expires": now + 600, **more})


def written(desk: Desk, *tokens: CapabilityToken) -> None:
    """Leave these tokens in the file, as an appliance that ended did."""

    async def write() -> None:
        live = LiveCapabilities(desk.folder / FILE_NAME, Limits(), time.time)
        await live.ready()
        for each in tokens:
            live.keep(each)
        await live.close()

    asyncio.run(write())


@asynccontextmanager
async def appliance(desk: Desk) -> AsyncIterator[Tokens]:
    """Serve tokens on the control socket."""
    (desk.folder / "tokens").mkdir()
    async with standing(desk.folder / "tokens") as tokens, running(desk) as stand:
        stand.exchange = tokens.exchange
        yield tokens


def test_without_an_appliance_the_file_is_read_and_written(desk: Desk) -> None:
    child = made("b", parent="a", token_sha256=digest("other"))
    written(desk, made("a", token_sha256=digest(SECRET), audience="d\x1b[31mocs"), child)
    found = run(desk, "list")
    assert found.exit_code == 0, found.stderr
    assert "\x1b" not in found.stdout
    listed = json.loads(run(desk, "list", "--json").stdout)
    assert {each["id"]: each["state"] for each in listed} == {"a": "current", "b": "current"}
    revoked = run(desk, "revoke", SECRET, "--why", "it leaked")
    assert revoked.exit_code == 0, revoked.stderr
    assert "a of coder for" in revoked.stderr
    states = {each["id"]: each["why"] for each in json.loads(run(desk, "list", "--json").stdout)}
    assert states == {"a": "it leaked", "b": "it leaked"}
    assert "void already" in run(desk, "revoke", "a").stderr


def test_where_there_is_no_file_none_is_made(desk: Desk) -> None:
    assert run(desk, "list", "--json").stdout == "[]\n"
    found = run(desk, "revoke", "a")
    assert (found.exit_code, "no such token" in found.stderr) == (1, True)
    assert not (desk.folder / FILE_NAME).exists()


def test_an_appliance_without_a_control_socket_is_not_asked(desk: Desk) -> None:
    desk.config.write_text(f"state: {desk.folder}\nlisten: {{control: ''}}\n")
    written(desk, made("a"))
    assert run(desk, "revoke", "a").exit_code == 0
    assert json.loads(run(desk, "list", "--json").stdout)[0]["state"] == "void"


def test_a_file_that_cannot_be_used_is_said(desk: Desk) -> None:
    (desk.folder / FILE_NAME).mkdir()
    for arguments in (("list",), ("revoke", "a")):
        assert run(desk, *arguments).exit_code == 4


def test_an_id_is_whole_on_80_columns(desk: Desk) -> None:
    assert run(desk, "list").stdout == "no agent has a capability token\n"
    unique, far = "0123456789abcdef" * 2, "https://" + "a" * 90 + ".example/"
    scopes = ("documents:read", "documents:write")
    written(desk, made(unique, audience=far, scopes=scopes, expires=4102444800))
    desk.env["COLUMNS"] = "80"
    assert run(desk, "list").stdout.splitlines() == [
        "id                                state    app    expires",
        f"{unique}  current  coder  2100-01-01T00:00:00Z",
        f"    audience: {far}",
        "    scopes: documents:read documents:write",
    ]


async def test_a_running_appliance_is_asked(desk: Desk) -> None:
    async with appliance(desk) as tokens:
        text = await tokens.token(by_certificate("coder"))
        listed = await asyncio.to_thread(run, desk, "list", "--json")
        assert [each["id"] for each in json.loads(listed.stdout)] == [payload(text)["jti"]]
        revoked = await asyncio.to_thread(run, desk, "revoke", text, "--json")
        assert revoked.exit_code == 0, revoked.stderr
        assert json.loads(revoked.stdout)[0]["state"] == "void"
        assert not await tokens.is_active(text)
        unknown = await asyncio.to_thread(run, desk, "revoke", "x/y?z")
        assert (unknown.exit_code, "such" in unknown.stderr) == (1, True)
    assert not (desk.folder / FILE_NAME).exists()
