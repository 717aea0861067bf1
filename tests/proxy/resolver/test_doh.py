"""DoH over TLS with real clients, and what a connection may hold and for how long."""

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import cast

import dns.message
import httpx
import pytest

from proxy.limits import Limits
from proxy.resolver.doh import Doh
from proxy.wire.h2_frame import (
    PREFACE,
    SETTINGS_ACK,
    Kind,
    Setting,
    write_frame,
    write_settings,
    write_window_update,
)
from tests.internet import need
from tests.proxy.resolver.doh_stand import (
    PUBLIC,
    Served,
    get,
    http1,
    parameter,
    public,
    run,
    served,
    wire,
)
from tests.proxy.resolver.hostile import hostile
from tests.proxy.wire.h2_peer import WHOLE, Talk, code, split

NOWHERE = "udp://127.0.0.1:9"
DENIED = f"/dns-query?dns={parameter(wire('denied.example'))}"


async def gone(it: Served) -> None:
    while it.listener.connections:  # noqa: ASYNC110 - the loop's next rounds end it
        await asyncio.sleep(0.01)


async def until(it: Served, condition: Callable[[Doh], bool]) -> None:
    async with asyncio.timeout(60):
        while not any(map(condition, it.plane.open)):  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("get_or_post", [(), ("+https-get",)])
async def test_kdig_asks_by_get_and_post(tmp_path: Path, get_or_post: tuple[str, ...]) -> None:
    async with hostile(public) as peer, served(peer.url("udp"), tmp_path) as it:
        said = await run(
            *(need("kdig"), "@127.0.0.1", "-p", str(it.port), "example.com", "+padding"),
            *("+https=localhost/dns-query", f"+tls-ca={it.ca}", "+tls-hostname=localhost"),
            *get_or_post,
        )
        assert PUBLIC in said, said
        assert "HTTP/2" in said
        assert it.parts.metrics.connections.value("doh", "accepted") == 1


@pytest.mark.parametrize("version", ["--http2", "--http1.1"])
async def test_curl_resolves_over_doh(tmp_path: Path, version: str) -> None:
    """A name that curl wants is asked here, and the refused address is what it then dials."""
    async with hostile(public) as peer, served(peer.url("udp"), tmp_path) as it:
        said = await run(
            *(need("curl"), "-sv", version, "--connect-timeout", "1", "--doh-url", it.url),
            *("--cacert", str(it.ca), "--noproxy", "*", "http://example.com:1/"),
        )
        assert PUBLIC in said, said
        assert it.parts.metrics.dns_queries.value("doh", "answered") >= 1


async def test_httpx_speaks_both_versions(tmp_path: Path) -> None:
    headers = {"content-type": "application/dns-message", "accept": "application/dns-message"}
    async with hostile(public) as peer, served(peer.url("udp"), tmp_path) as it:
        for version, alpn in (("HTTP/2", "h2"), ("HTTP/1.1", "http/1.1")):
            async with httpx.AsyncClient(
                http2=alpn == "h2", verify=it.context(alpn), trust_env=False
            ) as client:
                replies = [
                    await client.post(it.url, content=wire("example.com"), headers=headers)
                    for _ in range(2)
                ]
                for reply in replies:
                    assert (reply.status_code, reply.http_version) == (200, version)
                    assert dns.message.from_wire(reply.content).answer
                asked = await client.get(it.url, params={"dns": parameter(wire("example.com"))})
                assert dns.message.from_wire(asked.content).answer
                page = await client.get(it.url, headers={"origin": "https://evil.example"})
                assert page.status_code == 403
                rebound = await client.get(it.url, headers={"host": "evil.example"})
                assert rebound.status_code == 421


async def test_h2load_is_served_from_hits(tmp_path: Path) -> None:
    async with hostile(public) as peer, served(peer.url("udp"), tmp_path) as it:
        uri = f"{it.url}?dns={parameter(wire('example.com'))}"
        said = await run(need("h2load"), "-n", "3000", "-c", "3", "-m", "20", uri)
        assert "3000 succeeded, 0 failed" in said, said
        assert it.parts.metrics.dns_queries.value("doh", "answered") == 3000
        assert len(peer.queries) <= 1


async def test_connections_beyond_the_bounds_are_cut(tmp_path: Path) -> None:
    limits = Limits(dns_tcp_connections_per_app=2)
    async with served(NOWHERE, tmp_path, limits) as it:
        async with http1(it) as first, http1(it) as second, http1(it) as third:
            for client in (first, second):
                assert (await client.ask(get(DENIED))).status == 200
            with suppress(ConnectionResetError):
                assert await third.reader.read() == b""
            assert it.bounds("dns_tcp_connections_per_app") == 1
            assert it.parts.metrics.connections.value("doh", "refused") == 1
        await gone(it)


async def test_the_listener_s_bound_cuts_too(tmp_path: Path) -> None:
    async with served(NOWHERE, tmp_path) as it:
        it.listener.limit = 0
        async with http1(it) as client:
            with suppress(ConnectionResetError):
                assert await client.reader.read() == b""
        assert it.bounds("dns_tcp_connections") == 1


@pytest.mark.parametrize(
    "octets",
    [
        b"",
        b"GET /dns-query",
        get(
            "/dns-query",
            "Content-Length: 9",
            "Content-Type: application/dns-message",
            method="POST",
        ),
    ],
)
async def test_slow_heads_and_content_meet_the_idle_limit(tmp_path: Path, octets: bytes) -> None:
    """threats.md, "HTTP itself": slow loris on head, body."""
    async with served(NOWHERE, tmp_path, Limits(doh_idle_s=0.2)) as it, http1(it) as client:
        client.writer.write(octets)
        with suppress(ConnectionResetError):
            assert await client.reader.read() == b""
        assert it.bounds("doh_idle_s") == 1
        await gone(it)


async def test_an_idle_http2_connection_is_told_goodbye(tmp_path: Path) -> None:
    async with served(NOWHERE, tmp_path, Limits(doh_idle_s=0.2)) as it, http1(it, "h2") as client:
        client.writer.write(PREFACE + write_settings({}))
        frames = list(split(await client.reader.read()))
        assert (frames[-1].kind, code(frames[-1])) == (Kind.GOAWAY, 0)
        assert it.bounds("doh_idle_s") == 1


async def test_half_a_request_over_http2_meets_the_idle_limit(tmp_path: Path) -> None:
    talk = Talk()
    talk.encoder.header_table_size = 0
    head = write_frame(
        Kind.HEADERS,
        4,
        1,
        talk.block(b"/dns-query", (b"content-type", b"application/dns-message"), post=True),
    )
    async with served(NOWHERE, tmp_path, Limits(doh_idle_s=0.2)) as it, http1(it, "h2") as client:
        client.writer.write(PREFACE + write_settings({}) + head)
        with suppress(ConnectionResetError):
            await client.reader.read()
        assert it.bounds("doh_idle_s") == 1
        await gone(it)


async def test_a_client_that_never_reads_is_not_read_from(tmp_path: Path) -> None:
    """threats.md, "Parser, transport, cache": exhaustion; here by a client that never reads."""
    talk = Talk()
    talk.encoder.header_table_size = 0
    talk.say(PREFACE)
    limits = Limits(doh_idle_s=0.5)
    async with served(NOWHERE, tmp_path, limits) as it:
        it.listener.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        with socket.socket() as raw:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            raw.connect(("127.0.0.1", it.port))
            raw.setblocking(False)
            loop = asyncio.get_running_loop()
            reader = asyncio.StreamReader(limit=1024)
            protocol = asyncio.StreamReaderProtocol(reader)
            transport, _ = await loop.create_connection(
                lambda: protocol, sock=raw, ssl=it.context("h2"), server_hostname="localhost"
            )
            transport.pause_reading()
            transport.write(PREFACE + write_settings({Setting.INITIAL_WINDOW_SIZE: 1 << 30}))
            transport.write(SETTINGS_ACK + write_window_update(0, 1 << 30))
            for _ in range(20000):
                block = talk.block(DENIED.encode(), (b"accept", b"*/*"))
                transport.write(write_frame(Kind.HEADERS, WHOLE, talk.next(), block))
            await until(it, lambda each: each._unread)
            await gone(it)
            transport.abort()
        assert it.bounds("doh_idle_s") == 1
        assert 0 < it.parts.metrics.dns_queries.value("doh", "refused") < 20000


async def test_a_client_that_reads_late_gets_everything(tmp_path: Path) -> None:
    async with served(NOWHERE, tmp_path) as it:
        it.listener.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        async with http1(it) as client:
            transport = cast("asyncio.Transport", client.writer.transport)
            transport.pause_reading()
            # More than the kernel takes for a client that does not read, and our own buffer.
            client.writer.write(get(DENIED) * 9000)
            await until(it, lambda each: each._unread)
            transport.resume_reading()
            replies = [await client.reply() for _ in range(9000)]
    assert {reply.status for reply in replies} == {200}


class Reset:
    """The transport of a connection that was reset before it was accepted."""

    def __init__(self) -> None:
        self.is_aborted = False
        self.protocol: asyncio.BaseProtocol | None = None

    def get_extra_info(self, _name: str) -> None:
        return None

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def abort(self) -> None:
        self.is_aborted = True


async def test_a_connection_that_was_reset_before_it_came_holds_nothing(tmp_path: Path) -> None:
    async with served(NOWHERE, tmp_path) as it:
        transport = Reset()
        it.plane.factory(it.listener).connection_made(cast("asyncio.Transport", transport))
        assert transport.is_aborted
        assert transport.protocol is not None
        assert it.listener.connections == 0


async def test_many_requests_of_one_read_take_turns_and_are_all_answered(tmp_path: Path) -> None:
    async with served(NOWHERE, tmp_path) as it, http1(it) as client:
        client.writer.write(get(DENIED) * 100)
        replies = [await client.reply() for _ in range(100)]
    assert {reply.status for reply in replies} == {200}


async def test_leaving_closes_what_is_idle(tmp_path: Path) -> None:
    async with served(NOWHERE, tmp_path) as it, http1(it) as one, http1(it, "h2") as two:
        assert (await one.ask(get(DENIED))).status == 200
        two.writer.write(PREFACE + write_settings({}))
        await two.reader.readexactly(9)
        it.plane.leave()
        assert await one.reader.read() == b""
        assert (await two.reader.read()).endswith(write_frame(Kind.GOAWAY, 0, 0, bytes(8)))
        await gone(it)


async def test_a_turn_that_comes_after_the_end_does_nothing(tmp_path: Path) -> None:
    async with served(NOWHERE, tmp_path) as it, http1(it) as client:
        assert (await client.ask(get(DENIED))).status == 200
        (each,) = it.plane.open
        each._transport.abort()
        each._go_on()
        await gone(it)


async def test_heads_are_remembered_for_so_many_apps(tmp_path: Path) -> None:
    async with served(NOWHERE, tmp_path, Limits(apps_remembered=2)) as it:
        first = it.plane.memory("a")
        assert it.plane.memory("a") is first
        for app in "bc":
            it.plane.memory(app)
        assert it.plane.memory("a") is not first
        assert it.bounds("apps_remembered") >= 2
