"""How closely look-ups are watched."""

from rules.watch import Detect, Mode


def test_a_stricter_mode_is_a_greater_one() -> None:
    assert Mode.OFF < Mode.OBSERVE < Mode.ALERT < Mode.BLOCK


def test_by_default_tunnels_are_blocked_and_the_rest_is_counted() -> None:
    assert Detect() == Detect(Mode.BLOCK, Mode.OBSERVE, Mode.OBSERVE)
    assert Detect(Mode.ALERT) < Detect()
