"""Tokens on the disk: what is written stays, what is no such file is never used or overwritten."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread

import pytest

from proxy.database.live import BusyError
from proxy.errors import BindError, ConfigError
from proxy.limits import Limits
from proxy.tokens.file import TokenFile
from proxy.tokens.known import JoinError, Purpose, Token, UnknownTokenError, Wanted, digest

ROOT = Path(__file__).parents[3]
DAY_S = 86400.0
NOBODY = 65534
IS_ROOT = os.geteuid() == 0


def made(folder: Path, **limits: float) -> TokenFile:
    values = {name: type(getattr(Limits(), name))(value) for name, value in limits.items()}
    return TokenFile(folder / "s" / "sallyport.sqlite", Limits(**values), os.urandom)


COLUMNS = "number, digest, name, purpose, created, expires, bind_uid, rotated, revoked"
CODER = Wanted(name="coder")


async def test_without_a_file_no_token_is_known_and_none_is_made(tmp_path: Path) -> None:
    assert await made(tmp_path).read() == {}
    assert list(tmp_path.iterdir()) == []


async def test_what_is_issued_is_read_again_by_its_digest(tmp_path: Path) -> None:
    issued = await made(tmp_path).issue(Wanted(name="coder", bind_uid=1000), 5.0)
    assert await made(tmp_path).read() == {digest(issued.secret): issued.token}
    assert (issued.token.id, issued.token.name) == ("coder.1", "coder")
    assert (issued.token.bind_uid, issued.token.purpose) == (1000, Purpose.APP)
    assert issued.token.expires == 5.0 + 90 * DAY_S


async def test_an_empty_file_holds_no_token_and_is_filled(tmp_path: Path) -> None:
    file = made(tmp_path)
    path = tmp_path / "s" / "sallyport.sqlite"
    path.parent.mkdir()
    path.touch(0o600)
    assert await file.read() == {}
    await file.issue(CODER, 0.0)
    assert len(await file.read()) == 1


async def test_the_file_is_ours_alone_and_holds_no_secret(tmp_path: Path) -> None:
    """threats.md, "Identity": tokens leak: only their digests are kept."""
    issued = await made(tmp_path).issue(CODER, 0.0)
    path = tmp_path / "s" / "sallyport.sqlite"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    octets = b"".join(each.read_bytes() for each in path.parent.iterdir())
    assert issued.secret.encode() not in octets
    assert digest(issued.secret) in octets


@pytest.mark.parametrize("ttl_s", [0.0, -1.0, 366 * DAY_S + 1, float("nan"), float("inf")])
async def test_a_life_that_is_too_long_or_none_is_refused(tmp_path: Path, ttl_s: float) -> None:
    with pytest.raises(ConfigError, match="366 days"):
        await made(tmp_path).issue(Wanted(name="coder", ttl_s=ttl_s), 0.0)


async def test_rotation_makes_a_successor_and_leaves_the_old_one_a_grace(tmp_path: Path) -> None:
    """threats.md, "Identity": tokens leak; they are rotated."""
    file = made(tmp_path)
    old = await file.issue(Wanted(name="coder", ttl_s=DAY_S, bind_uid=7), 0.0)
    new = await file.rotate("coder", 100.0)
    assert new.secret != old.secret
    assert (new.token.id, new.token.bind_uid) == ("coder.2", 7)
    assert new.token.expires == 100.0 + DAY_S
    known = await file.read()
    assert known[digest(old.secret)] == new.replaced
    assert known[digest(old.secret)].expires == 700.0
    assert known[digest(new.secret)] == new.token


async def test_no_grace_lives_longer_than_the_token_would_have(tmp_path: Path) -> None:
    file = made(tmp_path)
    await file.issue(Wanted(name="coder", ttl_s=10.0), 0.0)
    rotated = await file.rotate("coder.1", 1.0, 1e9)
    assert rotated.replaced is not None
    assert rotated.replaced.expires == 10.0
    again = await file.rotate("coder", 2.0, -5.0)
    assert again.replaced is not None
    assert (again.replaced.id, again.replaced.expires) == ("coder.2", 2.0)


async def test_an_expired_token_can_be_rotated_while_it_is_remembered(tmp_path: Path) -> None:
    file = made(tmp_path)
    await file.issue(Wanted(name="coder", ttl_s=10.0), 0.0)
    assert (await file.rotate("coder", 20.0)).token.expires == 30.0


async def test_of_several_tokens_rotation_wants_an_id(tmp_path: Path) -> None:
    file = made(tmp_path)
    await file.issue(CODER, 0.0)
    await file.issue(CODER, 0.0)
    with pytest.raises(UnknownTokenError, match=r"coder\.1, coder\.2"):
        await file.rotate("coder", 1.0)
    assert (await file.rotate("coder.2", 1.0)).token.id == "coder.3"


@pytest.mark.parametrize("which", ["builder", "coder.9", "coder.", "."])
async def test_what_nobody_issued_is_neither_rotated_nor_revoked(
    tmp_path: Path, which: str
) -> None:
    file = made(tmp_path)
    await file.issue(CODER, 0.0)
    with pytest.raises(UnknownTokenError):
        await file.rotate(which, 1.0)
    with pytest.raises(UnknownTokenError):
        await file.revoke(which, 1.0)
    assert len(await file.read()) == 1


async def test_revoking_a_name_voids_every_token_of_it(tmp_path: Path) -> None:
    file = made(tmp_path)
    for _ in range(2):
        await file.issue(CODER, 0.0)
    await file.issue(Wanted(name="builder"), 0.0)
    await file.issue(Wanted(name="coder", purpose=Purpose.SCRAPE), 0.0)
    revoked = await file.revoke("coder", 5.0)
    assert [(each.id, each.revoked) for each in revoked] == [("coder.1", 5.0), ("coder.2", 5.0)]
    states = {each.id: each.state(6.0) for each in (await file.read()).values()}
    assert states == {
        "coder.1": "revoked",
        "coder.2": "revoked",
        "builder.3": "valid",
        "coder.4": "valid",
    }
    with pytest.raises(UnknownTokenError):  # they are void already
        await file.revoke("coder", 6.0)


async def test_a_number_is_never_used_twice(tmp_path: Path) -> None:
    file = made(tmp_path)
    await file.issue(Wanted(name="coder", ttl_s=1.0), 0.0)
    later = 30 * DAY_S
    assert (await file.issue(CODER, later)).token.id == "coder.2"
    assert [each.id for each in (await file.read()).values()] == ["coder.2"]


async def test_expired_tokens_make_room_and_valid_ones_do_not(tmp_path: Path) -> None:
    file = made(tmp_path, tokens=2)
    await file.issue(Wanted(name="short", ttl_s=1.0), 0.0)
    await file.issue(CODER, 0.0)
    await file.issue(Wanted(name="builder"), 2.0)
    assert sorted(each.name for each in (await file.read()).values()) == ["builder", "coder"]
    with pytest.raises(ConfigError, match=r"2 tokens already.*limits\.tokens"):
        await file.issue(CODER, 3.0)
    await file.revoke("coder", 4.0)
    with pytest.raises(ConfigError):  # a revoked one is remembered until it would have expired
        await file.issue(CODER, 5.0)


async def test_rotating_at_the_bound_keeps_the_one_that_is_rotated(tmp_path: Path) -> None:
    file = made(tmp_path, tokens=2)
    await file.issue(Wanted(name="coder", ttl_s=1.0), 0.0)
    await file.issue(Wanted(name="other", ttl_s=1.0), 0.0)
    rotated = await file.rotate("coder", 5.0)
    known = (await file.read()).values()
    assert sorted(each.id for each in known) == ["coder.1", "coder.3"]
    assert rotated.replaced is not None


@pytest.mark.parametrize(
    ("octets", "words"),
    [
        pytest.param(b"no database " * 99, "not a database", id="another format"),
        pytest.param(b"SQLite format 3\0" + b"\xff" * 4080, "restore the file", id="torn"),
    ],
)
async def test_what_is_no_database_is_not_used_and_not_touched(
    tmp_path: Path, octets: bytes, words: str
) -> None:
    file = made(tmp_path)
    path = tmp_path / "s" / "sallyport.sqlite"
    path.parent.mkdir()
    path.write_bytes(octets)
    path.chmod(0o600)
    with pytest.raises(BindError, match=words):
        await file.read()
    with pytest.raises(BindError):
        await file.issue(CODER, 0.0)
    assert path.read_bytes() == octets


async def test_a_damaged_page_is_noticed(tmp_path: Path) -> None:
    file = made(tmp_path)
    for _ in range(3):
        await file.issue(CODER, 0.0)
    path = tmp_path / "s" / "sallyport.sqlite"
    octets = bytearray(path.read_bytes())
    octets[4096:6000] = b"\xee" * 1904
    path.write_bytes(octets)
    with pytest.raises(BindError, match=r"damaged|malformed"):
        await file.read()


@pytest.mark.parametrize(
    ("statements", "words"),
    [
        (["CREATE TABLE a (b)"], "another program's"),
        (["PRAGMA user_version = 99"], "newer version"),
        (
            [
                f"CREATE TABLE token ({COLUMNS})",
                "INSERT INTO token VALUES (1, x'00', 'a', 'root', 0, 1, NULL, NULL, NULL)",
                "PRAGMA user_version = 1",
            ],
            "damaged",
        ),
    ],
)
async def test_a_database_that_is_not_ours_is_not_used(
    tmp_path: Path, statements: list[str], words: str
) -> None:
    path = tmp_path / "s" / "sallyport.sqlite"
    path.parent.mkdir()
    with sqlite3.connect(path) as db:
        for statement in statements:
            db.execute(statement)
    db.close()
    path.chmod(0o600)
    with pytest.raises(BindError, match=words):
        await made(tmp_path).read()


@pytest.mark.parametrize("mode", [0o644, 0o620, 0o602])
async def test_a_file_that_others_may_open_is_not_used(tmp_path: Path, mode: int) -> None:
    file = made(tmp_path)
    await file.issue(CODER, 0.0)
    (tmp_path / "s" / "sallyport.sqlite").chmod(mode)
    with pytest.raises(BindError, match="chmod 600"):
        await file.read()


async def test_a_file_of_another_user_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = made(tmp_path)
    await file.issue(CODER, 0.0)
    os.chown(tmp_path / "s" / "sallyport.sqlite", os.getuid() or NOBODY, -1)
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(BindError, match="another user"):
        await file.read()


async def test_a_link_is_not_followed(tmp_path: Path) -> None:
    await made(tmp_path / "real").issue(CODER, 0.0)
    (tmp_path / "s").mkdir()
    target = tmp_path / "real" / "s" / "sallyport.sqlite"
    (tmp_path / "s" / "sallyport.sqlite").symlink_to(target)
    with pytest.raises(BindError, match="no regular file"):
        await made(tmp_path).read()
    with pytest.raises(BindError, match="no regular file"):
        await made(tmp_path).issue(CODER, 0.0)


async def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("a file where the folder should be")
    with pytest.raises(BindError, match="--state"):
        await made(tmp_path).issue(CODER, 0.0)
    with pytest.raises(BindError):
        await TokenFile(Path("/proc/1/nothing/x"), Limits(), os.urandom).issue(CODER, 0.0)


async def test_what_root_makes_belongs_to_the_folders_owner(tmp_path: Path) -> None:
    if not IS_ROOT:
        return
    folder = tmp_path / "s"
    folder.mkdir(mode=0o700)
    os.chown(folder, NOBODY, NOBODY)
    file = made(tmp_path)
    await file.issue(CODER, 0.0)
    await file.read()
    assert {each.stat().st_uid for each in folder.iterdir()} == {NOBODY}


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[Path]:
    """A database that another writer holds for itself."""
    path = tmp_path / "s" / "sallyport.sqlite"
    is_held, may_go = Event(), Event()

    def hold() -> None:
        db = sqlite3.connect(path, isolation_level=None)
        db.execute("BEGIN EXCLUSIVE")
        is_held.set()
        may_go.wait(60)
        db.execute("ROLLBACK")
        db.close()

    thread = Thread(target=hold)
    path.parent.mkdir()
    path.touch(0o600)
    thread.start()
    assert is_held.wait(30)
    yield tmp_path
    may_go.set()
    thread.join()


async def test_another_writer_is_waited_for_and_then_said(locked: Path) -> None:
    with pytest.raises(BusyError, match="try again"):
        await made(locked, token_busy_s=0.05).issue(CODER, 0.0)


async def test_a_change_that_fails_leaves_nothing(tmp_path: Path) -> None:
    file = made(tmp_path)
    await file.issue(CODER, 0.0)

    def broken(_octets: int) -> bytes:
        raise OSError(5, "no entropy")

    path = tmp_path / "s" / "sallyport.sqlite"
    with pytest.raises(BindError, match="no entropy"):
        await TokenFile(path, Limits(), broken).rotate("coder", 1.0)
    [token] = (await file.read()).values()
    assert token.rotated is None


KILLED = """
import asyncio, os, sys, time
from pathlib import Path
from proxy.limits import Limits
from proxy.tokens.known import Wanted
from proxy.tokens.file import TokenFile
file = TokenFile(Path(sys.argv[1]), Limits(), os.urandom)
print(asyncio.run(file.issue(Wanted(name="coder"), time.time())).secret, flush=True)
time.sleep(60)
"""


async def test_kill_9_right_after_a_secret_was_shown_loses_nothing(tmp_path: Path) -> None:
    """threats.md, "Evidence as a weapon": what was said once holds after a crash."""
    path = tmp_path / "s" / "sallyport.sqlite"
    child = subprocess.Popen(
        [sys.executable, "-P", "-c", KILLED, str(path)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
    )
    assert child.stdout is not None
    with child.stdout:
        secret = child.stdout.readline().strip()
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
    known = await made(tmp_path).read()
    assert known[digest(secret)].name == "coder"


JOIN = Wanted(name="coder", purpose=Purpose.JOIN)


async def test_a_join_token_lives_for_minutes_and_a_day_at_most(tmp_path: Path) -> None:
    file = made(tmp_path)
    assert (await file.issue(JOIN, 0.0)).token.expires == 600.0
    with pytest.raises(ConfigError, match="1 days"):
        await file.issue(Wanted(name="coder", purpose=Purpose.JOIN, ttl_s=DAY_S + 1), 0.0)


async def test_a_join_token_is_redeemed_once(tmp_path: Path) -> None:
    file = made(tmp_path)
    secret = (await file.issue(JOIN, 0.0)).secret
    assert (await file.look_up(secret, "coder", 1.0)).state(1.0) == "valid"
    used = await file.redeem(secret, "coder", 2.0)
    assert (used.used, used.state(2.0)) == (2.0, "used")
    with pytest.raises(JoinError, match=r"coder\.1 was used already"):
        await file.redeem(secret, "coder", 3.0)
    assert [each.used for each in (await file.read()).values()] == [2.0]


async def test_of_twenty_that_redeem_at_once_one_succeeds(tmp_path: Path) -> None:
    secret = (await made(tmp_path).issue(JOIN, 0.0)).secret
    tries = [made(tmp_path).redeem(secret, None, 1.0) for _ in range(20)]
    results = await asyncio.gather(*tries, return_exceptions=True)
    assert sum(isinstance(each, Token) for each in results) == 1
    assert sum(isinstance(each, JoinError) for each in results) == 19


async def test_what_opens_no_enrolment_says_why(tmp_path: Path) -> None:
    file = made(tmp_path)
    app, join = await file.issue(CODER, 0.0), await file.issue(JOIN, 0.0)
    revoked = await file.issue(JOIN, 0.0)
    await file.revoke(revoked.token.id, 1.0)
    refused = [
        (app.secret, "coder", 1.0, "no such join token"),
        ("spt_none", "coder", 1.0, "no such join token"),
        (join.secret, "box", 1.0, "is for another app"),
        (join.secret, "coder", 600.0, "has expired"),
        (revoked.secret, "coder", 1.0, "was revoked"),
    ]
    for secret, name, now, why in refused:
        with pytest.raises(JoinError, match=why) as caught:
            await file.redeem(secret, name, now)
        assert secret not in str(caught.value)
    assert (await file.redeem(join.secret, "coder", 1.0)).id == join.token.id


async def test_a_file_of_the_schema_before_is_read_and_brought_up_when_it_is_changed(
    tmp_path: Path,
) -> None:
    file = made(tmp_path)
    issued = await file.issue(CODER, 0.0)
    path = tmp_path / "s" / "sallyport.sqlite"
    with sqlite3.connect(path) as db:
        db.execute("ALTER TABLE token DROP COLUMN used")
        db.execute("PRAGMA user_version = 1")
    db.close()
    assert [each.id for each in (await file.read()).values()] == [issued.token.id]
    joined = await file.issue(JOIN, 0.0)
    assert (await file.redeem(joined.secret, "coder", 1.0)).used == 1.0
    assert len(await file.read()) == 2
