"""The second ClientHello, which a HelloRetryRequest asks for (RFC 8446, section 4.1.4).

A server that retries decides by the second hello: one that names another host, or hides its
name, would undo the check of the first.
"""

from proxy.errors import PeerError, UpstreamError
from proxy.wire.clienthello import (
    ALERT,
    APPLICATION_DATA,
    CHANGE_CIPHER_SPEC,
    HANDSHAKE,
    RECORD_HEADER_OCTETS,
    Hello,
    NotTlsError,
    read_hello,
)
from rules.decision import Reason

# RFC 8446, section 4.1.3: the SHA-256 of "HelloRetryRequest"
RETRY_RANDOM = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")

_SERVER_HELLO = 2
_RETRY_RESERVED = 6  # RFC 8446, section 4: hello_retry_request of the drafts up to 21
_RANDOM_AT, _RANDOM_END = 6, 38  # in the message: after type, length and legacy_version
_SERVER_OCTETS = 4096  # in which a server's first message must show what it is
# RFC 8446, section 4.2.10 and appendix D.4: what may come between the hellos
_BETWEEN = frozenset({CHANGE_CIPHER_SPEC, ALERT, APPLICATION_DATA})


def is_hello_retry(server_octets: bytes | bytearray) -> bool | None:
    """Return whether a server's first handshake message is a HelloRetryRequest; None: more.

    Alerts before it are skipped: a warning may come first (RFC 6066, section 3).  What is no TLS
    handshake is no retry either.
    """
    message = bytearray()
    at = 0
    while len(server_octets) - at >= RECORD_HEADER_OCTETS:
        start = at + RECORD_HEADER_OCTETS
        kind = server_octets[at]
        at = start + (server_octets[at + 3] << 8 | server_octets[at + 4])
        if kind == ALERT:
            continue
        if kind != HANDSHAKE:
            return False
        message += server_octets[start:at]
        if message and message[0] != _SERVER_HELLO:
            return message[0] == _RETRY_RESERVED
        if len(message) >= _RANDOM_END:
            return message[_RANDOM_AT:_RANDOM_END] == RETRY_RANDOM
    return None


class HelloWatch:
    """Stands by a tunnel from the first hello until no second one can come unseen.

    Give it the octets of both sides before they are sent on: of the client, those after
    `hello.octets` first.  `done` says that all is harmless;
    then nothing is held back, and the tunnel needs it no longer.
    """

    def __init__(self, hello: Hello, limit: int) -> None:
        """`hello` is the first, already checked; `limit` the most octets of the second."""
        self.done = False
        self._hello = hello
        self._limit = limit
        self._server = bytearray()
        self._is_retry = False
        self._header = b""  # of the client's current record, while it is incomplete
        self._left = 0  # octets of that record still to come
        self._held = bytearray()  # the second hello so far

    def feed_server(self, data: bytes) -> None:
        """Look at what the server sends; all of it may be sent on.

        Raises:
            UpstreamError: UPSTREAM_MALFORMED, no handshake message after many octets.
        """
        if self.done or self._is_retry:
            return
        self._server += data[: _SERVER_OCTETS - len(self._server)]
        retry = is_hello_retry(self._server)
        if retry is None and len(self._server) == _SERVER_OCTETS:
            raise UpstreamError(Reason.UPSTREAM_MALFORMED, "the server never sends its hello")
        self._is_retry = retry is True
        self.done = retry is False

    def feed_client(self, data: bytes) -> bytes:
        """Return what of the client's octets may be sent on now; a second hello waits till whole.

        Raises:
            NotTlsError: what no TLS client sends here, a hello before the server's among it.
            PeerError: SNI_MISMATCH or SNI_MISSING, the second hello names another server;
                ECH, it hides its name and the first did not.
        """
        if self.done:
            return data
        if self._held:
            self._held += data
            return self._release()
        at = 0
        while at < len(data):
            if not self._left and not self._header and data[at] == HANDSHAKE:
                if not self._is_retry:
                    raise NotTlsError("a handshake message before the server's hello")
                self._held += data[at:]
                return data[:at] + self._release()
            at += self._pass_on(data, at)
        return data

    def _pass_on(self, data: bytes, at: int) -> int:
        """Return how many octets belong to the current record, or to its header."""
        if self._left:
            passed = min(self._left, len(data) - at)
            self._left -= passed
            return passed
        taken = data[at : at + RECORD_HEADER_OCTETS - len(self._header)]
        self._header += taken
        if self._header[0] not in _BETWEEN:
            raise NotTlsError("the client stopped speaking TLS before the server's hello")
        if len(self._header) == RECORD_HEADER_OCTETS:
            self._left = self._header[3] << 8 | self._header[4]
            self._header = b""
        return len(taken)

    def _release(self) -> bytes:
        """Return the second hello with what follows it, once it is whole and checked."""
        second = read_hello(self._held, self._limit)
        if second is None:
            return b""
        # RFC 8446, section 4.1.2: the second hello is the first but for a list of extensions.
        if second.server_name != self._hello.server_name:
            reason = Reason.SNI_MISMATCH if second.server_name else Reason.SNI_MISSING
            raise PeerError(reason, f"the second hello names {second.server_name}")
        if second.has_ech and not self._hello.has_ech:
            raise PeerError(Reason.ECH, "the second hello hides its name, the first did not")
        self.done = True
        released, self._held = bytes(self._held), bytearray()
        return released
