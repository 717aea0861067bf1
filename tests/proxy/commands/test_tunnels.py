"""`sallyport tunnels`: the same with a running appliance and without one."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from proxy.commands import tunnels as cli_tunnels
from proxy.detection.live import FILE_NAME
from tests.proxy.cli_desk import Desk, running
from tests.proxy.detection.stand import SUFFIX, Stand, standing


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def run(desk: Desk, *arguments: str) -> Result:
    return CliRunner().invoke(cli_tunnels.app, arguments, env=desk.env)


def leaked(desk: Desk, name: str = "www.example.com") -> None:
    """Leave a block in the file, as an appliance that ended did."""

    async def leak() -> None:
        async with standing(desk.folder, time.time()) as stand:
            await stand.ask(name)
            await stand.leak()

    asyncio.run(leak())


@asynccontextmanager
async def appliance(desk: Desk) -> AsyncIterator[Stand]:
    """Serve a detector on the control socket."""
    (desk.folder / "detection").mkdir()
    async with (
        standing(desk.folder / "detection", time.time()) as detecting,
        running(desk) as stand,
    ):
        stand.detection = detecting.live
        yield detecting


def test_without_an_appliance_the_file_is_read_and_written(desk: Desk) -> None:
    leaked(desk)
    found = run(desk, "list")
    assert found.exit_code == 0, found.stderr
    assert SUFFIX in found.stdout
    assert "tunnel:names:2m" in found.stdout
    listed = json.loads(run(desk, "list", "--json").stdout)
    assert {each["suffix"]: each["state"] for each in listed}[SUFFIX] == "held"
    everything = json.loads(run(desk, "list", "--all", "--json").stdout)
    assert {SUFFIX, "example.com"} <= {each["suffix"] for each in everything}
    cleared = run(desk, "clear", "me", SUFFIX)
    assert cleared.exit_code == 0, cleared.stderr
    assert "leaky.com is not held for me any more" in cleared.stderr
    left = json.loads(run(desk, "show", "me", SUFFIX, "--json").stdout)
    assert (left["state"], left["octets"]["24h"]) == ("watched", 0)
    again = run(desk, "clear", "you", SUFFIX)
    assert (again.exit_code, "nothing is known" in again.stderr) == (1, True)


def test_a_suffix_is_shown_with_evidence_and_names(desk: Desk) -> None:
    leaked(desk)
    found = run(desk, "show", "me", SUFFIX)
    assert found.exit_code == 0, found.stderr
    lines = {line.split(maxsplit=1)[0]: line for line in found.stdout.splitlines()}
    assert lines["state"].endswith("held")
    assert "at most 512" in lines["reached"]
    assert SUFFIX in lines["sample"]
    view = json.loads(run(desk, "show", "me", SUFFIX, "--json").stdout)
    assert view["reached"] > view["limit"] == 512
    other = json.loads(run(desk, "show", "me", "example.com", "--json").stdout)
    assert (other["state"], other["reached"], other["names"]) == ("watched", None, 1)
    assert "reached" not in run(desk, "show", "me", "example.com").stdout


def test_where_there_is_no_file_none_is_made(desk: Desk) -> None:
    assert run(desk, "list", "--json").stdout == "[]\n"
    assert run(desk, "list").stdout == "nothing was found\n"
    for command in ("show", "clear"):
        found = run(desk, command, "me", SUFFIX)
        assert (found.exit_code, "nothing is known" in found.stderr) == (1, True)
    assert not (desk.folder / FILE_NAME).exists()


def test_what_is_no_name_is_a_usage_error(desk: Desk) -> None:
    found = run(desk, "clear", "me", "no name")
    assert (found.exit_code, "not a domain name" in found.stderr) == (2, True)


def test_a_file_that_cannot_be_used_is_said(desk: Desk) -> None:
    (desk.folder / FILE_NAME).mkdir()
    for arguments in (("list",), ("show", "me", SUFFIX), ("clear", "me", SUFFIX)):
        assert run(desk, *arguments).exit_code == 4


async def test_a_running_appliance_is_asked(desk: Desk) -> None:
    async with appliance(desk) as detecting:
        await detecting.ask("www.example.com")
        await detecting.leak()
        listed = await asyncio.to_thread(run, desk, "list", "--json")
        assert SUFFIX in {each["suffix"] for each in json.loads(listed.stdout)}
        shown = await asyncio.to_thread(run, desk, "show", "me", "example.com", "--json")
        assert json.loads(shown.stdout)["names"] == 1
        cleared = await asyncio.to_thread(run, desk, "clear", "me", SUFFIX, "--json")
        assert cleared.exit_code == 0, cleared.stderr
        assert json.loads(cleared.stdout)["suffix"] == SUFFIX
        assert not detecting.held
        unknown = await asyncio.to_thread(run, desk, "show", "m/e?", SUFFIX)
        assert (unknown.exit_code, "nothing is known" in unknown.stderr) == (1, True)
        whole = await asyncio.to_thread(run, desk, "clear", "me", ".")
        assert whole.exit_code == 0, whole.stderr
    assert not (desk.folder / FILE_NAME).exists()
