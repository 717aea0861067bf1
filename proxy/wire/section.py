"""The field section of a head, read once while a connection repeats it.

A client repeats its fields from request to request, and an origin its own within a second.
Octets that are the same mean the same, so a `SectionMemory` keeps the last section of one
connection: what it holds is never older than that connection, nor shared with another.
"""

import re

from msgspec import Struct

from proxy.wire.fields import (
    FIELD_LINES,
    NO_OPTIONS,
    Blame,
    Field,
    Fields,
    blame_line,
    connection_options,
    end_to_end,
    split_lines,
    write_fields,
)

_SECTION = re.compile(FIELD_LINES)
_BEARING = frozenset({b"host", b"content-length", b"transfer-encoding", b"connection", b"expect"})
_SINGLE = frozenset({b"host", b"content-length", b"transfer-encoding"})


class Section(Struct, frozen=True):
    """The fields of one head.

    `bearing` are those that say where a message ends, whom it is for and what comes next;
    `options` are those of Connection, lower case.  `kept` is what a proxy sends on, written
    anew, without the one field that it writes itself or takes out.
    """

    octets: bytes
    fields: Fields
    bearing: dict[bytes, bytes]
    options: frozenset[bytes]
    kept: bytes


def read_section(octets: bytes, most: int, blame: Blame, dropped: bytes) -> Section:
    """Return the fields of `octets`, each line of which begins with CRLF.

    Raises:
        ProxyError: a line that is no field, more than `most` fields, two of what must be one,
            or a Connection option that names an end-to-end field.
    """
    if not _SECTION.fullmatch(octets):
        raise blame(blame_line(octets.split(b"\r\n")[1:]))
    lines = octets.split(b"\r\n")
    if len(lines) > most + 1:
        raise blame(f"more than {most} fields")
    del lines[0]
    fields = split_lines(lines)
    bearing = _bearing(fields, blame)
    connection = bearing.get(b"connection")
    options = NO_OPTIONS if connection is None else connection_options(connection, blame)
    kept = write_fields([field for field in end_to_end(fields) if field[0] != dropped])
    return Section(octets, fields, bearing, options, kept)


class SectionMemory:
    """The last section of one connection; `dropped` is the field that `kept` is without."""

    __slots__ = ("_dropped", "_last")

    def __init__(self, dropped: bytes) -> None:
        self._dropped = dropped
        self._last: Section | None = None

    def read(self, octets: bytes, most: int, blame: Blame) -> Section:
        """Return the fields of `octets`, from memory if they are those of the last head.

        Raises:
            ProxyError: as for `read_section`; the memory then stays as it was.
        """
        last = self._last
        if last is None or last.octets != octets:
            self._last = last = read_section(octets, most, blame, self._dropped)
        return last


def _bearing(fields: Fields, blame: Blame) -> dict[bytes, bytes]:
    found: list[Field] = [field for field in fields if field[0] in _BEARING]
    bearing = dict(found)
    if len(bearing) == len(found):
        return bearing
    for name in bearing:
        values = [value for other, value in found if other == name]
        if len(values) > 1 and name in _SINGLE:
            raise blame(f"send one {name.decode('ascii')} field")
        bearing[name] = b",".join(values)  # RFC 9110, section 5.3
    return bearing
