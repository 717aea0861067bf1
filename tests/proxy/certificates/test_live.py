"""Revocations of a running appliance: in force, then on the disk; nothing brings one back."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from proxy.certificates.file import RevocationFile
from proxy.certificates.live import LiveRevocations
from proxy.certificates.revoked import Change, Kind, Revocation, UnknownRevocationError
from proxy.errors import BindError, ConfigError
from proxy.limits import Limits

ROOT = Path(__file__).parents[3]
APP = Revocation(Kind.APP, "coder", 1000.0, "", -1)
OTHER = Revocation(Kind.APP, "other", 5.0)
HOLD = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("PRAGMA locking_mode=EXCLUSIVE")
db.execute("BEGIN EXCLUSIVE")
print("held", flush=True)
sys.stdin.read()
"""


class Clock:
    """A wall clock that is set by hand."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def live(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[LiveRevocations]:
    monkeypatch.setattr("proxy.database.live.TICK_S", 0.05)
    limits = Limits(token_busy_s=0.1, revocations=3)
    made = LiveRevocations(tmp_path / "s" / "revoked.sqlite", limits, clock)
    await made.open()
    yield made
    await made.close()


def another(live: LiveRevocations) -> RevocationFile:
    """Return the file as another process has it."""
    return RevocationFile(live.path, Limits())


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(15):
        while not is_so():  # noqa: ASYNC110 - the file is another process's
            await asyncio.sleep(0.02)


async def test_it_is_in_force_before_it_is_on_the_disk_and_both_before_it_is_acknowledged(
    live: LiveRevocations,
) -> None:
    seen: list[tuple[Change, bool]] = []
    live.revocations.on_change(lambda change: seen.append((change, live.path.exists())))
    assert await live.revoke(Kind.APP, "coder") == APP
    assert seen == [(Change((APP,), (), is_ours=True), False)]
    assert await another(live).read() == [APP]
    assert live.list() == (APP,)


async def test_what_is_revoked_already_keeps_its_time(live: LiveRevocations, clock: Clock) -> None:
    await live.revoke(Kind.APP, "coder")
    clock.now += 5
    assert await live.revoke(Kind.APP, "coder", why="again") == APP
    assert live.list() == (APP,)


async def test_what_is_restored_counts_again_here_and_on_the_disk(live: LiveRevocations) -> None:
    await live.revoke(Kind.APP, "coder")
    seen: list[Change] = []
    live.revocations.on_change(seen.append)
    assert await live.restore(Kind.APP, "coder") == APP
    assert seen == [Change((), (APP,), is_ours=True)]
    assert await another(live).read() == []
    with pytest.raises(UnknownRevocationError, match="sallyport revoked"):
        await live.restore(Kind.APP, "coder")


async def test_what_another_process_wrote_is_noticed(live: LiveRevocations) -> None:
    seen: list[Change] = []
    live.revocations.on_change(seen.append)
    await another(live).revoke((OTHER,), 0.0)
    await until(lambda: live.revocations.app("other") == OTHER)
    await another(live).restore(Kind.APP, "other")
    await until(lambda: live.revocations.app("other") is None)
    assert seen == [Change((OTHER,), ()), Change((), (OTHER,))]


async def test_of_two_processes_that_revoke_neither_loses_what_the_other_did(
    live: LiveRevocations,
) -> None:
    await asyncio.gather(another(live).revoke((OTHER,), 0.0), live.revoke(Kind.APP, "coder"))
    await live.reload()
    assert live.list() == (OTHER, APP)


async def test_it_is_known_after_a_restart(live: LiveRevocations, clock: Clock) -> None:
    await live.revoke(Kind.SERIAL, "1f", until=2000.0)
    again = LiveRevocations(live.path, Limits(), clock)
    await again.open()
    await again.close()
    assert again.list() == live.list()


async def test_at_the_bound_nothing_changes(live: LiveRevocations) -> None:
    for name in ("a", "b", "c"):
        await live.revoke(Kind.APP, name)
    with pytest.raises(ConfigError, match=r"limits\.revocations"):
        await live.revoke(Kind.APP, "d")
    assert live.revocations.app("d") is None
    assert len(live.list()) == 3


async def test_one_that_has_ended_by_itself_makes_room_and_is_not_read_again(
    live: LiveRevocations, clock: Clock
) -> None:
    await live.revoke(Kind.SERIAL, "1f", until=1001.0)
    clock.now = 1001.0
    await until(lambda: not live.list())
    await live.reload()
    assert live.list() == ()


async def test_a_file_that_is_gone_is_written_again(
    live: LiveRevocations, caplog: pytest.LogCaptureFixture
) -> None:
    """threats.md, "Evidence as a weapon": fail closed."""
    await live.revoke(Kind.APP, "coder")
    for file in live.path.parent.iterdir():
        file.unlink()
    await until(lambda: "written again" in caplog.text)
    await live.reload()  # after what is under way
    assert (live.problem, live.list()) == (None, (APP,))
    assert await another(live).read() == [APP]


async def test_a_new_file_in_place_of_one_that_is_gone_forgets_nothing(
    live: LiveRevocations,
) -> None:
    await live.revoke(Kind.APP, "coder")
    for file in live.path.parent.iterdir():
        file.unlink()
    await live.revoke(Kind.APP, "more")
    assert {each.value for each in await another(live).read()} == {"coder", "more"}


def emptied(file: Path, _: Path) -> None:
    """Leave nothing in it, as a full disk or `>` does."""
    file.write_bytes(b"")


def set_back(file: Path, backup: Path) -> None:
    """Put an older one in its place."""
    backup.replace(file)


@pytest.mark.parametrize("spoil", [emptied, set_back])
async def test_a_file_that_lost_revocations_gets_them_again(
    live: LiveRevocations, tmp_path: Path, spoil: Callable[[Path, Path], None]
) -> None:
    """threats.md, "Evidence as a weapon": fail closed."""
    await live.revoke(Kind.APP, "coder")
    backup = tmp_path / "backup"
    backup.write_bytes(live.path.read_bytes())
    backup.chmod(0o600)
    await live.revoke(Kind.APP, "other")
    spoil(live.path, backup)
    await live.reload()
    assert live.revocations.app("other") is not None
    assert {each.value for each in await another(live).read()} == {"coder", "other"}


async def test_of_a_revocation_and_a_restoring_under_way_the_revocation_stands(
    live: LiveRevocations,
) -> None:
    """What was acknowledged after it was asked for is in force, and on the disk."""
    await live.revoke(Kind.APP, "coder")
    restoring = asyncio.create_task(live.restore(Kind.APP, "coder"))
    await asyncio.sleep(0)  # it holds the file
    await live.revoke(Kind.APP, "coder")
    await restoring
    assert live.revocations.app("coder") is not None
    assert [each.value for each in await another(live).read()] == ["coder"]


async def test_a_damaged_file_leaves_in_force_what_was_known(live: LiveRevocations) -> None:
    await live.revoke(Kind.APP, "coder")
    for file in live.path.parent.iterdir():
        if file != live.path:
            file.unlink()
    live.path.write_bytes(b"no database" * 500)
    await until(lambda: live.problem is not None)
    assert live.revocations.app("coder") == APP
    with pytest.raises(BindError, match="only until we end"):
        await live.revoke(Kind.APP, "more")
    assert live.revocations.app("more") is not None
    with pytest.raises(BindError):
        await live.restore(Kind.APP, "coder")
    assert live.revocations.app("coder") == APP


async def test_what_could_not_be_written_is_tried_again(
    live: LiveRevocations, clock: Clock
) -> None:
    await live.revoke(Kind.APP, "coder")
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", HOLD, str(live.path)), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    assert await child.stdout.readline() == b"held\n"
    with pytest.raises(BindError, match="try again"):
        await live.revoke(Kind.APP, "more")
    assert live.revocations.app("more") is not None
    assert "not on the disk" in (live.problem or "")
    await child.communicate()
    clock.now += 60
    await until(lambda: live.problem is None)
    assert {each.value for each in await another(live).read()} == {"coder", "more"}


async def test_a_file_that_cannot_be_read_at_the_start_ends_the_start(
    tmp_path: Path, clock: Clock
) -> None:
    """threats.md, "Evidence as a weapon": fail closed, where nobody knows what was revoked."""
    path = tmp_path / "revoked.sqlite"
    path.write_bytes(b"no database" * 500)
    path.chmod(0o600)
    with pytest.raises(BindError, match="revoke again"):
        await LiveRevocations(path, Limits(), clock).open()


def test_who_revoked_nothing_loads_no_sqlite(tmp_path: Path) -> None:
    program = (
        "import asyncio, sys, pathlib;"
        "from proxy.certificates.live import LiveRevocations;"
        "from proxy.limits import Limits;"
        "live = LiveRevocations(pathlib.Path(sys.argv[1]), Limits(), lambda: 0.0);"
        "asyncio.run(live.reload());"
        "assert 'sqlite3' not in sys.modules"
    )
    subprocess.run(
        [sys.executable, "-P", "-c", program, str(tmp_path / "revoked.sqlite")],
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


async def test_who_reads_the_file_is_told_once_it_is_there(live: LiveRevocations) -> None:
    found: list[int] = []
    live.on_written(lambda: found.append(live.path.stat().st_size))
    live.revocations.on_change(lambda _: found.append(0))
    await live.revoke(Kind.APP, "coder")
    assert found[0] == 0
    assert found[1] > 0


async def test_many_certificates_are_revoked_in_one_step(live: LiveRevocations) -> None:
    changes: list[Change] = []
    live.revocations.on_change(changes.append)
    await live.revoke_serials({"1": 2000.0, "2": 3000.0}, "changed")
    await live.revoke_serials({"2": 9000.0}, "again")
    assert len(changes) == 1
    assert {each.value: (each.until, each.why) for each in await another(live).read()} == {
        "1": (2000.0, "changed"), "2": (3000.0, "changed"),
    }  # fmt: skip


async def test_where_there_is_room_for_some_those_are_revoked(live: LiveRevocations) -> None:
    await live.revoke(Kind.APP, "coder")
    with pytest.raises(ConfigError, match=r"limits\.revocations"):
        await live.revoke_serials({"1": 2000.0, "2": 2000.0, "3": 2000.0}, "changed")
    assert {each.value for each in await another(live).read()} == {"coder", "1", "2"}


async def test_many_that_cannot_be_written_are_all_in_force(live: LiveRevocations) -> None:
    live.path.parent.mkdir(exist_ok=True)
    live.path.mkdir()
    with pytest.raises(BindError, match="only until we end"):
        await live.revoke_serials({"1": 2000.0, "2": 2000.0}, "changed")
    assert {each.value for each in live.list()} == {"1", "2"}
    live.path.rmdir()
