"""Who is evicted: the lowest class of counts, and in it what was not used for longest."""

import pytest

from rules.space_saving import Ranks, rank_of


def test_a_class_holds_counts_within_a_factor_of_two() -> None:
    assert [rank_of(count) for count in (0, 1, 2, 3, 4, 7, 8)] == [0, 1, 2, 2, 3, 3, 4]
    assert rank_of(0xFFFF_FFFF) == 32


def test_the_lowest_class_goes_first_and_the_oldest_in_it() -> None:
    ranks = Ranks()
    ranks.move("much", -1, 9)
    ranks.move("old", -1, 2)
    ranks.move("new", -1, 2)
    assert ranks.least() == "old"
    ranks.move("old", 2, 2)
    assert ranks.least() == "new"
    ranks.move("new", 2, 3)
    assert ranks.least() == "old"


def test_what_is_spared_goes_only_where_there_is_no_other() -> None:
    ranks = Ranks()
    ranks.move("spared", -1, 1)
    assert ranks.least("spared") == "spared"
    ranks.move("much", -1, 9)
    assert ranks.least("spared") == "much"
    assert ranks.least("much") == "spared"


def test_what_was_dropped_is_never_least() -> None:
    ranks = Ranks()
    ranks.move("one", -1, 0)
    ranks.drop("one", 0)
    ranks.drop("one", 5)
    with pytest.raises(StopIteration):
        ranks.least()
