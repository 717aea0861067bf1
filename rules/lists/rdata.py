"""Local data of policy zones: record data from text to octets (RFC 1035, sections 3.3 and 5.1)."""

import re
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address

from rules import rtype
from rules.address import parse_address
from rules.errors import MalformedAddressError, MalformedNameError
from rules.name import ROOT, DomainName, parse

_ESCAPE = re.compile(r"\\(\d{3}|.)", re.DOTALL | re.ASCII)
_STRING_OCTETS = 255  # RFC 1035, section 3.3


class MalformedRdataError(ValueError):
    """No data of that type."""


def read_rdata(number: int, words: Sequence[str], whole: Callable[[str], str]) -> bytes | None:
    """Return the octets that `words` spell; None for a type that is not supported.

    A quoted word begins with a quotation mark.  `whole` makes a relative name absolute.

    Raises:
        MalformedRdataError: the words are no data of that type.
    """
    if number in {rtype.A, rtype.AAAA} and len(words) == 1:
        return _address(number, words[0])
    if number == rtype.TXT and words:
        return b"".join(map(_string, words))
    if number == rtype.CNAME and len(words) == 1:
        return _name(whole(words[0]))
    if number in {rtype.A, rtype.AAAA, rtype.TXT, rtype.CNAME}:
        raise MalformedRdataError(f"{len(words)} words are no data of {rtype.mnemonic(number)}")
    return None


def name_octets(name: DomainName) -> bytes:
    """Return a name as it is on the wire, without compression; the root is one octet."""
    labels = [] if name == ROOT else name.split(".")
    return b"".join(b"%c%s" % (len(label), label.encode()) for label in labels) + b"\x00"


def _address(number: int, word: str) -> bytes:
    try:
        address = parse_address(word)
    except MalformedAddressError as error:
        raise MalformedRdataError(str(error)) from None
    if isinstance(address, IPv4Address) is not (number == rtype.A):
        raise MalformedRdataError(f"{word} is an address of the other family")
    return address.packed


def _string(word: str) -> bytes:
    text = _ESCAPE.sub(_unescape, word.removeprefix('"'))
    octets = text.encode("utf-8", "surrogateescape")  # which stand for octets over 127
    if len(octets) > _STRING_OCTETS:
        raise MalformedRdataError(f"a string of more than {_STRING_OCTETS} octets")
    return bytes([len(octets)]) + octets


def _unescape(found: re.Match[str]) -> str:
    code = found[1]
    if len(code) == 1:
        return code
    octet = int(code)
    if octet > 255:
        raise MalformedRdataError(f"\\{code} is no octet")
    return chr(octet) if octet < 128 else chr(0xDC00 + octet)


def _name(name: str) -> bytes:
    star = name.startswith("*.")
    try:
        octets = name_octets(parse(name.removeprefix("*.")))
    except MalformedNameError as error:
        raise MalformedRdataError(str(error)) from None
    return b"\x01*" + octets if star else octets
