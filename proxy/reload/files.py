"""Rule files from disk to a ruleset: what may be read, and what the first run finds.

A file or folder that every user may write is no rule of anybody's: it is a load error.  Under
`--system` so is what its group may write, or what is not root's: whoever could change it, or put
another file in its place, would be the admin.
Packs and the public suffix list are data of the installation, read here and handed to
`rules` as values.
"""

import contextlib
import hashlib
import os
import stat
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from importlib import resources
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from proxy.reload.guarded import (
    UnfitError,
    opened,
    problem_at,
    problem_of,
    refuse_others,
    shown,
    without_waiting,
)
from rules.errors import Place, Problem, RuleSyntaxError, Severity
from rules.node import Needed
from rules.ruleset import IdentityLine, Ruleset
from rules.suffix import PublicSuffixes, read_suffixes
from rules.syntax import Loaded, load
from rules.text import FILE_OCTETS, SourceText

FIRST_RULES = "me.yaml"
_FIRST_RULES_TEXT = """\
# Written at the first start.  Nothing that is not listed here is allowed.
# `sallyport check` tests a change, `sallyport explain me URL` says what a rule does.
apps:
  me:
    identity:
      - process: {{uid: {uid}}}      # every process of this user, until a better proof exists
    allow:
      - name: first-steps
        host: [example.com, example.org]
        ports: [80, 443]
"""


class Sources(Struct, frozen=True):
    """What stands in the files, before anything of it is understood.

    `problems` are those of reading; `notes` are for the operator; `in_memory`: the first rules,
    which could not be written.  `digest` is of all that the rules come from.
    """

    sources: tuple[SourceText, ...]
    problems: tuple[Problem, ...]
    packs: Mapping[str, SourceText]
    digest: str
    notes: tuple[str, ...] = ()
    in_memory: bool = False


class RuleFiles(Struct, frozen=True):
    """What was read: the files' names and what they say; `notes` are for the operator.

    `digest` is of all that the rules come from: equal ones are the same rules.  `in_memory`: the
    first rules, which could not be written.
    """

    loaded: Loaded
    files: tuple[str, ...]
    notes: tuple[str, ...] = ()
    digest: str = ""
    in_memory: bool = False


def public_suffixes() -> PublicSuffixes:
    """Return the public suffix list that is installed."""
    data = resources.files("publicsuffixlist") / "public_suffix_list.dat"
    return read_suffixes(data.read_text(encoding="utf-8").splitlines())


def read_rules(
    folders: Sequence[str],
    generation: int,
    suffixes: PublicSuffixes,
    *,
    first_run: bool,
    system: bool = False,
) -> RuleFiles:
    """Read every `*.yaml` of `folders`; with `first_run`, write one where there is none.

    Raises:
        RuleSyntaxError: with every problem of every file, unreadable ones among them.
    """
    found = read_sources(folders, first_run=first_run, system=system)
    return load_sources(found, generation, suffixes)


def read_sources(folders: Sequence[str], *, first_run: bool, system: bool = False) -> Sources:
    """Read the files of `folders`, and understand nothing yet."""
    notes: tuple[str, ...] = ()
    in_memory = False
    sources, problems = _read_folders(folders, missing_is_fine=first_run, system=system)
    if first_run and not sources and not problems:
        source, notes, in_memory = _write_first(Path(folders[0]))
        sources = [source]
    packs = _packs()
    digest = _digest([*sources, *packs.values()])
    return Sources(tuple(sources), tuple(problems), packs, digest, notes, in_memory)


def load_sources(found: Sources, generation: int, suffixes: PublicSuffixes) -> RuleFiles:
    """Return the rules that the files spell.

    Raises:
        RuleSyntaxError: with every problem of every file, unreadable ones among them.
    """
    try:
        loaded = load(found.sources, suffixes, generation, found.packs)
    except RuleSyntaxError as error:
        raise RuleSyntaxError((*found.problems, *error.problems)) from None
    if found.problems:
        raise RuleSyntaxError(found.problems)
    files = tuple(source.file for source in found.sources)
    missing = tuple(filter(None, map(_unreadable, loaded.needed)))
    if missing:
        loaded = replace(loaded, warnings=(*loaded.warnings, *missing))
    return RuleFiles(loaded, files, found.notes, found.digest, found.in_memory)


def _unreadable(needed: Needed) -> Problem | None:
    """Return a warning of a file that a rule names and that nobody could use now.

    No error: certificates are renewed by others, and what needs one is refused until it is there.
    """
    try:
        with open(needed.path, "rb", opener=without_waiting):
            return None
    except OSError as error:
        message = f"{needed.path} cannot be read: {error.strerror}; requests end as upstream-tls"
    cure = "put it there, readable by the appliance; a path is relative to the rule file"
    return Problem(needed.place, message, cure, needed.excerpt, Severity.WARNING)


def _digest(sources: Sequence[SourceText]) -> str:
    hashed = hashlib.sha256()
    for source in sources:
        for text in (source.file, source.text):
            octets = text.encode(errors="surrogatepass")
            hashed.update(len(octets).to_bytes(8) + octets)
    return hashed.hexdigest()


def check_listeners(ruleset: Ruleset, listening: AbstractSet[str]) -> None:
    """Check that every listener that names an app is one that we bind.

    Raises:
        RuleSyntaxError: with a problem for each that is not.
    """
    problems = [
        _not_listening(line, listening)
        for app in ruleset.apps.values()
        for line in app.identity
        if line.listener is not None and line.listener not in listening
    ]
    if problems:
        raise RuleSyntaxError(tuple(problems))


def _not_listening(line: IdentityLine, listening: AbstractSet[str]) -> Problem:
    file, _, number = line.id.rpartition(":")
    message = f"listener {line.listener} stands in no list of agents' sockets in `listen:`"
    others = f", or name one of {', '.join(sorted(listening))}" if listening else ""
    cure = f"add it to `listen:` in sallyport.yaml{others}"
    return Problem(Place(file, int(number), 1), message, cure)


def _packs() -> dict[str, SourceText]:
    folder = resources.files("rules") / "packs"
    return {
        entry.name.removesuffix(".yaml"): SourceText(
            f"packs/{entry.name}", entry.read_text(encoding="utf-8")
        )
        for entry in folder.iterdir()
        if entry.name.endswith(".yaml")
    }


def _read_folders(
    folders: Sequence[str], *, missing_is_fine: bool, system: bool = False
) -> tuple[list[SourceText], list[Problem]]:
    sources: list[SourceText] = []
    problems: list[Problem] = []
    for folder in map(Path, folders):
        try:
            found = _rule_files(folder, system=system)
        except FileNotFoundError:
            if not missing_is_fine:
                problems.append(
                    problem_at(folder, "the folder does not exist", f"mkdir -p {folder}")
                )
            continue
        except (OSError, UnfitError) as error:
            problems.append(problem_of(folder, error))
            continue
        for path in found:
            try:
                sources.append(SourceText(shown(path), _read(path, system=system)))
            except (OSError, UnicodeDecodeError, UnfitError) as error:
                problems.append(problem_of(path, error))
    return sources, problems


def _rule_files(folder: Path, *, system: bool) -> list[Path]:
    status = folder.stat()
    if not stat.S_ISDIR(status.st_mode):
        raise UnfitError("is no folder", "name a folder of *.yaml files")
    if not os.access(folder, os.R_OK | os.X_OK):
        raise UnfitError("cannot be read", f"chmod u+rx {folder}, or chown it")
    refuse_others(folder, status, system=system)
    # As a shell expands `*.yaml`: a hidden file is an editor's, of a change that is not saved yet.
    return sorted(path for path in folder.glob("*.yaml") if not path.name.startswith("."))


def _read(path: Path, *, system: bool) -> str:
    with opened(path, "write the rules into a regular file", system=system) as file:
        octets = file.read(FILE_OCTETS + 1)
    if len(octets) > FILE_OCTETS:
        raise UnfitError(f"is larger than {FILE_OCTETS} octets", "split the file")
    return octets.decode("utf-8")


def _write_first(folder: Path) -> tuple[SourceText, tuple[str, ...], bool]:
    """Write the first rules; return them, what to say of it, and whether they are in memory."""
    path = folder / FIRST_RULES
    text = _FIRST_RULES_TEXT.format(uid=os.getuid())
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
        except OSError:
            # Half a file would be the rules of the next start: nothing allowed, nobody knows why.
            with contextlib.suppress(OSError):
                path.unlink()
            raise
    except OSError as error:
        note = f"{path} cannot be written ({error.strerror}); its rules are used from memory"
        return SourceText(str(path), text), (note,), True
    return SourceText(str(path), text), (f"first run: wrote {path}",), False
