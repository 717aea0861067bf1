"""All accounts, and what of them goes to a disk and comes back."""

import msgspec

from rules.accounts import Accounts
from rules.name import ROOT, parse
from rules.popularity import Popularity
from rules.ration import Ration
from rules.tiers import NO_TIERS
from rules.window import add

NOW = 1_000_000.0


def accounts(most: int = 10) -> tuple[Accounts, Popularity]:
    """Return accounts with room for so many suffixes in all."""
    popularity = Popularity(1, 10, 10)
    ration = Ration(1, most, most)
    return Accounts(ration, Ration(0, 9999, 9999), NO_TIERS, popularity), popularity


def put(of: Accounts, app: str, name: str, now: float = NOW) -> None:
    """Count something below `name`."""
    account = of.open(app, now)
    tally = account.tally(parse(name), NO_TIERS, now, int(now) // 10)
    add(tally.names, 5)
    account.changed(tally)
    account.changed(account.whole)


def test_an_account_is_opened_once() -> None:
    of, _ = accounts()
    assert of.find("app") is None
    assert of.open("app", NOW) is of.open("app", NOW + 5) is of.find("app")
    assert [account.since for account in of] == [int(NOW)]


def test_rows_are_told_once_and_bring_all_back() -> None:
    of, popularity = accounts()
    put(of, "app", "a.com")
    popularity.note("a.com", "app", int(NOW) // 86400)
    rows = list(of.changed())
    assert {row[:2] for row in rows} == {("app", "a.com"), ("app", ROOT), ("", "a.com")}
    assert list(of.changed()) == []
    again, popular = accounts()
    again.restore(rows, NOW)
    account = again.find("app")
    assert account is not None
    assert account.table[parse("a.com")].names[1] == 5
    assert set(popular.rows) == {"a.com"}
    assert list(again.changed()) == []


def test_rows_of_what_is_gone_are_empty() -> None:
    of, popularity = accounts(1)
    put(of, "app", "a.com")
    popularity.note("a.com", "app", 0)
    list(of.changed())
    put(of, "app", "b.com")
    for number in range(10):
        popularity.note(f"{number}.com", "app", 0)
    rows = list(of.changed())
    assert ("app", "a.com", b"") in rows
    assert ("", "a.com", b"") in rows


def test_rows_that_cannot_be_read_are_counted() -> None:
    of, _ = accounts()
    put(of, "app", "a.com")
    row = next(row for app, suffix, row in of.changed() if suffix == "a.com")
    items = msgspec.msgpack.decode(row)
    items[0] = []
    short = msgspec.msgpack.encode(items)
    items[0] = [10**5]
    again, _ = accounts()
    again.restore(
        [
            ("app", "a.com", b"\xc1"),
            ("app", ROOT, b"\x90"),
            ("", "a.com", b""),
            ("app", "b.com", short),
            ("app", "c.com", msgspec.msgpack.encode(items)),
        ],
        NOW,
    )
    assert again.bounds()["rows_unreadable"] == 5


def test_what_is_over_for_two_days_is_dropped() -> None:
    of, _ = accounts()
    put(of, "app", "a.com")
    rows = list(of.changed())
    again, _ = accounts()
    again.restore(rows, NOW + 3 * 86400)
    account = again.find("app")
    assert account is not None
    assert not account.table
    assert ("app", "a.com", b"") in list(again.changed())
