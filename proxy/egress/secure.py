"""TLS to an origin: the connection is verified before an octet of a request is written.

There is no way back to plain: whoever calls gets a connection over TLS, or the reason why not.
"""

import asyncio
import ssl
from typing import cast

from proxy.egress.origin import OriginConnection
from proxy.errors import UpstreamError
from rules.address import Address
from rules.decision import Reason
from rules.name import DomainName


async def connect_secure(
    origin: OriginConnection, port: int, host: DomainName | Address, tls: ssl.SSLContext
) -> None:
    """Connect `origin` to its address at `port`, and verify that it is `host`.

    A name is sent as SNI (RFC 6066, section 3); the certificate of a literal is for the address
    (RFC 9110, section 4.3.5).

    Raises:
        UpstreamError: UPSTREAM_TLS, with OpenSSL's words.
        OSError: it cannot be reached.
    """
    loop = asyncio.get_running_loop()
    try:
        await loop.create_connection(
            lambda: origin, origin.address_text, port, ssl=tls, server_hostname=str(host)
        )
    except (ssl.SSLError, ConnectionResetError, ConnectionAbortedError, BrokenPipeError) as error:
        raise _blame(error) from None


async def secure(origin: OriginConnection, host: DomainName | Address, tls: ssl.SSLContext) -> None:
    """Begin TLS on a connection that a parent made.

    Raises:
        UpstreamError: UPSTREAM_TLS, with OpenSSL's words.
    """
    plain = origin.leave()
    if origin.early:  # a server that speaks TLS waits for the client
        plain.abort()
        raise UpstreamError(Reason.UPSTREAM_TLS, "the origin spoke before the handshake")
    loop = asyncio.get_running_loop()
    try:
        secured = await loop.start_tls(plain, origin, tls, server_hostname=str(host))
    except OSError as error:
        plain.abort()
        raise _blame(error) from None
    except BaseException:  # nobody waits any more
        plain.abort()
        raise
    # uvloop's transports do not derive from asyncio's.
    origin.connection_made(cast("asyncio.Transport", secured))


def words_of(error: BaseException | None) -> str:
    """Return what OpenSSL says of a failure; nothing for what is none of TLS."""
    if not isinstance(error, ssl.SSLError):
        return ""
    verified = getattr(error, "verify_message", "")
    reason = error.reason or "TLS fails"
    return f"{reason}: {verified}" if verified else reason


def _blame(error: OSError) -> UpstreamError:
    text = words_of(error) or f"{type(error).__name__} in the handshake"
    return UpstreamError(Reason.UPSTREAM_TLS, text)
