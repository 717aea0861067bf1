"""Agents in bounds: who is silent makes room, and only who is."""

from collections.abc import Callable

from proxy.agents.table import Known, Table
from proxy.limits import Limits

type MayGo = Callable[[Known], bool]


class Stand:
    """A table, the bounds it met, and who may go."""

    def __init__(self, **limits: int) -> None:
        self.met: list[str] = []
        self.silent: set[str] = set()
        self.asked = 0
        self.table = Table(Limits(**limits), self.met.append)

    def may_go(self, known: Known) -> bool:
        self.asked += 1
        return known.name in self.silent

    def add(self, app: str, name: str, word: float = 0.0) -> bool:
        return self.table.add(Known(app, name, "", "", None, word), self.may_go, word)

    @property
    def names(self) -> list[str]:
        return [each.name for each in self.table.all()]


def test_who_was_not_heard_of_for_longest_stands_first() -> None:
    stand = Stand()
    for name in "abc":
        assert stand.add("app", name)
    first = stand.table.get(("app", "a"))
    assert first is not None
    stand.table.touch(first, 9.0)
    assert (stand.names, first.word, len(stand.table)) == (["b", "c", "a"], 9.0, 3)
    assert stand.met == []


def test_an_app_has_its_share_and_its_own_make_room() -> None:
    stand = Stand(agents=10, agents_per_app=2)
    for app, name in (("other", "o"), ("app", "a"), ("app", "b")):
        assert stand.add(app, name)
    stand.silent = {"o", "b"}
    assert stand.add("app", "c")
    assert (stand.names, stand.met) == (["o", "a", "c"], ["agents_per_app"])
    assert not stand.add("app", "d")
    assert stand.add("other", "p")
    assert stand.met == ["agents_per_app", "agents_per_app"]


def test_when_it_is_full_the_longest_silent_of_all_makes_room() -> None:
    stand = Stand(agents=3, agents_per_app=3)
    for app, name in (("x", "a"), ("y", "b"), ("y", "c")):
        assert stand.add(app, name)
    stand.silent = {"b", "c"}
    assert stand.add("z", "d")
    assert (stand.names, stand.met) == (["a", "c", "d"], ["agents"])


def test_where_nobody_may_go_nobody_is_looked_at_again_for_a_second() -> None:
    """So whoever keeps coming costs no look at everybody."""
    stand = Stand(agents=2)
    assert stand.add("app", "a")
    assert stand.add("app", "b")
    assert not stand.add("app", "c", 10.0)
    assert stand.asked == 2
    stand.silent = {"a"}
    assert not stand.add("app", "c", 10.9)
    assert stand.asked == 2
    assert stand.add("app", "c", 11.0)
    assert stand.names == ["b", "c"]
    assert stand.met == ["agents"] * 3


def test_who_had_no_word_for_long_is_forgotten_and_makes_room_at_once() -> None:
    stand = Stand(agents=2, agents_per_app=2)
    assert stand.add("app", "a", 1.0)
    assert stand.add("app", "b", 2.0)
    assert not stand.add("app", "c", 10.0)
    stand.table.forget(2.0)
    assert stand.names == ["b"]
    assert stand.add("app", "c", 10.1)
    assert stand.table.get(("app", "a")) is None


def test_a_search_for_room_looks_at_those_in_front_only() -> None:
    stand = Stand(agents=300, agents_per_app=300)
    for number in range(300):
        assert stand.add("app", str(number))
    stand.silent = {"299"}
    assert not stand.add("app", "new")
    assert stand.asked == 256
    stand.silent = {"255"}
    assert stand.add("app", "new", 2.0)


def test_a_clock_that_is_set_back_ends_no_search_for_ever() -> None:
    stand = Stand(agents=1)
    assert stand.add("app", "a")
    assert not stand.add("app", "b", 1000.0)
    stand.silent = {"a"}
    assert stand.add("app", "b", 1.0)
