"""Triggers become sorted rows: of one subject in one list the first line holds."""

from itertools import pairwise

import pytest

from rules.decision import LocalRecord
from rules.lists import rows as module
from rules.lists.layout import Deed, Scope, Sizes, hasher, key_of_server, read_header, read_records
from rules.lists.rows import RECORDS_A_NAME, Rows
from rules.lists.trigger import Trigger

ONE, TWO = LocalRecord(1, 60, b"abcd"), LocalRecord(16, 5, b"\x01x")


class Table:
    """The columns of what `rows` give."""

    def __init__(self, rows: Rows) -> None:
        octets = memoryview(b"".join(rows.pieces()))
        header = read_header(octets)
        assert header is not None
        self.sizes: Sizes = header[0]
        begins = self.sizes.sections()
        assert len(octets) == begins[-1]
        parts = [octets[begin:end] for begin, end in pairwise(begins)]
        count = self.sizes.rows
        self.filter, self.index = parts[0], parts[1].cast("I")
        self.hashes = list(parts[2].cast("Q"))[:count]
        self.lines = list(parts[3].cast("I"))[:count]
        self.tags = list(parts[4].cast("H"))[:count]
        self.extras, self.blob = parts[5].cast("I"), parts[6]

    def local(self, row: int) -> tuple[int, list[LocalRecord]]:
        """Return line and records of a row of local data."""
        line, place = self.extras[2 * self.lines[row] : 2 * self.lines[row] + 2]
        return line, list(read_records(self.blob, place))


def gathered(*triggers: tuple[int, Trigger]) -> Table:
    rows = Rows(4, b"secret")
    for number, trigger in triggers:
        rows.add(number, trigger)
    assert len(rows) == len(triggers)
    return Table(rows)


def local(line: int, record: LocalRecord | None, key: bytes = b"a.b") -> tuple[int, Trigger]:
    return 0, Trigger(line, key, Scope.EXACT, Deed.LOCAL, record)


def test_rows_are_sorted_and_the_index_leads_to_them() -> None:
    names = [b"n%d.example" % n for n in range(500)]
    made = gathered(*((0, Trigger(n + 1, name, Scope.BOTH)) for n, name in enumerate(names)))
    assert made.hashes == sorted(map(hasher(b"secret"), names))
    shift = 64 - made.sizes.index_bits
    for row, value in enumerate(made.hashes):
        assert made.index[value >> shift] <= row < made.index[(value >> shift) + 1]
    assert made.index[len(made.index.tolist()) - 1] in {0, 500}


def test_an_empty_table_has_an_index_and_a_filter() -> None:
    made = gathered()
    assert (made.sizes.rows, made.hashes, bytes(made.filter)) == (0, [], bytes(8))


def test_of_one_subject_in_one_list_the_first_line_holds() -> None:
    made = gathered(
        (1, Trigger(9, b"a.b", Scope.EXACT)),
        (1, Trigger(3, b"a.b", Scope.EXACT, Deed.PASSTHRU)),
        (1, Trigger(5, b"a.b", Scope.BELOW)),
        (0, Trigger(7, b"a.b", Scope.EXACT)),
    )
    assert made.lines == [7, 3, 5]
    assert [tag >> 8 for tag in made.tags] == [0, 1, 1]


def test_local_data_of_several_lines_is_one_answer() -> None:
    made = gathered(
        local(4, TWO),
        local(3, ONE),
        local(5, ONE),
        local(6, None),
        local(7, ONE, b"c.d"),
        local(8, TWO, b"c.d"),
        local(9, None, b"e.f"),
    )
    found = sorted(made.local(row) for row in range(3)) if made.sizes.rows == 3 else []
    assert found == [(3, [ONE, TWO]), (7, [ONE, TWO]), (9, [])]
    assert made.sizes.extras == 3
    assert made.sizes.blob_octets == 2 + (8 + 4) + (8 + 2) + 2


def test_an_answer_has_no_more_records_than_the_bound() -> None:
    many = (LocalRecord(1, 60, n.to_bytes(4)) for n in range(RECORDS_A_NAME + 5))
    made = gathered(*(local(n + 1, record) for n, record in enumerate(many)))
    assert len(made.local(0)[1]) == RECORDS_A_NAME


def test_local_data_beyond_the_bound_leaves_an_empty_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "LOCAL_OCTETS", 12)
    made = gathered(local(1, ONE), local(2, TWO, b"c.d"), local(3, ONE, b"e.f"))
    found = sorted(made.local(row) for row in range(3))
    assert found == [(1, [ONE]), (2, []), (3, [ONE])]


def test_what_stands_in_the_table_is_noted_in_its_header() -> None:
    made = gathered(
        (0, Trigger(1, b"#\x08\x0a\0\0\0", Scope.EXACT)),
        (0, Trigger(2, b"#\x20" + bytes(16), Scope.EXACT)),
        (0, Trigger(3, key_of_server(b"ns.a"), Scope.EXACT)),
        (0, Trigger(4, b".", Scope.BELOW)),
    ).sizes
    assert (made.lengths4, made.lengths6, made.servers, made.root) == (1 << 8, 1 << 32, True, True)
    made = gathered((0, Trigger(1, b"a.b", Scope.EXACT))).sizes
    assert (made.lengths4, made.lengths6, made.servers, made.root) == (0, 0, False, False)
