"""How a node becomes a value of a msgspec type: one shape per type, made once.

A shape that cannot read a node says so in the report and answers FAILED.  What holds the node
goes on without it, so that every problem of a file is found in one pass: a failed item is taken
out of its list, a failed value leaves its field at the default and flaws the mapping.
"""

import difflib
import re
from collections.abc import Callable, Iterable
from enum import Enum
from functools import cache
from typing import Any, Protocol

from msgspec import Struct, inspect

from rules.node import (
    QUOTED_CHARACTERS,
    MappingNode,
    Node,
    Report,
    ScalarNode,
    SequenceNode,
    describe,
    quote,
)

_INTEGER = re.compile(r"-?(?:0|[1-9]\d{0,18})", re.ASCII)
_DECIMAL = re.compile(r"-?(?:0|[1-9]\d{0,18})(?:\.\d{1,18})?", re.ASCII)


class Failed(Enum):
    """The answer of a shape that reported a problem."""

    FAILED = 0


FAILED = Failed.FAILED


class Shape(Protocol):
    """Reads nodes of one type."""

    @property
    def wanted(self) -> str:
        """The type in words."""

    def fits(self, node: Node) -> bool:
        """Return whether `node` is of the kind that this shape reads."""

    def read(self, node: Node, what: str, report: Report) -> Any:
        """Return the value of `node`, or FAILED after a report; `what` names it in messages."""


class _Scalar(Struct, frozen=True):
    wanted: str
    parse: Callable[[ScalarNode], Any]

    def fits(self, node: Node) -> bool:
        return isinstance(node, ScalarNode) and self.parse(node) is not FAILED

    def read(self, node: Node, what: str, report: Report) -> Any:
        value = self.parse(node) if isinstance(node, ScalarNode) else FAILED
        if value is FAILED:
            _mismatch(node, what, self, report)
        return value


class _List(Struct, frozen=True):
    wanted: str
    item: Shape
    gather: Callable[[list[Any]], Any]
    may_be_empty: bool

    def fits(self, node: Node) -> bool:
        return isinstance(node, SequenceNode)

    def read(self, node: Node, what: str, report: Report) -> Any:
        if not isinstance(node, SequenceNode) or not (node.items or self.may_be_empty):
            return _mismatch(node, what, self, report)
        read, name = self.item.read, f"an item of {what}"
        values = [read(item, name, report) for item in node.items]
        if FAILED in values:
            kept = [index for index, value in enumerate(values) if value is not FAILED]
            node.items = [node.items[index] for index in kept]
            values = [values[index] for index in kept]
        return self.gather(values)


class _Table(Struct, frozen=True):
    """A mapping whose keys are the admin's own."""

    wanted: str
    key: Shape
    value: Shape

    def fits(self, node: Node) -> bool:
        return isinstance(node, MappingNode)

    def read(self, node: Node, what: str, report: Report) -> Any:
        if not isinstance(node, MappingNode):
            return _mismatch(node, what, self, report)
        values: dict[str, Any] = {}
        for name, (key, child) in node.entries.items():
            # A key is text however it looks: an app may be called `443`.
            text = ScalarNode(key.line, key.column, name, plain=False)
            known = self.key.read(text, f"a key of {what}", report)
            value = self.value.read(child, f"`{name[:QUOTED_CHARACTERS]}`", report)
            if known is FAILED or value is FAILED:
                node.flawed = True
            else:
                values[name] = value
        return values


class _Field(Struct, frozen=True):
    name: str
    what: str
    shape: Shape


class _Record(Struct, frozen=True):
    """A mapping with known keys: a msgspec Struct."""

    wanted: str
    make: Callable[..., Any]
    fields: dict[str, _Field]
    required: tuple[str, ...]

    def fits(self, node: Node) -> bool:
        return isinstance(node, MappingNode)

    def read(self, node: Node, what: str, report: Report) -> Any:
        if not isinstance(node, MappingNode):
            return _mismatch(node, what, self, report)
        before = report.errors
        values: dict[str, Any] = {}
        for name, (key, child) in node.entries.items():
            field = self.fields.get(name)
            value = FAILED if field is None else field.shape.read(child, field.what, report)
            if field is None:
                _unknown_key(key, what, self.fields, report)
            elif value is not FAILED:
                values[field.name] = value
        for name in self.required:
            if name not in node.entries:
                report.error(node, f"{what} lacks the key `{name}`", f"add `{name}: ...`")
        node.flawed = node.flawed or report.errors > before
        whole = all(self.fields[name].name in values for name in self.required)
        return self.make(**values) if whole else FAILED


class _Either(Struct, frozen=True):
    """One of several shapes; the first that fits the node reads it."""

    wanted: str
    shapes: tuple[Shape, ...]

    def fits(self, node: Node) -> bool:
        return any(shape.fits(node) for shape in self.shapes)

    def read(self, node: Node, what: str, report: Report) -> Any:
        for shape in self.shapes:
            if shape.fits(node):
                return shape.read(node, what, report)
        return _mismatch(node, what, self, report)


def suggest(word: str, known: Iterable[str], among: str = "") -> str:
    """Return the cure for a word that is not among `known`: the one that was probably meant.

    `among` says what is known where the names are too many to list.
    """
    names = sorted(known)
    near = difflib.get_close_matches(word[:QUOTED_CHARACTERS], names, n=1)
    listed = among or f"write one of: {', '.join(names) or '(there is none)'}"
    return f"did you mean `{near[0]}`? Else {listed}" if near else listed


@cache
def shape_of(into: Any) -> Shape:
    """Return the shape that reads `into`, a msgspec Struct.

    Raises:
        TypeError: a field has a type that no YAML node can be read into here.
    """
    return _shape(inspect.type_info(into))


def _shape(of: inspect.Type, words: str = "") -> Shape:
    if isinstance(of, inspect.Metadata):
        return _shape(of.type, (of.extra or {}).get("wanted", words))
    make = _MAKERS.get(type(of))
    if make is None:
        raise TypeError(f"no YAML node can be read into {of}")
    return make(of, words)


def _record(of: inspect.StructType, words: str) -> Shape:
    fields = {
        field.encode_name: _Field(field.name, f"`{field.encode_name}`", _shape(field.type))
        for field in of.fields
    }
    required = tuple(field.encode_name for field in of.fields if field.required)
    wanted = words or "a mapping with keys of " + ", ".join(sorted(fields))
    return _Record(wanted, of.cls, fields, required)


def _table(of: inspect.DictType, words: str) -> Shape:
    return _Table(words or "a mapping", _shape(of.key_type), _shape(of.value_type))


def _list(of: Any, words: str) -> Shape:
    gather = {inspect.ListType: list, inspect.VarTupleType: tuple, inspect.FrozenSetType: frozenset}
    empty = not of.min_length
    item = _shape(of.item_type)
    wanted = f"a list of {item.wanted}" + ("" if empty else ", not empty")
    return _List(words or wanted, item, gather[type(of)], empty)


def _either(of: inspect.UnionType, words: str) -> Shape:
    shapes = tuple(_shape(member) for member in of.types)
    return _Either(words or " or ".join(shape.wanted for shape in shapes), shapes)


def _text(of: inspect.StrType, words: str) -> Shape:
    if of.pattern is None:
        return _Scalar(words or "text", _parse_text)
    pattern = re.compile(of.pattern.removeprefix("^").removesuffix("$"), re.ASCII)

    def parse(node: ScalarNode) -> str | Failed:
        return node.text if node.is_text and pattern.fullmatch(node.text) else FAILED

    return _Scalar(words or f"text that matches {of.pattern}", parse)


def _integer(of: inspect.IntType, words: str) -> Shape:
    def parse(node: ScalarNode) -> int | Failed:
        if not node.plain or not _INTEGER.fullmatch(node.text):
            return FAILED
        return _within(int(node.text), of)

    return _Scalar(words or "a whole number" + _range(of), parse)


def _decimal(of: inspect.FloatType, words: str) -> Shape:
    def parse(node: ScalarNode) -> float | Failed:
        if not node.plain or not _DECIMAL.fullmatch(node.text):
            return FAILED
        return _within(float(node.text), of)

    return _Scalar(words or "a number" + _range(of), parse)


def _choice(of: inspect.EnumType | inspect.LiteralType, words: str) -> Shape:
    known: dict[Any, Any] = (
        {member.value: member for member in of.cls}
        if isinstance(of, inspect.EnumType)
        else {value: value for value in of.values}
    )

    def parse(node: ScalarNode) -> Any:
        return known.get(node.text, FAILED) if node.is_text else FAILED

    wanted = ("one of " if len(known) > 1 else "") + ", ".join(map(str, known))
    return _Scalar(words or wanted, parse)


def _flag(_of: inspect.BoolType, words: str) -> Shape:
    def parse(node: ScalarNode) -> bool | Failed:
        return node.text.lower() == "true" if node.is_flag else FAILED

    return _Scalar(words or "true or false", parse)


def _nothing(_of: inspect.NoneType, words: str) -> Shape:
    def parse(node: ScalarNode) -> Failed | None:
        return None if node.is_null else FAILED

    return _Scalar(words or "null", parse)


_MAKERS: dict[type, Callable[[Any, str], Shape]] = {
    inspect.StructType: _record,
    inspect.DictType: _table,
    inspect.ListType: _list,
    inspect.VarTupleType: _list,
    inspect.FrozenSetType: _list,
    inspect.UnionType: _either,
    inspect.StrType: _text,
    inspect.IntType: _integer,
    inspect.FloatType: _decimal,
    inspect.EnumType: _choice,
    inspect.LiteralType: _choice,
    inspect.BoolType: _flag,
    inspect.NoneType: _nothing,
}


def _parse_text(node: ScalarNode) -> str | Failed:
    return node.text if node.is_text else FAILED


def _within[Number: (int, float)](
    value: Number, of: inspect.IntType | inspect.FloatType
) -> Number | Failed:
    low = of.ge is None or value >= of.ge
    high = of.le is None or value <= of.le
    return value if low and high else FAILED


def _range(of: inspect.IntType | inspect.FloatType) -> str:
    low = "" if of.ge is None else f" from {of.ge}"
    return low if of.le is None else f"{low} to {of.le}"


def _mismatch(node: Node, what: str, shape: Shape, report: Report) -> Failed:
    report.error(node, f"{what} wants {shape.wanted}, found {describe(node)}", _cure(node, shape))
    return FAILED


def _cure(node: Node, shape: Shape) -> str:
    if isinstance(node, SequenceNode) and not node.items:
        return f"write {shape.wanted}, or take the key out"
    if isinstance(node, ScalarNode):
        if node.is_null:
            return f"write {shape.wanted}, or take the key out"
        if shape.wanted.startswith("text") and not node.is_text:
            return f'put it in quotes: "{node.text[:QUOTED_CHARACTERS]}"'
        if shape.wanted.startswith("a list"):
            return f"write [{node.text[:QUOTED_CHARACTERS]}]"
    return f"write {shape.wanted}"


def _unknown_key(key: ScalarNode, what: str, fields: Iterable[str], report: Report) -> None:
    cure = "" if report.is_full else suggest(key.text, fields)  # a full report keeps no cure
    report.error(key, f"{quote(key.text)} is no key of {what}", cure)
