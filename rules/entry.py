"""One entry of `allow` or `deny` -> rules, with all that is wrong in it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import cast

from msgspec import UNSET, UnsetType, structs

from rules import document
from rules.detect import AS_SHIPPED, read_detect
from rules.hosts import HostReader
from rules.node import MappingNode, Node, Report, at, one_or_more, quote
from rules.path import parse_glob
from rules.pattern import HostPattern
from rules.required import union
from rules.restriction import (
    DEFAULT_PORTS,
    DEFAULT_TYPES,
    reaches_loopback,
    read_each,
    read_method,
    read_network,
    read_type,
    require_of,
)
from rules.ruleset import AllowRule, DenyRule
from rules.shape import suggest
from rules.text import SourceText, read_file
from rules.upgrade import read_upgrade
from rules.watch import Detect

_PLAIN_HTTP = frozenset({80})
_BESIDE_PACK = frozenset({"pack", "name", "require"})


class EntryReader:
    """Reads entries against one public suffix list and one set of packs."""

    def __init__(self, hosts: HostReader, packs: Mapping[str, SourceText]) -> None:
        self._hosts = hosts
        self._sources = packs
        self._packs: dict[str, tuple[AllowRule, ...]] = {}
        self.reports: list[Report] = []  # of the packs that were read

    def allow(
        self,
        entry: document.Allow,
        node: MappingNode,
        report: Report,
        above: Detect = AS_SHIPPED,
    ) -> tuple[AllowRule, ...]:
        """Return the rules of an entry: one, a pack's, or none where something is wrong.

        `above` is how the app is watched, for what the entry's `detect` leaves out.
        """
        before = report.errors
        rules: tuple[AllowRule, ...]
        if entry.pack is UNSET:
            rules = (self._allow(entry, node, report, above),)
        else:
            rules = self._from_pack(entry, entry.pack, node, report)
        return () if node.flawed or report.errors > before else rules

    def deny(self, entry: document.Deny, node: MappingNode, report: Report) -> DenyRule | None:
        """Return the rule of an entry; None where something is wrong."""
        before = report.errors
        if not (node.entries or node.flawed):
            report.error(node, "an empty deny", 'write {host: "*"} to deny everything')
        rule = DenyRule(
            id=_rule_id(entry, node, report),
            patterns=self._denied(entry, node, report),
            ports=None if entry.ports is UNSET else frozenset(entry.ports),
            types=_frozen(_each(entry.types, "types", read_type, node, report)),
            addresses=_fixed(_each(entry.addresses, "addresses", read_network, node, report)),
            methods=_frozen(_each(entry.methods, "methods", read_method, node, report)),
            paths=_fixed(_each(entry.paths, "paths", parse_glob, node, report)),
            text="" if entry.reason is UNSET else entry.reason,
        )
        _warn_unreadable(rule, node, report)
        _warn_idle(node, report)
        return None if node.flawed or report.errors > before else rule

    def _allow(
        self, entry: document.Allow, node: MappingNode, report: Report, above: Detect
    ) -> AllowRule:
        ports = DEFAULT_PORTS if entry.ports is UNSET else frozenset(entry.ports)
        rule = AllowRule(
            id=_rule_id(entry, node, report),
            patterns=self._allowed(entry, node, report),
            ports=ports,
            types=_frozen(_each(entry.types, "types", read_type, node, report)) or DEFAULT_TYPES,
            tls=entry.tls is not False,
            accept_ech=entry.ech == "accept",
            addresses=_fixed(_each(entry.addresses, "addresses", read_network, node, report)) or (),
            methods=_frozen(_each(entry.methods, "methods", read_method, node, report)),
            paths=_fixed(_each(entry.paths, "paths", parse_glob, node, report)),
            require=require_of(entry.require, node, report),
            upgrade=read_upgrade(entry, ports, node, report),
            detect=read_detect(entry.detect, node, report, above),
        )
        if "host" not in node.entries or rule.addresses:
            _check_reach(rule, node, report)
        _warn_unreadable(rule, node, report)
        return rule

    def _allowed(
        self, entry: document.Allow, node: MappingNode, report: Report
    ) -> tuple[HostPattern, ...]:
        if entry.host is UNSET:
            return ()
        texts = [entry.host] if isinstance(entry.host, str) else entry.host
        tenants = entry.multi_tenant is not UNSET
        return self._hosts.allowed(texts, node.value("host"), report, tenants=tenants)

    def _denied(
        self, entry: document.Deny, node: MappingNode, report: Report
    ) -> tuple[HostPattern, ...] | None:
        if entry.host is UNSET:
            return None
        texts = [entry.host] if isinstance(entry.host, str) else entry.host
        return self._hosts.denied(texts, node.value("host"), report)

    def _from_pack(
        self, entry: document.Allow, pack: str, node: MappingNode, report: Report
    ) -> tuple[AllowRule, ...]:
        for key in node.entries.keys() - _BESIDE_PACK:
            message = f"`{key}` stands beside `pack`"
            report.error(node.key(key), message, "keep pack, name and require; or list the hosts")
        if pack not in self._sources:
            cure = suggest(pack, self._sources)
            report.error(node.value("pack"), f"{quote(pack)} is no pack of this version", cure)
            return ()
        prefix, require = _rule_id(entry, node, report), require_of(entry.require, node, report)
        return tuple(
            structs.replace(
                rule,
                id=f"{prefix}/{rule.id}",
                require=union(rule.require, require),
                from_pack=True,
            )
            for rule in self._pack(pack)
        )

    def _pack(self, pack: str) -> tuple[AllowRule, ...]:
        if pack not in self._packs:
            source = self._sources[pack]
            report = Report(source.file, source.text)
            self.reports.append(report)
            self._packs[pack] = tuple(self._pack_rules(source, report))
        return self._packs[pack]

    def _pack_rules(self, source: SourceText, report: Report) -> Iterator[AllowRule]:
        found = read_file(source, document.PackFile, report)
        if found is None:
            return
        content, root = found
        for entry, node in pairs(content.allow, at(root, "allow")):
            if entry.name is UNSET or entry.pack is not UNSET:
                report.error(node, "an entry of a pack has a name and is no pack", "mend the pack")
            elif entry.https_upgrade is not UNSET:  # it holds for hosts, not for their makers
                report.error(node, "an entry of a pack has no https_upgrade", "mend the pack")
            elif entry.detect is not UNSET:  # how an app is watched is its admin's to say
                report.error(node, "an entry of a pack has no detect", "mend the pack")
            else:
                yield self._allow(entry, node, report, AS_SHIPPED)


def pairs[T](entries: Sequence[T], node: Node) -> Iterator[tuple[T, MappingNode]]:
    """Yield each mapping of a list with what was read from it."""
    for entry, item in zip(entries, one_or_more(node), strict=True):
        yield entry, cast("MappingNode", item)  # nothing else is read into a Struct


def _rule_id(entry: document.Allow | document.Deny, node: MappingNode, report: Report) -> str:
    return report.line_id(node) if entry.name is UNSET else entry.name


def _each[T](
    texts: list[str] | UnsetType,
    key: str,
    parse: Callable[[str], T],
    node: MappingNode,
    report: Report,
) -> list[T] | None:
    return None if texts is UNSET else read_each(texts, node.value(key), parse, report)


def _frozen[T](values: list[T] | None) -> frozenset[T] | None:
    return None if values is None else frozenset(values)


def _fixed[T](values: list[T] | None) -> tuple[T, ...] | None:
    return None if values is None else tuple(dict.fromkeys(values))


def _check_reach(rule: AllowRule, node: MappingNode, report: Report) -> None:
    keys = node.entries.keys()
    if not keys & {"host", "addresses"}:
        if not node.flawed:
            cure = "add `host`, `addresses` with `ports`, or `pack`"
            report.error(node, "an allow of nothing", cure)
    elif "ports" in keys:
        return
    elif "host" not in keys:
        message = "`addresses` without `host` needs `ports`"
        report.error(node.key("addresses"), message, "add `ports: [...]`")
    elif reaches_loopback(rule.addresses):
        message = "`addresses` that hold loopback need `ports`: every local service listens there"
        report.error(node.key("addresses"), message, "add `ports: [...]`")


def _warn_unreadable(rule: AllowRule | DenyRule, node: MappingNode, report: Report) -> None:
    if (rule.methods is None and rule.paths is None) or rule.ports == _PLAIN_HTTP:
        return
    key = "methods" if "methods" in node.entries else "paths"
    report.warn(
        node.key(key),
        f"`{key}` on ports other than 80: TLS cannot be read in this version, so tunnels to this "
        "host there are refused (inspection-unavailable)",
        "add `ports: [80]` and use http://, or take the key out",
    )


def _warn_idle(node: MappingNode, report: Report) -> None:
    # `types` matches Questions only, each of the others never one (reference.md, "Deny wins").
    others = [key for key in ("ports", "addresses", "methods", "paths") if key in node.entries]
    if "types" in node.entries and others:
        message = f"a deny with `types` and `{others[0]}` matches nothing"
        report.warn(node.key("types"), message, "write two rules, one with each")
