"""What may be read as rules or lists: files that nobody else could have written.

A file or folder that every user may write is nobody's rule: it is a load error.  Under `--system`
so is what its group may write, or what is not root's: whoever could change it, or put another file
in its place, would be the admin.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

from rules.errors import Place, Problem

_CURES = {
    errno.ENOENT: "remove it: it is a link to nothing",
    errno.ELOOP: "remove it: it is a link to itself",
    errno.ENOTDIR: "a file stands where a folder should: move it away, or name another folder",
    errno.EISDIR: "write the rules into a regular file",
    errno.ENXIO: "write the rules into a regular file",
}


class UnfitError(Exception):
    """What is wrong with a file, and the cure."""

    def __init__(self, message: str, cure: str) -> None:
        super().__init__(message)
        self.message = message
        self.cure = cure


@contextmanager
def opened(path: Path, cure: str, *, system: bool) -> Iterator[BufferedReader]:
    """Open the file at `path`, which is a regular one of nobody else's; `cure` where it is not.

    Raises:
        OSError: it cannot be opened.
        UnfitError: it is no regular file, or another's.
    """
    # What is checked is the file that is read: one descriptor, and no wait on a FIFO.
    with open(path, "rb", opener=without_waiting) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise UnfitError("is no regular file", cure)
        refuse_others(path, status, system=system)
        yield file


def without_waiting(path: str, flags: int) -> int:
    """Open `path` without a wait for who writes to it, if it is a FIFO."""
    return os.open(path, flags | os.O_NONBLOCK)


def refuse_others(path: Path, status: os.stat_result, *, system: bool) -> None:
    """Check that nobody but its owner, with `system` nobody but root, may change `path`.

    Raises:
        UnfitError: somebody may.
        OSError: a folder above it cannot be looked at.
    """
    name = shown(path)
    if status.st_mode & stat.S_IWOTH:
        raise UnfitError("every user may write it, so it is nobody's rule", f"chmod o-w {name}")
    if system:
        _refuse_foreign(name, status)
        _refuse_weak_parents(path)


def _refuse_foreign(name: str, status: os.stat_result) -> None:
    if status.st_uid != 0:
        message = f"it is user {status.st_uid}'s; with --system rules are root's alone"
        raise UnfitError(message, f"chown root {name}")
    if status.st_mode & stat.S_IWGRP:
        message = f"group {status.st_gid} may write it; with --system rules are root's alone"
        raise UnfitError(message, f"chmod g-w {name}")


def _refuse_weak_parents(path: Path) -> None:
    """Refuse what another user could put something else in the place of."""
    for parent in path.resolve().parents:
        status = parent.stat()
        is_shared = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        # In a sticky folder only root moves what is root's (inode(7)).
        if status.st_uid != 0 or (is_shared and not status.st_mode & stat.S_ISVTX):
            folder = shown(parent)
            message = f"others than root may rename it, for {folder} is theirs to write"
            raise UnfitError(message, f"chown root {folder} && chmod go-w {folder}")


def problem_of(path: Path, error: OSError | UnicodeDecodeError | UnfitError) -> Problem:
    """Return what `error` says of the file at `path`."""
    match error:
        case UnfitError():
            return problem_at(path, error.message, error.cure)
        case UnicodeDecodeError():
            message = f"is not UTF-8 (octet {error.start})"
            return problem_at(path, message, "save the file as UTF-8")
        case OSError():
            cure = _CURES.get(error.errno or 0, f"chmod u+r {shown(path)}, or chown it")
            return problem_at(path, f"cannot be read: {error.strerror}", cure)


def problem_at(path: Path, message: str, cure: str) -> Problem:
    """Return a problem of the whole file at `path`."""
    return Problem(Place(shown(path), 1, 1), message, cure)


def shown(path: Path) -> str:
    """Return the name of `path` as text: a file's name is octets, and may be no UTF-8."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
