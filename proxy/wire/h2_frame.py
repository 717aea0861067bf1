"""Frames of HTTP/2, in and out (RFC 9113, sections 4 and 6).

A payload that its frame type forbids is an `H2Error`; whether it ends one stream or the whole
connection is its `stream`, and its `code` is what the peer is told.  No state is kept here.
"""

from enum import IntEnum, IntFlag
from struct import Struct as Layout
from struct import iter_unpack

from proxy.errors import PeerError
from rules.decision import Reason

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"  # RFC 9113, section 3.4
HEAD = Layout("!IBI")  # RFC 9113, section 4.1: length and type, flags, stream
HEAD_OCTETS = HEAD.size
FRAME_OCTETS = 16384  # RFC 9113, section 4.2: what everybody takes, and the most that we take
WINDOW_OCTETS = 65535  # RFC 9113, section 6.9.2: every window at the beginning
MOST_WINDOW_OCTETS = 2**31 - 1  # RFC 9113, section 6.9.1
TABLE_OCTETS = 4096  # RFC 7541, section 4.2, and RFC 9113, section 6.5.2: before any setting

_SETTING = "!HI"
_SETTING_OCTETS = 6
_PRIORITY_OCTETS = 5
_WORD = Layout("!I")
_GOAWAY = Layout("!II")
_STREAM_BITS = 0x7FFFFFFF  # RFC 9113, section 4.1: the reserved bit is ignored
_MOST_FRAME_OCTETS = 2**24 - 1


class Kind(IntEnum):
    """Frame types (RFC 9113, section 6); any other is ignored."""

    DATA = 0
    HEADERS = 1
    PRIORITY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PUSH_PROMISE = 5
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9


class Flag(IntFlag):
    """Flags; what a bit means depends on the type of its frame."""

    END_STREAM = 0x1
    ACK = 0x1
    END_HEADERS = 0x4
    PADDED = 0x8
    PRIORITY = 0x20


class Setting(IntEnum):
    """Settings (RFC 9113, section 6.5.2); any other is ignored."""

    HEADER_TABLE_SIZE = 1
    ENABLE_PUSH = 2
    MAX_CONCURRENT_STREAMS = 3
    INITIAL_WINDOW_SIZE = 4
    MAX_FRAME_SIZE = 5
    MAX_HEADER_LIST_SIZE = 6


class ErrorCode(IntEnum):
    """Error codes (RFC 9113, section 7)."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    SETTINGS_TIMEOUT = 4
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    CONNECT_ERROR = 10
    ENHANCE_YOUR_CALM = 11
    INADEQUATE_SECURITY = 12
    HTTP_1_1_REQUIRED = 13


class H2Error(PeerError):
    """What the peer did wrong.  `stream` is the stream that it ends, 0 for the connection."""

    def __init__(self, code: ErrorCode, text: str, stream: int = 0) -> None:
        super().__init__(Reason.REQUEST_MALFORMED, text)
        self.code = code
        self.stream = stream


def write_frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Return one frame; a payload of more than 16384 octets is for the caller to cut.

    Raises:
        OverflowError: the payload does not fit any frame.
    """
    head = len(payload).to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4)
    return head + payload


def write_settings(settings: dict[Setting, int]) -> bytes:
    """Return a SETTINGS frame (RFC 9113, section 6.5)."""
    pairs = [setting.to_bytes(2) + value.to_bytes(4) for setting, value in settings.items()]
    return write_frame(Kind.SETTINGS, 0, 0, b"".join(pairs))


def write_reset(stream: int, code: ErrorCode) -> bytes:
    """Return a RST_STREAM frame (RFC 9113, section 6.4)."""
    return write_frame(Kind.RST_STREAM, 0, stream, _WORD.pack(code))


def write_goaway(last: int, code: ErrorCode, text: str = "") -> bytes:
    """Return a GOAWAY frame: streams after `last` were not served (RFC 9113, section 6.8)."""
    return write_frame(Kind.GOAWAY, 0, 0, _GOAWAY.pack(last, code) + text.encode("ascii"))


def write_window_update(stream: int, octets: int) -> bytes:
    """Return a WINDOW_UPDATE frame (RFC 9113, section 6.9)."""
    return write_frame(Kind.WINDOW_UPDATE, 0, stream, _WORD.pack(octets))


SETTINGS_ACK = write_frame(Kind.SETTINGS, Flag.ACK, 0)


def read_head(data: bytes, at: int) -> tuple[int, int, int, int]:
    """Return length, type, flags and stream of the frame that begins at `at`.

    Raises:
        H2Error: FRAME_SIZE_ERROR, a payload of more than we announced to take.
    """
    octets_and_kind, flags, stream = HEAD.unpack_from(data, at)
    octets = octets_and_kind >> 8
    if octets > FRAME_OCTETS:  # RFC 9113, section 4.2; before its octets are waited for
        raise H2Error(ErrorCode.FRAME_SIZE_ERROR, f"a frame of {octets} octets")
    return octets, octets_and_kind & 255, flags, stream & _STREAM_BITS


def unpadded(flags: int, payload: bytes) -> bytes:
    """Return the payload of a DATA or HEADERS frame without its padding (section 6.1).

    Raises:
        H2Error: the padding is longer than the frame.
    """
    if not flags & Flag.PADDED:
        return payload
    if not payload or payload[0] >= len(payload):
        raise H2Error(ErrorCode.PROTOCOL_ERROR, "padding longer than its frame")
    return payload[1 : len(payload) - payload[0]]


def without_priority(flags: int, payload: bytes) -> bytes:
    """Return the fragment of an unpadded HEADERS frame; its priority is deprecated (5.3.2).

    Raises:
        H2Error: the priority is cut; its block cannot be read, so that the connection ends.
    """
    if not flags & Flag.PRIORITY:
        return payload
    check_octets(payload[:_PRIORITY_OCTETS], _PRIORITY_OCTETS)
    return payload[_PRIORITY_OCTETS:]


def check_octets(payload: bytes, octets: int, stream: int = 0) -> None:
    """Check the length of a payload that has but one.

    Raises:
        H2Error: FRAME_SIZE_ERROR, another length (RFC 9113, section 4.2).
    """
    if len(payload) != octets:
        raise H2Error(ErrorCode.FRAME_SIZE_ERROR, f"{len(payload)} octets for {octets}", stream)


def read_settings(payload: bytes) -> list[tuple[int, int]]:
    """Return the settings of a SETTINGS frame in order, unknown ones among them.

    Raises:
        H2Error: cut, or a value that RFC 9113, section 6.5.2, forbids.
    """
    if len(payload) % _SETTING_OCTETS:
        raise H2Error(ErrorCode.FRAME_SIZE_ERROR, "settings of six octets each")
    settings: list[tuple[int, int]] = list(iter_unpack(_SETTING, payload))
    for setting, value in settings:
        if setting == Setting.ENABLE_PUSH and value > 1:
            raise H2Error(ErrorCode.PROTOCOL_ERROR, "ENABLE_PUSH is 0 or 1")
        if setting == Setting.INITIAL_WINDOW_SIZE and value > MOST_WINDOW_OCTETS:
            raise H2Error(ErrorCode.FLOW_CONTROL_ERROR, "a window over 2^31 - 1")
        if setting == Setting.MAX_FRAME_SIZE and not FRAME_OCTETS <= value <= _MOST_FRAME_OCTETS:
            raise H2Error(ErrorCode.PROTOCOL_ERROR, "MAX_FRAME_SIZE is 2^14 to 2^24 - 1")
    return settings


def read_increment(payload: bytes, stream: int) -> int:
    """Return the increment of a WINDOW_UPDATE frame.

    Raises:
        H2Error: not four octets, or none at all (RFC 9113, section 6.9).
    """
    check_octets(payload, 4)
    octets = int.from_bytes(payload) & _STREAM_BITS
    if not octets:
        raise H2Error(ErrorCode.PROTOCOL_ERROR, "a window increment of nothing", stream)
    return octets
