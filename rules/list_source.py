"""`lists`: which files deny, how they are read, and whom they cover."""

import posixpath
from typing import Final

from msgspec import UNSET

from rules import document
from rules.hosts import parse_host
from rules.name import DomainName
from rules.node import MappingNode, Node, Report, quote
from rules.restriction import read_each
from rules.ruleset import ListSource

LISTS: Final = 64  # of all rule files; Pi-hole users have about ten, dnsdist has no bound


def read_source(entry: document.DenyList, node: MappingNode, report: Report) -> ListSource | None:
    """Return one entry of `lists`; None where something is wrong, which is reported."""
    before = report.errors
    excepts: list[DomainName] = []
    if entry.except_ is not UNSET:
        excepts = read_each(entry.except_, node.value("except"), parse_host, report)
    source = ListSource(
        place=report.line_id(node),
        file=_path(entry.file, node.value("file"), report),
        shown=entry.file,
        format="auto" if entry.format is UNSET else entry.format,
        refuse=None if entry.refuse is UNSET else entry.refuse,
        excepts=frozenset(excepts),
        apps=None if entry.apps is UNSET else frozenset(entry.apps),
    )
    return None if node.flawed or report.errors > before else source


def _path(text: str, node: Node, report: Report) -> str:
    """Return a path, which is relative to the rule file where it is relative."""
    if not text or "\0" in text:
        report.error(node, f"{quote(text)} is no path", "name the file of the list")
    return posixpath.join(posixpath.dirname(report.file), text)
