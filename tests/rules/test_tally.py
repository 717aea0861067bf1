"""What is counted below one suffix, and how it goes to a row and comes back."""

import pytest

from rules.budget import Limits
from rules.name import parse
from rules.novelty import DAY_S, digest_of
from rules.ration import Ration, Room
from rules.tally import ANSWERS, CHOICE, NAMES, Limited, Tally
from rules.window import add, meter

TEN = Limits(10, 10, 10)
LIMITED = Limited(TEN, TEN, TEN, TEN, TEN)


def tally() -> Tally:
    """Return one that counted nothing."""
    return Tally(parse("evil.com"), "ordinary", Room(Ration(0, 1 << 20, 1 << 20)), 0, 0)


def filled() -> Tally:
    """Return one that counted something of everything."""
    of = tally()
    add(of.names, 9)
    of.answers, of.choice = meter(0), meter(0)
    add(of.answers, 160)
    add(of.choice, 3)
    of.known.add("api")
    of.records.add(digest_of(b"record"))
    of.connect("api")
    of.queries, of.others, of.nxdomains, of.resolved, of.told = 4, 3, 2, 1, NAMES
    return of


def test_its_class_is_that_of_names_or_of_a_sixteenth_of_answers() -> None:
    of = tally()
    assert of.move_to(0, 0) == 0
    add(of.names, 9)
    assert of.move_to(0, 0) == 4
    of = filled()
    assert of.answers is not None
    add(of.answers, 16 * 100)
    assert of.move_to(0, 0) == 7


def test_what_is_too_old_goes() -> None:
    of = filled()
    of.move_to(2 * DAY_S + 1, 2 * DAY_S // 10)
    assert (of.names[3], len(of.known), of.connected, of.records.fresh) == (0, 0, None, set())


def test_wider_limits_are_wider_in_all() -> None:
    wide = TEN.times(2)
    assert LIMITED.times(2) == Limited(wide, wide, wide, wide, wide)


def test_what_was_told_is_forgotten_when_it_is_calm() -> None:
    of = filled()
    of.told = 3 * NAMES | ANSWERS | CHOICE
    of.rearm(LIMITED)
    assert of.told == 3 * NAMES | ANSWERS
    of.clear(0)
    of.told = NAMES | ANSWERS
    of.rearm(LIMITED)
    assert of.told == 0


def test_connections_are_news_once_and_bounded() -> None:
    of = tally()
    assert of.connect("a")
    assert not of.connect("a")
    assert [of.connect(str(number)) for number in range(300)].count(True) == 255


def test_clearing_counts_anew_and_keeps_what_is_known() -> None:
    of = filled()
    of.clear(7)
    assert (of.names[3], of.answers, of.choice, of.told) == (0, None, None, 0)
    assert of.known.reach("api") == -1


def test_an_heir_counts_at_least_as_much() -> None:
    of = tally()
    of.inherit(filled())
    assert of.answers is not None
    assert of.choice is not None
    assert (of.names[1], of.answers[1], of.choice[1]) == (9, 160, 3)
    of.inherit(tally())
    assert of.names[1] == 9


def test_a_row_brings_all_back() -> None:
    for one in (filled(), tally()):
        again = tally()
        again.take_in(one.row())
        assert again.row() == one.row()


def test_a_row_that_no_tally_wrote_is_an_error() -> None:
    row = filled().row()
    row.names = [1]
    with pytest.raises(ValueError, match="meter"):
        tally().take_in(row)


def test_room_is_given_back_whole() -> None:
    room = Room(Ration(0, 1 << 20, 1 << 20))
    for octets in (b"", b"record"):
        of = Tally(parse("evil.com"), "ordinary", room, 0, 0)
        of.known.add("api")
        if octets:
            of.records.add(digest_of(octets))
        assert room.taken > 0
        of.drop()
        assert room.taken == 0
