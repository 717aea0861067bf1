"""YAML with places: text -> nodes -> msgspec Structs, with every problem of the file.

libyaml's events are composed here instead of by PyYAML, because a node must know its line and
column, and because what makes YAML dangerous or ambiguous is refused: aliases and anchors
("billion laughs"), tags, duplicate keys, several documents, deep nesting, oversized files.
"""

from typing import Any

import yaml
from msgspec import Struct
from yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
)
from yaml.reader import ReaderError

from rules.errors import Problem, Severity
from rules.node import (
    BREAK,
    MappingNode,
    Node,
    Report,
    ScalarNode,
    SequenceNode,
    quote,
    without_mark,
)
from rules.shape import FAILED, Shape, shape_of

FILE_OCTETS = 33554432  # 32 MiB: a million names; Unbound reads such lists whole, too
NESTING = 32  # levels of lists and mappings; a rule file has seven

_CURES = (
    ("mapping values are not allowed", "quote text that holds `: `, or mend the indentation"),
    ("cannot start any token", "indent with spaces; quote text that begins with a tab, @ or `"),
    ("could not find expected ':'", "write `key: value`"),
    ("',' or ']'", "put a comma between items and close the list with ]"),
    ("',' or '}'", "put a comma between keys and close the mapping with }"),
    ("expected node content", "write the value, or close the bracket"),
    ("unexpected end of stream", "close the quotes"),
    ("did not find expected", "begin the line in the same column as the others of its block"),
)


class SourceText(Struct, frozen=True):
    """A file that was read: its name as messages and rule ids say it, and its text."""

    file: str
    text: str


class _StopError(Exception):
    """Nothing after this point of the file can be read; the report says why."""


def compose(source: SourceText, report: Report) -> Node | None:
    """Return the node tree of `source`; None for a file without content or that is no YAML.

    What is refused is in the report; only what cannot be read past ends the file there.
    """
    octets = _octets(source.text, report)
    if octets is None:
        return None
    loader = yaml.CSafeLoader(octets)
    try:
        return _Composer(report).compose(loader)
    except _StopError:
        return None
    except ReaderError as error:
        _report_unreadable(octets[: error.position].decode(errors="ignore"), report)
    except yaml.MarkedYAMLError as error:
        _report_syntax(error, len(octets.decode()), report)
    finally:
        loader.dispose()
    return None


def decode[T](source: SourceText, into: type[T]) -> tuple[T | None, list[Problem]]:
    """Return the msgspec Struct `into` that `source` spells, and every problem found.

    The value is None where a problem is an error.  A file without content is a Struct of
    defaults.
    """
    report = Report(source.file, source.text)
    found = read_file(source, into, report)
    problems = list(report.problems(Severity.ERROR))
    return None if problems or found is None else found[0], problems


def read_file[T](source: SourceText, into: type[T], report: Report) -> tuple[T, Node] | None:
    """Return what `source` spells, without the parts that are reported, and its root node.

    None where nothing is left: no YAML, or a key missing without which `into` cannot be.
    """
    root = compose(source, report)
    if root is None and report.errors:
        return None
    value = read(root, into, report)
    return None if value is None else (value, root or MappingNode(1, 1, {}))


def read[T](root: Node | None, into: type[T], report: Report) -> T | None:
    """Return what `root` spells, without the parts that are reported; None if nothing is left."""
    is_empty = root is None or (isinstance(root, ScalarNode) and root.is_null)
    content = MappingNode(1, 1, {}) if root is None or is_empty else root
    shape: Shape = shape_of(into)  # type: ignore[arg-type]  # mypy: type[T] is "not Hashable"
    value = shape.read(content, "the file", report)
    return None if value is FAILED else value


class _Composer:
    """Builds nodes from the events of one stream, without recursion."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._children: list[Node | None] = []  # of the collection that is open; None: an alias
        self._open: list[tuple[Any, list[Node | None]]] = []
        self._documents = 0

    def compose(self, loader: yaml.CSafeLoader) -> Node | None:
        next_event = loader.get_event
        while True:
            event: Any = next_event()
            if type(event) is ScalarEvent:
                mark: Any = event.start_mark
                # Nine of ten events are this one: no call, no property.
                self._children.append(
                    ScalarNode(mark.line + 1, mark.column + 1, event.value, event.implicit[0])
                )
                if event.tag is not None or event.anchor is not None:
                    self._refuse_properties(event)
            elif type(event) is StreamEndEvent:
                return self._children[0] if self._children else None
            else:
                self._structure(event)

    def _structure(self, event: Any) -> None:
        kind = type(event)
        if kind is MappingStartEvent or kind is SequenceStartEvent:
            self._begin(event)
        elif kind is MappingEndEvent or kind is SequenceEndEvent:
            self._end(mapping=kind is MappingEndEvent)
        elif kind is AliasEvent:
            self._error(event, f"the alias `*{event.anchor}`", "write the value out")
            self._children.append(None)
        elif kind is DocumentStartEvent:
            self._documents += 1
            if self._documents > 1:
                self._error(event, "a second document", "put it into a file of its own")

    def _begin(self, event: Any) -> None:
        if event.tag is not None or event.anchor is not None:
            self._refuse_properties(event)
        self._open.append((event.start_mark, self._children))
        self._children = []
        if len(self._open) > NESTING:
            self._error(event, f"nested deeper than {NESTING} levels", "unfold the inner levels")
            raise _StopError

    def _end(self, *, mapping: bool) -> None:
        inner = self._children
        mark, self._children = self._open.pop()
        line, column = mark.line + 1, mark.column + 1
        self._children.append(
            self._mapping(line, column, inner)
            if mapping
            else SequenceNode(line, column, [node for node in inner if node is not None])
        )

    def _mapping(self, line: int, column: int, inner: list[Node | None]) -> MappingNode:
        node = MappingNode(line, column, {})
        for key, value in zip(inner[::2], inner[1::2], strict=True):
            if not isinstance(key, ScalarNode) or value is None:
                node.flawed = True
                if isinstance(key, SequenceNode | MappingNode):
                    self._report.error(key, "a key that is no text", "write one word as the key")
            elif key.text in node.entries:
                first = self._report.place(node.key(key.text))
                message = f"{quote(key.text)} stands twice, first at {first}"
                self._report.error(key, message, "take one of them out, or merge them")
            else:
                node.entries[key.text] = (key, value)
        return node

    def _refuse_properties(self, event: Any) -> None:
        if event.tag is not None:
            self._error(event, f"the tag {quote(event.tag)}", "take it out")
        if event.anchor is not None:
            self._error(event, f"the anchor `&{event.anchor}`", "take it out")

    def _error(self, event: Any, what: str, cure: str) -> None:
        mark = event.start_mark
        message = f"{what}: not part of this format"
        self._report.error_at(mark.line + 1, mark.column + 1, message, cure)


def _octets(text: str, report: Report) -> bytes | None:
    # A file of more characters has more octets, too: refused before it is copied.
    try:
        octets = without_mark(text)[: FILE_OCTETS + 1].encode()
    except UnicodeEncodeError as error:
        _report_unreadable(error.object[: error.start], report)
        return None
    if len(octets) > FILE_OCTETS:
        report.error_at(1, 1, f"more than {FILE_OCTETS} octets", "split the file")
        return None
    return octets


def _report_unreadable(before: str, report: Report) -> None:
    lines = BREAK.split(before)
    message = "a character that YAML does not allow"  # YAML 1.2.2, section 5.1
    report.error_at(len(lines), len(lines[-1]) + 1, message, "take the character out")


def _report_syntax(error: Any, characters: int, report: Report) -> None:
    # libyaml's errors always have a problem and its mark; a context only within a collection.
    mark, context, begun = error.problem_mark, error.context, error.context_mark
    if begun is not None and mark.index >= characters:
        mark = begun  # at the end of the file nothing is wrong: what was left open is
    problem, line, column = str(error.problem), mark.line + 1, mark.column + 1
    message = f"{context}: {problem}" if context else problem
    if begun is not None and begun.line + 1 != line:
        message += f" (begun in line {begun.line + 1})"
    cures = (cure for start, cure in _CURES if start in problem)
    report.error_at(line, column, message, next(cures, "quote text that holds special characters"))
