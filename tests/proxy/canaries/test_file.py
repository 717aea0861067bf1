"""The file of registered secrets: what stands in it, what it refuses, what damage it shows."""

import os
import sqlite3
from pathlib import Path

import pytest

from proxy.canaries.file import NOTHING, SecretFile
from proxy.canaries.secret import FILE_NAME, Kind, UnknownSecretError, WantedSecret
from proxy.errors import BindError, ConfigError
from proxy.limits import Limits
from tests.rules.test_secret_scan import key_of

ONE = WantedSecret("one", key_of(1))


def file_in(folder: Path, **limits: int) -> SecretFile:
    return SecretFile(folder / FILE_NAME, Limits(token_busy_s=0.1, **limits), os.urandom)


async def test_where_there_is_no_file_nothing_is_registered_and_none_is_made(
    tmp_path: Path,
) -> None:
    file = file_in(tmp_path)
    assert await file.read() == NOTHING
    with pytest.raises(UnknownSecretError):
        await file.remove("one")
    assert list(tmp_path.iterdir()) == []


async def test_what_was_registered_is_read_again_but_for_its_value(tmp_path: Path) -> None:
    made = await file_in(tmp_path).add(ONE, 5.0, 1000)
    kept = await file_in(tmp_path).read()
    assert kept.secrets == {"one": made}
    assert (made.kind, made.at, made.by_uid) == (Kind.SECRET, 5.0, 1000)
    assert kept.windows["one"]
    assert (tmp_path / FILE_NAME).stat().st_mode & 0o777 == 0o600
    for each in tmp_path.iterdir():
        assert ONE.value not in each.read_bytes()


async def test_the_key_is_made_once_and_outlives_the_last_secret(tmp_path: Path) -> None:
    file = file_in(tmp_path)
    await file.add(ONE, 1.0, 0)
    key = (await file.read()).key
    await file.remove("one")
    kept = await file.read()
    assert (kept.secrets, kept.windows, kept.key) == ({}, {}, key)


async def test_a_name_is_taken_once_and_there_are_so_many(tmp_path: Path) -> None:
    file = file_in(tmp_path, secrets=1)
    await file.add(ONE, 1.0, 0)
    with pytest.raises(ConfigError, match="registered already"):
        await file.add(WantedSecret("one", key_of(2)), 1.0, 0)
    with pytest.raises(ConfigError, match=r"limits\.secrets"):
        await file.add(WantedSecret("two", key_of(2)), 1.0, 0)
    assert [*(await file.read()).secrets] == ["one"]


async def test_what_cannot_be_looked_for_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    file = file_in(tmp_path, secret_octets=100)
    with pytest.raises(ConfigError, match="two is not registered"):
        await file.add(WantedSecret("two", b"short"), 1.0, 0)
    with pytest.raises(ConfigError, match="100 octets at most"):
        await file.add(WantedSecret("two", bytes(101)), 1.0, 0)
    assert (await file.read()).secrets == {}


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE secret SET kind = 'other'",
        "DELETE FROM fingerprint_key",
        "PRAGMA foreign_keys = off; DELETE FROM secret",
    ],
)
async def test_a_damaged_file_is_an_error_and_never_nothing(tmp_path: Path, damage: str) -> None:
    file = file_in(tmp_path)
    await file.add(ONE, 1.0, 0)
    with sqlite3.connect(tmp_path / FILE_NAME) as db:
        db.executescript(damage)
    db.close()
    with pytest.raises(BindError, match="damaged"):
        await file.read()
