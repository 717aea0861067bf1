"""What is kept of the oldest audit lines when room must be made: a fair share for every app.

Dropping the oldest file as it is would let one app roll the history of all out, by writing as
much as its quota lets it.  So the two oldest files are merged into one, and only apps that fill
more than their share of it lose lines, their oldest first (max-min fairness).
"""

import contextlib
import itertools
import os
import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

_APP = re.compile(rb'"app":(?:"([^"]*)"|null)')
_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_BREATH_LINES = 2000  # about a millisecond; then the loop's thread gets the interpreter to itself
_BREATH_S = 0.002


def fair_share(octets: Iterable[int], room: int) -> int:
    """Return how many octets each app may keep so that `room` is not exceeded.

    `octets` is what each app has; one that has less than its share leaves the rest to others.
    """
    taken, left = sorted(octets), room
    for done, least in enumerate(taken):
        share = left // (len(taken) - done)
        if least > share:
            return share
        left -= least
    return room


def merge(older: Path, newer: Path, room: int) -> None:
    """Put what may stay of both files in place of `older`, in order, and remove `newer`.

    Raises:
        OSError: there is no space for a copy; both files are as they were.
    """
    octets = Counter[bytes]()
    for line in _lines(older, newer):
        octets[_app(line)] += len(line)
    if len(octets) > 1:
        share = fair_share(octets.values(), room)
        surplus = Counter({app: taken - share for app, taken in octets.items()})
        _rewrite(older, newer, surplus)
        newer.unlink()
    else:
        newer.replace(older)


def _rewrite(older: Path, newer: Path, surplus: Counter[bytes]) -> None:
    copy = older.with_suffix(".merge")
    copy.unlink(missing_ok=True)
    try:
        with open(os.open(copy, _FLAGS, 0o600), "wb") as file:  # noqa: PTH123 - opened by descriptor
            for line in _lines(older, newer):
                app = _app(line)
                if surplus[app] > 0:
                    surplus[app] -= len(line)
                else:
                    file.write(line)
            file.flush()
            os.fsync(file.fileno())
        copy.replace(older)
    finally:
        with contextlib.suppress(OSError):
            copy.unlink(missing_ok=True)


def _lines(*files: Path) -> Iterator[bytes]:
    for path in files:
        with path.open("rb") as file:
            while lines := list(itertools.islice(file, _BREATH_LINES)):
                yield from lines
                time.sleep(_BREATH_S)


def _app(line: bytes) -> bytes:
    # The fields of a record come before its detail, and quotes in strings are escaped.
    found = _APP.search(line)
    return b"" if found is None else found[1] or b""
