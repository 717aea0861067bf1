"""Lists written as short texts, for the tests of their formats and of the table."""

from textwrap import dedent

from msgspec.structs import replace

from rules.denylist import DenyTable
from rules.lists.compile import Compiled, compile_lists
from rules.lists.layout import Deed, Scope
from rules.lists.trigger import Reader, Tally
from rules.ruleset import ListSource

type Read = tuple[int, str, Scope, Deed]


class Outcome:
    """What a reader made of a text: triggers, and what was skipped of it."""

    def __init__(self, reader: Reader, text: str) -> None:
        self.tally = Tally("lists/bad.txt")
        lines = dedent(text).splitlines(keepends=True)
        self.triggers = list(reader(enumerate(lines, 1), self.tally))

    @property
    def read(self) -> list[Read]:
        """Line, key, scope and deed of each trigger."""
        return [(each.line, each.key.decode(), each.scope, each.deed) for each in self.triggers]

    @property
    def skipped(self) -> dict[str, int]:
        """How much was skipped, by why."""
        return {why.name: count for why, count in self.tally.skipped.items()}

    @property
    def warnings(self) -> list[str]:
        """The problems as `file:line:column message`."""
        return [f"{problem.place} {problem.message}" for problem in self.tally.problems]


def source(file: str = "bad.txt", **settings: object) -> ListSource:
    """Return an entry of `lists`."""
    return replace(ListSource("rules.yaml:9", f"/etc/{file}", file), **settings)


def compiled(*lists: tuple[ListSource, str]) -> Compiled:
    """Return the table of these lists, from their texts."""
    return compile_lists([(each, dedent(text).splitlines(keepends=True)) for each, text in lists])


def table(*lists: tuple[ListSource, str]) -> DenyTable:
    """Return these lists in force."""
    octets = memoryview(b"".join(compiled(*lists).pieces))
    return DenyTable(octets, tuple(each for each, _ in lists))
