"""Rule files -> one Ruleset, or every error of every file at once.

The way of a file: text -> nodes (`rules.text`) -> Structs (`rules.document`) -> one app from all
files (`rules.spread`) -> rules (`rules.entry`, `rules.identity`).  Each step goes on past what is
wrong, and says at which line and column, what, and the cure.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import chain

from msgspec import UNSET, Struct

from rules import document
from rules.entitled import refuse_unknown_subjects
from rules.entry import EntryReader, pairs
from rules.errors import Problem, RuleSyntaxError, Severity
from rules.hosts import HostReader
from rules.identity import check_claims
from rules.node import MappingNode, Needed, Report, at, one_or_more, quote
from rules.ruleset import Ruleset
from rules.shape import suggest
from rules.spread import Part, Stated, gather, unite
from rules.suffix import PublicSuffixes
from rules.text import SourceText, read_file

type _List = tuple[document.DenyList, MappingNode, Report]


class Loaded(Struct, frozen=True):
    """A rule set that may stand, what its admin should know of it, and the files that it names."""

    ruleset: Ruleset
    warnings: tuple[Problem, ...]
    needed: tuple[Needed, ...] = ()


def load(
    files: Sequence[SourceText],
    suffixes: PublicSuffixes,
    generation: int,
    packs: Mapping[str, SourceText],
) -> Loaded:
    """Return the rules of all `files` as one set; `packs` are the shipped ones by name.

    Raises:
        RuleSyntaxError: with every error of every file, in the order of the files.
    """
    reports = [Report(source.file, source.text) for source in files]
    stated = list(_read(files, reports))
    parts = gather(stated)
    lists = [each for one in stated for each in _lists(one)]
    if len(stated) == len(files):  # else an app may stand in the file that is no YAML
        _refuse_unknown_apps(lists, parts)
        _refuse_unknown_subjects(parts)
    reader = EntryReader(HostReader(suffixes), packs)
    united = [unite(name, parts[name], reader, _covering(name, lists)) for name in parts]
    check_claims(claim for _, claims in united for claim in claims)
    reports += reader.reports
    errors = tuple(_problems(reports, Severity.ERROR))
    if errors:
        raise RuleSyntaxError(errors)
    apps = {app.name: app for app, _ in united}
    warnings = tuple(_problems(reports, Severity.WARNING))
    needed = tuple(each for report in reports for each in report.needed)
    return Loaded(Ruleset(generation, apps), warnings, needed)


def _read(files: Sequence[SourceText], reports: Sequence[Report]) -> Iterator[Stated]:
    for source, report in zip(files, reports, strict=True):
        found = read_file(source, document.RuleFile, report)
        if found is not None:
            yield *found, report


def _lists(stated: Stated) -> Iterator[_List]:
    content, root, report = stated
    if content.lists is not UNSET:
        for entry, node in pairs(content.lists, at(root, "lists")):
            report.warn(
                node,
                "deny lists are not in this version: all that the list's apps ask is refused",
                "take the list out, or name the apps that must do without in `apps`",
            )
            yield entry, node, report


def _covering(app: str, lists: Sequence[_List]) -> str | None:
    """Return the id of the first list that covers `app`."""
    for entry, node, report in lists:
        if entry.apps is UNSET or app in entry.apps:
            return report.line_id(node)
    return None


def _refuse_unknown_apps(lists: Sequence[_List], known: Collection[str]) -> None:
    for entry, node, report in lists:
        if entry.apps is not UNSET:
            for name, item in zip(entry.apps, one_or_more(node.value("apps")), strict=True):
                if name not in known:
                    report.error(item, f"there is no app {quote(name)}", suggest(name, known))


def _refuse_unknown_subjects(parts: Mapping[str, Sequence[Part]]) -> None:
    for part in chain.from_iterable(parts.values()):
        if part.entry.capabilities is not UNSET:
            entries = pairs(part.entry.capabilities, part.node.value("capabilities"))
            for entry, node in entries:
                refuse_unknown_subjects(entry, node, part.report, parts)


def _problems(reports: Sequence[Report], severity: Severity) -> Iterator[Problem]:
    for report in reports:
        yield from report.problems(severity)
