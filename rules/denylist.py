"""Deny lists in force: `rules.listed.Lists` over the octets that `rules.lists.compile` made.

The order: lists in the order of the rules; within a list a name before an address before a name
server (draft-vixie-dnsop-dns-rpz-00, section 5.2), the name itself before what stands above it, the
nearest first, and the longest prefix.  What lets a name pass shields it from its own list alone.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from ipaddress import ip_network
from itertools import chain, pairwise, takewhile
from typing import Final
from zlib import crc32

from msgspec import Struct
from msgspec.structs import replace

from rules.address import Address, embedded
from rules.decision import LocalRecord, Refuse
from rules.errors import RuleError
from rules.listed import Listed
from rules.lists.layout import (
    Deed,
    Scope,
    hasher,
    key_of_prefix,
    key_of_server,
    read_header,
    read_records,
    sieve_of_key,
    split_tag,
)
from rules.lists.rdata import name_octets
from rules.name import ROOT, DomainName, ancestors
from rules.rtype import CNAME
from rules.ruleset import ListSource

_REFUSE = {
    Deed.DENY: None,
    Deed.NXDOMAIN: Refuse.NXDOMAIN,
    Deed.NODATA: Refuse.NODATA,
    Deed.DROP: Refuse.DROP,
    Deed.LOCAL: Refuse.NODATA,  # of the types that the list has no record of
}
_STAR = b"\x01*"
NAME_OCTETS: Final = 255  # RFC 1035, section 2.3.4


class MalformedTableError(RuleError):
    """The octets are no table of these lists: made by another version, or cut short."""


class _Row(Struct, gc=False):
    """A row that is about what was asked; `at` is its place in the columns."""

    at: int
    number: int  # of its list
    scope: int
    deed: int
    trigger: str


class DenyTable:
    """All lists of a rule set: a million names in 18.5 MB of octets that are only mapped.

    Raises:
        MalformedTableError: `buffer` was not made of `sources`.
    """

    covers_all: bool

    def __init__(self, buffer: memoryview, sources: tuple[ListSource, ...]) -> None:
        header = read_header(buffer)
        if header is None or header[0].lists != len(sources):
            raise MalformedTableError("these octets are no table of these lists")
        sizes, secret = header
        self._hashed = hasher(secret)
        begins = sizes.sections()
        if len(buffer) < begins[-1]:
            raise MalformedTableError("this table of lists was cut short")
        parts = [buffer[begin:end] for begin, end in pairwise(begins)]
        self._filter, self._index = parts[0], parts[1].cast("I")
        self._hashes, self._lines = parts[2].cast("Q"), parts[3].cast("I")
        self._tags = parts[4].cast("H")
        self._extras, self._blob = parts[5].cast("I"), parts[6]
        self._count = sizes.rows
        self._mask = (1 << sizes.filter_bits) - 1
        self._shift = 64 - sizes.index_bits
        self._root, self._servers = sizes.root, sizes.servers
        self._lengths = {32: _descending(sizes.lengths4), 128: _descending(sizes.lengths6)}
        self._sources = sources
        self._apps = frozenset(chain.from_iterable(source.apps or () for source in sources))
        self.covers_all = any(source.apps is None for source in sources)

    def covers(self, app: str, /) -> bool:
        """Return whether any list covers `app`."""
        return self.covers_all or app in self._apps

    def find(self, app: str, name: DomainName, /) -> Listed | None:
        """Return what denies `name` to `app`; None: nothing does."""
        hits = self._sift(name)
        return self._first(app, self._named(name, hits), name) if hits or self._root else None

    def find_address(
        self, app: str, address: Address, name: DomainName | None = None, /
    ) -> Listed | None:
        """Return what denies `app` the address of an answer, `name`'s where there is one.

        What lets `name` pass in a list (`except`, passthru) shields it from that list's addresses.
        An address that another one carries is one of the answer's, too.
        """
        rows: list[_Row] = []
        for one in (address, *embedded(address)):
            bits, value = one.max_prefixlen, int(one)
            for length in self._lengths[bits]:
                key = key_of_prefix(value, length, bits)
                if self._may_hold(key):
                    network = ip_network((value, length), strict=False)
                    rows += self._rows(key, str(network))
        return self._first(app, rows, name, shielded=True) if rows else None

    def find_server(
        self, app: str, server: DomainName, name: DomainName | None = None, /
    ) -> Listed | None:
        """Return what denies `app` names of the name server `server`, `name` where it is known.

        `except` of a list covers both, and what lets `name` pass shields it.
        """
        if not self._servers:
            return None
        rows: list[_Row] = []
        for above in (server, *ancestors(server), ROOT):
            key = key_of_server(above.encode())
            if self._may_hold(key):
                rows += _about(self._rows(key, above), itself=above == server)
        return self._first(app, rows, name, server, shielded=True) if rows else None

    def _sift(self, name: str) -> list[int]:
        """Return with how many of its last labels `name` may be listed."""
        octets, mask, sieve, hits = self._filter, self._mask, 0, []
        labels = name.encode().split(b".")
        labels.reverse()
        for count, label in enumerate(labels, 1):
            sieve = crc32(label, sieve)
            if octets[(sieve & mask) >> 3] >> (sieve & 7) & 1:
                key = b".".join(labels[count - 1 :: -1])
                if self._place(key) is not None:
                    hits.append(count)
        return hits

    def _may_hold(self, key: bytes) -> bool:
        place = sieve_of_key(key) & self._mask
        return bool(self._filter[place >> 3] >> (place & 7) & 1)

    def _named(self, name: str, hits: Sequence[int]) -> list[_Row]:
        """Return the rows about `name`, the nearest first."""
        labels = name.split(".")
        rows: list[_Row] = []
        for count in reversed(hits):
            above = ".".join(labels[-count:])
            rows += _about(self._rows(above.encode(), above), itself=count == len(labels))
        if self._root:
            rows += _about(self._rows(b".", ROOT), itself=name == ROOT)
        return rows

    def _rows(self, key: bytes, trigger: str) -> Iterator[_Row]:
        """Yield the rows of `key`, list by list."""
        first = self._place(key)
        if first is not None:
            value = self._hashes[first]
            for at in takewhile(lambda at: self._hashes[at] == value, range(first, self._count)):
                yield _Row(at, *split_tag(self._tags[at]), trigger)

    def _place(self, key: bytes) -> int | None:
        """Return where the first row of `key` is; None where it has none."""
        value = self._hashed(key)
        bucket = value >> self._shift
        end = self._index[bucket + 1]
        at = bisect_left(self._hashes, value, self._index[bucket], end)
        return at if at < end and self._hashes[at] == value else None

    def _first(
        self,
        app: str,
        rows: Iterable[_Row],
        *names: DomainName | None,
        shielded: bool = False,
    ) -> Listed | None:
        """Return what the first list says that covers `app` and lets none of `names` pass."""
        name = names[0]
        passing = self._passing(name) if shielded and name is not None else frozenset()
        for row in _best(rows):
            source = self._sources[row.number]
            covers = source.apps is None or app in source.apps
            if not covers or row.deed == Deed.PASSTHRU or row.number in passing:
                continue
            if not any(each is not None and _is_excepted(source, each) for each in names):
                return self._listed(source, row, name)
        return None

    def _passing(self, name: DomainName) -> frozenset[int]:
        """Return the lists that let `name` pass."""
        rows = _best(self._named(name, self._sift(name)))
        return frozenset(row.number for row in rows if row.deed == Deed.PASSTHRU)

    def _listed(self, source: ListSource, row: _Row, name: DomainName | None) -> Listed:
        line = self._lines[row.at]
        local: tuple[LocalRecord, ...] = ()
        deed = Deed(row.deed)
        if deed is Deed.LOCAL:
            line, place = self._extras[2 * line : 2 * line + 2]
            # Records may lead anywhere: they need an admin who knows that the list has such.
            if source.refuse is None and source.format == "rpz":
                local = tuple(_fitted(read_records(self._blob, place), name))
        refuse = _REFUSE[deed] if source.refuse is None else source.refuse
        trigger = row.trigger
        if row.scope == Scope.BELOW:
            trigger = "*" if trigger == ROOT else f"*.{trigger}"
        return Listed(source.shown, line, trigger, refuse, local)


def _descending(lengths: int) -> tuple[int, ...]:
    return tuple(each for each in range(128, -1, -1) if lengths >> each & 1)


def _about(rows: Iterable[_Row], *, itself: bool) -> Iterator[_Row]:
    """Yield the rows that are about the name itself, or about what is below it."""
    other = Scope.BELOW if itself else Scope.EXACT
    return (row for row in rows if row.scope != other)


def _best(rows: Iterable[_Row]) -> list[_Row]:
    """Return the row that decides for each list, in their order; `rows` are the nearest first."""
    best: dict[int, _Row] = {}
    for row in rows:
        if row.scope == Scope.EXEMPT:
            best[row.number] = row
        else:
            best.setdefault(row.number, row)
    return [best[number] for number in sorted(best)]


def _is_excepted(source: ListSource, name: DomainName) -> bool:
    excepts = source.excepts
    return bool(excepts) and any(each in excepts for each in (name, *ancestors(name)))


def _fitted(records: Iterable[LocalRecord], name: DomainName | None) -> Iterator[LocalRecord]:
    """Yield the records for `name`: a CNAME to `*.base` puts it before the base (section 3.6)."""
    for record in records:
        if record.rtype != CNAME or not record.rdata.startswith(_STAR):
            yield record
        elif name is not None and len(name) + len(record.rdata) - 1 <= NAME_OCTETS:
            yield replace(record, rdata=name_octets(name)[:-1] + record.rdata[len(_STAR) :])
