"""Zone files become records with whole owners; what cannot be read is skipped, with a warning."""

from textwrap import dedent

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules import rtype
from rules.lists.trigger import Skipped, Tally
from rules.lists.zone_file import MOST_TTL_S, TOKENS, TTL_S, UNKNOWN, Record, ZoneReader

SOA = "SOA a. b. 1 2 3 4 5"


def read(text: str) -> tuple[list[Record], ZoneReader, Tally]:
    tally = Tally("a.rpz")
    zone = ZoneReader(tally)
    lines = dedent(text).splitlines(keepends=True)
    return list(zone.records(enumerate(lines, 1))), zone, tally


def records(text: str) -> list[tuple[int, str, int, str, list[str]]]:
    found, _, tally = read(text)
    assert tally.problems == []
    return [
        (each.line, each.owner, each.ttl_s, rtype.mnemonic(each.rtype), each.rdata)
        for each in found
    ]


def warnings(text: str) -> list[str]:
    _, _, tally = read(text)
    return [f"{each.place} {each.message}" for each in tally.problems]


def test_a_zone_is_read_whole() -> None:
    text = """\
        $ORIGIN rpz.example.
        $TTL 2h
        @ IN SOA localhost. root.localhost. (
            1     ; serial
            3600 600 86400 60 )
          IN NS localhost.
        bad.example CNAME .   ; a comment
        Bad.EXAMPLE 30 IN CNAME *.
        other.example IN 30s TXT "a ; b" c
          1w A 192.0.2.1
        abs.rpz.example. CNAME rpz-drop.
        $ORIGIN com.rpz.example.
        worse CNAME .
        """
    soa = ["localhost.", "root.localhost.", "1", "3600", "600", "86400", "60"]
    assert records(text) == [
        (3, "rpz.example", 7200, "SOA", soa),
        (6, "rpz.example", 7200, "NS", ["localhost."]),
        (7, "bad.example.rpz.example", 7200, "CNAME", ["."]),
        (8, "bad.example.rpz.example", 30, "CNAME", ["*."]),
        (9, "other.example.rpz.example", 30, "TXT", ['"a ; b', "c"]),
        (10, "other.example.rpz.example", 604800, "A", ["192.0.2.1"]),
        (11, "abs.rpz.example", 7200, "CNAME", ["rpz-drop."]),
        (13, "worse.com.rpz.example", 7200, "CNAME", ["."]),
    ]
    assert read(text)[1].apex == "rpz.example"


def test_without_an_origin_the_zone_is_what_the_soa_says_or_nobody_knows() -> None:
    found, zone, _ = read(f"$ORIGIN .\nrpz.example {SOA}\n$ORIGIN rpz.example.\na CNAME .")
    assert (zone.apex, found[-1].owner) == ("rpz.example", "a.rpz.example")
    found, zone, _ = read(f"rpz.example. {SOA}\na CNAME .")
    assert (zone.apex, found[-1].owner) == ("rpz.example", "a.rpz.example")
    found, zone, _ = read(f"@ {SOA}\na CNAME .")
    assert (zone.apex, found[-1].owner) == (UNKNOWN, f"a.{UNKNOWN}")


def test_times_to_live_are_bounded_and_have_a_default() -> None:
    text = "a CNAME .\na 9999999999 CNAME .\na 1h30m CNAME .\n$TTL 5\na TXT b\n"
    assert [ttl_s for _, _, ttl_s, _, _ in records(text)] == [TTL_S, MOST_TTL_S, 5400, 5]


def test_other_files_and_generated_records_are_counted() -> None:
    found, _, tally = read("$INCLUDE other.zone\n$GENERATE 1-9 a$ CNAME .\na CNAME .\n")
    assert (len(found), tally.skipped) == (1, {Skipped.DIRECTIVE: 2})


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        ("$TTL\n", "a.rpz:1:1 '$TTL' is no directive"),
        ("$TTL soon\n", "a.rpz:1:1 '$TTL' is no directive"),
        ("$ORIGIN\n", "a.rpz:1:1 '$ORIGIN' is no directive"),
        ("$OTHER a\n", "a.rpz:1:1 '$OTHER' is no directive"),
        ("$TTL 5\n  CNAME .\n", "a.rpz:2:3 a record without an owner"),
        ("a IN 5\n", "a.rpz:1:1 a record without a type"),
        ("a IN NONSENSE b\n", "a.rpz:1:6 'NONSENSE' is no record type"),
        ('a TXT "b\n', "a.rpz:1:7 a quote or an escape that does not end"),
        ("a TXT \\\n", "a.rpz:1:7 a quote or an escape that does not end"),
        ("a TXT (\nb\n", "a.rpz:1:7 a parenthesis that is not closed"),
        ("a TXT ((b))\n", "a.rpz:1:7 parentheses in each other"),
        ("a TXT )\n", "a.rpz:1:7 parentheses in each other"),
        (f"a TXT {'b ' * TOKENS}\n", "a.rpz:1:1 parentheses in each other, or too many words"),
    ],
)
def test_what_cannot_be_read_is_said_at_its_place(text: str, warning: str) -> None:
    (found,) = warnings(text)
    assert found.startswith(warning)


def test_after_a_broken_record_the_next_one_is_read() -> None:
    found, _, tally = read("a TXT (\n((\nb CNAME .\n")
    assert [record.owner.partition(".")[0] for record in found] == ["b"]
    assert len(tally.problems) == 1


WORDS = st.sampled_from([*'a \n()"\\;@.5', "$ORIGIN", "$TTL", "CNAME", "IN", "TXT"])


@given(st.lists(WORDS, max_size=30).map("".join) | st.text())
def test_any_text_is_read_or_counted(text: str) -> None:
    found, _, tally = read(text)
    assert all(1 <= record.line <= len(text) + 1 for record in found)
    assert sum(tally.skipped.values()) >= len(tally.problems)
