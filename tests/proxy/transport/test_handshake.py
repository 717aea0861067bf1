"""Handshakes: bounded in number and in time, and never in the way of others."""

import asyncio
import contextlib
import os
import resource
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import override

import pytest

from proxy.transport import handshake
from proxy.transport.handshake import Handshakes
from tests.authority import PrivateAuthority

NAME = "127.0.0.1"
WAIT_S = 20.0


class Echo(asyncio.Protocol):
    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    @override
    def data_received(self, data: bytes) -> None:
        self.transport.write(data)  # type: ignore[attr-defined]  # uvloop's, see below


class Stand:
    """A listener with room for three handshakes, and clients that trust it."""

    def __init__(self, folder: Path, wait_s: float) -> None:
        authority = PrivateAuthority(folder)
        chain, key = authority.issue([NAME])
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(chain, key)
        self.trusting = ssl.create_default_context(cafile=str(authority.certificate))
        listening = socket.create_server((NAME, 0))
        listening.setblocking(False)
        self.port = listening.getsockname()[1]
        self.bounds: list[str] = []
        self.hit = asyncio.Event()
        self.handshakes = Handshakes(
            listening, context, Echo, most=3, wait_s=wait_s, at_bound=self._at_bound
        )
        self.handshakes.start()

    def _at_bound(self, name: str) -> None:
        self.bounds.append(name)
        self.hit.set()

    async def silent(self) -> socket.socket:
        """Connect, and say nothing."""
        under_way = self.handshakes.under_way
        client = socket.create_connection((NAME, self.port))
        client.setblocking(False)
        async with asyncio.timeout(WAIT_S):
            while self.handshakes.under_way == under_way and not self.bounds:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0)
        return client

    async def ended(self, client: socket.socket) -> bool:
        """Wait until the server says something; return whether it said that it is over."""
        receiving = asyncio.get_running_loop().sock_recv(client, 1)
        octets = await asyncio.wait_for(receiving, WAIT_S)
        client.close()
        return octets == b""

    async def echo(self) -> bytes:
        """Say something over TLS and return what comes back."""
        reader, writer = await asyncio.open_connection(NAME, self.port, ssl=self.trusting)
        writer.write(b"ping")
        answer = await asyncio.wait_for(reader.readexactly(4), WAIT_S)
        writer.close()
        await writer.wait_closed()
        return answer


@pytest.fixture
async def stand(tmp_path: Path) -> AsyncIterator[Stand]:
    stand = Stand(tmp_path, WAIT_S)
    yield stand
    stand.handshakes.stop()


async def test_serves_over_tls(stand: Stand) -> None:
    assert await stand.echo() == b"ping"
    assert stand.bounds == []


async def test_a_further_handshake_ends_the_oldest(stand: Stand) -> None:
    """threats.md, "HTTP itself": "Slow loris on head, body, TLS hello"."""
    clients = [await stand.silent() for _ in range(3)]
    assert stand.handshakes.under_way == 3
    assert await stand.echo() == b"ping"
    assert stand.bounds == ["tls_handshakes"]
    assert await stand.ended(clients[0])
    assert stand.handshakes.under_way == 2
    for client in clients:
        client.close()


async def test_a_handshake_has_its_time(tmp_path: Path) -> None:
    stand = Stand(tmp_path, 0.05)
    client = await stand.silent()
    assert await stand.ended(client)
    await asyncio.wait_for(stand.hit.wait(), WAIT_S)
    await asyncio.sleep(0)  # the turn in which the task is done
    assert stand.bounds == ["tls_handshake_s"]
    assert stand.handshakes.under_way == 0
    stand.handshakes.stop()


async def test_what_is_no_tls_ends_its_own_connection_only(stand: Stand) -> None:
    reader, writer = await asyncio.open_connection(NAME, stand.port)
    writer.write(b"GET / HTTP/1.1\r\n\r\n")
    await asyncio.wait_for(reader.read(), WAIT_S)
    writer.close()
    await writer.wait_closed()
    gone = socket.create_connection((NAME, stand.port))
    gone.close()
    assert await stand.echo() == b"ping"
    assert stand.bounds == []


async def test_stopping_ends_what_is_under_way_and_frees_the_port(stand: Stand) -> None:
    client = await stand.silent()
    stand.handshakes.stop()
    stand.handshakes.stop()  # a second time changes nothing
    assert stand.handshakes.under_way == 0
    assert await stand.ended(client)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(NAME, stand.port)


async def test_rests_while_there_is_no_descriptor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """threats.md, "Parser, transport, cache": no descriptor left."""
    monkeypatch.setattr(handshake, "_REST_S", 0.05)
    stand = Stand(tmp_path, WAIT_S)
    client = socket.socket()
    client.setblocking(False)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    spare: list[int] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        with contextlib.suppress(OSError):
            while True:
                spare.append(os.dup(0))
        await asyncio.get_running_loop().sock_connect(client, (NAME, stand.port))
        for _ in range(5):
            await asyncio.sleep(0)
        assert stand.handshakes.under_way == 0
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for each in spare:
            os.close(each)
    async with asyncio.timeout(WAIT_S):
        while not stand.handshakes.under_way:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)
    client.close()
    stand.handshakes.stop()
