"""The octets of a table of deny lists: who makes them and who reads them agree here.

One row for each trigger, in columns: the hash of its key (64 bits, ascending), its line, and its
tag (list, scope, deed).  Before them stand a filter, which says of nearly every name that is not
listed that it is not (32 bits a row; a Bloom filter with one hash), and an index over the first
bits of the hashes.  After them stand local data.  All is in the machine's own byte order: a table
is made and mapped on one machine, and never kept.

A key is the name; `@` and the name for a name server; `#`, a prefix length and the octets of a
network for an address.  Names hold neither `@` nor `#`.
"""

import struct
from collections.abc import Callable, Iterator, Sequence
from enum import IntEnum
from hashlib import blake2b
from typing import Final
from zlib import crc32

from msgspec import Struct

from rules.address import Network
from rules.decision import LocalRecord

MAGIC: Final = b"deny\x00\x00\x00\x01"
KEY_OCTETS: Final = 16
FILTER_BITS_A_ROW: Final = 32
INDEX_BITS: Final = 16  # at most: 256 KiB

NO_NAME: Final = frozenset(b"#@.")
"""What keys begin with that are no names below the root."""

_HEADER = struct.Struct("=8s16sIIIIIIQQQQ")
_RECORD = struct.Struct("=HIH")  # type, TTL, octets
_COUNT = struct.Struct("=H")
_ALIGNMENT = 8


class Scope(IntEnum):
    """Which names a trigger is about."""

    EXACT = 0
    BELOW = 1  # RPZ's wildcards: one label more, or several
    BOTH = 2
    EXEMPT = 3  # AdBlock's `@@`: the name and what is below pass, whatever else the list says


class Deed(IntEnum):
    """What a trigger does: `rules.listed.Action` in three bits."""

    DENY = 0
    NXDOMAIN = 1
    NODATA = 2
    DROP = 3
    LOCAL = 4
    PASSTHRU = 5


class Sizes(Struct, frozen=True):
    """How much of each a table holds; `root` says that a trigger is about every name."""

    lists: int
    rows: int
    index_bits: int
    filter_bits: int  # the exponent
    extras: int
    blob_octets: int
    root: bool
    servers: bool
    lengths4: int  # a bit for each prefix length of IPv4 that some trigger has
    lengths6: int

    def sections(self) -> tuple[int, ...]:
        """Return where filter, index, hashes, lines, tags, extras and blob begin, and the end."""
        octets = (
            _HEADER.size,
            (1 << self.filter_bits) // 8,
            4 * ((1 << self.index_bits) + 1),
            8 * self.rows,
            4 * self.rows,
            2 * self.rows,
            8 * self.extras,
            self.blob_octets,
        )
        at, begins = 0, []
        for each in octets:
            at += padded(each)
            begins.append(at)
        return tuple(begins)


def sizes_for(rows: int) -> tuple[int, int]:
    """Return the exponents of the index and of the filter of a table of `rows`."""
    index_bits = min(INDEX_BITS, max(0, rows.bit_length() - 4))
    return index_bits, max(6, (rows * FILTER_BITS_A_ROW).bit_length())


def write_header(sizes: Sizes, key: bytes) -> bytes:
    """Return the first octets of a table."""
    flags = sizes.root | sizes.servers << 1 | len(key) << 8
    six = sizes.lengths6
    return _HEADER.pack(
        MAGIC,
        key,
        sizes.lists,
        sizes.rows,
        sizes.index_bits << 8 | sizes.filter_bits,
        sizes.extras,
        sizes.blob_octets,
        flags,
        sizes.lengths4,
        six & _MASK64,
        six >> 64 & _MASK64,
        six >> 128,
    )


def read_header(octets: memoryview) -> tuple[Sizes, bytes] | None:
    """Return the sizes and the key of a table; None where these octets are none."""
    if len(octets) < _HEADER.size:
        return None
    magic, key, lists, rows, bits, extras, blob, flags, four, low, high, top = _HEADER.unpack_from(
        octets
    )
    if magic != MAGIC:
        return None
    six = low | high << 64 | top << 128
    root, servers = bool(flags & 1), bool(flags & 2)
    sizes = Sizes(lists, rows, bits >> 8, bits & 255, extras, blob, root, servers, four, six)
    return sizes, key[: flags >> 8]


def write_record(record: LocalRecord) -> bytes:
    """Return a local record as octets."""
    return _RECORD.pack(record.rtype, record.ttl_s, len(record.rdata)) + record.rdata


def write_records(records: Sequence[bytes]) -> bytes:
    """Return the records of one subject as octets."""
    return _COUNT.pack(len(records)) + b"".join(records)


def read_records(blob: memoryview, place: int) -> Iterator[LocalRecord]:
    """Yield the records that stand at `place` of the local data."""
    (count,) = _COUNT.unpack_from(blob, place)
    place += _COUNT.size
    for _ in range(count):
        rtype, ttl_s, octets = _RECORD.unpack_from(blob, place)
        place += _RECORD.size
        yield LocalRecord(rtype, ttl_s, bytes(blob[place : place + octets]))
        place += octets


def padded(octets: int) -> int:
    """Return the length of a section of `octets`, for the next one to begin aligned."""
    return -(-octets // _ALIGNMENT) * _ALIGNMENT


def hasher(secret: bytes) -> Callable[[bytes], int]:
    """Return what gives the hash under which a trigger of some key stands."""
    begin, number = blake2b(digest_size=8, key=secret).copy, int.from_bytes

    def hashed(key: bytes) -> int:
        state = begin()  # a copy has read the secret already: half the time
        state.update(key)
        return number(state.digest())

    return hashed


def sieve_of_name(name: bytes) -> int:
    """Return where a name stands in the filter.

    It is made from the last label on: one pass over a name gives it for the ancestors, too.
    """
    sieve = 0
    for label in reversed(name.split(b".")):
        sieve = crc32(label, sieve)
    return sieve


def sieve_of_key(key: bytes) -> int:
    """Return where the key of an address or a name server stands in the filter."""
    return crc32(key)


def key_of_server(name: bytes) -> bytes:
    """Return the key of a name server."""
    return b"@" + name


def key_of_network(network: Network) -> bytes:
    """Return the key of an address trigger."""
    return key_of_prefix(int(network.network_address), network.prefixlen, network.max_prefixlen)


def key_of_prefix(value: int, length: int, bits: int) -> bytes:
    """Return the key of the network of `length` that holds the address `value` of `bits`."""
    host = bits - length
    return b"#%c" % length + (value >> host << host).to_bytes(bits // 8)


def tag_of(number: int, scope: int, deed: int) -> int:
    """Return the tag of a row: which list, about which names, what it does."""
    return number << 8 | scope << 4 | deed


def split_tag(tag: int) -> tuple[int, int, int]:
    """Return list, scope and deed of a tag."""
    return tag >> 8, tag >> 4 & 15, tag & 15


_MASK64 = (1 << 64) - 1
