"""Revocations on the disk: none is lost, none is forgotten for another."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from proxy.certificates.file import RevocationFile
from proxy.certificates.revoked import Kind, Revocation
from proxy.errors import BindError, ConfigError
from proxy.limits import Limits

ROOT = Path(__file__).parents[3]
APP = Revocation(Kind.APP, "coder", 10.5, "a leaked key", 1000)
ID = Revocation(Kind.SPIFFE_ID, "spiffe://example.org/coder", 11.0)
SERIAL = Revocation(Kind.SERIAL, "1f", 12.0, until=100.0)


def made(folder: Path, most: int = 4096) -> RevocationFile:
    return RevocationFile(folder / "s" / "revoked.sqlite", Limits(revocations=most))


async def test_without_a_file_nothing_is_revoked_and_none_is_made(tmp_path: Path) -> None:
    assert await made(tmp_path).read() == []
    assert list(tmp_path.iterdir()) == []


async def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    await made(tmp_path).revoke((APP, ID, SERIAL), 20.0)
    assert sorted(await made(tmp_path).read(), key=lambda each: each.at) == [APP, ID, SERIAL]
    assert (tmp_path / "s" / "revoked.sqlite").stat().st_mode & 0o777 == 0o600


async def test_what_is_revoked_already_stays_as_it_is(tmp_path: Path) -> None:
    await made(tmp_path).revoke((APP,), 20.0)
    await made(tmp_path).revoke((Revocation(Kind.APP, "coder", 30.0, "again"),), 30.0)
    assert await made(tmp_path).read() == [APP]


async def test_what_is_restored_is_gone_and_nothing_else(tmp_path: Path) -> None:
    file = made(tmp_path)
    await file.revoke((APP, ID), 20.0)
    await file.restore(Kind.APP, "coder")
    await file.restore(Kind.SERIAL, "no such")
    assert await file.read() == [ID]


async def test_at_the_bound_a_further_one_is_refused_and_none_is_forgotten(
    tmp_path: Path,
) -> None:
    """threats.md, "Evidence as a weapon": what stands cannot be pushed out."""
    file = made(tmp_path, 2)
    await file.revoke((APP, ID), 20.0)
    with pytest.raises(ConfigError, match=r"restore what is out of use.*limits\.revocations"):
        await file.revoke((SERIAL,), 20.0)
    assert sorted(await file.read(), key=lambda each: each.at) == [APP, ID]


async def test_one_whose_certificate_has_ended_makes_room(tmp_path: Path) -> None:
    file = made(tmp_path, 2)
    await file.revoke((APP, SERIAL), 20.0)
    await file.revoke((ID,), 100.0)
    assert sorted(await file.read(), key=lambda each: each.at) == [APP, ID]


async def test_a_kind_that_nobody_knows_is_damage(tmp_path: Path) -> None:
    file = made(tmp_path)
    await file.revoke((APP,), 20.0)
    with sqlite3.connect(tmp_path / "s" / "revoked.sqlite") as db:
        db.execute("UPDATE revocation SET kind = 'person'")
    db.close()
    with pytest.raises(BindError, match="damaged"):
        await file.read()


async def test_a_file_that_others_may_open_is_not_used(tmp_path: Path) -> None:
    file = made(tmp_path)
    await file.revoke((APP,), 20.0)
    (tmp_path / "s" / "revoked.sqlite").chmod(0o644)
    with pytest.raises(BindError, match="chmod 600"):
        await file.read()


async def test_two_that_write_at_once_both_succeed(tmp_path: Path) -> None:
    every = [Revocation(Kind.SERIAL, f"{number:x}", float(number)) for number in range(1, 17)]
    await asyncio.gather(*(made(tmp_path).revoke((each,), 0.0) for each in every))
    assert len(await made(tmp_path).read()) == 16


KILLED = """
import asyncio, sys
from pathlib import Path
from proxy.certificates.live import LiveRevocations
from proxy.certificates.revoked import Kind
from proxy.limits import Limits
async def run():
    live = LiveRevocations(Path(sys.argv[1]), Limits(), lambda: 7.0)
    await live.open()
    await live.revoke(Kind.APP, "coder", why="now")
    print("acknowledged", flush=True)
    await asyncio.sleep(60)
asyncio.run(run())
"""


async def test_kill_9_right_after_it_was_acknowledged_loses_nothing(tmp_path: Path) -> None:
    """threats.md, "Evidence as a weapon": what was said once holds after a crash."""
    child = subprocess.Popen(
        [sys.executable, "-P", "-c", KILLED, str(tmp_path / "s" / "revoked.sqlite")],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
    )
    assert child.stdout is not None
    with child.stdout:
        assert child.stdout.readline() == "acknowledged\n"
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
    assert await made(tmp_path).read() == [Revocation(Kind.APP, "coder", 7.0, "now", -1)]
