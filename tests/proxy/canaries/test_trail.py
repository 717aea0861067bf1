"""What is remembered of an app's names: bounded, and without labels that stay the same."""

from proxy.canaries.trail import Step, Trail, below
from rules.secret_scan import Hit

REACH = 22


def taken(trail: Trail, *names: str) -> Step | None:
    step = None
    for name in names:
        step = trail.step(name)
        trail.take(name, step)
    return step


def test_a_zone_itself_has_no_pieces() -> None:
    trail = Trail(REACH)
    for name in ("example.com", "com"):
        assert trail.step(name) is None
        trail.take(name, None)
    assert [*trail.recent] == ["example.com", "com"]


def test_a_short_zone_is_no_suffix_of_many() -> None:
    """threats.md, "The resolver as a channel": who rents `ab.io` chooses how long a name is."""
    trail = Trail(REACH)
    for zone in ("ab.io", "t.co", "co.uk"):
        step = taken(trail, f"one.{zone}", f"two.{zone}")
        assert step is not None
        assert b"onetwo" in step.texts
    assert below("www.example.co.uk") == "www"


def test_pieces_are_joined_in_their_zone_and_over_all() -> None:
    trail = Trail(REACH)
    step = taken(trail, "ab.one.example", "cd.two.example", "ef.one.example")
    assert step is not None
    assert {*step.texts} == {b"abcdef", b"abef"}


def test_labels_that_stay_the_same_are_in_no_piece() -> None:
    trail = Trail(REACH)
    taken(trail, "ab.t.evil.example")
    step = taken(trail, "cd.ef.t.evil.example", "gh.ij.t.evil.example")
    assert step is not None
    assert {*step.texts} == {b"abtcdefghij", b"abcdgh", b"tefij"}


def test_a_label_that_once_was_another_is_a_piece_where_it_comes_twice() -> None:
    trail = Trail(REACH)
    step = taken(trail, *(f"n{at}.{each}.evil.example" for at, each in enumerate("abbc")))
    assert step is not None
    assert b"abbc" in step.texts


def test_a_name_above_the_last_one_keeps_its_first_label() -> None:
    trail = Trail(REACH)
    step = taken(trail, "ab.cd.evil.example", "cd.evil.example")
    assert step is not None
    assert b"abcdcd" in step.texts


def test_marks_that_names_may_hold_are_in_no_piece() -> None:
    step = taken(Trail(REACH), "a-b.evil.example", "_c-d.evil.example")
    assert step is not None
    assert step.texts == (b"abcd",)


def test_three_ends_that_are_the_same_again_are_one() -> None:
    trail = Trail(REACH)
    taken(trail, "ab.cd.evil.example", "x" * 30 + ".evil.example")
    assert trail.ends == (b"x" * REACH,)


def test_names_and_zones_are_bounded() -> None:
    trail = Trail(REACH)
    for each in range(500):
        taken(trail, f"label{each}.zone{each}.example")
    assert len(trail.recent) == 64
    assert len(trail._zones) == 16
    assert all(len(end) <= REACH for end in trail.ends)


def test_refused_names_are_bounded_and_leave_less_than_is_found() -> None:
    trail = Trail(22)
    for at in range(70):
        name = f"{at:02}abcdefghijkl.evil.example"
        step = trail.step(name)
        assert step is not None
        trail.refuse(name, step, Hit("mine", "plain"), 12)
    assert len(trail.refused) == 64
    assert "69abcdefghijkl.evil.example" in trail.refused
    assert trail.ends == (b"bcdefghijkl",)
    assert not trail.recent
