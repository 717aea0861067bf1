"""Rule files -> one Ruleset, or every error of every file at once.

The way of a file: text -> nodes (`rules.text`) -> Structs (`rules.document`) -> one app from all
files (`rules.spread`) -> rules (`rules.entry`, `rules.identity`, `rules.list_source`).  Each step
goes on past what is wrong, and says at which line and column, what, and the cure.
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
from rules.list_source import LISTS, read_source
from rules.node import MappingNode, Needed, Report, at, one_or_more, quote
from rules.ruleset import ListSource, Ruleset
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
    united = [unite(name, parts[name], reader) for name in parts]
    check_claims(claim for _, claims in united for claim in claims)
    sources = _sources(lists)
    reports += reader.reports
    errors = tuple(_problems(reports, Severity.ERROR))
    if errors:
        raise RuleSyntaxError(errors)
    apps = {app.name: app for app, _ in united}
    warnings = tuple(_problems(reports, Severity.WARNING))
    needed = tuple(each for report in reports for each in report.needed)
    return Loaded(Ruleset(generation, apps, sources), warnings, needed)


def _read(files: Sequence[SourceText], reports: Sequence[Report]) -> Iterator[Stated]:
    for source, report in zip(files, reports, strict=True):
        found = read_file(source, document.RuleFile, report)
        if found is not None:
            yield *found, report


def _lists(stated: Stated) -> Iterator[_List]:
    content, root, report = stated
    if content.lists is not UNSET:
        for entry, node in pairs(content.lists, at(root, "lists")):
            yield entry, node, report


def _sources(lists: Sequence[_List]) -> tuple[ListSource, ...]:
    """Return the lists in the order of the files, which is the order in which they decide."""
    for _, node, report in lists[LISTS : LISTS + 1]:
        report.error(node, f"more than {LISTS} lists", "join some of their files")
    read = (read_source(entry, node, report) for entry, node, report in lists)
    return tuple(source for source in read if source is not None)


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
