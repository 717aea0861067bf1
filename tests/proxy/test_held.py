"""What an app may not reach because it leaked there."""

from proxy.held import Held, Hold
from rules.decision import Reason
from rules.name import parse

HOLD = Hold("0192", 1.0)
LEAKY = parse("leaky.example")


def test_a_held_suffix_is_refused_to_that_app_with_all_below_it() -> None:
    held = Held()
    assert not held
    held.hold("coder", LEAKY, HOLD)
    assert held
    for name in ("leaky.example", "a.leaky.example", "b.a.leaky.example"):
        refusal = held.refusal("coder", parse(name))
        assert refusal is not None
        assert (refusal.reason, refusal.rule) == (Reason.TUNNEL_DETECTED, "held:leaky.example")
    for name in ("example", "notleaky.example", "leaky.example.org"):
        assert held.refusal("coder", parse(name)) is None
    assert held.refusal("other", LEAKY) is None
    assert held.refusal("coder", None) is None
    assert held.of("coder") == {LEAKY: HOLD}


def test_what_is_let_go_is_refused_no_more() -> None:
    held = Held()
    held.hold("coder", LEAKY, HOLD)
    held.hold("coder", parse("other.example"), HOLD)
    assert held.let_go("coder", LEAKY)
    assert not held.let_go("coder", LEAKY)
    assert held.refusal("coder", LEAKY) is None
    assert held.let_go("coder", parse("other.example"))
    assert not held
    assert held.of("coder") == {}
