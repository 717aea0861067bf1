"""A suffix is popular when two apps ask for it on enough days; one app alone makes none."""

from rules.popularity import Asked, Popularity


def asked_by_two(popularity: Popularity, suffix: str, days: range) -> None:
    """Let two apps ask on each of `days`."""
    for day in days:
        popularity.note(suffix, "one", day)
        popularity.note(suffix, "other", day)


def test_two_apps_on_enough_days_make_popular() -> None:
    popularity = Popularity(3, 10, 10)
    asked_by_two(popularity, "x.com", range(2))
    assert not popularity.is_popular("x.com", 2)
    asked_by_two(popularity, "x.com", range(2, 3))
    popularity.note("x.com", "third", 2)
    assert popularity.is_popular("x.com", 2)
    assert not popularity.is_popular("y.com", 2)


def test_one_app_alone_makes_nothing_popular() -> None:
    popularity = Popularity(1, 10, 10)
    for day in range(20):
        for _ in range(5):
            popularity.note("x.com", "one", day)
    assert not popularity.is_popular("x.com", 20)


def test_days_are_forgotten_after_thirty() -> None:
    popularity = Popularity(3, 10, 10)
    asked_by_two(popularity, "x.com", range(3))
    assert popularity.is_popular("x.com", 29)
    assert not popularity.is_popular("x.com", 30)
    assert not popularity.is_popular("x.com", 3000)
    popularity.note("x.com", "one", 3000)
    assert popularity.rows["x.com"].days == 0


def test_a_clock_that_went_back_counts_nothing() -> None:
    popularity = Popularity(1, 10, 10)
    popularity.note("x.com", "one", 5)
    popularity.note("x.com", "other", 4)
    assert not popularity.is_popular("x.com", 5)


def test_an_app_sprays_over_its_own_rows_alone() -> None:
    popularity = Popularity(1, 2, 100)
    popularity.note("theirs.com", "other", 0)
    for number in range(50):
        popularity.note(f"{number}.com", "one", 0)
    assert set(popularity.rows) == {"theirs.com", "48.com", "49.com"}
    assert popularity.full == 48


def test_a_full_table_takes_in_nothing_new_of_an_app_without_rows() -> None:
    popularity = Popularity(1, 10, 2)
    asked_by_two(popularity, "a.com", range(1))
    asked_by_two(popularity, "b.com", range(1))
    popularity.note("c.com", "one", 0)
    assert set(popularity.rows) == {"a.com", "b.com"}
    assert popularity.full == 1


def test_what_nobody_asked_for_thirty_days_makes_room() -> None:
    popularity = Popularity(1, 10, 2)
    asked_by_two(popularity, "a.com", range(1))
    asked_by_two(popularity, "b.com", range(5, 6))
    popularity.note("c.com", "one", 30)
    assert set(popularity.rows) == {"b.com", "c.com"}


def test_changed_rows_are_told_and_evicted_ones_that_were_written() -> None:
    popularity = Popularity(1, 1, 10)
    popularity.note("a.com", "one", 0)
    assert list(popularity.changes.take()) == ["a.com"]
    popularity.rows["a.com"].is_stored = True
    popularity.note("b.com", "one", 0)
    assert list(popularity.changes.take()) == ["a.com", "b.com"]


def test_rows_come_back_unless_they_are_too_old() -> None:
    popularity = Popularity(1, 10, 10)
    popularity.restore("a.com", Asked(100, "one", 1), 101)
    popularity.restore("b.com", Asked(50, "one", 1), 101)
    assert popularity.is_popular("a.com", 101)
    assert set(popularity.rows) == {"a.com"}
    assert list(popularity.changes.take()) == ["b.com"]
