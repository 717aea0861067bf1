"""A suffix that is held, as it stands in the file."""

import msgspec

from proxy.detection.hold import HeldSuffix


def test_a_hold_is_the_same_after_the_file() -> None:
    hold = HeldSuffix("me", "a.com", 1.5, "x", "tunnel:names:2m", 520, 512, "cdn", {"n": 1.0})
    assert msgspec.json.decode(msgspec.json.encode(hold), type=HeldSuffix) == hold
