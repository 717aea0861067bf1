"""TLS towards upstreams: who may be trusted, and what is verified of them."""

import ssl
from pathlib import Path
from typing import override

from proxy.errors import ConfigError

DOT_ALPN = ("dot",)  # IANA TLS ALPN protocol ids; RFC 7858


class UpstreamTlsContext(ssl.SSLContext):
    """A client's context that takes up a server's TLS session again on the next connection.

    One session per server name is kept (RFC 8446, section 2.2; RFC 7858, section 3.4): the names
    are configured, so that they are few.  A session is used once (RFC 8446, appendix C.4).  The
    certificate was verified in the handshake that made the session.
    """

    def __init__(self, _protocol: int) -> None:
        self._sessions: dict[str, ssl.SSLSession] = {}  # the rest was made in __new__

    @override
    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        """Return an `SSLObject` that offers the kept session, where there is one."""
        kept = self._sessions.pop(str(server_hostname), None)
        return super().wrap_bio(incoming, outgoing, server_side, server_hostname, session or kept)

    def keep_session(self, connection: ssl.SSLObject) -> None:
        """Keep the session of a verified connection; after its first octets were read.

        RFC 8446, section 4.6.1: tickets come after the handshake.
        """
        if connection.session is not None and connection.session.has_ticket:
            self._sessions[str(connection.server_hostname)] = connection.session


def upstream_context(
    upstream_ca: Path | None = None, alpn: tuple[str, ...] = ()
) -> UpstreamTlsContext:
    """Return a context that verifies the chain and the host name, with TLS 1.2 or later.

    Trust anchors are those of `upstream_ca` (PEM) alone, or the system's where it is None.
    SSLKEYLOGFILE is not obeyed: secrets of our connections go nowhere.

    Raises:
        ConfigError: the file cannot be read or holds no certificate.
    """
    context = UpstreamTlsContext(ssl.PROTOCOL_TLS_CLIENT)  # CERT_REQUIRED, check_hostname
    context.minimum_version = ssl.TLSVersion.TLSv1_2  # RFC 9325, section 3.1.1
    context.hostname_checks_common_name = False  # RFC 9525, section 2
    context.options |= ssl.OP_NO_COMPRESSION  # RFC 9325, section 3.3
    if alpn:
        context.set_alpn_protocols(list(alpn))
    if upstream_ca is None:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
        return context
    try:
        context.load_verify_locations(cafile=upstream_ca)
    except (OSError, ssl.SSLError) as error:  # SSLError is an OSError; said for the reader
        raise ConfigError(
            f"upstream_ca {str(upstream_ca)!r} cannot be used: {error.strerror or error};"
            " name a readable file of PEM certificates"
        ) from None
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # the file may name an intermediate
    return context
