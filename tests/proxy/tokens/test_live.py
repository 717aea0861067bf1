"""A running appliance knows what the file says: after a change of ours, and after another's."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from proxy.limits import Limits
from proxy.tokens.file import TokenFile
from proxy.tokens.known import Purpose, Token, UnknownTokenError, Wanted, digest
from proxy.tokens.live import LiveTokens
from rules.decision import Reason

ROOT = Path(__file__).parents[3]
CODER = Wanted(name="coder")


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
) -> AsyncIterator[LiveTokens]:
    monkeypatch.setattr("proxy.database.live.TICK_S", 0.05)
    made = LiveTokens(tmp_path / "sallyport.sqlite", Limits(token_busy_s=0.1), clock, os.urandom)
    await made.open()
    yield made
    await made.close()


def another(live: LiveTokens) -> TokenFile:
    """Return the file as another process has it."""
    return TokenFile(live.path, Limits(), os.urandom)


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(15):
        while not is_so():  # noqa: ASYNC110 - the file is another process's
            await asyncio.sleep(0.02)


async def test_what_is_issued_is_known_at_once(live: LiveTokens, clock: Clock) -> None:
    issued = await live.issue(CODER)
    assert live.tokens.find(issued.secret, clock.now) == issued.token
    assert live.list() == (issued.token,)


async def test_a_revoked_token_is_void_at_once(live: LiveTokens, clock: Clock) -> None:
    """threats.md, "Identity": what is revoked is void within the second."""
    issued = await live.issue(CODER)
    voided: list[Token] = []
    live.tokens.on_void(voided.append)
    epoch = live.tokens.epoch
    await live.revoke("coder")
    assert live.tokens.find(issued.secret, clock.now) is Reason.REVOKED
    assert voided == [issued.token]
    assert live.tokens.epoch != epoch


async def test_a_rotated_token_is_good_for_its_grace(live: LiveTokens, clock: Clock) -> None:
    old = await live.issue(CODER)
    new = await live.rotate("coder", 5.0)
    assert isinstance(live.tokens.find(old.secret, clock.now + 4.9), Token)
    assert live.tokens.find(old.secret, clock.now + 5.0) is Reason.IDENTITY_UNKNOWN
    assert isinstance(live.tokens.find(new.secret, clock.now + 5.0), Token)


async def test_what_cannot_be_done_changes_nothing(live: LiveTokens) -> None:
    with pytest.raises(UnknownTokenError):
        await live.revoke("coder")
    assert live.problem is None


async def test_what_another_process_wrote_is_noticed(live: LiveTokens, clock: Clock) -> None:
    issued = await another(live).issue(CODER, clock.now)
    await until(lambda: live.tokens.any_for_apps)
    await another(live).revoke("coder", clock.now)
    await until(lambda: live.tokens.find(issued.secret, clock.now) is Reason.REVOKED)


async def test_what_expires_is_noticed_without_being_asked(live: LiveTokens, clock: Clock) -> None:
    await live.issue(Wanted(name="coder", ttl_s=10.0))
    epoch = live.tokens.epoch
    clock.now += 10.0
    await until(lambda: live.tokens.epoch != epoch)
    assert not live.tokens.any_for_apps


async def test_a_damaged_file_means_that_no_token_is_known_until_it_is_whole_again(
    live: LiveTokens, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    issued = await live.issue(CODER)
    whole = live.path.read_bytes()
    live.path.write_bytes(b"no database " * 400)
    await live.reload()
    await live.reload()
    assert live.problem is not None
    assert "restore the file" in live.problem
    assert live.tokens.find(issued.secret, clock.now) is Reason.IDENTITY_UNKNOWN
    assert len(caplog.records) == 1  # said once, and loudly
    assert issued.secret not in caplog.text
    live.path.write_bytes(whole)
    await until(lambda: live.problem is None)
    assert live.tokens.find(issued.secret, clock.now) == issued.token


async def test_a_file_that_could_not_be_used_is_tried_again(live: LiveTokens, clock: Clock) -> None:
    await live.issue(CODER)
    live.path.chmod(0o644)
    await live.reload()
    assert live.problem is not None
    live.path.chmod(0o600)  # changes neither time nor size
    clock.now += 10.0
    await until(lambda: live.problem is None)
    assert live.tokens.any_for_apps


async def test_a_file_that_is_only_busy_takes_no_token_from_anybody(
    live: LiveTokens, clock: Clock
) -> None:
    issued = await live.issue(CODER)
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            HOLD,
            str(live.path),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    with holder.stdin, holder.stdout:
        holder.stdout.readline()
        await live.reload()
        assert live.problem is not None
        assert "try again" in live.problem
        assert live.tokens.find(issued.secret, clock.now) == issued.token
    holder.wait()
    await live.reload()
    assert live.problem is None


async def test_a_file_that_was_removed_holds_no_token(live: LiveTokens, clock: Clock) -> None:
    """threats.md: files removed under it."""
    issued = await live.issue(CODER)
    live.path.unlink()
    await until(lambda: live.tokens.find(issued.secret, clock.now) is Reason.IDENTITY_UNKNOWN)
    assert "is gone" in str(live.problem)
    assert (await live.issue(CODER)).token.id == "coder.1"


async def test_a_token_for_scraping_opens_metrics_and_one_for_apps_does_not(
    live: LiveTokens,
) -> None:
    scraper = await live.issue(Wanted(name="scraper", purpose=Purpose.SCRAPE))
    coder = await live.issue(CODER)
    assert live.scrapes(scraper.secret)
    assert not live.scrapes(coder.secret)
    assert not live.scrapes("spt_")
    await live.revoke("scraper", Purpose.SCRAPE)
    assert not live.scrapes(scraper.secret)


async def test_what_is_known_at_the_start_is_what_the_file_says(
    tmp_path: Path, clock: Clock
) -> None:
    path = tmp_path / "sallyport.sqlite"
    issued = await TokenFile(path, Limits(), os.urandom).issue(CODER, clock.now)
    made = LiveTokens(path, Limits(), clock, os.urandom)
    await made.open()
    assert digest(issued.secret) in vars(made.tokens)["_known"]
    await made.close()


def test_who_has_no_token_never_loads_sqlite(tmp_path: Path) -> None:
    program = (
        "import asyncio, os, sys, time; from pathlib import Path; from proxy.limits import Limits;"
        "from proxy.tokens.live import LiveTokens;"
        "made = LiveTokens(Path(sys.argv[1]), Limits(), time.time, os.urandom);"
        "asyncio.run(made.reload()); sys.exit('sqlite3' in sys.modules)"
    )
    command = [sys.executable, "-P", "-c", program, str(tmp_path / "none.sqlite")]
    assert subprocess.run(command, env={"PYTHONPATH": str(ROOT)}, check=False).returncode == 0


async def test_closing_twice_or_before_opening_is_fine(tmp_path: Path, clock: Clock) -> None:
    made = LiveTokens(tmp_path / "x", Limits(), clock, os.urandom)
    await made.close()
    await made.open()
    await made.close()
    await made.close()
