"""`sallyport attesters`: which TPMs are enrolled, and one of them removed."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from proxy.attested.attester import Attester
from proxy.attested.live import FILE_NAME, LiveAttested
from proxy.commands import attesters as cli_attesters
from proxy.control.attesters import Attesting
from proxy.limits import Limits
from proxy.verifier.parts import Changed
from rules.facts import Level
from tests.proxy.attested.making import NOW, Clock, result
from tests.proxy.cli_desk import Desk, running

NAME = "000b" + "ab" * 32
OTHER = "000b" + "cd" * 32


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def run(desk: Desk, *arguments: str) -> Result:
    return CliRunner().invoke(cli_attesters.app, arguments, env=desk.env)


async def beside(desk: Desk, *arguments: str) -> Result:
    return await asyncio.to_thread(run, desk, *arguments)


@asynccontextmanager
async def appliance(desk: Desk, *attesters: Attester) -> AsyncIterator[LiveAttested]:
    """Serve these attesters on the control socket."""
    live = LiveAttested(desk.folder / FILE_NAME, Limits(), Clock(), lambda _: None)
    await live.ready()
    for each in attesters:
        live.enrol(each)

    async def void(changed: Changed) -> None:
        assert "admin" in changed.why

    async with running(desk) as stand:
        stand.attesting = Attesting(live, void)
        yield live
    await live.close()


async def test_attesters_are_listed_whole_on_80_columns(desk: Desk) -> None:
    desk.env["COLUMNS"] = "80"
    fresh = Attester(NAME, "coder", "spiffe://desk.example/coder", "ee" * 32, b"\1", NOW)
    quoted = Attester(OTHER, "box", "", "ff" * 32, b"\1", NOW, 5, 6, 7, 0x1122, NOW + 60)
    async with appliance(desk, fresh, quoted) as live:
        live.keep(result("a", attester=NAME, level=Level.TPM))
        found = await beside(desk, "list")
        listed = json.loads((await beside(desk, "list", "--json")).stdout)
    lines = found.stdout.splitlines()
    assert lines[0].split() == ["attester", "app"]
    rows = {line.split()[0]: line.split()[1] for line in lines[1:] if not line.startswith(" ")}
    assert rows == {NAME: "coder", OTHER: "box"}
    assert "    SPIFFE ID: spiffe://desk.example/coder" in lines
    assert "    results: 1" in lines
    assert sum("last quote: " in line for line in lines) == 1
    assert {each["ek_sha256"] for each in listed} == {"ee" * 32, "ff" * 32}


async def test_without_any_it_says_so(desk: Desk) -> None:
    async with appliance(desk):
        assert (await beside(desk, "list")).stdout == "no TPM is enrolled\n"
        assert (await beside(desk, "list", "--json")).stdout == "[]\n"


async def test_one_is_removed_with_what_it_has_proven(desk: Desk) -> None:
    async with appliance(desk, Attester(NAME, "coder", "", "ee" * 32, b"\1", NOW)) as live:
        live.keep(result("a", attester=NAME, level=Level.TPM))
        removed = await beside(desk, "remove", NAME)
        assert removed.exit_code == 0, removed.stderr
        assert f"{NAME} of coder: removed, 1 result is void" in removed.stderr
        assert (live.attesters(), live.attestations.all()) == ((), ())
        again = await beside(desk, "remove", NAME)
        assert (again.exit_code, "no such attester" in again.stderr) == (1, True)


async def test_what_is_removed_is_json_too(desk: Desk) -> None:
    async with appliance(desk, Attester(NAME, "coder", "", "ee" * 32, b"\1", NOW)):
        removed = await beside(desk, "remove", NAME, "--json")
        assert [each["attester"] for each in json.loads(removed.stdout)] == [NAME]


async def test_a_name_is_one_part_of_the_path(desk: Desk) -> None:
    async with appliance(desk):
        found = await beside(desk, "remove", "../status?x=/")
        assert (found.exit_code, "no such attester" in found.stderr) == (1, True)


async def test_an_appliance_that_attests_nobody_says_so(desk: Desk) -> None:
    async with running(desk):
        found = await beside(desk, "list")
        assert (found.exit_code, "attests nobody" in found.stderr) == (4, True)


def test_without_an_appliance_it_says_so(desk: Desk) -> None:
    for arguments in (("list",), ("remove", NAME)):
        found = run(desk, *arguments)
        assert (found.exit_code, "no appliance answers" in found.stderr) == (4, True)
