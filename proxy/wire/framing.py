"""Messages over a stream, each after its length in two octets (RFC 1035, section 4.2.2)."""

from proxy.errors import PeerError
from rules.decision import Reason

LENGTH_OCTETS = 2
MESSAGE_OCTETS = 65535
LEAST_OCTETS = 12  # RFC 1035, section 4.1.1: no message is shorter than its head


def frame(message: bytes) -> bytes:
    """Return `message` after its length.

    Raises:
        OverflowError: more than 65535 octets, which nobody asks of us.
    """
    return len(message).to_bytes(LENGTH_OCTETS) + message


class Deframer:
    """Takes messages off a stream; holds less than one message between calls."""

    def __init__(self, limit: int = MESSAGE_OCTETS) -> None:
        """`limit` is the longest message that is taken, in octets."""
        self._limit = limit
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Return the messages that `data` completes, in order.

        Raises:
            PeerError: REQUEST_MALFORMED, a message shorter than a DNS head or over the limit;
                the stream has no further meaning then.
        """
        rest = self._rest + data if self._rest else data
        messages = []
        at = 0
        while len(rest) - at >= LENGTH_OCTETS:
            end = at + LENGTH_OCTETS + self._length(rest, at)
            if end > len(rest):
                break
            messages.append(rest[at + LENGTH_OCTETS : end])
            at = end
        self._rest = rest[at:]
        return messages

    @property
    def is_empty(self) -> bool:
        """Whether the stream stands between two messages."""
        return not self._rest

    def _length(self, rest: bytes, at: int) -> int:
        length = rest[at] << 8 | rest[at + 1]
        if not LEAST_OCTETS <= length <= self._limit:
            raise PeerError(
                Reason.REQUEST_MALFORMED,
                f"a DNS message of {length} octets; {LEAST_OCTETS} to {self._limit} are taken",
            )
        return length
