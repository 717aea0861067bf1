"""Triggers become the rows of a table: sorted, each once, without the names themselves.

Rows are kept in shards of the hash's first eight bits as pairs of 64-bit integers, so that at no
time there is an object for each of a million names.
"""

from array import array
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import islice, takewhile
from typing import Final

from rules.lists.layout import (
    KEY_OCTETS,
    NO_NAME,
    Deed,
    Sizes,
    hasher,
    padded,
    sieve_of_key,
    sieve_of_name,
    sizes_for,
    tag_of,
    write_header,
    write_record,
    write_records,
)
from rules.lists.trigger import Trigger

LOCAL_OCTETS: Final = 16777216  # of distinct local records; what is more is answered as empty
RECORDS_A_NAME: Final = 64  # further ones are left out; an answer of 64 addresses has 1 KiB

_SHARDS = 256

# A row before it is sorted: list, scope, line, deed, number of the local record (0: none).
_LIST, _SCOPE, _LINE, _DEED = 58, 56, 29, 26
_MOST_LINE, _MOST_RECORD = (1 << 27) - 1, (1 << 26) - 1


class Rows:
    """Gathers triggers; `pieces` then is the table, once."""

    def __init__(self, lists: int, secret: bytes) -> None:
        self._lists = lists
        self._secret = secret[:KEY_OCTETS]
        self._hashed = hasher(self._secret)
        self._shards = [array("Q") for _ in range(_SHARDS)]
        self._sieves = array("I")
        self._records: dict[bytes, int] = {}
        self._record_octets = 0
        self._lengths = {4: 0, 16: 0}
        self._root = False
        self._servers = False

    def __len__(self) -> int:
        """Return how many triggers were added."""
        return len(self._sieves)

    def add(self, number: int, trigger: Trigger) -> None:
        """Add a trigger of the list `number`."""
        key = trigger.key
        if key[0] in NO_NAME:
            self._note(key)
            self._sieves.append(sieve_of_key(key))
        else:
            self._sieves.append(sieve_of_name(key))
        value = self._hashed(key)
        shard = self._shards[value >> 56]
        shard.append(value)
        shard.append(
            number << _LIST
            | trigger.scope << _SCOPE
            | trigger.line << _LINE
            | trigger.deed << _DEED
            | self._number(trigger)
        )

    def pieces(self) -> tuple[memoryview, ...]:
        """Return the table; the rows are gone then."""
        columns = _Columns(list(self._records))
        for number, shard in enumerate(self._shards):
            columns.fill(sorted(zip(shard[::2], shard[1::2], strict=True)))
            self._shards[number] = array("Q")
        rows = len(columns.hashes)
        index_bits, filter_bits = sizes_for(rows)
        sizes = Sizes(
            lists=self._lists,
            rows=rows,
            index_bits=index_bits,
            filter_bits=filter_bits,
            extras=len(columns.extras) // 2,
            blob_octets=len(columns.blob),
            root=self._root,
            servers=self._servers,
            lengths4=self._lengths[4],
            lengths6=self._lengths[16],
        )
        sieve = _filter(self._sieves, filter_bits)
        index = _index(columns.hashes, index_bits)
        header = write_header(sizes, self._secret)
        sections = (header, sieve, index, *columns.sections())
        return tuple(memoryview(each) for section in sections for each in _aligned(section))

    def _note(self, key: bytes) -> None:
        if key[:1] == b"#":
            self._lengths[len(key) - 2] |= 1 << key[1]
        elif key[:1] == b"@":
            self._servers = True
        else:
            self._root = True

    def _number(self, trigger: Trigger) -> int:
        """Return the number of the trigger's local record, from 1; 0 where it has none."""
        if trigger.record is None:
            return 0
        octets = write_record(trigger.record)
        number = self._records.get(octets, 0)
        if not number and self._record_octets + len(octets) <= LOCAL_OCTETS:
            self._record_octets += len(octets)
            number = self._records[octets] = len(self._records) + 1
        return number


class _Columns:
    """The rows in their order, column by column, and the local data."""

    def __init__(self, records: Sequence[bytes]) -> None:
        self._records = records
        self._sets: dict[tuple[int, ...], int] = {}
        self.hashes = array("Q")
        self.lines = array("I")
        self.tags = array("H")
        self.extras = array("I")
        self.blob = bytearray()

    def sections(self) -> tuple[array[int] | bytearray, ...]:
        """Return them in the order of the layout."""
        return self.hashes, self.lines, self.tags, self.extras, self.blob

    def fill(self, rows: Sequence[tuple[int, int]]) -> None:
        """Add sorted rows; of one subject in one list the first line holds.

        Local data of several lines is one answer.
        """
        before: tuple[int, int] | None = None
        for at, (value, word) in enumerate(rows):
            subject = word >> _SCOPE
            if before == (value, subject):
                continue
            before = value, subject
            line, deed = word >> _LINE & _MOST_LINE, word >> _DEED & 7
            self.hashes.append(value)
            self.tags.append(tag_of(subject >> 2, subject & 3, deed))
            if deed == Deed.LOCAL:
                self.lines.append(len(self.extras) // 2)
                self.extras.append(line)
                self.extras.append(self._place(rows, at))
            else:
                self.lines.append(line)

    def _place(self, rows: Sequence[tuple[int, int]], at: int) -> int:
        """Return where the records of the subject stand in the blob whose rows begin at `at`."""
        subject = _subject(rows[at])
        same = takewhile(lambda row: _subject(row) == subject, islice(rows, at, None))
        found = dict.fromkeys(word & _MOST_RECORD for _, word in same)
        numbers = tuple(number for number in found if number)[:RECORDS_A_NAME]
        place = self._sets.get(numbers)
        if place is None:
            place = self._sets[numbers] = len(self.blob)
            self.blob += write_records([self._records[number - 1] for number in numbers])
        return place


def _subject(row: tuple[int, int]) -> tuple[int, int]:
    return row[0], row[1] >> _SCOPE


def _filter(sieves: Sequence[int], bits: int) -> bytearray:
    octets, mask = bytearray((1 << bits) // 8), (1 << bits) - 1
    for sieve in sieves:
        place = sieve & mask
        octets[place >> 3] |= 1 << (place & 7)
    return octets


def _index(hashes: Sequence[int], bits: int) -> array[int]:
    shift = 64 - bits
    return array("I", [bisect_left(hashes, first << shift) for first in range((1 << bits) + 1)])


def _aligned(section: bytes | bytearray | array[int]) -> Iterator[bytes | bytearray | array[int]]:
    octets = memoryview(section).nbytes
    yield section
    if padded(octets) > octets:
        yield bytes(padded(octets) - octets)
