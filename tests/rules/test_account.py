"""An app's tallies: bounded, and a newcomer inherits of whom it evicts."""

from rules.account import SPENT, Account
from rules.name import ROOT, parse
from rules.ration import Ration
from rules.tiers import NO_TIERS
from rules.window import add


def account(most: int = 2) -> Account:
    """Return one with room for so many suffixes."""
    return Account("app", Ration(1, most, most), Ration(0, 9999, 9999), 0)


def put(of: Account, name: str, octets: int, now: int = 0) -> None:
    """Count `octets` below `name`."""
    add(of.tally(parse(name), NO_TIERS, now, now // 10).names, octets)


def test_the_least_is_evicted_and_its_count_inherited() -> None:
    of = account()
    put(of, "big.com", 100)
    put(of, "small.com", 5)
    of.tally(parse("big.com"), NO_TIERS, 0, 0)
    put(of, "new.com", 1)
    assert set(of.table) == {"big.com", "new.com"}
    assert of.table[parse("new.com")].names[1] == 6
    assert of.evicted == 1
    put(of, "more.com", 1)
    assert of.table[parse("more.com")].names[1] >= 6


def test_rows_of_the_evicted_are_told_when_they_were_written() -> None:
    of = account(1)
    put(of, "a.com", 1)
    of.changed(of.table[parse("a.com")])
    put(of, "b.com", 1)
    assert list(of.changes.take()) == [ROOT]
    of.table[parse("b.com")].is_stored = True
    put(of, "c.com", 1)
    assert set(of.changes.take()) == {ROOT, "b.com"}


def test_the_dot_is_all_together() -> None:
    of = account()
    put(of, "a.com", 1)
    assert of.any(ROOT) is of.whole
    assert of.any(parse("a.com")) is of.table[parse("a.com")]
    assert of.any(parse("b.com")) is None


def test_an_account_comes_back_with_and_without_a_ghost() -> None:
    for names in (("a.com",), ("a.com", "b.com", "c.com")):
        of, again = account(), account()
        for name in names:
            put(of, name, 7)
        again.take_in(of.row(), 500)
        assert again.row() == of.row()


def test_a_tally_comes_back_in_its_class() -> None:
    of, again = account(), account()
    put(of, "a.com", 7)
    again.restore(parse("a.com"), of.table[parse("a.com")].row(), NO_TIERS, 50)
    tally = again.table[parse("a.com")]
    assert (tally.names[1], tally.rank, tally.is_stored) == (7, 3, True)


def test_what_is_connected_to_is_given_back_once() -> None:
    of, suffix = account(), parse("a.com")
    of.spend(suffix, "x", 5, 0)
    of.spend(suffix, "y", 7, 0)
    of.give_back(suffix, "x")
    of.give_back(suffix, "x")
    of.give_back(suffix, "unknown")
    assert of.whole.names[1] == 7
    assert list(of.changes.take()) == [ROOT]
    of.forget_spent()
    of.give_back(suffix, "y")
    assert of.whole.names[1] == 7


def test_so_many_names_may_still_be_given_back() -> None:
    of, suffix = account(), parse("a.com")
    for number in range(SPENT + 1):
        of.spend(suffix, f"x{number}", 2, 0)
    of.give_back(suffix, "x0")
    assert of.whole.names[1] == 2 * (SPENT + 1)
    of.give_back(suffix, "x1")
    assert of.whole.names[1] == 2 * SPENT


def test_who_is_used_again_is_not_evicted_for_it() -> None:
    of = account()
    put(of, "a.com", 1)
    put(of, "b.com", 1)
    assert of.tally(parse("b.com"), NO_TIERS, 0, 0) is of.tally(parse("b.com"), NO_TIERS, 0, 0)
    of.tally(parse("a.com"), NO_TIERS, 0, 0)
    put(of, "c.com", 1)
    assert set(of.table) == {"a.com", "c.com"}
