"""`detect` says how closely look-ups are watched; what it leaves out is as above it."""

import pytest

from rules.watch import Detect, Mode
from tests.rules.files import app_of, errors_of, me


@pytest.mark.parametrize(
    ("said", "detect"),
    [
        ("{mode: block}", Detect()),
        ("{mode: alert}", Detect(Mode.ALERT)),
        ("{mode: observe}", Detect(Mode.OBSERVE)),
        ("{mode: off}", Detect(Mode.OFF)),
        ("{flux: block, cloaking: alert}", Detect(Mode.BLOCK, Mode.BLOCK, Mode.ALERT)),
        ("{cloaking: off}", Detect(cloaking=Mode.OFF)),
    ],
)
def test_an_absent_key_is_as_shipped(said: str, detect: Detect) -> None:
    assert app_of(me(f"detect: {said}")).detect == detect


def test_without_a_word_tunnels_are_blocked() -> None:
    app = app_of(me("allow: [{host: a.example}]"))
    assert app.detect == Detect(Mode.BLOCK, Mode.OBSERVE, Mode.OBSERVE)
    assert app.allows[0].detect is None


def test_an_allow_takes_what_it_leaves_out_from_the_app() -> None:
    allow = "allow: [{host: a.example, detect: {flux: block}}]"
    (rule,) = app_of(me(f"{allow}\ndetect: {{mode: observe, cloaking: alert}}")).allows
    assert rule.detect == Detect(Mode.OBSERVE, Mode.BLOCK, Mode.ALERT)


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ("{}", "a.yaml:3:13 `detect` says nothing"),
        ("block", "a.yaml:3:13 `detect` wants a mapping with keys of cloaking, flux, mode"),
        ("{mode: on}", "a.yaml:3:20 `mode` wants one of alert, block, observe, off, found text"),
        ("{mode: block, rate: 5}", "a.yaml:3:27 'rate' is no key of `detect`"),
    ],
)
def test_what_is_wrong_is_said_once_at_its_place(said: str, problem: str) -> None:
    (found,) = errors_of(me(f"detect: {said}"))
    assert found.startswith(problem)
