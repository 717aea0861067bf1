"""An index that nobody uses any more is freed in pieces."""

import sys

from rules.crumble import crumble
from rules.match import index_app
from tests.rules.written import allow, app, deny

MANY = [f"h{number}.example{number % 7}.org" for number in range(5000)]


def test_an_index_that_nobody_uses_is_freed_in_steps() -> None:
    rules = [allow(*MANY, id="list"), *(allow(f"{name}.net", id=name) for name in MANY)]
    index = index_app(app(*rules, deny("b.org")))
    before = sys.getrefcount(rules[-1])
    assert len(list(crumble(index))) > 64
    assert index.allows.levels(MANY[0]) == ()
    is_let_go = sys.getrefcount(rules[-1]) < before
    assert is_let_go
    assert len(rules[0].patterns) == len(MANY)  # what others hold stays whole


def test_an_index_of_nothing_is_freed_too() -> None:
    assert len(list(crumble(index_app(app())))) == 7
