"""`sallyport status`, `sallyport reload`, and where `why` looks."""

import asyncio
import json
from pathlib import Path

import msgspec
import pytest

from proxy.audit import AuditSettings
from proxy.commands import status as cli_status
from proxy.config import Listen, Settings
from proxy.control.status import Reloaded
from tests.proxy.cli_desk import Desk, running


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def settings(desk: Desk, control: str | None = None) -> Settings:
    return Settings(
        state=str(desk.folder),
        rules=(),
        audit=AuditSettings(str(desk.audit)),
        listen=Listen(control=str(desk.socket) if control is None else control),
    )


async def test_status_is_a_table_for_people(desk: Desk) -> None:
    async with running(desk) as stand:
        stand.refuse()
        stand.metrics.bounds.add("control_octets")
        await desk.beside("app", "token", "coder", "--ttl", "1d")
        found = await desk.beside("status")
    assert found.exit_code == 0, found.stderr
    for words in (
        "0 h 1 min",
        "advisory",
        "changed at 2026",
        "tls://9.9.9.9 for a.example: up",
        "10.0 days left",
        "1 valid",
        "coder.1 expires",
        "control_octets, 1 times",
        "127.0.0.1:53",
    ):
        assert words in found.stdout


async def test_problems_are_told_and_end_with_1(desk: Desk) -> None:
    async with running(desk) as stand:
        stand.problems = {"audit": "No space left on device", "rules": "b.yaml:2\n  mend it"}
        stand.reloaded = Reloaded(time=1.0, generation=3, outcome="failed", problems=("a.yaml:1",))
        stand.now += 200_000
        found = await desk.beside("status")
        as_json = await desk.beside("status", "--json")
    assert found.exit_code == as_json.exit_code == 1
    assert "\\u000a" not in found.stdout
    for words in (
        "audit: No space left",
        "a.yaml:1",
        "rules: b.yaml:2",
        "mend it",
        "2 d 7 h",
    ):
        assert words in found.stdout
    assert json.loads(as_json.stdout)["problems"]["audit"] == "No space left on device"


async def test_what_is_absent_has_no_row(desk: Desk) -> None:
    async with running(desk) as stand:
        bare = msgspec.structs.replace(
            stand.sources, reloaded=lambda: None, certificate=lambda: None, upstreams=tuple
        )
        from proxy.control.status import LastSeen, status  # noqa: PLC0415 - the command has the same name

        shown = msgspec.to_builtins(status(bare, LastSeen(stand.metrics)))
    names = [name for name, _ in cli_status._lines(shown)]
    assert not {"reload", "certificate", "upstream"} & {*names}


async def test_the_trust_domain_and_what_is_revoked_have_rows(desk: Desk) -> None:
    async with running(desk) as stand:
        from proxy.control.status import LastSeen, status  # noqa: PLC0415 - as above

        found = msgspec.to_builtins(status(stand.sources, LastSeen(stand.metrics)))
    found |= {"identity": {"trust_domain": "a.example", "issuer": False}, "revoked": 2}
    rows = dict(cli_status._lines(found))
    assert rows["trust domain"] == "a.example; the issuer starts when it is needed"
    assert rows["revoked"].startswith("2; ")
    found["identity"]["issuer"] = True
    assert dict(cli_status._lines(found))["trust domain"] == "a.example; the issuer runs"
    found |= {"identity": None, "revoked": 0}
    assert not {"trust domain", "revoked"} & dict(cli_status._lines(found)).keys()


@pytest.mark.parametrize("command", ["status", "reload"])
def test_without_an_appliance_it_ends_with_4(desk: Desk, command: str) -> None:
    found = desk.run(command)
    assert (found.exit_code, "sallyport up" in found.stderr) == (4, True)
    desk.config.write_text('listen: {control: ""}\n')
    found = desk.run(command)
    assert (found.exit_code, "listen.control" in found.stderr) == (4, True)


async def test_what_the_appliance_refuses_is_told(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_self: object, _now: float) -> None:
        raise RuntimeError("a bug")

    async with running(desk):
        monkeypatch.setattr("proxy.control.status.LastSeen.look", broken)
        found = await desk.beside("status")
        monkeypatch.undo()
    assert (found.exit_code, "bug of ours" in found.stderr) == (4, True)


async def test_reload_tells_how_it_ended(desk: Desk) -> None:
    async with running(desk):
        found = await desk.beside("reload")
        as_json = await desk.beside("reload", "--json")
    assert found.exit_code == as_json.exit_code == 1  # the rules of before were kept
    assert "a.yaml:1 is broken" in found.stdout
    assert "failed: generation 3" in found.stdout
    assert json.loads(as_json.stdout)["outcome"] == "failed"


async def test_reload_that_loads_ends_with_0(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(desk) as stand:
        loaded = Reloaded(time=1.0, generation=4, outcome="changed")
        monkeypatch.setattr(stand, "reloaded", loaded)

        async def reload() -> Reloaded:
            await asyncio.sleep(0)
            return loaded

        control = msgspec.structs.replace(stand.sources, reload=reload)
        assert await control.reload() == loaded
        monkeypatch.setattr(cli_status, "_asked", lambda *_: {
            "outcome": "changed", "generation": 4, "problems": [], "time": "",
        })  # fmt: skip
        found = await desk.beside("reload")
    assert (found.exit_code, "changed: generation 4" in found.stdout) == (0, True)


async def test_why_finds_what_still_folds_at_a_running_appliance(desk: Desk) -> None:
    async with running(desk) as stand:
        recorded = stand.refuse()
        found = await asyncio.to_thread(cli_status.entry_of, settings(desk), recorded, None)
    assert found is not None
    assert found["how"] == "ask the admin"


async def test_why_finds_the_last_refusal_of_an_app(desk: Desk) -> None:
    async with running(desk) as stand:
        recorded = stand.refuse()
        stand.refuse("box")
        await stand.audit.close()
        found = await asyncio.to_thread(cli_status.entry_of, settings(desk), None, "coder")
    assert found is not None
    assert found["id"] == recorded


async def test_why_reads_the_files_where_nothing_runs(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli_status, "_FOLD_TRY_S", 0.0)
    async with running(desk) as stand:
        recorded = stand.refuse()
    for control in (None, ""):
        found = cli_status.entry_of(settings(desk, control), recorded, None)
        assert found is not None
        assert found["fact"] == "connect"
    assert cli_status.entry_of(settings(desk), "0" * 32, None) is None
    assert cli_status.entry_of(settings(desk), None, "nobody") is None
    # What is no id is never put into a request's target.
    assert cli_status.entry_of(settings(desk), "a b\r\nx", None) is None
