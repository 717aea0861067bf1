"""TLS of our own listeners: what we speak, with which certificate, and whether we ask for one.

Clients are asked for certificates only while rules use them.  OpenSSL cannot forget an authority,
and a ticket that was given before must not be taken after: so each change of whom to believe makes
a new context, and a connection keeps the one that it began with.
"""

import contextlib
import socket
import ssl
from collections.abc import Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any, override

from proxy.errors import BindError, ConfigError
from proxy.transport.tls_groups import keep_no_sessions, limit_chains, limit_groups


class Last:
    """What is said to a client whose handshake fails.

    The loop drops the alert that OpenSSL has written (RFC 8446, section 6.2), and closes at once:
    what the client has sent by then would be answered with a reset, which overtakes an alert.  So
    the alert goes out on a descriptor of our own, which `spare` then is: to be closed later.
    """

    __slots__ = ("_socket", "spare")

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self.spare: socket.socket | None = None

    def say(self, alert: bytes) -> None:
        """Send the alert; who is gone already is told nothing."""
        with contextlib.suppress(OSError):
            self.spare = self._socket.dup()
            self.spare.send(alert, socket.MSG_DONTWAIT)
            self.spare.shutdown(socket.SHUT_WR)


LAST: ContextVar[Last | None] = ContextVar("last", default=None)
"""Of the handshake that begins."""

# RFC 9325, section 4.2: forward secrecy and authenticated encryption only.  Of TLS 1.3 all suites
# are so; Python cannot choose among them.  Level 2: no key and no hash below 112 bits.
_CIPHERS_TLS12 = "ECDHE+AESGCM:ECDHE+CHACHA20:@SECLEVEL=2"


class ServerConnection(ssl.SSLObject):
    """Our side of one connection."""

    outgoing: ssl.MemoryBIO
    last: Last | None

    @override
    def do_handshake(self) -> None:
        """Shake hands; where that fails, say why."""
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError:
            alert = self.outgoing.read()
            if alert and self.last is not None:
                self.last.say(alert)
            raise
        self.last = None

    @override
    def getpeercert(self, binary_form: bool = False) -> Any:
        """Return nothing: the loop asks for texts that we never use (`proxy.wire.certificate`)."""
        return super().getpeercert(binary_form=True) if binary_form else None


class ServerContext(ssl.SSLContext):
    """What the connections of a listener have in common."""

    sslobject_class: type[ssl.SSLObject] = ServerConnection

    @override
    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        made = super().wrap_bio(incoming, outgoing, server_side, server_hostname, session)
        assert isinstance(made, ServerConnection)  # noqa: S101 - for the type checker
        made.outgoing, made.last = outgoing, LAST.get()
        return made


def server_context(cert: Path, key: Path, alpn: tuple[str, ...]) -> ssl.SSLContext:
    """Return the context of a listener: TLS 1.2 and 1.3 for the protocols of `alpn`, best first.

    Clients are not asked for certificates.  SSLKEYLOGFILE is not obeyed.

    Raises:
        BindError: the certificate or its key cannot be used.
    """
    context = ServerContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2  # RFC 9325, section 3.1.1; RFC 8310, section 8
    context.set_ciphers(_CIPHERS_TLS12)
    context.options |= ssl.OP_NO_COMPRESSION  # RFC 9325, section 3.3
    context.options |= ssl.OP_NO_RENEGOTIATION  # RFC 9325, section 3.5; it costs us, not the client
    context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
    limit_groups(context)
    # OpenSSL sends two, of which a client uses one.  Per second of a processor, full and resumed
    # handshakes: without 1284 and 1171, with one 1230 and 1363, with two 1108 and 1348.
    context.num_tickets = 1
    context.set_alpn_protocols(list(alpn))  # RFC 7301
    load(context, cert, key)
    return context


def ask_for_certificates(context: ssl.SSLContext, anchors: Sequence[bytes]) -> None:
    """Ask each client for a certificate that an authority of `anchors` (DER) vouches for.

    A client may have none.  One whose certificate does not hold is no client: its handshake
    fails.  Nothing is resumed, for that would skip all of this.

    Raises:
        ConfigError: an anchor cannot be used.
    """
    try:
        for anchor in anchors:
            context.load_verify_locations(cadata=anchor)
    except (ssl.SSLError, ValueError):
        raise ConfigError("a trust anchor is no certificate: get the trust bundle again") from None
    # Of a whole chain up to an anchor that signed itself, in the letter of RFC 5280.
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.verify_flags &= ~ssl.VERIFY_X509_PARTIAL_CHAIN
    context.verify_mode = ssl.CERT_OPTIONAL
    limit_chains(context)
    context.num_tickets = 0
    context.options |= ssl.OP_NO_TICKET
    if not keep_no_sessions(context):  # of TLS 1.2; 1.3 has none but tickets
        context.minimum_version = ssl.TLSVersion.TLSv1_3


def load(context: ssl.SSLContext, cert: Path, key: Path) -> None:
    """Give a context another certificate: new handshakes get it, open connections stay as they are.

    Raises:
        BindError: they cannot be used.  The context may then have no key any more: try them on
            another one first.
    """
    try:
        context.load_cert_chain(cert, key)
    except (OSError, ssl.SSLError) as error:  # SSLError is an OSError; said for the reader
        reason = getattr(error, "reason", None) or error.strerror or "unusable"
        raise BindError(
            f"the certificate {cert} cannot be used ({reason}): `sallyport ca show` says what is "
            "there; `sallyport up` makes what is missing"
        ) from None


class ServerTls:
    """The context of a kind of listener, as it is now; a handshake takes `current` and keeps it."""

    def __init__(self, cert: Path, key: Path, alpn: tuple[str, ...]) -> None:
        """Clients are not asked for certificates until `ask` is called.

        Raises:
            BindError: the certificate or its key cannot be used.
        """
        self._files = cert, key
        self._alpn = alpn
        self._anchors: tuple[bytes, ...] | None = None
        self.current = server_context(cert, key, alpn)

    @property
    def asks(self) -> bool:
        """Whether clients are asked for certificates."""
        return self._anchors is not None

    def ask(self, anchors: tuple[bytes, ...] | None) -> bool:
        """Ask clients for certificates of these authorities (DER), or for none with None.

        Returns whether that is new: then it counts for handshakes that begin from now on.

        Raises:
            BindError: the certificate or its key cannot be used now; all stays as it was.
            ConfigError: an anchor cannot be used; likewise.
        """
        if anchors == self._anchors:
            return False
        context = server_context(*self._files, self._alpn)
        if anchors is not None:
            ask_for_certificates(context, anchors)
        self.current, self._anchors = context, anchors
        return True

    def load(self) -> None:
        """Take up the certificate and key that are in the files now.

        Raises:
            BindError: they cannot be used; try them on another context first.
        """
        load(self.current, *self._files)
