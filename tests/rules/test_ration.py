"""An app has a floor that nobody takes from it, and no more than its share."""

from rules.ration import Ration, Room


def test_an_app_takes_no_more_than_its_share() -> None:
    room = Room(Ration(floor=0, most=2, total=10))
    assert [room.take(1) for _ in range(3)] == [True, True, False]


def test_the_floor_is_there_when_others_took_all() -> None:
    ration = Ration(floor=1, most=5, total=5)
    greedy, late = Room(ration), Room(ration)
    assert greedy.take(5)
    assert late.take(1)
    assert not late.take(1)
    assert (ration.taken, ration.refused) == (6, 1)


def test_what_is_given_back_can_be_taken() -> None:
    room = Room(Ration(floor=0, most=2, total=2))
    assert room.take(2)
    room.give_back(1)
    assert room.take(1)
    assert room.taken == 2
