"""One client connection: heads, limits, refusals before any origin is known."""

import asyncio
import os
import socket
import struct
import subprocess
from contextlib import suppress
from functools import partial
from pathlib import Path

import msgspec
import pytest

from proxy.egress.connection import ClientConnection
from proxy.identify import Identifier
from rules.ruleset import AllowRule, App, IdentityLine, Ruleset
from tests.proxy.egress.world import (
    LOCAL,
    LOOPBACK,
    PATIENCE_S,
    QUICK,
    Origin,
    World,
    connect,
    get,
    opened,
    saying,
    settled,
)
from tests.rules.written import allow

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
ASKED = b"GET http://example.com/ HTTP/1.1\r\n"


def web(origin: Origin) -> AllowRule:
    return allow("example.com", ports=[origin.port], addresses=[LOOPBACK])


@pytest.mark.parametrize(
    "octets",
    [
        pytest.param(
            ASKED
            + b"Host: example.com\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0",
            id="CL+TE",
        ),
        pytest.param(
            ASKED + b"Host: example.com\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx",
            id="duplicate Content-Length",
        ),
        pytest.param(ASKED + b"Host: example.com\nX: 1\r\n\r\n", id="bare LF"),
        pytest.param(b"\r\n" + ASKED + b"Host: example.com\r\n\r\n", id="leading CRLF"),
        pytest.param(ASKED + b"Host: example.com\r\nX: 1\r\n  2\r\n\r\n", id="obs-fold"),
        pytest.param(ASKED + b"Host : example.com\r\n\r\n", id="space before colon"),
        pytest.param(b"GET http://example.com/\r\n\r\n", id="HTTP/0.9"),
        pytest.param(ASKED + b"Host: example.com\r\nHost: example.com\r\n\r\n", id="two Hosts"),
        pytest.param(ASKED + b"\r\n", id="no Host"),
        pytest.param(
            ASKED + b"Host: example.com\r\nTransfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n",
            id="TE: identity, chunked",
        ),
        pytest.param(b"GET http://example.com/ HTTP/2.0\r\n\r\n", id="HTTP/2.0"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", id="h2 preface"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00", id="TLS"),
        pytest.param(b"\x05\x01\x00", id="SOCKS5"),
        pytest.param(b"PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n", id="PROXY header"),
    ],
)
async def test_refuses_heads_that_can_be_read_in_two_ways(tmp_path: Path, octets: bytes) -> None:
    """threats.md, "HTTP itself".

    "CL+TE, duplicate Content-Length, bare LF, leading CRLF before the request line (microsandbox
    0c13181a), obs-fold, space before colon, HTTP/0.9".
    """
    async with opened(tmp_path, allow("example.com", ports=[80])) as world:
        client = await world.client()
        client.send(octets)
        reply = await client.reply()
        assert (reply.status, reply.field("x-deny-reason")) == (400, "request-malformed")
        assert reply.field("connection") == "close"
        assert await client.rest() == b""
        assert world.names.asked == []
        line = (await world.lines())[0]
        assert (line["verdict"], line["reason"]) == ("deny", "request-malformed")


@pytest.mark.parametrize(
    "authority",
    [
        "attacker.example\\x00.example.com", "user@example.com", "[example.com]", "exa%6dple.com",
        "0x7f.1", "0177.0.0.1", "2130706433", "127.1", "[fe80::1%25eth0]", "example..com",
        "example.com:0", "example.com:65536", "example.com:007", "example.com:-12", "example.com:",
    ],
)  # fmt: skip
async def test_refuses_hosts_that_are_spelled_to_be_misread(tmp_path: Path, authority: str) -> None:
    """threats.md, "One name, many spellings": the proxy has the one parser of every plane."""
    async with opened(tmp_path, allow("example.com", ports=[80])) as world:
        octets = f"GET http://{authority}/ HTTP/1.1\r\nHost: {authority}\r\n\r\n"
        reply = await world.ask(octets.encode())
        assert (reply.status, reply.field("x-deny-reason")) == (400, "name-malformed")
        assert world.names.asked == []


@pytest.mark.parametrize("spelling", ["EXAMPLE.com", "example.com.", "Example.Com."])
async def test_takes_other_spellings_of_the_same_name(tmp_path: Path, spelling: str) -> None:
    """threats.md, "One name, many spellings": "trailing dot and case (CVE-2022-24825)"."""
    async with Origin().running() as origin, opened(tmp_path, web(origin)) as world:
        assert (await world.ask(get(f"{spelling}:{origin.port}"))).status == 200
        assert b"\r\nhost: example.com:%d\r\n" % origin.port in origin.heads[0]


async def test_answers_pipelined_requests_in_order(tmp_path: Path) -> None:
    answers = [b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d" % n for n in range(3)]
    async with saying(*answers).running() as origin, opened(tmp_path, web(origin)) as world:
        client = await world.client()
        refused = get("example.org")
        client.send(get(f"example.com:{origin.port}") * 2 + refused)
        client.send(get(f"example.com:{origin.port}"))
        statuses = [(await client.reply()).body[:1] for _ in range(4)]
        assert statuses == [b"0", b"1", b"{", b"2"]


async def test_a_malformed_request_behind_another_is_refused_in_its_turn(tmp_path: Path) -> None:
    """threats.md, "HTTP itself": "bare LF" and the rest, behind a request that is well formed."""
    async with Origin().running() as origin, opened(tmp_path, web(origin)) as world:
        client = await world.client()
        client.send(get(f"example.com:{origin.port}") + ASKED + b"Host: example.com\n\r\n\r\n")
        assert (await client.reply()).body == b"ok"
        assert (await client.reply()).status == 400
        assert await client.rest() == b""
        assert len(origin.heads) == 1


async def test_a_body_that_never_ends_ends_the_connection(tmp_path: Path) -> None:
    async with saying(b"").running() as origin, opened(tmp_path, web(origin)) as world:
        client = await world.client()
        post = get(f"example.com:{origin.port}", "/", "Content-Length: 5", method="POST")
        client.send(post + b"he")
        await settled(lambda: bool(origin.heads))
        client.end()
        assert await client.rest() == b""


async def test_bounds_what_waits_behind_a_request(tmp_path: Path) -> None:
    """threats.md, "HTTP itself": "unbounded header, body, stream counts"."""
    go = asyncio.Event()
    origin = Origin()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await origin.read_head(reader)
            await go.wait()
            writer.write(OK)

    origin.script = script
    limits = msgspec.structs.replace(QUICK, head_octets=4096)
    async with origin.running(), opened(tmp_path, web(origin), limits=limits) as world:
        client = await world.client()
        asked = get(f"example.com:{origin.port}", "/" + "x" * 1000)
        client.send(asked * 1000)
        await settled(lambda: bool(origin.heads))
        (connection,) = [
            each for each in world.egress.deadlines._timed if isinstance(each, ClientConnection)
        ]
        await settled(lambda: connection._paused)
        assert len(connection._buffer) < len(asked) * 1000
        go.set()
        for _ in range(1000):
            assert (await client.reply()).body == b"ok"


@pytest.mark.parametrize("octets", [b"", b"GET http://example.com/ HTTP/1.1\r\nHost: exa"])
async def test_a_slow_head_ends_the_connection(tmp_path: Path, octets: bytes) -> None:
    """threats.md, "HTTP itself": "Slow loris on head, body, TLS hello"."""
    limits = msgspec.structs.replace(QUICK, head_s=0.05, keep_alive_s=60.0)
    async with opened(tmp_path, limits=limits) as world:
        client = await world.client()
        client.send(octets)
        assert await client.rest() == b""
        bounds = world.metrics.bounds
        assert bounds.value("head_s") + bounds.value("keep_alive_s") == 1


async def test_an_idle_connection_ends(tmp_path: Path) -> None:
    limits = msgspec.structs.replace(QUICK, keep_alive_s=0.05)
    async with (
        Origin().running() as origin,
        opened(tmp_path, web(origin), limits=limits) as world,
    ):
        client = await world.client()
        client.send(get(f"example.com:{origin.port}"))
        assert (await client.reply()).status == 200
        assert await client.rest() == b""
        assert world.metrics.bounds.value("keep_alive_s") == 1


async def test_a_head_over_the_limit_is_refused(tmp_path: Path) -> None:
    """threats.md, "HTTP itself": "unbounded header, body, stream counts"."""
    limits = msgspec.structs.replace(QUICK, head_octets=1000)
    async with opened(tmp_path, allow("example.com", ports=[80]), limits=limits) as world:
        reply = await world.ask(ASKED + b"Host: example.com\r\nX: " + b"x" * 2000)
        assert (reply.status, reply.field("x-deny-reason")) == (400, "request-malformed")


async def test_ends_where_the_client_says_so(tmp_path: Path) -> None:
    async with Origin().running() as origin, opened(tmp_path, web(origin)) as world:
        client = await world.client()
        client.send(get(f"example.com:{origin.port}", "/", "Connection: close"))
        reply = await client.reply()
        assert (reply.body, reply.field("connection")) == (b"ok", "close")
        assert await client.rest() == b""


async def test_a_refusal_keeps_the_connection_where_the_request_is_complete(
    tmp_path: Path,
) -> None:
    async with Origin().running() as origin, opened(tmp_path, web(origin)) as world:
        client = await world.client()
        client.send(get("example.org"))
        assert (await client.reply()).status == 403
        client.send(get(f"example.com:{origin.port}"))
        assert (await client.reply()).body == b"ok"


async def test_a_refusal_ends_the_connection_where_content_follows(tmp_path: Path) -> None:
    async with opened(tmp_path) as world:
        client = await world.client()
        client.send(get("example.org", "/", "Content-Length: 60", method="POST") + get("x.example"))
        assert (await client.reply()).field("connection") == "close"
        assert await client.rest() == b""


async def test_a_refused_head_request_gets_no_content(tmp_path: Path) -> None:
    async with opened(tmp_path) as world:
        client = await world.client()
        client.send(get("example.org", method="HEAD") + get("example.net"))
        assert (await client.reply(is_head=True)).status == 403
        assert (await client.reply()).status == 403


async def test_every_refusal_stands_under_an_id(tmp_path: Path) -> None:
    async with opened(tmp_path) as world:
        reply = await world.ask(get("example.org"))
        refusal_id = reply.phrase.rpartition(" ")[2]
        assert reply.phrase == f"sallyport host-not-listed {refusal_id}"
        refusal = world.refusals.get("me", refusal_id)
        assert refusal is not None
        assert refusal.target == "example.org:80"
        line = (await world.lines())[0]
        assert (line["id"], line["plane"], line["fact"]) == (refusal_id, "http", "connect")


async def test_an_app_at_its_bound_is_told_so(tmp_path: Path) -> None:
    limits = msgspec.structs.replace(QUICK, proxy_connections_per_app=1)
    async with opened(tmp_path, limits=limits) as world:
        first = await world.client()
        first.send(get("example.org"))
        assert (await first.reply()).status == 403
        second = await world.client()
        reply = await second.reply()
        assert (reply.status, reply.field("x-deny-reason")) == (503, "capacity")
        assert reply.field("retry-after") == "1"
        assert world.metrics.bounds.value("proxy_connections_per_app") == 1
        assert world.metrics.connections.value("proxy", "refused") == 1


def has_accepted(world: World, connections: int) -> bool:
    return world.listener.connections >= connections


async def test_a_flood_over_the_bound_is_not_even_told(tmp_path: Path) -> None:
    limits = msgspec.structs.replace(QUICK, proxy_connections=8, linger_s=60.0)
    async with opened(tmp_path, limits=limits) as world:
        clients = []
        for number in range(1, 12):
            clients.append(await world.client())
            await settled(partial(has_accepted, world, min(number, 10)))
        assert (await clients[8].reply()).status == 503
        assert (await clients[9].reply()).status == 503
        assert await clients[10].rest() == b""
        assert world.metrics.bounds.value("proxy_connections") == 3


async def test_a_bug_of_ours_is_an_internal_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Origin().running() as origin, opened(tmp_path, web(origin)) as world:
        monkeypatch.setattr(world.egress, "pool", None)
        client = await world.client()
        client.send(get(f"example.com:{origin.port}"))
        reply = await client.reply()
        assert (reply.status, reply.field("x-deny-reason")) == (503, "internal-error")
        assert await client.rest() == b""
        assert "a bug of ours" in caplog.text
        monkeypatch.undo()


async def test_a_bug_in_a_look_up_is_an_internal_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> None:
        raise ZeroDivisionError

    async with opened(tmp_path, allow("example.com", ports=[80])) as world:
        world.names.meanwhile = broken
        client = await world.client()
        client.send(get("example.com"))
        assert (await client.reply()).field("x-deny-reason") == "internal-error"
        assert await client.rest() == b""
        assert "a bug of ours" in caplog.text


async def test_a_client_that_leaves_during_the_look_up_leaves_nothing_behind(
    tmp_path: Path,
) -> None:
    never = asyncio.Event()

    async def resolve(*_: object) -> object:
        await never.wait()
        raise AssertionError

    async with opened(tmp_path, allow("example.com", ports=[80])) as world:
        world.egress.lookup = type("Names", (), {"resolve": staticmethod(resolve)})()
        client = await world.client()
        client.send(get("example.com"))
        await settled(lambda: any(each.is_busy for each in world.egress.deadlines._timed))
        client.reset()
        await settled(lambda: len(world.egress.deadlines) == 0)
        assert world.egress.connections == {}


async def test_closing_lets_a_request_under_way_end_well(tmp_path: Path) -> None:
    go = asyncio.Event()
    origin = Origin()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await origin.read_head(reader)
        await go.wait()
        writer.write(OK)

    origin.script = script
    async with origin.running(), opened(tmp_path, web(origin)) as world:
        busy, idle = await world.client(), await world.client()
        busy.send(get(f"example.com:{origin.port}"))
        await settled(lambda: bool(origin.heads))
        closing = asyncio.ensure_future(world.egress.close(10.0))
        assert await idle.rest() == b""
        go.set()
        assert (await busy.reply()).body == b"ok"
        await closing
        assert world.egress.connections == {}


async def test_closing_ends_what_takes_longer_than_the_grace(tmp_path: Path) -> None:
    async with saying(b"").running() as origin, opened(tmp_path, web(origin)) as world:
        client = await world.client()
        client.send(get(f"example.com:{origin.port}"))
        await settled(lambda: bool(origin.heads))
        await world.egress.close(0.05)
        assert await client.rest() == b""
        await settled(lambda: world.egress.connections == {})


async def test_curl_is_served_and_refused(tmp_path: Path) -> None:
    async with Origin().running() as origin, opened(tmp_path, web(origin)) as world:
        proxy = ["curl", "-sS", "--noproxy", "", "-x", f"http://127.0.0.1:{world.port}"]
        allowed = await asyncio.to_thread(
            subprocess.run,
            [*proxy, f"http://example.com:{origin.port}/"],
            capture_output=True, check=True,
        )  # fmt: skip
        assert allowed.stdout == b"ok"
        refused = await asyncio.to_thread(
            subprocess.run,
            [*proxy, "https://example.org/"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert refused.returncode == 56
        assert "403" in refused.stderr


async def test_connect_inside_a_connect_is_malformed(tmp_path: Path) -> None:
    async with opened(tmp_path) as world:
        client = await world.client()
        client.send(connect("sallyport.internal:80"))
        assert (await client.reply()).status == 200
        client.send(connect("example.com:443"))
        assert (await client.reply()).status == 400


@pytest.mark.parametrize("octets", [b"", b"GET http://example.com/ HTTP/1.1\r\n"])
async def test_a_client_that_was_reset_before_it_was_accepted_leaves_nothing(
    tmp_path: Path, octets: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    line = IdentityLine("me.yaml:3", uid=os.getuid())
    async with opened(tmp_path) as world:
        ruleset = Ruleset(1, {"me": App("me", identity=(line,))})
        world.egress.identifier = Identifier(ruleset, world.egress.identifier._peers)
        for _ in range(20):  # the loop does not run: none is accepted before it is gone
            with socket.create_connection((LOCAL, world.port)) as sock:
                sock.send(octets)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        assert (await world.ask(get("example.com"))).status == 403
        await settled(lambda: world.egress.connections == {})
        assert caplog.records == []


async def test_a_client_that_reads_no_refusal_is_not_read_either(tmp_path: Path) -> None:
    """threats.md, "HTTP itself": "unbounded header, body, stream counts"."""
    limits = msgspec.structs.replace(QUICK, head_octets=4096, tunnel_buffer_octets=4096)
    async with opened(tmp_path, limits=limits) as world:
        client = await world.client()
        client.pause()
        refused = get("example.com") * 400
        asked = 0
        with suppress(TimeoutError):  # the kernel's buffers fill up, then nothing moves
            async with asyncio.timeout(PATIENCE_S):
                while not (held := _held(world)) or not held[0]._paused:
                    client.send(refused)
                    asked += 400
                    await asyncio.sleep(0)
        assert len(held[0]._buffer) < 1 << 20
        client.resume()
        for _ in range(asked):
            assert (await client.reply()).status == 403


def _held(world: World) -> list[ClientConnection]:
    timed = world.egress.deadlines._timed
    return [each for each in timed if isinstance(each, ClientConnection)]


async def test_a_client_that_reads_nothing_at_all_is_dropped(tmp_path: Path) -> None:
    """threats.md, "HTTP itself": "Slow loris on head, body, TLS hello"."""
    limits = msgspec.structs.replace(QUICK, keep_alive_s=0.05, tunnel_buffer_octets=4096)
    async with opened(tmp_path, limits=limits) as world:
        client = await world.client()
        client.pause()
        client.send(get("example.com") * 40_000)  # more refusals than the kernel's buffers hold
        await settled(lambda: world.egress.connections != {})
        await settled(lambda: world.egress.connections == {})
        assert world.metrics.bounds.value("keep_alive_s") == 1


async def test_goes_on_after_an_origin_that_gave_no_response(tmp_path: Path) -> None:
    limits = msgspec.structs.replace(QUICK, keep_alive_s=0.05)
    async with (
        saying(b"", close=True).running() as origin,
        opened(tmp_path, web(origin), limits=limits) as world,
    ):
        client = await world.client()
        client.send(get(f"example.com:{origin.port}") + get("example.org"))
        assert (await client.reply()).status == 502
        assert (await client.reply()).status == 403
        assert await client.rest() == b""  # an idle connection ends


@pytest.mark.parametrize("more", [b"", b"GET http://exa"])
async def test_a_client_with_no_more_to_ask_is_let_go_after_a_refusal(
    tmp_path: Path, more: bytes
) -> None:
    async with opened(tmp_path, allow("example.com", ports=[80])) as world:
        world.names.table["example.com"] = []
        client = await world.client()
        client.send(get("example.com") + more)
        client.end()
        assert (await client.reply()).status == 502
        assert await client.rest() == b""
        assert world.metrics.bounds.value("keep_alive_s") == 0


async def test_a_client_that_reads_slowly_gets_the_whole_last_response(tmp_path: Path) -> None:
    content = bytes(8 << 20)
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(content)
    limits = msgspec.structs.replace(QUICK, linger_s=0.02, tunnel_buffer_octets=16 << 20)
    async with (
        saying(head + content).running() as origin,
        opened(tmp_path, web(origin), limits=limits) as world,
    ):
        client = await world.client()
        client.pause()
        client.send(get(f"example.com:{origin.port}", "/", "Connection: close"))
        await settled(lambda: any(each._gone for each in _held(world)))
        await asyncio.sleep(0.2)  # ten times what a client is given that has read everything
        client.resume()
        assert (await client.reply()).body == content


async def test_connect_inside_a_tunnel_is_malformed_in_any_form(tmp_path: Path) -> None:
    """threats.md, "HTTP itself": "CONNECT early data (CVE-2025-64763)", one level down."""
    async with opened(tmp_path) as world:
        for target in ("/", "http://sallyport.internal/"):
            client = await world.client()
            client.send(connect("sallyport.internal:80"))
            assert (await client.reply()).status == 200
            client.send(f"CONNECT {target} HTTP/1.1\r\nHost: sallyport.internal\r\n\r\n".encode())
            assert (await client.reply()).field("x-deny-reason") == "request-malformed"


@pytest.mark.parametrize(
    ("octets", "target"),
    [
        (b"CONNECT u:secret@a..example:443 HTTP/1.1\r\nHost: a\r\n\r\n", "a..example:443"),
        (b"GET ftp://u:p@a.example/x?secret HTTP/1.1\r\nHost: a\r\n\r\n", "GET a.example/x"),
        (
            b"GET http://a.example/ HTTP/1.1\r\nHost: b.example\r\n\r\n",
            "GET http://a.example/",
        ),
        (b"GET\r\n\r\n", ".:0"),
    ],
)
async def test_what_names_no_origin_is_recorded_as_it_was_said(
    tmp_path: Path, octets: bytes, target: str
) -> None:
    """threats.md, "Evidence as a weapon": control bytes and secrets stay out."""
    async with opened(tmp_path, allow("example.com")) as world:
        reply = await world.ask(octets)
        assert reply.status in {400, 421}
        assert msgspec.json.decode(reply.body)["target"] == target
        line = (await world.lines())[0]
        assert line["target"] == target
        assert "secret" not in str(line)
