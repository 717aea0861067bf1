"""Secrets are looked for once they are on the disk, and whatever becomes of the file."""

import os
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from proxy.canaries.file import SecretFile
from proxy.canaries.known import KnownSecrets
from proxy.canaries.live import LiveSecrets
from proxy.canaries.secret import FILE_NAME, Kind, WantedSecret
from proxy.errors import BindError, ConfigError
from proxy.leak import Leak
from proxy.limits import Limits
from rules.name import parse
from tests.proxy.tokens.test_live import until
from tests.rules.test_secret_scan import key_of

NOW = 1000.0
ONE = WantedSecret("one", key_of(1))
NAME = parse(f"{key_of(1).decode()}.evil.example")


class Clock:
    """A wall clock that is set by hand."""

    now = NOW

    def __call__(self) -> float:
        return self.now


STILL = Clock()


def made(folder: Path, clock: Callable[[], float] = STILL) -> LiveSecrets:
    limits = Limits(secrets=2, token_busy_s=0.1)
    return LiveSecrets(folder / FILE_NAME, KnownSecrets(limits), limits, clock, os.urandom)


@asynccontextmanager
async def opened(folder: Path, clock: Callable[[], float] = STILL) -> AsyncIterator[LiveSecrets]:
    live = made(folder, clock)
    await live.open()
    try:
        yield live
    finally:
        await live.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.database.live.TICK_S", 0.03)


def is_found(live: LiveSecrets) -> bool:
    return live.known.found("coder", NAME) == Leak("one", "plain")


async def test_where_nothing_is_registered_there_is_no_file(tmp_path: Path) -> None:
    async with opened(tmp_path) as live:
        assert (live.list(), bool(live.known), live.problem) == ((), False, None)
        assert not is_found(live)
    assert not (tmp_path / FILE_NAME).exists()


async def test_what_is_registered_is_looked_for_at_once_and_after_a_restart(tmp_path: Path) -> None:
    calls: list[int] = []
    async with opened(tmp_path) as live:
        live.on_change(lambda: calls.append(len(live.list())))
        secret = await live.add(ONE, 1000)
        assert (secret.name, secret.kind, secret.at, secret.by_uid) == (
            "one", Kind.SECRET, NOW, 1000,
        )  # fmt: skip
        assert is_found(live)
        assert calls == [1]
        await live.reload()
        assert calls == [1]  # nothing has changed
    async with opened(tmp_path) as live:
        assert live.list() == (secret,)
        assert is_found(live)
        await live.remove("one")
        assert not is_found(live)
        assert live.list() == ()


async def test_neither_the_value_nor_a_form_of_it_is_on_the_disk(tmp_path: Path) -> None:
    """threats.md, "The resolver as a channel": what finds a secret must not give it away."""
    async with opened(tmp_path) as live:
        await live.add(ONE, 0)
    path = tmp_path / FILE_NAME
    assert path.stat().st_mode & 0o777 == 0o600
    octets = b"".join(each.read_bytes() for each in tmp_path.iterdir()).lower()
    value = key_of(1)
    for form in (value, value[::-1], value.hex().encode()):
        assert all(form.lower()[at : at + 8] not in octets for at in range(len(form) - 8))
    assert repr(value)[2:-1] not in repr(ONE)


async def test_the_key_is_made_once(tmp_path: Path) -> None:
    async with opened(tmp_path) as live:
        await live.add(ONE, 0)
        await live.remove("one")
        await live.add(WantedSecret("two", key_of(2), Kind.CANARY), 0)
    db = sqlite3.connect(tmp_path / FILE_NAME)
    assert db.execute("SELECT length(value) FROM fingerprint_key").fetchall() == [(32,)]
    assert db.execute("SELECT DISTINCT name FROM windows").fetchall() == [("two",)]
    db.close()


@pytest.mark.parametrize(
    ("wanted", "text"),
    [
        (ONE, "registered already"),
        (WantedSecret("two", b"sk-short"), "8 octets at least"),
        (WantedSecret("two", b"x" * 4097), "4096 octets at most"),
    ],
)
async def test_what_cannot_be_registered_changes_nothing(
    tmp_path: Path, wanted: WantedSecret, text: str
) -> None:
    async with opened(tmp_path) as live:
        await live.add(ONE, 0)
        with pytest.raises(ConfigError) as caught:
            await live.add(wanted, 0)
        assert text in str(caught.value)
        assert wanted.value.decode() not in str(caught.value)
        assert [each.name for each in live.list()] == ["one"]


async def test_there_are_so_many_secrets_and_no_more(tmp_path: Path) -> None:
    async with opened(tmp_path) as live:
        await live.add(ONE, 0)
        await live.add(WantedSecret("two", key_of(2)), 0)
        with pytest.raises(ConfigError, match=r"limits\.secrets"):
            await live.add(WantedSecret("three", key_of(3)), 0)
        assert is_found(live)


async def test_what_is_not_registered_cannot_be_forgotten(tmp_path: Path) -> None:
    async with opened(tmp_path) as live:
        with pytest.raises(ConfigError, match="no such secret"):
            await live.remove("one")
    assert not (tmp_path / FILE_NAME).exists()


async def test_what_another_process_registers_is_noticed(tmp_path: Path) -> None:
    other = SecretFile(tmp_path / FILE_NAME, Limits(), os.urandom)
    async with opened(tmp_path) as live:
        await other.add(ONE, NOW, 0)
        await until(lambda: is_found(live))
        await other.remove("one")
        await until(lambda: not live.known)


async def test_a_file_that_is_gone_or_damaged_leaves_all_in_force(tmp_path: Path) -> None:
    clock = Clock()
    async with opened(tmp_path, clock) as live:
        await live.add(ONE, 0)
        whole = live.path.read_bytes()
        for each in tmp_path.glob(f"{FILE_NAME}*"):
            each.unlink()
        await until(lambda: live.problem is not None)
        assert "is gone" in str(live.problem)
        assert is_found(live)
        live.path.write_bytes(b"no database " * 400)
        live.path.chmod(0o600)
        await until(lambda: "is gone;" not in str(live.problem))
        assert is_found(live)
        live.path.write_bytes(b"")
        await until(lambda: "is empty" in str(live.problem))
        assert is_found(live)
        live.path.write_bytes(whole)
        await until(lambda: live.problem is None)
        assert is_found(live)


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM fingerprint_key",
        "UPDATE secret SET kind = 'x'",
        "UPDATE windows SET name = 'x'",
    ],
)
async def test_where_nobody_knows_what_is_registered_nothing_starts(
    tmp_path: Path, statement: str
) -> None:
    async with opened(tmp_path) as live:
        await live.add(ONE, 0)
    with sqlite3.connect(tmp_path / FILE_NAME, autocommit=True) as db:
        db.execute(statement)
    db.close()
    live = made(tmp_path)
    with pytest.raises(BindError, match="damaged"):
        await live.open()
    await live.close()


async def test_an_empty_file_is_one_of_nothing(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).touch(0o600)
    async with opened(tmp_path) as live:
        assert live.list() == ()
        await live.add(ONE, 0)
        assert is_found(live)
