"""Whether rule files changed: a look at what the kernel says of them, and when they are at rest.

Every look reads the same that reading the files would: the names in each folder, and of what each
leads to the inode, size, times, mode and owner.  So an editor's rename, a folder that was made
anew, a link that was turned elsewhere and a file behind a link are seen alike (decision 0022).
The lists that rules name are looked at in the same way, file by file.
"""

import os
from collections.abc import Iterable, Sequence

from proxy.limits import Limits

type Look = tuple[object, ...]
"""What was seen; equal looks are of equal files."""

type Seen = tuple[tuple[str, Look], ...]
"""What was seen of files, by their names."""


def look(folders: Sequence[str]) -> Look:
    """Return what is to be seen of the `*.yaml` files of `folders` now."""
    return tuple(_folder(folder) for folder in folders)


def look_at(files: Iterable[str]) -> Seen:
    """Return what is to be seen of `files` now."""
    return tuple((file, _status(file)) for file in files)


def _folder(folder: str) -> Look:
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries]
    except OSError as error:
        return folder, error.errno
    rules = sorted(name for name in names if name.endswith(".yaml") and name[0] != ".")
    return _status(folder), *((name, _status(f"{folder}/{name}")) for name in rules)


def _status(path: str) -> Look:
    try:
        found = os.stat(path)  # noqa: PTH116 - a Path for each look costs more than the look
    except OSError as error:
        return (error.errno,)
    return status_of(found)


def status_of(found: os.stat_result) -> Look:
    """Return what is to be seen in the status of a file or folder."""
    # A folder's own times change with files that are no rules: an editor's, say.
    is_folder = found.st_mode & 0o040000
    times = () if is_folder else (found.st_mtime_ns, found.st_ctime_ns, found.st_size)
    return found.st_dev, found.st_ino, found.st_mode, found.st_uid, found.st_gid, *times


class Watch:
    """Tells when a change is over: nothing moved for a while, or it has gone on for too long."""

    def __init__(self, seen: Look, limits: Limits) -> None:
        """`seen` is of the files as they were read."""
        self._settled = seen
        self._last = seen
        self._since: float | None = None
        self._limits = limits

    def see(self, now_seen: Look, now: float) -> bool:
        """Return whether the files are to be read again, after a look at `now` (seconds)."""
        moved, self._last = now_seen != self._last, now_seen
        if self._since is None:
            self._since = now if moved else None
            return False
        if moved and now < self._since + self._limits.reload_settle_s:
            return False
        self._since = None
        is_new, self._settled = now_seen != self._settled, now_seen
        return is_new

    def settle(self, seen: Look) -> None:
        """Take the files as read: `seen` is of them, from just before."""
        self._settled = self._last = seen
        self._since = None

    def rest_s(self) -> float:
        """Return for how long not to look: shorter while something moves."""
        limits = self._limits
        return limits.reload_look_s if self._since is None else limits.reload_quiet_s
