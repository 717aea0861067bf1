"""Queries shaped as those of published tunnels, so that anybody can repeat the table without them.

Every shape is written from what the tool's own source or its public analyses say of the encoding;
the docstring of each names where.  Payloads are random, as compressed or encrypted data is.  Names
are folded to lower case, as our listeners fold them; what a tool would lose by that is still
counted as carried.
"""

import base64
from collections.abc import Callable, Iterator
from random import Random

from msgspec import Struct

from rules.rtype import AAAA, CNAME, MX, TXT, A

NULL = 10
PAYLOAD_OCTETS = 8192
ROUND_TRIP_S = 0.05  # one question at a time, each after the last one's answer
COUNTER = "abcdefghijklmnopqrstuvwxyz0123456789"
NAME_OCTETS = 255  # RFC 1035, section 2.3.4

type Queries = Iterator[Sent]


class Sent(Struct, frozen=True):
    """One query of a tunnel: when, seconds from its start, and how many bits it carries.

    `is_cover`: it goes to somebody else, to hide the others; nothing of it is counted as a leak.
    """

    at_s: float
    name: str
    rtype: int
    payload_bits: int
    answer: bytes = b""
    is_cover: bool = False


class Tunnel(Struct, frozen=True):
    """A tunnel: its row in the table, where its shape is from, and what makes its queries.

    `is_choice`: its names are known, so that what leaks is its payload, not its octets.
    """

    name: str
    source: str
    queries: Callable[[int], Queries]
    is_slow: bool = False
    is_choice: bool = False


def seeded(seed: int) -> Random:
    """Return what draws the same numbers each time."""
    return Random(seed)  # noqa: S311 - a replay, and no secret


def zone(rng: Random) -> str:
    """Return the zone of an attacker: twelve octets, as short as one may hope for."""
    return "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=8)) + ".net"


def cut(text: str, octets: int) -> list[str]:
    """Return `text` in pieces of that many octets."""
    return [text[start : start + octets] for start in range(0, len(text), octets)]


def base32(data: bytes) -> str:
    """Return `data` in base32, without padding, as names are: in lower case."""
    return base64.b32encode(data).decode().rstrip("=").lower()


def dnscat2(seed: int) -> Queries:
    """Yield a session of iagox86/dnscat2, encrypted as it is by default.

    client/tunnel_drivers/driver_dns.c: hex, a dot after 60 digits, at most 255/2 octets less the
    zone and the dots; TXT, CNAME and MX in turn.  doc/protocol.md and controller/packet.c: five
    octets of header (packet, type, session), then a signature of six and a nonce of two, then
    `seq` and `ack`; two packets of 69 and 37 octets first agree on keys.
    """
    rng = seeded(seed)
    below, session = zone(rng), rng.randbytes(2)
    room = NAME_OCTETS // 2 - len(below) - 1 - (NAME_OCTETS // 62 + 1)
    carried = [0, 0, 0]
    left = PAYLOAD_OCTETS
    while left > 0:
        carried.append(min(left, room - 5 - 8 - 4))
        left -= carried[-1]
    for turn, octets in enumerate(carried):
        length = (5 + 64, 5 + 32, 5 + 8 + 8)[turn] if turn < 3 else octets + 17
        packet = rng.randbytes(2) + bytes([turn > 2]) + session
        digits = (packet + rng.randbytes(length - len(packet))).hex()
        name = ".".join([*cut(digits, 60), below])
        answer = rng.randbytes(17).hex().encode()
        yield Sent(turn * ROUND_TRIP_S, name, (TXT, CNAME, MX)[turn % 3], octets * 8, answer)


def dnsexfiltrator(seed: int, *, is_base32: bool = True) -> Queries:
    """Yield a file sent by Arno0x/DNSExfiltrator.

    dnsExfiltrator.cs: `init.<base32 of file|chunks>.base32.<zone>` first, then
    `<number>.<63 octets>.<63>...<zone>`, all TXT; ten octets are kept for the number.  Its default
    is base64url; `-b32` is what it asks for where a resolver folds case, as we do.
    """
    rng = seeded(seed)
    below, data = zone(rng), rng.randbytes(PAYLOAD_OCTETS)
    room = NAME_OCTETS - 10 - (len(below) + 2)
    chunk = room // 64 * 63 + room % 64 - 1
    text = base32(data) if is_base32 else base64.urlsafe_b64encode(data).decode().rstrip("=")
    said = base32(f"report.pdf|{len(text) // chunk + 1}".encode())
    yield Sent(0.0, f"init.{said}.base{32 if is_base32 else 64}.{below}", TXT, 0, b"OK")
    for number, piece in enumerate(cut(text, chunk)):
        name = ".".join([str(number), *cut(piece.lower(), 63), below])
        bits = len(piece) * (5 if is_base32 else 6)
        yield Sent((number + 1) * ROUND_TRIP_S, name, TXT, bits, str(number).encode())


def _message(verb: str, data: bytes, rng: Random, below: str) -> Iterator[tuple[str, int]]:
    """Yield the names of one message of a beacon, and the bits that each carries."""
    ident = f"{rng.getrandbits(24):x}"
    yield f"{verb}.1{len(data):x}.0{ident}.{below}", 0
    for number, piece in enumerate(cut(data.hex(), 3 * 56), 1):
        labels = cut(piece, 56)
        name = f"{verb}.{len(labels)}{'.'.join(labels)}.{number:x}{ident}.{below}"
        yield name, len(piece) * 4


def cobalt_strike(seed: int, verb: str, rtype: int, answer_octets: int) -> Queries:
    """Yield a Cobalt Strike DNS beacon that checks in, fetches a task and sends what it found.

    From what is published of it, not from its source: the default `dns-beacon` block of Malleable
    C2 profiles (`www.` metadata, `cdn.`, `www6.`, `api.` for A, AAAA, TXT tasks, `post.` output,
    maxdns 255; threatexpress/malleable-c2) and Didier Stevens' cs-parse-traffic (public domain):
    `<beacon id>.<zone>` is the ping, `<verb>.1<size>.0<id>.<beacon>` opens a message and
    `<verb>.<labels><56 hex>.<56 hex>.<n><id>.<beacon>` carries it; SigmaHQ has `post.1`.
    """
    rng = seeded(seed)
    below = f"{rng.getrandbits(32) | 0x4B2:08x}.{zone(rng)}"
    yield Sent(0.0, below, A, 0, bytes(4))
    names: list[tuple[str, int, int, bytes]] = [
        (name, A, bits, bytes(4)) for name, bits in _message("www", rng.randbytes(128), rng, below)
    ]
    ident = f"{rng.getrandbits(24):x}"
    names.append((f"{verb}.0{ident}.{below}", A, 0, rng.randbytes(4)))
    names += [
        (f"{verb}.{number:x}{ident}.{below}", rtype, 0, rng.randbytes(answer_octets))
        for number in range(1, 64 // answer_octets + 2)
    ]
    found = rng.randbytes(PAYLOAD_OCTETS)
    names += [(name, A, bits, bytes(4)) for name, bits in _message("post", found, rng, below)]
    for turn, (name, kind, bits, answer) in enumerate(names):
        yield Sent(60.0 + turn * ROUND_TRIP_S, name, kind, bits, answer)  # the default sleep


def iodine(seed: int) -> Queries:
    """Yield yarrick/iodine after it found that only base32 comes through (case is folded here).

    src/client.c and src/encoding.c: version, login and codec queries, fragment probes of full
    length, then five characters of header (user, sequence and fragment numbers, a counter) and
    base32 with a dot after 57, as much as fits into 255 octets less eight; type NULL.
    """
    rng = seeded(seed)
    below = zone(rng)
    space = NAME_OCTETS - len(below) - 8
    space -= space // 57
    octets = space * 5 // 8
    full = base32(rng.randbytes(octets))
    first = ["v" + base32(rng.randbytes(6)), "l" + base32(rng.randbytes(19)), "ia", "sab", "oal"]
    names = [(name, 0) for name in first]
    names += [("r" + base32(rng.randbytes(2)) + "d" + full, 0) for _ in range(5)]
    for number in range(PAYLOAD_OCTETS // octets + 1):
        head = "0" + base32(rng.randbytes(2))[:3] + COUNTER[number % 36]
        names.append((head + base32(rng.randbytes(octets)), octets * 8))
    for turn, (text, bits) in enumerate(names):
        name = ".".join([*cut(text, 57), below])
        yield Sent(turn * ROUND_TRIP_S, name, NULL, bits, rng.randbytes(48))


def dns2tcp(seed: int) -> Queries:
    """Yield dns2tcp 0.5 as it sends a stream.

    client/requests.c, common/includes/packet.h and dns.h: seven octets of header (session, ack,
    seq, type) and data in base64, cut into labels of 63, at most 200 octets with the zone; TXT.
    Its `+` and `/` are no characters of a name for us: most of its queries are refused as
    malformed.  Here they are `_`, so that what the detector does alone is seen.
    """
    rng = seeded(seed)
    below, session = zone(rng), rng.randbytes(2)
    octets = (200 - 4 - len(below) - 1) * 3 // 4 - 7
    for number in range(PAYLOAD_OCTETS // octets + 1):
        head = session + number.to_bytes(2) + number.to_bytes(2) + b"\x08"
        text = base64.b64encode(head + rng.randbytes(octets), altchars=b"__").decode()
        name = ".".join([*cut(text.rstrip("=").lower(), 63), below])
        yield Sent(number * ROUND_TRIP_S, name, TXT, octets * 8, rng.randbytes(16))


def _dnsexfiltrator_base64(seed: int) -> Queries:
    return dnsexfiltrator(seed, is_base32=False)


def _cobalt_a(seed: int) -> Queries:
    return cobalt_strike(seed, "cdn", A, 4)


def _cobalt_aaaa(seed: int) -> Queries:
    return cobalt_strike(seed, "www6", AAAA, 16)


def _cobalt_txt(seed: int) -> Queries:
    return cobalt_strike(seed, "api", TXT, 189)


TOOLS = (
    Tunnel("dnscat2", "iagox86/dnscat2", dnscat2),
    Tunnel("DNSExfiltrator -b32", "Arno0x/DNSExfiltrator", dnsexfiltrator),
    Tunnel("DNSExfiltrator", "Arno0x/DNSExfiltrator", _dnsexfiltrator_base64),
    Tunnel("Cobalt Strike A", "published profiles", _cobalt_a),
    Tunnel("Cobalt Strike AAAA", "published profiles", _cobalt_aaaa),
    Tunnel("Cobalt Strike TXT", "published profiles", _cobalt_txt),
    Tunnel("iodine", "yarrick/iodine", iodine),
    Tunnel("dns2tcp", "dns2tcp 0.5", dns2tcp),
)
