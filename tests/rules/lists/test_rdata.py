"""Local data becomes what is on the wire, or says why not."""

import pytest

from rules import rtype
from rules.lists.rdata import MalformedRdataError, name_octets, read_rdata
from rules.name import ROOT, parse


def whole(name: str) -> str:
    return name[:-1] if name.endswith(".") else f"{name}.zone.example"


@pytest.mark.parametrize(
    ("number", "words", "octets"),
    [
        (rtype.A, ["192.0.2.1"], b"\xc0\x00\x02\x01"),
        (rtype.AAAA, ["2001:db8::1"], b" \x01\r\xb8" + bytes(11) + b"\x01"),
        (rtype.TXT, ['"a b', "c"], b"\x03a b\x01c"),
        (rtype.TXT, ['"'], b"\x00"),
        (rtype.TXT, [r'"\"\200\\é'], b'\x05"\xc8\\\xc3\xa9'),
        (rtype.CNAME, ["garden.example."], b"\x06garden\x07example\x00"),
        (rtype.CNAME, ["Walled"], b"\x06walled\x04zone\x07example\x00"),
        (rtype.CNAME, ["*.a.example."], b"\x01*\x01a\x07example\x00"),
    ],
)
def test_data_of_the_known_types(number: int, words: list[str], octets: bytes) -> None:
    assert read_rdata(number, words, whole) == octets


@pytest.mark.parametrize("number", [rtype.MX, rtype.HTTPS, 65280])
def test_other_types_are_not_read(number: int) -> None:
    assert read_rdata(number, ["10", "a."], whole) is None


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (rtype.A, ["192.0.2.01"]),
        (rtype.A, ["2001:db8::1"]),
        (rtype.AAAA, ["192.0.2.1"]),
        (rtype.A, []),
        (rtype.AAAA, ["::1", "::2"]),
        (rtype.TXT, []),
        (rtype.TXT, ["a" * 256]),
        (rtype.TXT, [r"\256"]),
        (rtype.CNAME, ["a..b."]),
        (rtype.CNAME, ["a.", "b."]),
        (rtype.CNAME, ["a.*.b."]),
    ],
)
def test_what_is_no_data_of_its_type_says_so(number: int, words: list[str]) -> None:
    with pytest.raises(MalformedRdataError):
        read_rdata(number, words, whole)


def test_the_root_is_one_octet() -> None:
    assert name_octets(ROOT) == b"\x00"
    assert name_octets(parse("a.bc")) == b"\x01a\x02bc\x00"
