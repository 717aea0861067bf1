"""`reference_values` of an app: what evidence is compared with, from all its files."""

from collections.abc import Iterable, Mapping, Sequence
from functools import reduce

from msgspec import UNSET, UnsetType

from rules import document
from rules.node import MappingNode, Node, Report, at
from rules.ruleset import Launched, ReferenceValues


def read_reference(entry: document.ReferenceValues, node: Node, report: Report) -> ReferenceValues:
    """Return the values of one file; what is wrong with them is reported."""
    empty = "`reference_values` names nothing"
    _refuse_empty(node, empty, "name `pcrs`, `tpms`, `keys` or `launched`", report)
    stated: Mapping[str, str | list[str]] = {}
    if entry.pcrs is not UNSET:
        stated = entry.pcrs
        pcrs = at(node, "pcrs")
        _refuse_empty(pcrs, "`pcrs` names nothing", 'write {7: "VALUE"}', report)
    return ReferenceValues(
        pcrs={
            int(number): frozenset([values] if isinstance(values, str) else values)
            for number, values in stated.items()
        },
        tpms=_digests(entry.tpms),
        keys=_digests(entry.keys),
        launched=_launched(entry.launched),
    )


def merge(values: Iterable[ReferenceValues]) -> ReferenceValues:
    """Return the values of an app: those of its files, added up."""
    return reduce(_add, values, ReferenceValues())


def _add(one: ReferenceValues, other: ReferenceValues) -> ReferenceValues:
    pcrs = dict(one.pcrs)
    for number, values in other.pcrs.items():
        pcrs[number] = pcrs.get(number, frozenset()) | values
    return ReferenceValues(
        pcrs=dict(sorted(pcrs.items())),
        tpms=_either(one.tpms, other.tpms),
        keys=_either(one.keys, other.keys),
        launched=tuple(dict.fromkeys(one.launched + other.launched)),
    )


def _either(one: frozenset[str] | None, other: frozenset[str] | None) -> frozenset[str] | None:
    if one is None or other is None:
        return one if other is None else other
    return one | other


def _digests(stated: Sequence[str] | UnsetType) -> frozenset[str] | None:
    return None if isinstance(stated, UnsetType) else frozenset(stated)


def _launched(stated: Sequence[document.Launch] | UnsetType) -> tuple[Launched, ...]:
    if isinstance(stated, UnsetType):
        return ()
    return tuple(Launched(one.file, one.script or None, one.interpreter or None) for one in stated)


def _refuse_empty(node: Node, message: str, cure: str, report: Report) -> None:
    # Nothing but a mapping is read into a Struct or a table.
    if isinstance(node, MappingNode) and not (node.entries or node.flawed):
        report.error(node, message, cure)
