"""Binding and accepting."""

import asyncio
import os
import socket
from collections.abc import Callable
from typing import override

import pytest

from proxy.errors import BindError
from proxy.transport.listen import Listener, bind_tcp, bind_udp


def test_binds_tcp_and_listens() -> None:
    with bind_tcp("127.0.0.1", 0) as bound:
        assert bound.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        assert not bound.getblocking()
        assert not bound.get_inheritable()


@pytest.mark.parametrize("bind", [bind_tcp, bind_udp])
def test_never_shares_a_port(bind: Callable[[str, int], socket.socket]) -> None:
    """threats.md, "Identity": "Never SO_REUSEPORT, nor SO_REUSEADDR on UDP"."""
    with bind("127.0.0.1", 0) as bound:
        reuse = bound.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
        assert bool(reuse) == (bind is bind_tcp)
        assert bound.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT) == 0
        with pytest.raises(BindError):
            bind("127.0.0.1", bound.getsockname()[1])


@pytest.mark.parametrize("bind", [bind_tcp, bind_udp])
def test_an_ipv6_socket_takes_no_ipv4(bind: Callable[[str, int], socket.socket]) -> None:
    with bind("::", 0) as bound:
        assert bound.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 1
        with bind("0.0.0.0", bound.getsockname()[1]):
            pass


@pytest.mark.parametrize("bind", [bind_tcp, bind_udp])
def test_a_port_in_use_names_who_holds_it(bind: Callable[[str, int], socket.socket]) -> None:
    with bind("127.0.0.1", 0) as bound:
        port = bound.getsockname()[1]
        with pytest.raises(BindError, match=rf"port {port}: .*end pid {os.getpid()} \(.+\)"):
            bind("127.0.0.1", port)


def test_an_address_that_is_not_ours_says_what_to_do() -> None:
    with pytest.raises(BindError, match="no interface of this host holds that address"):
        bind_tcp("192.0.2.1", 0)


class Counted(asyncio.Protocol):
    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self.transport: asyncio.BaseTransport | None = None

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        if not self._listener.admit(transport):
            transport.close()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        assert self.transport is not None
        self._listener.release(self.transport)


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not is_so():  # noqa: ASYNC110 - what is waited for has no event of its own
            await asyncio.sleep(0.005)


async def listening(limit: int = 10) -> tuple[Listener, list[None]]:
    hits: list[None] = []
    sock = bind_tcp("127.0.0.1", 0)
    listener = Listener(sock, Counted, limit, lambda: hits.append(None))
    await listener.start()
    return listener, hits


async def connect(listener: Listener) -> socket.socket:
    client = socket.socket()
    client.setblocking(False)
    await asyncio.get_running_loop().sock_connect(client, listener.socket.getsockname())
    return client


async def test_counts_its_connections() -> None:
    listener, hits = await listening()
    host, port = listener.socket.getsockname()
    assert listener.name == f"{host}:{port}"
    clients = [await connect(listener) for _ in range(3)]
    await until(lambda: listener.connections == 3)
    for client in clients:
        client.close()
    await until(lambda: listener.connections == 0)
    assert hits == []
    await listener.close()


async def test_says_no_at_the_limit() -> None:
    listener, hits = await listening(limit=1)
    first, second = await connect(listener), await connect(listener)
    assert await asyncio.get_running_loop().sock_recv(second, 1) == b""
    assert len(hits) == 1
    await until(lambda: listener.connections == 1)
    await listener.close()
    first.close()
    second.close()


async def test_one_without_a_share_takes_no_room() -> None:
    """threats.md, "Parser, transport, cache": slow connections of one app shut out no other."""
    counted: list[bool] = []
    sock = bind_tcp("127.0.0.1", 0)
    listener = Listener(sock, Counted, 1, lambda: None, counted=counted.append)
    refused, admitted = asyncio.Transport(), asyncio.Transport()
    assert not listener.admit(refused, has_share=False)
    assert listener.admit(admitted)
    assert not listener.admit(asyncio.Transport())
    assert counted == [False, True, False]
    assert listener.connections == 3
    listener.release(admitted)
    assert listener.admit(asyncio.Transport())
    sock.close()


async def test_closing_refuses_new_and_ends_open_connections() -> None:
    listener, _ = await listening()
    where = listener.socket.getsockname()
    client = await connect(listener)
    await until(lambda: listener.connections == 1)
    await listener.close()
    assert await asyncio.get_running_loop().sock_recv(client, 1) == b""
    client.close()
    await until(lambda: listener.connections == 0)
    with socket.socket() as late, pytest.raises(ConnectionRefusedError):
        late.connect(where)


async def test_closing_may_wait_for_what_is_open() -> None:
    listener, _ = await listening()
    client = await connect(listener)
    await until(lambda: listener.connections == 1)
    closing = asyncio.ensure_future(listener.close(10.0))
    client.close()
    async with asyncio.timeout(5):
        await closing
    assert listener.connections == 0


async def test_closing_waits_no_longer_than_its_grace() -> None:
    listener, _ = await listening()
    client = await connect(listener)
    await until(lambda: listener.connections == 1)
    await listener.close(0.02)
    assert await asyncio.get_running_loop().sock_recv(client, 1) == b""
    client.close()


async def test_an_ipv6_listener_is_named_with_brackets() -> None:
    with bind_tcp("::1", 0) as bound:
        listener = Listener(bound, Counted, 1, lambda: None)
        assert listener.name == f"[::1]:{bound.getsockname()[1]}"
        assert Listener(bound, Counted, 1, lambda: None, "[::1]:53").name == "[::1]:53"


def test_a_share_is_claimed_and_given_back() -> None:
    sock = bind_tcp("127.0.0.1", 0)
    listener = Listener(sock, lambda _: asyncio.Protocol(), 8, lambda: None)
    assert listener.claim("me", 1)
    assert not listener.claim("me", 1)
    assert listener.claim("other", 1)
    listener.unclaim("me")
    listener.unclaim("me")
    assert listener.claim("me", 1)
    sock.close()
