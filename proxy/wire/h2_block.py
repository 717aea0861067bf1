"""Header blocks of HTTP/2 (RFC 7541): read with hpack, remembered by their octets, written plain.

We announce a dynamic table of no octets.  Once the peer has obeyed, a block means the same
whatever came before it: then, and only then, its octets may stand for what was read from them.
"""

from collections.abc import Callable, Iterable

from hpack import Decoder
from hpack.exceptions import HPACKError, OversizedHeaderListError

from proxy.wire.fields import Field
from proxy.wire.h2_frame import TABLE_OCTETS, ErrorCode, H2Error

KEPT_BLOCK_OCTETS = 1024  # a longer block is not remembered: a GET of a name is 100 to 400

# RFC 7541, appendix A: the names that we write, and the statuses that are one octet.
_STATIC_NAMES = {
    b":status": 8, b"allow": 22, b"cache-control": 24, b"content-length": 28, b"content-type": 31,
    b"retry-after": 53, b"www-authenticate": 61,
}  # fmt: skip
_STATIC_STATUSES = {200: b"\x88", 400: b"\x8c", 404: b"\x8d", 500: b"\x8e"}


class BlockMemory[T]:
    """What was read from blocks of one app's connections, at most `limit` of them.

    Per app, so that none can tell by the time an answer takes what another one asked.  At the
    bound the oldest makes room, and `at_limit` is called.
    """

    __slots__ = ("_at_limit", "_limit", "known")

    def __init__(self, limit: int, at_limit: Callable[[], None]) -> None:
        self.known: dict[bytes, T] = {}
        self._limit = limit
        self._at_limit = at_limit

    def keep(self, block: bytes, read: T) -> None:
        """Remember what `block` said; its reader was stateless."""
        if len(block) > KEPT_BLOCK_OCTETS:
            return
        if len(self.known) >= self._limit:
            del self.known[next(iter(self.known))]
            self._at_limit()
        self.known[block] = read


class BlockReader:
    """Decodes the header blocks of one connection, in the order in which they came."""

    def __init__(self, limit_octets: int) -> None:
        """`limit_octets` bounds a block, and what it grows to (RFC 9113, section 6.5.2)."""
        self._decoder = Decoder(max_header_list_size=limit_octets)
        self._decoder.max_allowed_table_size = TABLE_OCTETS

    def obeyed(self) -> None:
        """Note that the peer acknowledged our settings: its table has no octets now."""
        self._decoder.max_allowed_table_size = 0

    @property
    def is_stateless(self) -> bool:
        """Whether no later block can depend on an earlier one (RFC 7541, section 4.2)."""
        decoder = self._decoder
        return decoder.header_table_size == decoder.max_allowed_table_size == 0

    def read(self, block: bytes) -> list[Field]:
        """Return the fields of a block.

        Raises:
            H2Error: COMPRESSION_ERROR, or ENHANCE_YOUR_CALM over the limit; either ends the
                connection, since the table is not what the peer thinks any more (section 4.3).
        """
        try:
            return [
                (bytes(name), bytes(value)) for name, value in self._decoder.decode(block, raw=True)
            ]
        except OversizedHeaderListError:
            raise H2Error(ErrorCode.ENHANCE_YOUR_CALM, "too many octets of fields") from None
        except HPACKError as error:
            raise H2Error(ErrorCode.COMPRESSION_ERROR, f"{type(error).__name__}") from None


def write_block(status: int, fields: Iterable[Field]) -> bytes:
    """Return a block that no table is needed for: literals without indexing (RFC 7541, 6.2.2)."""
    out = bytearray(_STATIC_STATUSES.get(status, b""))
    if not out:
        out += _literal(b":status", str(status).encode("ascii"))
    for name, value in fields:
        out += _literal(name, value)
    return bytes(out)


def _literal(name: bytes, value: bytes) -> bytes:
    index = _STATIC_NAMES.get(name)
    head = b"\0" + _text(name) if index is None else _integer(index, 4)
    return head + _text(value)


def _text(octets: bytes) -> bytes:
    return _integer(len(octets), 7) + octets


def _integer(value: int, bits: int) -> bytes:
    """Return an integer after an empty prefix (RFC 7541, section 5.1)."""
    most = (1 << bits) - 1
    if value < most:
        return bytes((value,))
    out, value = bytearray((most,)), value - most
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)
