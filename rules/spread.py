"""One app from all the files that speak of it: lists add up, and what contradicts is reported."""

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import cast

from msgspec import UNSET, Struct
from msgspec.structs import replace

from rules import document
from rules.address import Network
from rules.attestable import Demand, warn_unmeetable
from rules.decision import Refuse
from rules.detect import AS_SHIPPED, read_detect
from rules.entitled import Entitled, read_capability, read_introspected, refuse_same
from rules.entry import EntryReader, pairs
from rules.errors import Place
from rules.freshness import ages_of
from rules.identity import Claim, read_line
from rules.node import MappingNode, Node, Report, at, quote
from rules.pattern import HostPattern
from rules.reference import merge, read_reference
from rules.required import total
from rules.restriction import require_of
from rules.rtype import AAAA, A
from rules.ruleset import App, DenyRule, ReferenceValues
from rules.upgrade import Allowed, name_svids, refuse_unequal_certificates
from rules.watch import Detect

_SCALARS = ("refuse", "detect")
_ADDRESS_TYPES = frozenset({A, AAAA})

type Stated = tuple[document.RuleFile, Node, Report]
"""A file as it was read, its root, and its report."""

type _Stance = tuple[frozenset[Network], frozenset[int]]
type _Stances = dict[_Stance, str]


class Part(Struct, frozen=True):
    """What one file says of an app."""

    entry: document.App
    node: MappingNode
    report: Report


def gather(files: Iterable[Stated]) -> dict[str, list[Part]]:
    """Return the parts of each app, in the order of the files."""
    parts: dict[str, list[Part]] = {}
    for content, root, report in files:
        for name, entry in ({} if content.apps is UNSET else content.apps).items():
            node = cast("MappingNode", at(root, "apps", name))  # nothing else is read into a Struct
            parts.setdefault(name, []).append(Part(entry, node, report))
    return parts


def unite(name: str, parts: list[Part], reader: EntryReader) -> tuple[App, list[Claim]]:
    """Return the app that `parts` spell, and its identity lines with their places."""
    _refuse_second(name, parts)
    places: dict[str, Place] = {}
    for part in parts:
        _refuse_same_names(name, part, places)
    claims = [claim for part in parts for claim in _claims(name, part)]
    detect = _detect(parts)
    read = (allow for part in parts for allow in _allows(part, reader, detect))
    allows = list(name_svids(read, claims))
    _refuse_unequal(allows)
    refuse_unequal_certificates(allows)
    entitled = [each for part in parts for each in _capabilities(part)]
    refuse_same(entitled)
    required = [_required(part) for part in parts]
    app = App(
        name=name,
        identity=tuple(claim[0] for claim in claims),
        require=total(require for require, _, _ in required),
        refuse=next((part.entry.refuse for part in parts if part.entry.refuse), Refuse.NXDOMAIN),
        allows=tuple(rule for rule, _, _ in allows),
        denies=tuple(rule for part in parts for rule in _denies(part, reader)),
        detect=detect,
        reference_values=merge(_references(parts)),
        capabilities=tuple(capability for capability, _, _ in entitled),
        introspects=frozenset().union(*map(_introspected, parts)),
    )
    ages_s = ages_of(app)
    if ages_s:  # where none is named no attestation is required
        by_rules = ((rule.require, node, report) for rule, node, report in allows)
        by_tokens = ((token.require, node, report) for token, node, report in entitled)
        warn_unmeetable(app, chain(required, by_rules, by_tokens))
    return replace(app, max_ages_s=ages_s), claims


def _claims(name: str, part: Part) -> Iterator[Claim]:
    entries = part.entry.identity
    if entries is not UNSET:
        for entry, node in pairs(entries, part.node.value("identity")):
            line = read_line(entry, node, part.report)
            if line is not None:
                yield line, name, node, part.report


def _detect(parts: Iterable[Part]) -> Detect:
    read = [read_detect(part.entry.detect, part.node, part.report) for part in parts]
    return next(filter(None, read), AS_SHIPPED)


def _allows(part: Part, reader: EntryReader, detect: Detect) -> Iterator[Allowed]:
    if part.entry.allow is not UNSET:
        for entry, node in pairs(part.entry.allow, part.node.value("allow")):
            for rule in reader.allow(entry, node, part.report, detect):
                yield rule, node, part.report


def _denies(part: Part, reader: EntryReader) -> Iterator[DenyRule]:
    if part.entry.deny is not UNSET:
        for entry, node in pairs(part.entry.deny, part.node.value("deny")):
            rule = reader.deny(entry, node, part.report)
            if rule is not None:
                yield rule


def _required(part: Part) -> Demand:
    return require_of(part.entry.require, part.node, part.report), part.node, part.report


def _capabilities(part: Part) -> Iterator[Entitled]:
    if part.entry.capabilities is not UNSET:
        for entry, node in pairs(part.entry.capabilities, part.node.value("capabilities")):
            capability = read_capability(entry, node, part.report)
            if capability is not None:
                yield capability, node, part.report


def _introspected(part: Part) -> frozenset[str]:
    return read_introspected(part.entry, part.node, part.report)


def _references(parts: Iterable[Part]) -> Iterator[ReferenceValues]:
    for part in parts:
        if part.entry.reference_values is not UNSET:
            node = part.node.value("reference_values")
            yield read_reference(part.entry.reference_values, node, part.report)


def _refuse_second(name: str, parts: list[Part]) -> None:
    for key in _SCALARS:
        setting = [part for part in parts if key in part.node.entries]
        for part in setting[1:]:
            first = setting[0].report.place(setting[0].node.key(key))
            message = f"`{key}` of {name} is set twice, first at {first}"
            part.report.error(part.node.key(key), message, "keep one of the two")


def _refuse_same_names(name: str, part: Part, places: dict[str, Place]) -> None:
    allow, deny = part.entry.allow, part.entry.deny
    named: list[tuple[document.Allow | document.Deny, MappingNode]] = []
    if allow is not UNSET:
        named += pairs(allow, part.node.value("allow"))
    if deny is not UNSET:
        named += pairs(deny, part.node.value("deny"))
    for entry, node in named:
        if entry.name is not UNSET:
            place = part.report.place(node.value("name"))
            first = places.setdefault(entry.name, place)
            if first is not place:
                message = f"the name {quote(entry.name)} of {name} is taken, at {first}"
                part.report.error(node.value("name"), message, "give each rule its own name")


def _refuse_unequal(allows: list[Allowed]) -> None:
    """Report allows of one pattern and port that disagree on `addresses` (reference.md).

    An allow of neither A nor AAAA matches Questions only, so its addresses say nothing; an app's
    own allow outranks a pack's, so those two may differ.
    """
    if not any(rule.addresses for rule, _, _ in allows):
        return
    seen: dict[tuple[HostPattern, bool], _Stances] = {}
    for rule, node, report in allows:
        stance = frozenset(rule.addresses), rule.ports
        for pattern in rule.patterns if rule.types & _ADDRESS_TYPES else ():
            stances = seen.setdefault((pattern, rule.from_pack), {})
            if stance not in stances:
                other = _contradiction(stance, stances)
                if other is not None:
                    message = f"`{pattern}` has other `addresses` in {other}, on the same port"
                    report.error(node, message, "give both rules the same `addresses`")
                    break
                stances[stance] = rule.id


def _contradiction(stance: _Stance, stances: _Stances) -> str | None:
    addresses, ports = stance
    for (other_addresses, other_ports), rule_id in stances.items():
        if addresses != other_addresses and not ports.isdisjoint(other_ports):
            return rule_id
    return None
