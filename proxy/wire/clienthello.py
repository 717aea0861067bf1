"""What a TLS ClientHello says in clear (RFC 8446, section 4.1.2).

The hello is put together over records, checked, and left as it is: the tunnel sends on the
client's own octets.  `proxy.wire.hellowatch` does the same for the second hello.
"""

import struct
from functools import lru_cache

from msgspec import Struct

from proxy.errors import PeerError
from proxy.wire.host import parse_host
from rules.address import Address, parse_address
from rules.decision import Reason
from rules.errors import MalformedAddressError
from rules.name import DomainName

CHANGE_CIPHER_SPEC, ALERT, HANDSHAKE, APPLICATION_DATA = 20, 21, 22, 23  # RFC 8446, section 5.1
RECORD_HEADER_OCTETS = 5
RECORD_OCTETS = 1 << 14  # RFC 8446, section 5.1: of a plaintext record
RECORDS = 256  # of one hello; a hello of 64 KiB needs four, those that split to evade a few dozen

_CLIENT_HELLO = 1
_SERVER_NAME, _ALPN, _EARLY_DATA, _KEY_SHARE = 0, 16, 42, 51
# RFC 9849; its drafts (fe08 to fe0c, ff02) and the older encrypted_server_name (ffce) hide too.
_ENCRYPTED = frozenset({*range(0xFE08, 0xFE0E), 0xFF02, 0xFFCE})

_USUAL = struct.Struct("!BBxHBBH")  # the headers of a record and of its message
_EXTENSION = struct.Struct("!HH")
_RANDOM_AT, _SESSION_ID_AT = 11, 43  # after both headers and legacy_version; after the random


class NotTlsError(PeerError):
    """The octets begin no TLS ClientHello."""

    def __init__(self, text: str) -> None:
        super().__init__(Reason.NOT_TLS, text)


class Hello(Struct, frozen=True):
    """A ClientHello.

    `server_name` is the SNI in canonical form, None without one.  An address there breaks
    RFC 6066, section 3, but some clients send it: the caller compares.  `has_ech`: the hello has
    an encrypted one inside, or grease that looks like it.  `octets` is the length of the records
    that held it.
    """

    server_name: DomainName | Address | None
    has_ech: bool
    alpn: tuple[bytes, ...]
    octets: int
    has_early_data: bool = False


class Likeness:
    """A hello that was read, to know one again that differs only in what nobody looks at.

    A client says the same to the same server each time, but for its random, its session id and
    its key shares (RFC 8446, sections 4.1.2 and 4.2.8).  All else is compared octet by octet, the
    lengths of these three among it, so that reading the other hello would say the same.
    """

    __slots__ = ("_after", "_after_at", "_before", "_before_at", "_head", "_octets", "hello")

    def __init__(self, data: bytes, hello: Hello) -> None:
        """`data` is all of a hello in one record, which `hello` was read from."""
        start = _SESSION_ID_AT + 1 + data[_SESSION_ID_AT]
        shares, end = _key_shares(data, start)
        self.hello = hello
        self._octets = len(data)
        self._head = data[:_RANDOM_AT]
        self._before = data[start:shares]
        self._before_at = start
        self._after = data[end:]
        self._after_at = end

    def find(self, data: bytes) -> Hello | None:
        """Return what `data` says; None where it is not alike."""
        if (
            len(data) == self._octets
            and data[_SESSION_ID_AT] == self._before_at - _SESSION_ID_AT - 1
            and data.startswith(self._head)
            and data.startswith(self._before, self._before_at)
            and data.startswith(self._after, self._after_at)
        ):
            return self.hello
        return None


def likeness(data: bytes, hello: Hello) -> Likeness | None:
    """Return what knows hellos like `data` again; None where it is not in one record."""
    if len(data) != hello.octets or data[3] << 8 | data[4] != len(data) - RECORD_HEADER_OCTETS:
        return None
    return Likeness(data, hello)


def _key_shares(data: bytes, at: int) -> tuple[int, int]:
    """Return where the content of key_share begins and ends; at the very end without it.

    `at` is where the session id ends, in a hello that was read already.
    """
    at += 2 + (data[at] << 8 | data[at + 1])  # cipher suites
    at += 1 + data[at] + 2  # compression methods, and the length of the extensions
    while at < len(data):
        number, size = _EXTENSION.unpack_from(data, at)
        at += 4
        if number == _KEY_SHARE:
            return at, at + size
        at += size
    return len(data), len(data)


def read_hello(buffer: bytes | bytearray, limit: int) -> Hello | None:
    """Return the ClientHello that begins `buffer`; None while it is incomplete.

    `limit` is the most octets that it may take, records and all.

    Raises:
        NotTlsError: no TLS, as soon as the first octets say so; or a hello that is malformed.
        PeerError: SNI_MISMATCH, a server name that no authority can equal.
    """
    usual = _read_usual(bytes(buffer)) if len(buffer) <= limit else None
    if usual is not None:
        return usual
    assembled = _assemble(bytes(buffer[:limit]))
    if assembled is None:
        if len(buffer) > limit:
            raise NotTlsError(f"a ClientHello of more than {limit} octets")
        return None
    message, octets = assembled
    return _parse(message, octets)


def _read_usual(data: bytes) -> Hello | None:
    """Return the hello that is all of `data`, in one record, at a tenth of the cost.

    None for anything else, however little it differs: the careful reader below tells what.
    """
    try:
        kind, major, length, message, high, size = _USUAL.unpack_from(data)
        octets = len(data)
        if (
            (kind, major, message, high) != (HANDSHAKE, 3, _CLIENT_HELLO, 0)
            or not length == octets - RECORD_HEADER_OCTETS <= RECORD_OCTETS
            or size != length - 4
        ):
            return None
        at = _SESSION_ID_AT + 1 + data[_SESSION_ID_AT]
        suites = data[at] << 8 | data[at + 1]
        at += 2 + suites
        compressions = data[at]
        at += 3 + compressions
        end = at + (data[at - 2] << 8 | data[at - 1])
        is_usual = data[_SESSION_ID_AT] <= 32 and suites >= 2 and compressions
        if end != octets or suites % 2 or not is_usual:
            return None
        return _from_extensions(data, at)
    except (IndexError, struct.error):
        return None


def _from_extensions(data: bytes, at: int) -> Hello | None:
    """Return the hello whose extensions go from `at` to the end of `data`."""
    octets, count = len(data), 0
    extensions: dict[int, bytes] = {}
    while at < octets:
        number, size = _EXTENSION.unpack_from(data, at)
        at += 4
        extensions[number] = data[at : at + size]
        at += size
        count += 1
    if at != octets or len(extensions) != count:
        return None
    return _hello(extensions, octets)


def _assemble(buffer: bytes) -> tuple[bytes, int] | None:
    """Return the first handshake message and the octets of its records."""
    message = bytearray()
    at = 0
    for count in range(1, RECORDS + 1):
        header = buffer[at : at + RECORD_HEADER_OCTETS]
        _check_record(header)
        if len(header) < RECORD_HEADER_OCTETS:
            return None
        start = at + RECORD_HEADER_OCTETS
        at = start + (header[3] << 8 | header[4])
        message += buffer[start:at]
        if message and message[0] != _CLIENT_HELLO:
            raise NotTlsError("the first handshake message is no ClientHello")
        if at > len(buffer):
            return None
        if len(message) < 4:
            continue
        need = 4 + int.from_bytes(message[1:4])
        if len(buffer) < need + RECORD_HEADER_OCTETS * count:
            return None  # before the other records are looked at again and again
        # RFC 8446, section 4.1.2: the client says nothing more before the server answers.
        if len(message) > need:
            raise NotTlsError("octets after the ClientHello in its record")
        if len(message) == need:
            return bytes(message), at
    raise NotTlsError(f"a ClientHello in more than {RECORDS} records")


def _check_record(header: bytes) -> None:
    """Refuse what cannot be a handshake record, however short `header` still is."""
    # An SSLv2 hello (0x80...) is refused here as well: RFC 8446, appendix D.5.
    if header[:1] not in {b"", bytes([HANDSHAKE])} or header[1:2] not in {b"", b"\3"}:
        raise NotTlsError("the first octets are no TLS handshake record")
    if len(header) == RECORD_HEADER_OCTETS:
        length = header[3] << 8 | header[4]
        if not 0 < length <= RECORD_OCTETS:  # RFC 8446, section 5.1: no empty fragments
            raise NotTlsError(f"a handshake record of {length} octets")


class _Octets:
    """The rest of a structure; taking more than there is raises."""

    def __init__(self, octets: bytes) -> None:
        self._octets = octets
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._octets)

    def number(self, width: int) -> int:
        return int.from_bytes(self.take(width))

    def take(self, count: int) -> bytes:
        end = self._at + count
        if end > len(self._octets):
            raise NotTlsError("a length in the ClientHello exceeds what holds it")
        taken = self._octets[self._at : end]
        self._at = end
        return taken

    def vector(self, width: int, least: int = 0) -> bytes:
        """Take a vector whose length stands before it in `width` octets (section 3.4)."""
        taken = self.take(self.number(width))
        if len(taken) < least:
            raise NotTlsError("a vector in the ClientHello is too short")
        return taken

    def end(self) -> None:
        if self:
            raise NotTlsError("octets after the end of a structure of the ClientHello")


def _parse(message: bytes, octets: int) -> Hello:
    rest = _Octets(message)
    rest.take(4 + 2 + 32)  # type and length, legacy_version, random
    if len(rest.vector(1)) > 32:
        raise NotTlsError("a session id of more than 32 octets")
    if len(rest.vector(2, least=2)) % 2:
        raise NotTlsError("half a cipher suite")
    rest.vector(1, least=1)  # compression methods
    # RFC 5246, section 7.4.1.2: a hello may end without extensions.
    extensions = _extensions(rest.vector(2)) if rest else {}
    rest.end()
    return _hello(extensions, octets)


def _hello(extensions: dict[int, bytes], octets: int) -> Hello:
    return Hello(
        server_name=_server_name(extensions.get(_SERVER_NAME)),
        has_ech=not _ENCRYPTED.isdisjoint(extensions),
        alpn=_protocols(extensions.get(_ALPN)),
        octets=octets,
        has_early_data=_EARLY_DATA in extensions,
    )


def _extensions(block: bytes) -> dict[int, bytes]:
    rest = _Octets(block)
    extensions: dict[int, bytes] = {}
    while rest:
        number = rest.number(2)
        if number in extensions:  # RFC 8446, section 4.2: MUST NOT
            raise NotTlsError(f"the extension {number} twice")
        extensions[number] = rest.vector(2)
    return extensions


@lru_cache(maxsize=1024)  # an agent comes back to the same hosts
def _server_name(extension: bytes | None) -> DomainName | Address | None:
    """Return the one host_name (RFC 6066, section 3)."""
    if extension is None:
        return None
    outer = _Octets(extension)
    rest = _Octets(outer.vector(2, least=1))
    outer.end()
    if rest.number(1) != 0:
        raise PeerError(Reason.SNI_MISMATCH, "a server name that is no host_name")
    name = rest.vector(2, least=1)
    if rest:
        raise PeerError(Reason.SNI_MISMATCH, "more than one server name")
    return _parse_name(name)


def _parse_name(name: bytes) -> DomainName | Address:
    try:
        if b":" in name:  # an IPv6 address stands here without brackets, if at all
            return parse_address(name.decode("latin-1"))
        return parse_host(name)
    except (PeerError, MalformedAddressError) as error:
        raise PeerError(Reason.SNI_MISMATCH, f"the server name: {error}") from None


@lru_cache(maxsize=64)  # each client sends always the same
def _protocols(extension: bytes | None) -> tuple[bytes, ...]:
    """Return the protocol names (RFC 7301, section 3.1)."""
    if extension is None:
        return ()
    outer = _Octets(extension)
    rest = _Octets(outer.vector(2, least=2))
    outer.end()
    names = []
    while rest:
        names.append(rest.vector(1, least=1))
    return tuple(names)
