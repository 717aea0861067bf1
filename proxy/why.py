"""Look into the audit files for `sallyport why`: by id, or the last refusal.

Pure reading, while the appliance may be writing and rotating.  A line stands in the file about
a second after what it tells of, because repeats fold into it for that long.
"""

import os
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from proxy.audit_file import series
from proxy.audit_line import Record, printable
from proxy.errors import BindError

_BLOCK_OCTETS = 1 << 18
_LINE_OCTETS = 1 << 20  # no line of ours is longer; what is, is no line
_SCAN_OCTETS = 4 << 30  # four times what the files hold by default (16 of 64 MiB)
_GLANCE_OCTETS = 16 << 20  # of the newest file: some 40,000 lines
_KEYS = frozenset(Record.__struct_fields__)
_REFUSED = (b'"verdict":"deny"', b'"verdict":"fail"')


type Entry = dict[str, Any]
"""One audit line; its keys stand in the order of reference.md, then those of the detail."""


def audit_files(file: Path) -> tuple[Path, ...]:
    """Return the audit files that exist beside `file`, the newest first.

    Raises:
        BindError: their folder cannot be read.
    """
    return series(file)


def find(files: Sequence[Path], id: str) -> Entry | None:  # noqa: A002 - the audit field's own name
    """Return the last line that stands under `id`; `files` begin with the newest.

    The id may be written as in a refusal's `instance`: `urn:uuid:` and hyphens are dropped.

    Raises:
        BindError: a file cannot be read.
    """
    wanted = id.strip().lower().removeprefix("urn:uuid:").replace("-", "")
    mark = b'"id":%b' % msgspec.json.encode(wanted)
    entries = (_read(line) for line in _lines_with(files, mark, _SCAN_OCTETS))
    return next((entry for entry in entries if entry and entry["id"] == wanted), None)


def last(files: Sequence[Path], app: str | None = None) -> Entry | None:
    """Return the last refusal or failure, of `app` where one is given.

    Raises:
        BindError: a file cannot be read.
    """
    return next(_refused(files, app, _SCAN_OCTETS), None)


def newest(files: Sequence[Path], app: str, count: int) -> list[Entry]:
    """Return the last `count` refusals and failures of `app`, the newest first.

    Only the end of the files is read: an app that was refused long ago has none here.

    Raises:
        BindError: a file cannot be read.
    """
    return list(islice(_refused(files, app, _GLANCE_OCTETS), count))


def _refused(files: Sequence[Path], app: str | None, octets: int) -> Iterator[Entry]:
    mark = b"" if app is None else b'"app":%b' % msgspec.json.encode(app)
    for line in _lines_with(files, mark, octets):
        if not any(verdict in line for verdict in _REFUSED):
            continue
        entry = _read(line)
        if entry is None or entry["verdict"] not in {"deny", "fail"}:
            continue
        if app is None or entry["app"] == app:
            yield entry


def rows(entry: Entry) -> list[tuple[str, str]]:
    """Return name and value of each key for a person: no octet of them moves a cursor."""
    return [(printable(name), _word(value)) for name, value in entry.items()]


def as_json(entry: Entry) -> str:
    """Return `entry` as one line of JSON, as safe to show as the line in the file was."""
    return printable(msgspec.json.encode(entry).decode())


def _word(value: object) -> str:
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return printable(text)


def _read(line: bytes) -> Entry | None:
    """Return what `line` says; None for a line that a crash cut off, or that is not ours."""
    try:
        entry = msgspec.json.decode(line, type=Entry)
    except msgspec.MsgspecError:
        return None
    return entry if entry.keys() >= _KEYS else None


def _lines_with(files: Sequence[Path], mark: bytes, left: int) -> Iterator[bytes]:
    """Yield the lines that hold `mark`, the last line of the first file first."""
    for path in files:
        try:
            with path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                yield from _lines_backwards(file, size, max(0, size - left), mark)
                left = max(0, left - size)
        except FileNotFoundError:
            continue  # rotated out meanwhile
        except OSError as error:
            text = f"cannot read {path}: {error.strerror}; ask as the user that sallyport runs as"
            raise BindError(text) from None


def _lines_backwards(file: BinaryIO, end: int, stop: int, mark: bytes) -> Iterator[bytes]:
    rest = b""  # the beginning of `rest` is not at the beginning of a line yet
    while end > stop:
        start = max(stop, end - _BLOCK_OCTETS)
        file.seek(start)
        block = file.read(end - start) + rest
        end = start
        rest, line_feed, lines = block.partition(b"\n")
        if not line_feed:
            rest = block if len(block) <= _LINE_OCTETS else b""
        elif mark in lines:
            yield from (line for line in reversed(lines.split(b"\n")) if mark in line)
    if mark in rest and not stop:
        yield rest
