"""Rule files from disk to a ruleset: what may be read, and what the first run finds.

A file or folder that every user may write is no rule of anybody's: it is a load error.
Packs and the public suffix list are data of the installation, read here and handed to
`rules` as values.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from msgspec import Struct

from rules.errors import Place, Problem, RuleSyntaxError
from rules.ruleset import IdentityLine, Ruleset
from rules.suffix import PublicSuffixes, read_suffixes
from rules.syntax import Loaded, load
from rules.text import FILE_OCTETS, SourceText

FIRST_RULES = "me.yaml"
_CURES = {
    errno.ENOENT: "remove it: it is a link to nothing",
    errno.ELOOP: "remove it: it is a link to itself",
    errno.ENOTDIR: "a file stands where a folder should: move it away, or name another folder",
    errno.EISDIR: "write the rules into a regular file",
    errno.ENXIO: "write the rules into a regular file",
}
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


class RuleFiles(Struct, frozen=True):
    """What was read: the files' names and what they say; `notes` are for the operator."""

    loaded: Loaded
    files: tuple[str, ...]
    notes: tuple[str, ...] = ()


def public_suffixes() -> PublicSuffixes:
    """Return the public suffix list that is installed."""
    data = resources.files("publicsuffixlist") / "public_suffix_list.dat"
    return read_suffixes(data.read_text(encoding="utf-8").splitlines())


def read_rules(
    folders: Sequence[str], generation: int, suffixes: PublicSuffixes, *, first_run: bool
) -> RuleFiles:
    """Read every `*.yaml` of `folders`; with `first_run`, write one where there is none.

    Raises:
        RuleSyntaxError: with every problem of every file, unreadable ones among them.
    """
    notes: tuple[str, ...] = ()
    sources, problems = _read_folders(folders, missing_is_fine=first_run)
    if first_run and not sources and not problems:
        source, notes = _write_first(Path(folders[0]))
        sources = [source]
    try:
        loaded = load(sources, suffixes, generation, _packs())
    except RuleSyntaxError as error:
        raise RuleSyntaxError((*problems, *error.problems)) from None
    if problems:
        raise RuleSyntaxError(tuple(problems))
    return RuleFiles(loaded, tuple(source.file for source in sources), notes)


def check_listeners(ruleset: Ruleset, listening: set[str]) -> None:
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


def _not_listening(line: IdentityLine, listening: set[str]) -> Problem:
    file, _, number = line.id.rpartition(":")
    message = f"listener {line.listener} stands in no do53 or proxy list of `listen:`"
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
    folders: Sequence[str], *, missing_is_fine: bool
) -> tuple[list[SourceText], list[Problem]]:
    sources: list[SourceText] = []
    problems: list[Problem] = []
    for folder in map(Path, folders):
        try:
            found = _rule_files(folder)
        except FileNotFoundError:
            if not missing_is_fine:
                problems.append(_problem(folder, "the folder does not exist", f"mkdir -p {folder}"))
            continue
        except (OSError, _UnfitError) as error:
            problems.append(_from_error(folder, error))
            continue
        for path in found:
            try:
                sources.append(SourceText(_shown(path), _read(path)))
            except (OSError, UnicodeDecodeError, _UnfitError) as error:
                problems.append(_from_error(path, error))
    return sources, problems


class _UnfitError(Exception):
    """What is wrong with a file, and the cure."""

    def __init__(self, message: str, cure: str) -> None:
        super().__init__(message)
        self.message = message
        self.cure = cure


def _rule_files(folder: Path) -> list[Path]:
    mode = folder.stat().st_mode
    if not stat.S_ISDIR(mode):
        raise _UnfitError("is no folder", "name a folder of *.yaml files")
    if not os.access(folder, os.R_OK | os.X_OK):
        raise _UnfitError("cannot be read", f"chmod u+rx {folder}, or chown it")
    _refuse_world_writable(folder, mode)
    # As a shell expands `*.yaml`: a hidden file is an editor's, of a change that is not saved yet.
    return sorted(path for path in folder.glob("*.yaml") if not path.name.startswith("."))


def _read(path: Path) -> str:
    # What is checked is the file that is read: one descriptor, and no wait on a FIFO.
    with open(path, "rb", opener=_without_waiting) as file:
        mode = os.fstat(file.fileno()).st_mode
        if not stat.S_ISREG(mode):
            raise _UnfitError("is no regular file", "write the rules into a regular file")
        _refuse_world_writable(path, mode)
        octets = file.read(FILE_OCTETS + 1)
    if len(octets) > FILE_OCTETS:
        raise _UnfitError(f"is larger than {FILE_OCTETS} octets", "split the file")
    return octets.decode("utf-8")


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def _refuse_world_writable(path: Path, mode: int) -> None:
    if mode & stat.S_IWOTH:
        raise _UnfitError("every user may write it, so it is nobody's rule", f"chmod o-w {path}")


def _from_error(path: Path, error: OSError | UnicodeDecodeError | _UnfitError) -> Problem:
    match error:
        case _UnfitError():
            return _problem(path, error.message, error.cure)
        case UnicodeDecodeError():
            return _problem(path, f"is not UTF-8 (octet {error.start})", "save the file as UTF-8")
        case OSError():
            cure = _CURES.get(error.errno or 0, f"chmod u+r {_shown(path)}, or chown it")
            return _problem(path, f"cannot be read: {error.strerror}", cure)


def _problem(path: Path, message: str, cure: str) -> Problem:
    return Problem(Place(_shown(path), 1, 1), message, cure)


def _shown(path: Path) -> str:
    """Return the name of `path` as text: a file's name is octets, and may be no UTF-8."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _write_first(folder: Path) -> tuple[SourceText, tuple[str, ...]]:
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
        return SourceText(str(path), text), (note,)
    return SourceText(str(path), text), (f"first run: wrote {path}",)
