"""Zone files as text (RFC 1035, section 5): lines -> records whose owners are whole names.

What is read is what a policy zone has: `$ORIGIN`, `$TTL` (RFC 2308, section 4), parentheses, quoted
strings and comments.  `$INCLUDE` and `$GENERATE` are skipped and counted.
"""

import re
from collections.abc import Iterator
from typing import Final

from msgspec import Struct

from rules import rtype
from rules.lists.trigger import Lines, Skipped, Tally

TTL_S: Final = 60  # where neither record nor `$TTL` says one; what RPZ feeds mostly have
MOST_TTL_S: Final = 2147483647  # RFC 2181, section 8
TOKENS: Final = 256  # of a record over its lines; a TXT record of 64 KiB has as many strings

UNKNOWN: Final = "\x00"
"""The origin until `$ORIGIN` or the SOA's owner says it: no name holds a NUL."""

# The one form that nearly all lines of a policy zone have.
_PLAIN = re.compile(
    r"([^\s\"();\\$]+)[ \t]+(?:(\d{1,10})[ \t]+)?(?:IN[ \t]+)?"
    r"CNAME[ \t]+([^\s\"();\\]+)\s*(?:;.*)?",
    re.IGNORECASE | re.ASCII,
)
_TOKEN = re.compile(r'\s*(?:"((?:[^"\\]|\\.)*)"|([()])|(;.*)|((?:[^\s"();\\]|\\.)+))', re.DOTALL)
_TTL = re.compile(r"\d{1,10}|(?:\d{1,10}[smhdw])+", re.IGNORECASE | re.ASCII)
_TTL_PART = re.compile(r"(\d+)([smhdw]?)", re.IGNORECASE | re.ASCII)
_UNIT_S = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_CLASSES = frozenset({"IN", "CH", "HS", "CS"})


class Record(Struct, gc=False):
    """A record; `owner` and names in `rdata` are as written, relative to `origin` without a dot."""

    line: int
    text: str
    owner: str  # whole, without the last dot
    origin: str
    ttl_s: int
    rtype: int
    rdata: list[str]


class _Broken(Exception):  # noqa: N818 - no error of anybody's program
    """A record that cannot be read; `word` is what of it."""

    def __init__(self, word: str, message: str) -> None:
        super().__init__(message)
        self.word = word


class ZoneReader:
    """Reads one zone file; `apex` is the zone's own name once it is known."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._origin = UNKNOWN
        self._owner: str | None = None
        self._ttl_s = TTL_S
        self._open = 0
        self._tokens: list[str] = []
        self._begun = (0, "")
        self._is_blank = False  # whether the record begins with white space: the owner is the last
        self.apex = UNKNOWN

    def records(self, lines: Lines) -> Iterator[Record]:
        """Yield the records; what cannot be read is skipped, with a warning."""
        for line, text in lines:
            plain = None if self._open else _PLAIN.fullmatch(text)
            if plain is not None:
                self._owner = self.whole(plain[1])
                ttl_s = self._ttl_s if plain[2] is None else min(int(plain[2]), MOST_TTL_S)
                yield Record(line, text, self._owner, self._origin, ttl_s, rtype.CNAME, [plain[3]])
                continue
            try:
                yield from self._line(line, text)
            except _Broken as broken:
                self._open, self._tokens = 0, []
                self._refuse(line, text, broken)
        if self._open:
            line, text = self._begun
            self._refuse(line, text, _Broken("(", "a parenthesis that is not closed"))

    def whole(self, name: str) -> str:
        """Return a name as it stands below the root, without the last dot."""
        if name == "@":
            return self._origin
        if name.endswith("."):
            return name[:-1].lower()
        return f"{name}.{self._origin}".removesuffix(".").lower()

    def _refuse(self, line: int, text: str, broken: _Broken) -> None:
        cure = "the record is skipped; tell its maintainer"
        self._tally.malformed(line, text, broken.word, str(broken), cure)

    def _line(self, line: int, text: str) -> Iterator[Record]:
        if not self._open:
            self._tokens, self._begun = [], (line, text)
            self._is_blank = text[:1].isspace()
        self._tokenise(text)
        if self._open or not self._tokens:
            return
        tokens, self._tokens = self._tokens, []
        if tokens[0].startswith("$"):
            self._directive(tokens)
        else:
            yield self._record(tokens)

    def _tokenise(self, text: str) -> None:
        at, rest = 0, text.rstrip()
        while at < len(rest):
            found = _TOKEN.match(rest, at)
            if found is None:
                raise _Broken(rest[at:].strip()[:1], "a quote or an escape that does not end")
            at = found.end()
            quoted, bracket, _, word = found.groups()
            if bracket:
                self._open += 1 if bracket == "(" else -1
            elif quoted is not None or word is not None:
                self._tokens.append(word if quoted is None else f'"{quoted}')
            if self._open not in {0, 1} or len(self._tokens) > TOKENS:
                raise _Broken(bracket or "", "parentheses in each other, or too many words")

    def _directive(self, tokens: list[str]) -> None:
        word, values = tokens[0].upper(), tokens[1:]
        if word == "$ORIGIN" and values:
            self._origin = self.whole(values[0])
            if self.apex == UNKNOWN:
                self.apex = self._origin  # until the SOA says otherwise
        elif word == "$TTL" and values and _TTL.fullmatch(values[0]):
            self._ttl_s = _seconds(values[0])
        elif word in {"$INCLUDE", "$GENERATE"}:
            self._tally.skip(Skipped.DIRECTIVE)
        else:
            raise _Broken(tokens[0], f"{tokens[0][:64]!r} is no directive of a zone file")

    def _record(self, tokens: list[str]) -> Record:
        line, text = self._begun
        if not self._is_blank:
            self._owner = self.whole(tokens.pop(0))
        if self._owner is None:
            raise _Broken(tokens[0], "a record without an owner")
        ttl_s = self._ttl_s
        while tokens:  # TTL and class, in either order (RFC 1035, section 5.1)
            word = tokens.pop(0)
            if _TTL.fullmatch(word):
                ttl_s = _seconds(word)
            elif word.upper() not in _CLASSES:
                number = rtype.number(word)
                if number is None:
                    raise _Broken(word, f"{word[:64]!r} is no record type")
                record = Record(line, text, self._owner, self._origin, ttl_s, number, tokens)
                if number == rtype.SOA:
                    self._begin_zone(record)
                return record
        raise _Broken(text.strip(), "a record without a type")

    def _begin_zone(self, record: Record) -> None:
        """Take the SOA's owner as the zone's name (RFC 1035, section 5.2)."""
        self.apex = record.owner
        if self._origin == UNKNOWN:
            self._origin = record.owner


def _seconds(text: str) -> int:
    """Return a TTL; BIND's units may stand in it."""
    parts = _TTL_PART.findall(text)
    return min(sum(int(number) * _UNIT_S[unit.lower()] for number, unit in parts), MOST_TTL_S)
