"""The bounds of the HTTP server of the listeners."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import uvloop
from aiohttp import web

from proxy.issuing.enrolment import RefusedError
from proxy.issuing.web_server import WebServer
from tests.proxy.issuing.office import listening

logger = logging.getLogger(__name__)


class Routes:
    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.entered = asyncio.Event()

    def all(self) -> list[web.RouteDef]:
        return [
            web.get("/now", self._now),
            web.get("/wait", self._wait),
            web.get("/refused", self._refused),
            web.get("/broken", self._broken),
            web.post("/read", self._read),
        ]

    async def _now(self, _: web.Request) -> web.Response:
        return web.Response(text="now")

    async def _wait(self, _: web.Request) -> web.Response:
        self.entered.set()
        await self.go_on.wait()
        return web.Response(text="waited")

    async def _refused(self, _: web.Request) -> web.Response:
        raise RefusedError(429, "too many")

    async def _broken(self, _: web.Request) -> web.Response:
        raise ValueError("a secret")

    async def _read(self, request: web.Request) -> web.Response:
        return web.Response(text=str(len(await request.read())))


class Stand:
    def __init__(self, server: WebServer, routes: Routes, port: int) -> None:
        self.server = server
        self.routes = routes
        self.port = port

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    def head(self, path: str, *fields: str) -> bytes:
        lines = [f"GET {path} HTTP/1.1", f"Host: localhost:{self.port}", *fields, "", ""]
        return "\r\n".join(lines).encode()

    async def ask(self, octets: bytes) -> bytes:
        reader, writer = await self.connect()
        writer.write(octets)
        try:
            return await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        finally:
            writer.close()


@asynccontextmanager
async def standing(most: int = 4, life_s: float = 60.0, octets: int = 100) -> AsyncIterator[Stand]:
    routes = Routes()
    server = WebServer(
        routes.all(), logger, octets=octets, most=most, life_s=life_s, limit="pki_connections"
    )
    sock = listening()
    port = sock.getsockname()[1]
    await server.start(sock, None)
    try:
        yield Stand(server, routes, port)
    finally:
        routes.go_on.set()
        await server.close()


async def test_where_every_seat_is_taken_the_one_that_waits_longest_goes() -> None:
    async with standing(most=2) as stand:
        silent = [await stand.connect() for _ in range(2)]
        await stand.ask(stand.head("/now"))
        assert await asyncio.wait_for(silent[0][0].read(1), 5) == b""
        assert stand.server.bounds["pki_connections"] >= 1
        for _, writer in silent:
            writer.close()


async def test_one_whose_request_is_being_answered_keeps_its_seat() -> None:
    async with standing(most=1) as stand:
        reader, writer = await stand.connect()
        writer.write(stand.head("/wait"))
        await stand.routes.entered.wait()
        other, other_writer = await stand.connect()
        other_writer.write(stand.head("/now"))
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await asyncio.wait_for(other.readuntil(b"\r\n\r\n"), 5)
        other_writer.close()
        stand.routes.go_on.set()
        assert b"200" in await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        writer.close()


async def test_who_sends_content_slowly_keeps_no_seat() -> None:
    """threats.md, "HTTP itself": slow loris on the body; it held every seat for a minute."""
    async with standing(most=2) as stand:
        slow = [await stand.connect() for _ in range(2)]
        head = f"POST /read HTTP/1.1\r\nHost: localhost:{stand.port}\r\nContent-Length: 9\r\n\r\n1"
        for _, writer in slow:
            writer.write(head.encode())
        assert b"200" in await stand.ask(stand.head("/now"))
        assert await asyncio.wait_for(slow[0][0].read(1), 5) == b""
        for _, writer in slow:
            writer.close()


def test_one_for_whom_there_is_no_seat_is_ended_on_the_loop_that_we_run_on() -> None:
    """Its transports are none of asyncio's classes: such connections were left open, uncounted."""

    async def run() -> None:
        async with standing(most=1) as stand:
            _, writer = await stand.connect()
            writer.write(stand.head("/wait"))
            await stand.routes.entered.wait()
            other, other_writer = await stand.connect()
            with contextlib.suppress(ConnectionError):
                assert await asyncio.wait_for(other.read(1), 5) == b""
            for each in (writer, other_writer):
                each.close()

    uvloop.run(run())


def test_a_burst_of_connections_leaves_no_more_open_than_there_are_seats() -> None:
    """Each of a burst took the seat of the same one, so that nearly all of it stayed."""

    async def run() -> None:
        async with standing(most=4) as stand:
            burst = [socket.create_connection(("127.0.0.1", stand.port)) for _ in range(60)]
            assert b"200" in await stand.ask(stand.head("/now"))
            assert len(stand.server._connections()) <= 4
            for each in burst:
                each.close()

    uvloop.run(run())


async def test_a_request_that_cannot_be_read_is_not_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A join token in a field that is malformed, or too long."""
    async with standing() as stand:
        for field in ("Authorization : Basic spt_secret", f"X: spt_secret{'x' * 9000}"):
            assert b" 400 " in await stand.ask(stand.head("/now", field))
    assert "spt_secret" not in caplog.text


async def test_who_sends_a_head_for_ever_is_ended() -> None:
    async with standing(life_s=0.0) as stand:
        reader, writer = await stand.connect()
        writer.write(b"GET /now HTTP/1.1\r\n")
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
        writer.close()
        assert stand.server.bounds["enroll_connection_s"] == 1


async def test_content_that_is_too_long_is_refused() -> None:
    async with standing() as stand:
        host = f"Host: localhost:{stand.port}\r\n"
        long = f"POST /read HTTP/1.1\r\n{host}Content-Length: 101\r\n\r\n{'x' * 101}"
        assert b" 413 " in await stand.ask(long.encode())
        head = f"POST /read HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\n\r\n"
        chunked = f"{head}C8\r\n{'x' * 200}\r\n0\r\n\r\n"
        assert b" 413 " in await stand.ask(chunked.encode())
        assert stand.server.bounds["enroll_octets"] == 2


async def test_a_bug_of_ours_tells_nothing_of_what_was_read(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with standing() as stand:
        assert b" 500 " in await stand.ask(stand.head("/broken"))
    assert "ValueError" in caplog.text
    assert "a secret" not in caplog.text


async def test_a_refusal_says_when_to_try_again() -> None:
    async with standing() as stand:
        assert b"Retry-After: 10" in await stand.ask(stand.head("/refused"))


@pytest.mark.parametrize(
    "octets",
    [
        b"GET /now HTTP/1.1\r\n\r\n",
        b"GET /now HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET /now HTTP/1.1\r\nHost: a:b:c\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
    ],
)
async def test_other_hosts_and_no_http_are_refused(octets: bytes) -> None:
    async with standing() as stand:
        assert (await stand.ask(octets)).split()[1] in {b"400", b"421"}


async def test_a_client_of_http_1_0_may_leave_host_out() -> None:
    """Old clients do, `openssl ocsp` leaves the port out; a rebound browser names another host."""
    async with standing() as stand:
        assert b" 200 " in await stand.ask(b"GET /now HTTP/1.0\r\n\r\n")
        assert b" 200 " in await stand.ask(b"GET /now HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")
        assert b" 421 " in await stand.ask(b"GET /now HTTP/1.0\r\nHost: a.example\r\n\r\n")


async def test_a_listening_socket_is_closed_with_the_server() -> None:
    async with standing() as stand:
        port = stand.port
    with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port), 1):
        pass
