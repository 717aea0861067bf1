"""The certificates that a client presented, as OpenSSL has verified them."""

import asyncio
import ssl

_DER = 2  # _ssl.ENCODING_DER


def chain_of(transport: asyncio.BaseTransport) -> tuple[bytes, ...]:
    """Return the verified chain of a TLS connection as DER: the leaf first, the anchor last.

    Empty where no certificate was presented, where none was asked for, where the connection is
    not TLS, and where its session was resumed: then nothing was verified in this handshake.
    """
    connection = transport.get_extra_info("ssl_object")
    if connection is None or connection.context.verify_mode is ssl.CERT_NONE:
        return ()
    if connection.session_reused:
        return ()
    if hasattr(connection, "get_verified_chain"):  # since Python 3.13
        return tuple(connection.get_verified_chain())
    # The same is there in Python 3.12, under a name that is not promised.
    found = connection._sslobj.get_verified_chain()  # noqa: SLF001 - guarded by tests
    return tuple(each.public_bytes(_DER) for each in found or ())
