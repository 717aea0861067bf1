"""The small world of the demonstration: a nameserver and an HTTPS origin on loopback."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import cast, override

import dns.flags
import dns.message
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset
from dns.exception import DNSException
from msgspec import Struct

from certs.ephemeral import EphemeralServer

ALLOWED = "allowed.example.com"
REFUSED = "refused.example.com"
REBINDING = "rebinding.example.com"
_LOOPBACK = "127.0.0.1"
_ZONE = dict.fromkeys((ALLOWED, REFUSED, REBINDING), _LOOPBACK)
_BODY = b"hello from the demonstration's origin\n"
_TTL_S = 60


class World(Struct, frozen=True):
    """The ports on 127.0.0.1: the nameserver's (UDP) and the origin's (TLS)."""

    dns: int
    https: int


@asynccontextmanager
async def world(server: EphemeralServer, folder: Path) -> AsyncIterator[World]:
    """Run both until the block ends; the certificate passes through `folder`, which is ours."""
    loop = asyncio.get_running_loop()
    nameserver, _ = await loop.create_datagram_endpoint(_Nameserver, (_LOOPBACK, 0))
    origin = await asyncio.start_server(_origin, _LOOPBACK, 0, ssl=_context(server, folder))
    try:
        dns_port: int = nameserver.get_extra_info("sockname")[1]
        yield World(dns_port, origin.sockets[0].getsockname()[1])
    finally:
        origin.close()
        nameserver.close()


class _Nameserver(asyncio.DatagramProtocol):
    """Authoritative for the three names; every other one does not exist."""

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    @override
    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        try:
            query = dns.message.from_wire(data)
            reply = dns.message.make_response(query)
        except DNSException:  # not from our appliance, then: no answer
            return
        if not query.question:
            return
        question = query.question[0]
        reply.flags |= dns.flags.AA
        address = _ZONE.get(question.name.to_text(omit_final_dot=True).lower())
        if address is None:
            reply.set_rcode(dns.rcode.NXDOMAIN)
        elif question.rdtype == dns.rdatatype.A:
            reply.answer.append(dns.rrset.from_text(question.name, _TTL_S, "IN", "A", address))
        self._transport.sendto(reply.to_wire(), addr)


async def _origin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(_BODY)
    with suppress(asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head + _BODY)
        await writer.drain()
    writer.close()


def _context(server: EphemeralServer, folder: Path) -> ssl.SSLContext:
    # ssl reads certificates from files only; the folder is private and removed at the end.
    chain, key = folder / "origin.pem", folder / "origin.key"
    for path, text in ((chain, server.chain), (key, server.key)):
        path.touch(mode=0o600)
        path.write_text(text)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, key)
    return context
