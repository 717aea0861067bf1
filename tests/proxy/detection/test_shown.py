"""A suffix as it is shown: what was counted, what is held, or both."""

from proxy.detection.hold import HeldSuffix
from proxy.detection.shown import of_hold, of_state
from rules.detector import State
from rules.name import parse

HOLD = HeldSuffix(
    "me", "a.com", 1_790_000_000.0, "f" * 32, "tunnel:names:1h", 1030, 1024, "cdn",
    {"entropy": 4.5}, ("x.a.com",),
)  # fmt: skip


def state(*, alerting: bool = False) -> State:
    return State(
        "me", parse("a.com"), "ordinary", {"2m": 1, "1h": 2, "24h": 3}, {"2m": 4}, {"2m": 5},
        alerting, {"entropy": 1.5}, ("y.a.com",), 6, 7,
    )  # fmt: skip


def test_what_was_counted_is_shown_with_its_own_evidence() -> None:
    view = of_state(state(), None)
    assert (view.state, view.octets["24h"], view.names, view.queries) == ("watched", 3, 6, 7)
    assert (view.evidence, view.samples, view.since) == ({"entropy": 1.5}, ("y.a.com",), None)
    assert of_state(state(alerting=True), None).state == "alerting"


def test_what_is_held_shows_why_as_it_was_then() -> None:
    view = of_state(state(alerting=True), HOLD)
    assert (view.state, view.rule, view.reached, view.limit) == (
        "held", "tunnel:names:1h", 1030, 1024,
    )  # fmt: skip
    assert (view.evidence, view.samples) == ({"entropy": 4.5}, ("x.a.com",))
    assert (view.octets["2m"], view.since) == (1, "2026-09-21T14:13:20.000000Z")


def test_what_is_held_is_shown_when_nothing_is_counted_any_more() -> None:
    view = of_hold(HOLD)
    assert (view.state, view.tier, view.names, view.id) == ("held", "cdn", 0, "f" * 32)
