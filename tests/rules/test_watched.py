"""How closely an allowed look-up is watched."""

from msgspec.structs import replace

from rules.decision import Watch
from rules.name import parse
from rules.ruleset import AllowRule
from rules.watch import Detect, Mode
from rules.watched import watched
from tests.rules.written import allow, index

ALERT, OFF, BLOCK = Detect(Mode.ALERT), Detect(Mode.OFF), Detect()


def detecting(detect: Detect | None) -> AllowRule:
    return replace(allow("**.example.com"), detect=detect)


def found(app: Detect, *rules: Detect | None) -> Detect:
    own = [detecting(each) for each in rules]
    me = index(*own, detect=app).apps["me"]
    [watch] = watched(me, parse("a.example.com"), own)
    return watch.detect


def test_a_rule_is_watched_as_it_says_else_as_its_app_says() -> None:
    assert found(ALERT, None) == ALERT
    assert found(BLOCK, OFF) == OFF
    assert found(OFF, BLOCK) == BLOCK


def test_of_equal_allows_the_strictest_wins() -> None:
    assert found(BLOCK, OFF, None) == BLOCK
    assert found(BLOCK, OFF, ALERT) == ALERT
    assert found(OFF, ALERT, OFF) == ALERT


def test_what_no_rule_decides_is_watched_as_the_app_says() -> None:
    assert found(ALERT) == ALERT


def test_a_name_that_is_allowed_as_it_is_is_known_to_be() -> None:
    rule = allow("a.example.com", "*.example.org")
    me = index(rule).apps["me"]
    assert watched(me, parse("a.example.com"), [rule]) == (Watch(BLOCK, is_named=True),)
    assert watched(me, parse("a.example.org"), [rule]) == (Watch(BLOCK, is_named=False),)
