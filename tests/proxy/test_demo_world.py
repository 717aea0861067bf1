"""The demonstration's own internet: three names on loopback and an origin."""

import asyncio
import datetime as dt
import socket
import ssl
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import dns.asyncquery
import dns.flags
import dns.message
import dns.rcode
import pytest

from certs.ephemeral import EphemeralServer, ephemeral_server
from proxy.demo_world import ALLOWED, REBINDING, REFUSED, World, world

WAIT_S = 10.0


@pytest.fixture(scope="module")
def server() -> EphemeralServer:
    return ephemeral_server((ALLOWED,), dt.datetime.now(dt.UTC))


@pytest.fixture
async def made(server: EphemeralServer, tmp_path: Path) -> AsyncIterator[World]:
    async with world(server, tmp_path) as running:
        yield running


async def ask(made: World, name: str, rtype: str = "A") -> dns.message.Message:
    query = dns.message.make_query(name, rtype)
    return await dns.asyncquery.udp(query, "127.0.0.1", WAIT_S, made.dns)


@pytest.mark.parametrize("name", [ALLOWED, REFUSED, REBINDING.upper()])
async def test_each_name_is_loopback(made: World, name: str) -> None:
    reply = await ask(made, name)
    assert reply.flags & dns.flags.AA
    assert [str(item) for rrset in reply.answer for item in rrset] == ["127.0.0.1"]


async def test_other_types_have_no_records_and_other_names_do_not_exist(made: World) -> None:
    nodata, none = await ask(made, ALLOWED, "AAAA"), await ask(made, "example.net")
    assert (nodata.rcode(), nodata.answer) == (dns.rcode.NOERROR, [])
    assert (none.rcode(), none.answer) == (dns.rcode.NXDOMAIN, [])


async def test_what_is_no_query_is_not_answered_and_harms_nobody(made: World) -> None:
    reply = dns.message.make_response(dns.message.make_query(ALLOWED, "A")).to_wire()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.setblocking(False)
        client.connect(("127.0.0.1", made.dns))
        for datagram in (b"", b"\0", bytes(12), reply):
            client.send(datagram)
        client.send(dns.message.make_query(ALLOWED, "A", id=77).to_wire())
        first = await asyncio.get_running_loop().sock_recv(client, 4096)
    assert dns.message.from_wire(first).id == 77


async def test_the_origin_says_hello_over_tls(made: World, server: EphemeralServer) -> None:
    context = ssl.create_default_context(cadata=server.authority)
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", made.https, ssl=context, server_hostname=ALLOWED
    )
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"Content-Length: %d\r\n" % len(body) in head
    assert body.startswith(b"hello")


async def test_a_client_that_leaves_early_harms_nobody(
    made: World, server: EphemeralServer
) -> None:
    context = ssl.create_default_context(cadata=server.authority)
    told: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, what: told.append(what))
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", made.https, ssl=context, server_hostname=ALLOWED
    )
    writer.write(b"GET /")
    writer.close()
    await reader.read()
    assert told == []


async def test_the_key_is_on_the_disk_for_nobody_else(
    server: EphemeralServer, tmp_path: Path
) -> None:
    async with world(server, tmp_path):
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {"origin.pem": 0o600, "origin.key": 0o600}


async def test_the_ports_are_free_again_afterwards(server: EphemeralServer, tmp_path: Path) -> None:
    async with world(server, tmp_path) as made:
        pass
    with socket.create_server(("127.0.0.1", made.https)):
        pass
