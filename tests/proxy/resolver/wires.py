"""Messages for tests: those of tests/vectors/dns, and those that no program sends."""

from pathlib import Path

import dns.flags
import dns.message
import dns.rcode
from msgspec import Struct

_VECTORS = Path(__file__).parents[2] / "vectors" / "dns"


class Captured(Struct, frozen=True):
    """One message from a file, with what is expected of it: `key=value` words."""

    name: str
    expect: dict[str, str]
    wire: bytes


def captured(prefix: str) -> list[Captured]:
    """Return the messages whose file name begins with `prefix`."""
    return [_read(path) for path in sorted(_VECTORS.glob(f"{prefix}*.hex"))]


def _read(path: Path) -> Captured:
    _about, expect, _blank, *lines = path.read_text("ascii").splitlines()
    words = expect.removeprefix("expect: ").split()
    return Captured(
        path.stem, dict(word.split("=", 1) for word in words), bytes.fromhex("".join(lines))
    )


def labels(*parts: bytes) -> bytes:
    """Return a name on the wire, whatever its labels hold."""
    return b"".join(bytes((len(part),)) + part for part in parts) + b"\0"


EXAMPLE = labels(b"www", b"example", b"com")


def query(
    name: bytes = EXAMPLE,
    rtype: int = 1,
    *,
    rclass: int = 1,
    flags: int = 0x0100,
    counts: tuple[int, int, int, int] = (1, 0, 0, 0),
    rest: bytes = b"",
) -> bytes:
    """Return a query, with `rest` after its question."""
    head = b"".join(number.to_bytes(2) for number in (0x1234, flags, *counts))
    return head + name + rtype.to_bytes(2) + rclass.to_bytes(2) + rest


def opt(
    options: bytes = b"",
    *,
    owner: bytes = b"\0",
    payload: int = 1232,
    version: int = 0,
    flags: int = 0,
    length: int | None = None,
) -> bytes:
    """Return an OPT record."""
    size = len(options) if length is None else length
    fixed = (41).to_bytes(2) + payload.to_bytes(2) + bytes((0, version)) + flags.to_bytes(2)
    return owner + fixed + size.to_bytes(2) + options


def option(code: int, data: bytes = b"") -> bytes:
    """Return one option of an OPT record."""
    return code.to_bytes(2) + len(data).to_bytes(2) + data


def response(
    text: str, *, rcode: int = 0, name: str = "www.example.com", rtype: str = "A"
) -> bytes:
    """Return a response with the answer section `text`; after `--` stands the authority's."""
    asked = dns.message.make_query(name, rtype)
    answer, _, authority = (part.strip() for part in text.partition("--"))
    lines = (";ANSWER", answer, ";AUTHORITY", authority)  # an empty line would end the text
    parsed = dns.message.from_text("\n".join(filter(None, lines)), one_rr_per_rrset=True)
    parsed.id = asked.id
    parsed.question = asked.question
    parsed.flags = dns.flags.QR | dns.flags.RD | dns.flags.RA
    parsed.set_rcode(dns.rcode.Rcode(rcode))
    return parsed.to_wire()
