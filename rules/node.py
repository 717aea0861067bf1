"""What a YAML file is made of, with places, and the report of what is wrong in it.

The nodes are YAML's own three kinds (YAML 1.2.2, section 3.2.1.1).  `rules.shape` prunes what it
could not read, so that a node and the value made of it always have the same items.
"""

import re
from collections.abc import Iterator

from msgspec import Struct

from rules.errors import Place, Problem, RuleError, Severity

PROBLEMS = 1000  # errors and as many warnings kept of one file; clang's -ferror-limit is 19
EXCERPT_CHARACTERS = 240  # a longer source line is not shown
QUOTED_CHARACTERS = 64  # of a value that a message repeats

# libyaml counts these as line breaks (YAML 1.1, section 4.1.4).
BREAK = re.compile("\r\n|[\r\n\x85\u2028\u2029]")

# The core schema (YAML 1.2.2, section 10.3.2): plain scalars that are not text.
_NULL = re.compile(r"null|Null|NULL|~|")
_FLAG = re.compile(r"true|True|TRUE|false|False|FALSE")
_NUMBER = re.compile(
    r"[-+]?(?:\d+|\.\d+|\d+\.\d*)(?:[eE][-+]?\d+)?|0o[0-7]+|0x[0-9a-fA-F]+"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
    re.ASCII,
)
_NOT_TEXT = re.compile(f"{_NULL.pattern}|{_FLAG.pattern}|{_NUMBER.pattern}", re.ASCII)


class ScalarNode(Struct, gc=False):
    """A scalar; `plain` ones (without quotes) may be something else than text."""

    line: int
    column: int
    text: str
    plain: bool

    @property
    def is_null(self) -> bool:
        """Whether nothing is written there."""
        return self.plain and _NULL.fullmatch(self.text) is not None

    @property
    def is_flag(self) -> bool:
        """Whether it is true or false."""
        return self.plain and _FLAG.fullmatch(self.text) is not None

    @property
    def is_text(self) -> bool:
        """Whether it is text: quoted, or nothing else by the core schema."""
        return not (self.plain and _NOT_TEXT.fullmatch(self.text))


class SequenceNode(Struct):
    """A list, in block or flow style."""

    line: int
    column: int
    items: "list[Node]"


class MappingNode(Struct):
    """A mapping; `flawed` says that something in it could not be read, so it is not the whole."""

    line: int
    column: int
    entries: "dict[str, tuple[ScalarNode, Node]]"
    flawed: bool = False

    def key(self, name: str) -> ScalarNode:
        """Return the key `name`, which must be there."""
        return self.entries[name][0]

    def value(self, name: str) -> "Node":
        """Return the value of `name`, which must be there."""
        return self.entries[name][1]


type Node = ScalarNode | SequenceNode | MappingNode


def describe(node: Node) -> str:
    """Return what stands at `node`, as a message says it."""
    if isinstance(node, SequenceNode):
        return "a list" if node.items else "an empty list"
    if isinstance(node, MappingNode):
        return "a mapping" if node.entries else "an empty mapping"
    if node.is_text:
        return f"text {quote(node.text)}"
    if node.is_null:
        return "nothing"
    return f"the {'truth value' if node.is_flag else 'number'} {node.text[:QUOTED_CHARACTERS]}"


def quote(text: str) -> str:
    """Return `text` for a message: control characters escaped, bounded in length."""
    cut = text[:QUOTED_CHARACTERS]
    return repr(cut) if cut == text else f"{cut!r}..."


def one_or_more(node: Node) -> list[Node]:
    """Return the items of a list; a value that stands alone is its own only item."""
    return node.items if isinstance(node, SequenceNode) else [node]


def at(node: Node, *keys: str) -> Node:
    """Return the node that `keys` lead to from `node`, through mappings that have them."""
    for key in keys:
        if isinstance(node, MappingNode):
            node = node.value(key)
    return node


def without_mark(text: str) -> str:
    """Return `text` without the byte order mark that some editors put first."""
    return text.removeprefix("\ufeff")


class Needed(Struct, frozen=True):
    """A file that a rule names, and where: whoever may read files can tell whether it is there."""

    path: str
    place: Place
    excerpt: str


class MistakeError(RuleError):
    """One word of a file is wrong; whoever knows its node reports it there, with the cure."""

    def __init__(self, message: str, cure: str) -> None:
        super().__init__(message)
        self.cure = cure


class Report:
    """Gathers the problems of one file; `errors` and `warnings` count all of them."""

    def __init__(self, file: str, text: str) -> None:
        self.file = file
        self._text = without_mark(text)
        self._lines: list[str] | None = None
        self._kept: dict[Severity, list[Problem]] = {severity: [] for severity in Severity}
        self.errors = 0
        self.warnings = 0
        self.needed: list[Needed] = []

    @property
    def is_full(self) -> bool:
        """Whether further errors are only counted."""
        return self.errors >= PROBLEMS

    def place(self, node: Node) -> Place:
        """Return where `node` begins."""
        return Place(self.file, node.line, node.column)

    def line_id(self, node: Node) -> str:
        """Return `file:line` of `node`, which names a rule that has no name."""
        return f"{self.file}:{node.line}"

    def error(self, node: Node, message: str, cure: str) -> None:
        """Add an error at `node`."""
        self.error_at(node.line, node.column, message, cure)

    def warn(self, node: Node, message: str, cure: str) -> None:
        """Add a warning at `node`."""
        self.warnings += 1
        self._keep(node.line, node.column, message, cure, Severity.WARNING)

    def need(self, node: Node, path: str) -> None:
        """Add a file that is named at `node`."""
        if len(self.needed) < PROBLEMS:
            self.needed.append(Needed(path, self.place(node), self._excerpt(node.line)))

    def error_at(self, line: int, column: int, message: str, cure: str) -> None:
        """Add an error at a place that has no node."""
        self.errors += 1
        self._keep(line, column, message, cure, Severity.ERROR)

    def problems(self, severity: Severity) -> Iterator[Problem]:
        """Yield what was gathered, in the order of the file; the last one counts the omitted."""
        kept = self._kept[severity]
        yield from sorted(kept, key=lambda problem: problem.place)
        omitted = (self.errors if severity is Severity.ERROR else self.warnings) - len(kept)
        if omitted:
            message = f"{omitted} more problems of this file are not shown"
            yield Problem(Place(self.file, 1, 1), message, "mend the others first", "", severity)

    def _keep(self, line: int, column: int, message: str, cure: str, severity: Severity) -> None:
        kept = self._kept[severity]
        if len(kept) < PROBLEMS:
            place = Place(self.file, line, column)
            kept.append(Problem(place, message, cure, self._excerpt(line), severity))

    def _excerpt(self, number: int) -> str:
        if self._lines is None:
            self._lines = BREAK.split(self._text)
        line = self._lines[number - 1] if number <= len(self._lines) else ""
        if len(line) > EXCERPT_CHARACTERS:
            return ""
        # One column per character: tabs, controls and bidirectional marks would move the caret.
        return "".join(char if char.isprintable() else " " for char in line)
