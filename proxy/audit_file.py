"""The files that audit lines stand in: appended to, rotated, with room kept for a last word.

    audit.jsonl      written now
    audit.1.jsonl    the one before; the highest number is the oldest, by default 16
    audit.16.jsonl   of the oldest two, what a fair share for every app leaves (audit_retain)
    audit.reserve    space that is given up when the disk is full, and the lock of the writer

Every method blocks; `proxy.audit` calls them from its writer thread.
"""

import contextlib
import errno
import fcntl
import logging
import os
import stat
from pathlib import Path

from proxy.audit_retain import merge
from proxy.errors import BindError

logger = logging.getLogger(__name__)

_FLAGS = os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # a FIFO must not hold us up
_APPEND = os.O_RDWR | os.O_APPEND
_FILE_MODE = 0o600
_FOLDER_MODE = 0o700


def numbered(file: Path, number: int) -> Path:
    """Return the name of the file that was rotated `number` times; 0 is `file` itself."""
    return file.with_name(f"{file.stem}.{number}{file.suffix}") if number else file


def series(file: Path) -> tuple[Path, ...]:
    """Return the files that exist, the newest first.

    Raises:
        BindError: their folder cannot be read.
    """
    try:
        found = {entry.name for entry in os.scandir(file.parent)}
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise BindError(f"cannot read {file.parent}: {error.strerror}") from None
    number = 0
    paths = []
    # A rotation that was cut short leaves one gap at most, so one missing number ends nothing.
    while {numbered(file, number).name, numbered(file, number + 1).name} & found:
        paths.append(numbered(file, number))
        number += 1
    return tuple(path for path in paths if path.name in found)


class AuditFile:
    """One writer's view of the series.  `rotate` and `reserve` are octets, `keep` old files."""

    def __init__(self, file: Path, rotate: int, keep: int, reserve: int) -> None:
        self._file = file
        self._rotate = rotate
        self._keep = keep
        self._reserve_octets = reserve
        self._fd = -1
        self._reserve_fd = -1
        self._octets = 0  # of the file that is written now

    @property
    def name(self) -> str:
        """The file that is written now."""
        return str(self._file)

    def open(self) -> None:
        """Make the folder, take the lock, keep the reserve and open the file for appending.

        Raises:
            BindError: any of it failed; the text says what to do.
        """
        try:
            self._enter_folder()
            self._reserve_fd = self._open(self._file.with_suffix(".reserve"), os.O_RDWR)
            self._lock()
            self.keep_reserve()
            self._reopen()
        except OSError as error:
            self.close()
            raise BindError(_cure(self._file, error)) from None
        except BindError:
            self.close()
            raise

    def append(self, lines: bytes) -> int:
        """Write whole lines and return how many octets of them stand in the file now.

        Fewer than given, and only whole lines, when the disk filled up in between.

        Raises:
            OSError: nothing could be written.
        """
        # In this order: a rotation that renamed and then found no room for a new file must not
        # be done again at each retry, or it would push the whole history out.
        if self._was_moved():
            self._reopen()
        if self._octets and self._octets + len(lines) > self._rotate:
            self._turn()
        written = 0
        try:
            while written < len(lines):
                written += os.write(self._fd, memoryview(lines)[written:])
        except OSError:
            whole = lines.rfind(b"\n", 0, written) + 1
            # Half a line is taken back, so that what is written next starts on its own line.
            os.ftruncate(self._fd, self._octets + whole)
            self._octets += whole
            if not whole:
                raise
            return whole
        self._octets += written
        return written

    def keep_reserve(self) -> None:
        """Take the reserved space on the disk.

        Raises:
            OSError: there is no room for it.
        """
        if self._reserve_octets:
            os.posix_fallocate(self._reserve_fd, 0, self._reserve_octets)

    def give_reserve_up(self) -> None:
        """Free the reserved space, for the line that says that the disk is full."""
        with contextlib.suppress(OSError):
            os.ftruncate(self._reserve_fd, 0)

    def close(self) -> None:
        """Put everything on the disk and close; may be called twice."""
        for fd in (self._fd, self._reserve_fd):
            if fd >= 0:
                with contextlib.suppress(OSError):
                    os.fsync(fd)
                os.close(fd)
        self._fd = self._reserve_fd = -1

    def _enter_folder(self) -> None:
        folder = self._file.parent
        folder.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
        self._check_folder()

    def _check_folder(self) -> None:
        folder = self._file.parent
        if folder.stat().st_mode & stat.S_IWOTH:
            # Whoever may write the folder may rename our files and put others in their place.
            raise BindError(f"{folder} is writable by everybody: chmod o-w it, or move audit.file")

    def _lock(self) -> None:
        try:
            fcntl.flock(self._reserve_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BindError(
                f"another sallyport writes {self._file}: stop it, or set audit.file"
            ) from None

    def _open(self, path: Path, flags: int) -> int:
        fd = os.open(path, flags | _FLAGS, _FILE_MODE)
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            os.close(fd)
            raise BindError(f"{path} is not a regular file: move it away, or set audit.file")
        if stat.S_IMODE(found.st_mode) != _FILE_MODE:
            with contextlib.suppress(PermissionError):  # another's file: the folder guards it
                os.fchmod(fd, _FILE_MODE)
        return fd

    def _reopen(self) -> None:
        if self._fd >= 0 and not self._has_reserve():
            self._begin_anew()
        fd = self._open(self._file, _APPEND)
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = fd
        self._octets = os.fstat(fd).st_size
        # A crash may have left half a line; what it says is lost, the next line must not be.
        if self._octets and os.pread(fd, 1, self._octets - 1) != b"\n":
            self._octets += os.write(fd, b"\n")

    def _begin_anew(self) -> None:
        """Take lock and reserve again: the whole folder was taken away, and may be another now."""
        self._check_folder()
        if self._reserve_fd >= 0:
            os.close(self._reserve_fd)
            self._reserve_fd = -1
        self._reserve_fd = self._open(self._file.with_suffix(".reserve"), os.O_RDWR)
        try:
            self._lock()
        except BindError:
            os.close(self._reserve_fd)
            self._reserve_fd = -1
            raise
        self.keep_reserve()

    def _has_reserve(self) -> bool:
        if self._reserve_fd < 0:
            return False
        try:
            there = self._file.with_suffix(".reserve").lstat()
        except FileNotFoundError:
            return False
        here = os.fstat(self._reserve_fd)
        return (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)

    def _was_moved(self) -> bool:
        """Return whether somebody renamed or removed the file under us (logrotate, an admin)."""
        try:
            there = self._file.lstat()
        except FileNotFoundError:
            return True
        here = os.fstat(self._fd)
        return (there.st_dev, there.st_ino) != (here.st_dev, here.st_ino)

    def _turn(self) -> None:
        os.fsync(self._fd)
        free = self._keep
        if free and numbered(self._file, free).exists():
            self._make_room()
            free -= 1
        for number in range(free, 0, -1):
            with contextlib.suppress(FileNotFoundError):
                numbered(self._file, number - 1).rename(numbered(self._file, number))
        if not self._keep:
            self._file.unlink(missing_ok=True)
        self._reopen()

    def _make_room(self) -> None:
        """Make one file of the two oldest."""
        older, newer = numbered(self._file, self._keep), numbered(self._file, self._keep - 1)
        try:
            merge(older, newer, self._rotate)
        except FileNotFoundError:
            pass  # somebody took one of them: there is room
        except OSError as error:
            logger.warning("the oldest audit lines go unsorted: %s", error.strerror)
            newer.replace(older)


def _cure(file: Path, error: OSError) -> str:
    words = {
        errno.EACCES: "give this user the folder, or set audit.file to one it may write",
        errno.EPERM: "give this user the folder, or set audit.file to one it may write",
        errno.EROFS: "the file system is read-only: set audit.file to one that is not",
        errno.ENOSPC: "the disk is full: free space, or set audit.file to another disk",
        errno.EDQUOT: "the disk quota is used up: free space, or set audit.file to another disk",
        errno.ELOOP: "a symbolic link stands there: remove it, or set audit.file to its target",
        errno.ENOTDIR: "a file stands in a folder's place: remove it, or set audit.file",
        errno.EEXIST: "a file stands in a folder's place: remove it, or set audit.file",
        errno.EISDIR: "a folder stands there: set audit.file to a file in it",
    }
    cure = words.get(error.errno or 0, "set audit.file to a file that this user may write")
    return f"cannot write {file}: {error.strerror}; {cure}"
