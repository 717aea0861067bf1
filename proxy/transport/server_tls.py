"""TLS of our own listeners: what we speak, and with which certificate."""

import ssl
from pathlib import Path

from proxy.errors import BindError
from proxy.transport.tls_groups import limit_groups

# RFC 9325, section 4.2: forward secrecy and authenticated encryption only.  Of TLS 1.3 all suites
# are so; Python cannot choose among them.  Level 2: no key and no hash below 112 bits.
_CIPHERS_TLS12 = "ECDHE+AESGCM:ECDHE+CHACHA20:@SECLEVEL=2"


def server_context(cert: Path, key: Path, alpn: tuple[str, ...]) -> ssl.SSLContext:
    """Return the context of a listener: TLS 1.2 and 1.3 for the protocols of `alpn`, best first.

    Clients are not asked for certificates.  SSLKEYLOGFILE is not obeyed.

    Raises:
        BindError: the certificate or its key cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
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
