"""`sallyport enroll` and `sallyport app join`, as a person runs them."""

import asyncio
import datetime as dt
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from certs.csr import read_request
from certs.device import make_request, read_enrolled, store
from proxy.commands import enroll as cli_enroll
from proxy.limits import Limits
from tests.proxy.cli_desk import Desk
from tests.proxy.issuing.office import CODER, Office, Served, served

app = typer.Typer()
app.command()(cli_enroll.enroll)


@pytest.fixture
async def stand(tmp_path: Path) -> AsyncIterator[Served]:
    async with served(Office(tmp_path / "state", Limits())) as found:
        yield found


class Person:
    def __init__(self, folder: Path, stand: Served) -> None:
        self.folder = folder / "home"
        self.place = self.folder / "state" / "sallyport" / "enrolled" / "coder"
        self.stand = stand

    async def run(self, *options: str, token: str = "") -> Result:
        return await asyncio.to_thread(self._run, options, token)

    def _run(self, options: tuple[str, ...], token: str) -> Result:
        env = {
            "HOME": str(self.folder),
            "XDG_STATE_HOME": str(self.folder / "state"),
            "SALLYPORT_JOIN_TOKEN": token,
        }
        url = f"https://localhost:{self.stand.enroll}"
        where = ["--url", url, "--ca", str(self.stand.office.ca), "--app", "coder"]
        return CliRunner().invoke(app, [*where, *options], env=env)


@pytest.fixture
def person(tmp_path: Path, stand: Served) -> Person:
    return Person(tmp_path, stand)


async def test_a_token_of_the_environment_enrols_into_our_folder(person: Person) -> None:
    result = await person.run(token=await person.stand.office.join("coder"))
    assert result.exit_code == 0, result.output
    enrolled = read_enrolled(person.place)
    assert enrolled is not None
    assert enrolled.spiffe_id == CODER
    assert "--proxy-cert" in result.output
    assert "+tls-certfile" in result.output
    assert (person.place / "svid.key").read_text() not in result.output


async def test_a_token_of_a_file_and_json(person: Person, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(await person.stand.office.join("coder") + "\n")
    folder = tmp_path / "elsewhere"
    result = await person.run("--token-file", str(file), "--folder", str(folder), "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["enrolled"]["spiffe_id"] == CODER
    assert told["certificate"] == str(folder / "svid.pem")


async def test_without_a_token_it_says_where_one_comes_from(person: Person) -> None:
    result = await person.run()
    assert result.exit_code == 2
    assert "sallyport app join" in result.output


async def test_a_token_on_the_command_line_is_no_option(person: Person) -> None:
    assert (await person.run("--token", "spt_secret")).exit_code == 2


async def test_a_refusal_ends_with_1(person: Person) -> None:
    result = await person.run(token="spt_" + "none")
    assert result.exit_code == 1
    assert "no such join token" in result.output


async def test_renewing_before_half_of_the_life_changes_nothing(person: Person) -> None:
    await person.run(token=await person.stand.office.join("coder"))
    before = read_enrolled(person.place)
    assert (await person.run("--renew")).exit_code == 0
    assert read_enrolled(person.place) == before


def aged(person: Person, age_s: float) -> None:
    """Put a certificate of that age into the folder."""
    office = person.stand.office
    request = make_request(person.place)
    csr = read_request(request)
    at = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=age_s)
    issued = office.domain.issue(CODER, at, 3600, spki=csr.spki)
    office._remember(issued, csr.spki_sha256, "coder", "join")
    store(person.place, [*issued.chain, *office.domain.anchors])


async def test_renewing_after_half_of_the_life_gets_a_new_one(person: Person) -> None:
    aged(person, 2400)
    before = read_enrolled(person.place)
    result = await person.run("--renew")
    assert result.exit_code == 0, result.output
    after = read_enrolled(person.place)
    assert before is not None
    assert after is not None
    assert after.not_after > before.not_after


async def test_renewing_nothing_or_what_has_ended_says_to_enrol(
    person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = await person.run("--renew")
    assert (result.exit_code, "enrol with" in result.output) == (1, True)
    aged(person, 2400)
    later = time.time() + 3600
    monkeypatch.setattr("proxy.commands.enroll.time.time", lambda: later)
    result = await person.run("--renew")
    assert (result.exit_code, "has ended: enrol anew" in result.output) == (1, True)


async def test_keeping_fresh_renews_until_it_is_stopped(
    person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    aged(person, 2400)
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr("proxy.commands.enroll.time.sleep", sleep)
    result = await person.run("--keep-fresh")
    assert result.exit_code == 0, result.output
    assert "renewed" in result.output
    assert all(5 <= each <= 60 for each in waits)


async def test_a_revoked_device_that_keeps_fresh_ends(
    person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    aged(person, 2400)
    [serial] = person.stand.office.issued
    person.stand.office.revoke(serial)
    monkeypatch.setattr("proxy.commands.enroll.time.sleep", lambda _: None)
    result = await person.run("--keep-fresh")
    assert (result.exit_code, "revoked" in result.output) == (1, True)


def test_join_prints_a_token_and_warns_of_an_app_without_a_name(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    result = desk.run("app", "join", "coder")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("spt_")
    assert "sallyport enroll" in result.stderr
    assert "no `identity: [{spiffe: ...}]`" in result.stderr


@pytest.mark.parametrize("ttl", ["25h", "0s", "soon"])
def test_join_tokens_live_for_a_day_at_most(tmp_path: Path, ttl: str) -> None:
    assert Desk(tmp_path).run("app", "join", "coder", "--ttl", ttl).exit_code in {1, 2}
