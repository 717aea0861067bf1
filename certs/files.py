"""The folder of keys: ours alone, written atomically, by one process at a time.

    root.pem  root.key       the local CA; clients are given root.pem, nobody root.key
    server.pem  server.key   the certificate of our listeners, which the CA signed
    server.json              until when that one is good, for who cannot read a certificate

The folder is 0700 and the files are 0600, whatever the umask.  A file is written beside its
place, put on the disk and renamed.  Nothing here knows what a certificate is.
"""

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from certs.errors import KeystoreError

ROOT_PEM, ROOT_KEY = "root.pem", "root.key"
SERVER_PEM, SERVER_KEY, SERVER_JSON = "server.pem", "server.key", "server.json"
_FILE_MODE = 0o600
_FOLDER_MODE = 0o700
_OTHERS = 0o077
_MOST_OCTETS = 65536  # a PEM file of ours has less than 2 KiB
_NEW_KEYS = "make new keys with `sallyport ca init --force`"
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # a FIFO must not hold us up
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def enter(folder: Path) -> None:
    """Make the folder where it is missing; see that it is ours alone.

    Raises:
        KeystoreError: it cannot be made, belongs to another user or is open to others.
    """
    try:
        folder.parent.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=_FOLDER_MODE)
            folder.chmod(_FOLDER_MODE)  # a umask may have taken our own bits
    except OSError as error:
        raise KeystoreError(_text(folder, error)) from None
    check(folder)


def check(folder: Path) -> None:
    """See that the folder is there, and ours alone.

    Raises:
        KeystoreError: it is missing, belongs to another user or is open to others.
    """
    try:
        found = folder.lstat()
    except OSError as error:
        raise KeystoreError(_text(folder, error)) from None
    if not stat.S_ISDIR(found.st_mode):
        raise KeystoreError(f"{folder} is not a folder: move it away")
    _check_owner(folder, found)
    if found.st_mode & _OTHERS:
        raise KeystoreError(f"{folder} is open to other users: chmod 700 {folder}")


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep every other writer, and who loads the files, out of the folder until the block ends.

    Raises:
        KeystoreError: the folder cannot be opened.
    """
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise KeystoreError(_text(folder, error)) from None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        _sweep(folder)
        yield
    finally:
        os.close(fd)


@contextlib.contextmanager
def steady(folder: Path) -> Iterator[bool]:
    """Yield whether nobody writes the folder, and keep it so until the block ends; never waits."""
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        yield False
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:  # BlockingIOError: somebody writes
        os.close(fd)
        yield False
        return
    try:
        yield True
    finally:
        os.close(fd)


def write(folder: Path, name: str, octets: bytes) -> None:
    """Replace a file by one with these octets: after a crash it is the old one or the new one.

    The folder is to be locked.

    Raises:
        KeystoreError: it cannot be written; the old one stands.
    """
    path, beside = folder / name, folder / f"{name}.new"
    try:
        beside.unlink(missing_ok=True)  # of a process that was killed: we hold the lock
        fd = os.open(beside, _WRITE, _FILE_MODE)
        try:
            os.fchmod(fd, _FILE_MODE)
            _write_all(fd, octets)
            os.fsync(fd)
        finally:
            os.close(fd)
        os.replace(beside, path)  # noqa: PTH105 - the system call whose atomicity we rely on
        _sync(folder)
    except OSError as error:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        raise KeystoreError(_text(path, error)) from None


def read(folder: Path, name: str) -> bytes | None:
    """Return what is in a file; None where there is none.

    Raises:
        KeystoreError: it cannot be read, is no regular file or is far too large.
    """
    return _read(folder / name)


def read_secret(folder: Path, name: str, cure: str = _NEW_KEYS) -> bytes | None:
    """Return what is in a file that nobody else may read; None where there is none.

    `cure` says how new keys are made, should somebody have read this one.

    Raises:
        KeystoreError: as `read`, or it belongs to another user, or others may read or write it.
    """
    return _read(folder / name, cure)


def _read(path: Path, cure: str | None = None) -> bytes | None:
    try:
        fd = os.open(path, _READ)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise KeystoreError(_text(path, error)) from None
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_size > _MOST_OCTETS:
            raise KeystoreError(f"{path} is none of our files: move it away")
        if cure is not None:
            _check_owner(path, found)
            if found.st_mode & _OTHERS:
                raise KeystoreError(
                    f"{path} is open to other users: chmod 600 {path}; if one of them may have "
                    f"read it, {cure}"
                )
        return os.read(fd, _MOST_OCTETS)
    finally:
        os.close(fd)


def _check_owner(path: Path, found: os.stat_result) -> None:
    if found.st_uid != os.geteuid():
        raise KeystoreError(
            f"{path} belongs to uid {found.st_uid}, we are uid {os.geteuid()}: run as that user, "
            f"or chown it"
        )


def _write_all(fd: int, octets: bytes) -> None:
    written = 0
    while written < len(octets):
        written += os.write(fd, octets[written:])


def _sweep(folder: Path) -> None:
    """Remove what a process that was killed left beside the files; the folder is locked."""
    for name in (ROOT_PEM, ROOT_KEY, SERVER_PEM, SERVER_KEY, SERVER_JSON):
        with contextlib.suppress(OSError):  # writing that file will say what is wrong
            (folder / f"{name}.new").unlink(missing_ok=True)


def _sync(folder: Path) -> None:
    """Put the renaming itself on the disk."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _text(path: Path, error: OSError) -> str:
    cures = {
        errno.EACCES: "give this user the folder",
        errno.EPERM: "give this user the folder",
        errno.EROFS: "the file system is read-only: set `state:` to a folder that is not",
        errno.ENOSPC: "free space on the disk",
        errno.EDQUOT: "free space in the quota",
        errno.EFBIG: "raise `ulimit -f`",
        errno.ELOOP: "a symbolic link stands there: put the file itself in its place",
        errno.ENOTDIR: "a file stands in a folder's place: move it away",
    }
    cure = cures.get(error.errno or 0, "see that this user may read and write it")
    return f"cannot use {path}: {error.strerror}; {cure}"
