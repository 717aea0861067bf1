"""Requests and responses on their way: framing both ways, and what breaks."""

import asyncio
from asyncio import StreamReader, StreamWriter
from pathlib import Path

import msgspec
import pytest

from rules.ruleset import AllowRule
from tests.proxy.egress.world import (
    LOOPBACK,
    QUICK,
    Origin,
    Reply,
    World,
    get,
    opened,
    saying,
    settled,
)
from tests.rules.written import allow

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def web(origin: Origin) -> AllowRule:
    return allow("example.com", ports=[origin.port], addresses=[LOOPBACK])


async def fetch(folder: Path, *answers: bytes, close: bool = False, method: str = "GET") -> Reply:
    """Return the proxy's reply to a request whose origin says `answers`."""
    async with (
        saying(*answers, close=close).running() as origin,
        opened(folder, web(origin)) as world,
    ):
        asked = get(f"example.com:{origin.port}", method=method)
        return await world.ask(asked, is_head=method == "HEAD")


def reading(octets: int) -> Origin:
    """Return an origin that reads so many octets of content, answers, and keeps them."""
    origin = Origin()

    async def script(reader: StreamReader, writer: StreamWriter) -> None:
        while True:
            await origin.read_head(reader)
            origin.heads.append(await reader.readexactly(octets))
            writer.write(OK)

    origin.script = script
    return origin


async def test_sends_content_of_a_length_on(tmp_path: Path) -> None:
    async with reading(5).running() as origin, opened(tmp_path, web(origin)) as world:
        client = await world.client()
        post = get(f"example.com:{origin.port}", "/", "Content-Length: 5", method="POST")
        client.send(post + b"he")
        await settled(lambda: len(origin.heads) == 1)
        client.send(b"llo" + post + b"again")  # pipelined
        assert (await client.reply()).status == 200
        assert (await client.reply()).status == 200
        assert (origin.heads[1], origin.heads[3]) == (b"hello", b"again")
        assert b"content-length: 5" in origin.heads[0]
        assert world.metrics.octets.value("up") == 10


async def test_sends_chunked_content_on_in_chunks_of_its_own(tmp_path: Path) -> None:
    async with (
        reading(len(b"5\r\nhello\r\n0\r\nsum: 1\r\n\r\n")).running() as origin,
        opened(tmp_path, web(origin)) as world,
    ):
        client = await world.client()
        chunked = "Transfer-Encoding: chunked"
        post = get(f"example.com:{origin.port}", "/", chunked, "Trailer: Sum", method="POST")
        client.send(post + b"05\r\nhello\r\n0\r\nSum: 1\r\n\r\n")
        assert (await client.reply()).status == 200
        assert origin.heads[1] == b"5\r\nhello\r\n0\r\nsum: 1\r\n\r\n"


@pytest.mark.parametrize(
    "chunk", [b"5;x=y\r\nhello\r\n", b"5 \r\nhello\r\n", b"5\r\nhelloX", b"zz"]
)
async def test_malformed_chunks_end_both_connections(tmp_path: Path, chunk: bytes) -> None:
    """threats.md, "HTTP itself": "chunk extensions"."""
    async with reading(1000).running() as origin, opened(tmp_path, web(origin)) as world:
        client = await world.client()
        post = get(f"example.com:{origin.port}", "/", "Transfer-Encoding: chunked", method="POST")
        client.send(post)
        await settled(lambda: len(origin.heads) == 1)
        client.send(chunk)
        reply = await client.reply()
        assert (reply.status, reply.field("connection")) == (400, "close")
        assert await client.rest() == b""
        assert len(world.egress.pool) == 0


async def test_malformed_chunks_that_wait_for_the_origin_are_the_clients_fault(
    tmp_path: Path,
) -> None:
    async with reading(1000).running() as origin, opened(tmp_path, web(origin)) as world:
        client = await world.client()
        post = get(f"example.com:{origin.port}", "/", "Transfer-Encoding: chunked", method="POST")
        client.send(post + b"zz\r\n")
        reply = await client.reply()
        assert (reply.status, reply.field("x-deny-reason")) == (400, "request-malformed")
        assert await client.rest() == b""


async def test_passes_100_continue_through(tmp_path: Path) -> None:
    origin = Origin()

    async def script(reader: StreamReader, writer: StreamWriter) -> None:
        head = await origin.read_head(reader)
        assert b"expect: 100-continue" in head
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        origin.heads.append(await reader.readexactly(5))
        writer.write(OK)

    origin.script = script
    async with origin.running(), opened(tmp_path, web(origin)) as world:
        client = await world.client()
        fields = ("Content-Length: 5", "Expect: 100-continue")
        client.send(get(f"example.com:{origin.port}", "/", *fields, method="PUT"))
        assert (await client.reply()).status == 100
        client.send(b"hello")
        assert (await client.reply()).status == 200
        assert origin.heads[1] == b"hello"


async def test_passes_early_hints_through(tmp_path: Path) -> None:
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    reply = await fetch(tmp_path, hints + OK)
    assert (reply.status, reply.field("link")) == (103, "</a>")


async def test_bounds_interim_responses(tmp_path: Path) -> None:
    """threats.md, "HTTP itself": "unbounded header, body, stream counts"."""
    async with (
        saying(b"HTTP/1.1 102 Processing\r\n\r\n" * 40).running() as origin,
        opened(tmp_path, web(origin)) as world,
    ):
        client = await world.client()
        client.send(get(f"example.com:{origin.port}"))
        seen = [(await client.head()).split(b" ")[1] for _ in range(17)]
        assert seen == [b"102"] * 16 + [b"502"]
        assert world.metrics.bounds.value("interim_responses") == 1


async def test_a_final_response_may_come_before_the_content_was_sent(tmp_path: Path) -> None:
    early = b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno"
    async with saying(early).running() as origin, opened(tmp_path, web(origin)) as world:
        client = await world.client()
        post = get(f"example.com:{origin.port}", "/", "Content-Length: 100000", method="POST")
        client.send(post + b"some")
        reply = await client.reply()
        assert (reply.status, reply.body, reply.field("connection")) == (413, b"no", "close")
        assert await client.rest() == b""
        assert len(world.egress.pool) == 0


async def test_chunks_and_trailers_of_a_response_are_written_anew(tmp_path: Path) -> None:
    answer = CHUNKED + b"0003\r\nabc\r\n1\r\nd\r\n0\r\nSum: 1\r\n\r\n"
    reply = await fetch(tmp_path, answer)
    assert (reply.status, reply.body) == (200, b"abcd[sum: 1]")


async def test_a_response_until_the_end_is_chunked_for_the_client(tmp_path: Path) -> None:
    reply = await fetch(tmp_path, b"HTTP/1.1 200 OK\r\n\r\nall of it", close=True)
    assert (reply.field("transfer-encoding"), reply.body) == ("chunked", b"all of it")


@pytest.mark.parametrize(
    ("answer", "close"),
    [(CHUNKED + b"2\r\nok\r\n0\r\n\r\n", False), (b"HTTP/1.0 200 OK\r\n\r\nok", True)],
)
async def test_an_http_1_0_client_gets_no_chunks(
    tmp_path: Path, answer: bytes, close: bool
) -> None:
    async with (
        saying(answer, close=close).running() as origin,
        opened(tmp_path, web(origin)) as world,
    ):
        client = await world.client()
        client.send(f"GET http://example.com:{origin.port}/ HTTP/1.0\r\n\r\n".encode())
        head = (await client.head()).lower()
        assert b"transfer-encoding" not in head
        assert b"connection: close" in head
        assert await client.rest() == b"ok"
        assert b"via: 1.0 sallyport" in origin.heads[0]


async def test_an_http_1_0_client_gets_no_interim_response(tmp_path: Path) -> None:
    async with (
        saying(b"HTTP/1.1 103 Early Hints\r\n\r\n" + OK).running() as origin,
        opened(tmp_path, web(origin)) as world,
    ):
        client = await world.client()
        client.send(f"GET http://example.com:{origin.port}/ HTTP/1.0\r\n\r\n".encode())
        assert (await client.head()).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    ("answer", "method"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", "HEAD"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", "GET"),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", "GET"),
    ],
)
async def test_some_responses_have_no_content(tmp_path: Path, answer: bytes, method: str) -> None:
    async with saying(answer, OK).running() as origin, opened(tmp_path, web(origin)) as world:
        client = await world.client()
        client.send(get(f"example.com:{origin.port}", method=method))
        assert (await client.reply(is_head=True)).status == int(answer.split()[1])
        client.send(get(f"example.com:{origin.port}"))
        assert (await client.reply()).body == b"ok"
        assert origin.connections == 1


async def test_alt_svc_does_not_reach_the_client(tmp_path: Path) -> None:
    """threats.md, "Between name and address": "h3 by ALPN or Alt-Svc (strip, UDP/443 closed)"."""
    answer = b'HTTP/1.1 200 OK\r\nAlt-Svc: h3=":443"\r\nX-Y: 1\r\nContent-Length: 0\r\n\r\n'
    reply = await fetch(tmp_path, answer)
    assert (reply.field("alt-svc"), reply.field("x-y")) == (None, "1")


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nX : 1\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity, chunked\r\n\r\n",
    ],
)
async def test_a_malformed_response_is_a_bad_gateway(tmp_path: Path, answer: bytes) -> None:
    """threats.md, "HTTP itself": "CL+TE, duplicate Content-Length, bare LF" from an origin."""
    reply = await fetch(tmp_path, answer)
    assert (reply.status, reply.field("x-deny-reason")) == (502, "upstream-malformed")


async def test_a_response_that_breaks_off_is_seen_to(tmp_path: Path) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"
    async with (
        saying(answer, close=True).running() as origin,
        opened(tmp_path, web(origin)) as world,
    ):
        client = await world.client()
        client.send(get(f"example.com:{origin.port}"))
        assert (await client.head()).startswith(b"HTTP/1.1 200 OK\r\n")
        assert await client.rest() == b"half"
        failed = [line for line in await world.lines() if line["verdict"] == "fail"]
        assert [(line["fact"], line["reason"]) for line in failed] == [
            ("request", "upstream-unreachable")
        ]
        assert world.metrics.proxy_requests.value("forward", "failed") == 1


async def test_malformed_chunks_of_an_origin_break_the_response_off(tmp_path: Path) -> None:
    async with (
        saying(CHUNKED + b"2\r\nok\r\nXX").running() as origin,
        opened(tmp_path, web(origin)) as world,
    ):
        client = await world.client()
        client.send(get(f"example.com:{origin.port}"))
        await client.head()
        assert not (await client.rest()).endswith(b"0\r\n\r\n")


async def test_what_follows_a_response_reaches_nobody(tmp_path: Path) -> None:
    """threats.md, "HTTP itself": a second response that the origin smuggles behind the first."""
    poison = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"
    async with saying(OK + poison, OK).running() as origin, opened(tmp_path, web(origin)) as world:
        client = await world.client()
        for _ in range(2):
            client.send(get(f"example.com:{origin.port}"))
            assert (await client.reply()).body == b"ok"
        assert origin.connections == 2


async def test_octets_on_an_idle_connection_end_it(tmp_path: Path) -> None:
    """threats.md, "HTTP itself": a response to a request that was not sent yet."""
    more = asyncio.Event()
    origin = Origin()

    async def script(reader: StreamReader, writer: StreamWriter) -> None:
        await origin.read_head(reader)
        writer.write(OK)
        if origin.connections == 1:
            await more.wait()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison")
        await reader.read()

    origin.script = script
    async with origin.running(), opened(tmp_path, web(origin)) as world:
        client = await world.client()
        client.send(get(f"example.com:{origin.port}"))
        assert (await client.reply()).body == b"ok"
        more.set()
        await settled(lambda: len(world.egress.pool) == 0)
        client.send(get(f"example.com:{origin.port}"))
        assert (await client.reply()).body == b"ok"


async def test_an_origin_that_closes_without_a_response(tmp_path: Path) -> None:
    reply = await fetch(tmp_path, b"", close=True)
    assert (reply.status, reply.field("x-deny-reason")) == (502, "upstream-unreachable")


async def test_an_origin_that_says_nothing_is_given_up(tmp_path: Path) -> None:
    limits = msgspec.structs.replace(QUICK, response_head_s=0.05)
    async with (
        saying(b"").running() as origin,
        opened(tmp_path, web(origin), limits=limits) as world,
    ):
        reply = await world.ask(get(f"example.com:{origin.port}"))
        assert (reply.status, reply.field("x-deny-reason")) == (504, "upstream-timeout")
        assert world.metrics.bounds.value("response_head_s") == 1


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"])
async def test_content_that_stops_coming_ends_the_exchange(tmp_path: Path, answer: bytes) -> None:
    """threats.md, "HTTP itself": "Slow loris on head, body, TLS hello"."""
    limits = msgspec.structs.replace(QUICK, requests_in_body_s=0.05)
    async with (
        saying(answer).running() as origin,
        opened(tmp_path, web(origin), limits=limits) as world,
    ):
        client = await world.client()
        length = () if answer else ("Content-Length: 9",)
        client.send(
            get(f"example.com:{origin.port}", "/", *length, method="PUT") + b"x" * len(length)
        )
        assert (await client.rest()).endswith(b"half" if answer else b"")
        assert world.metrics.bounds.value("requests_in_body_s") == 1


async def switching(world: World, origin: Origin) -> bytes:
    client = await world.client()
    fields = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: x")
    client.send(get(f"example.com:{origin.port}", "/", *fields) + b"early")
    head = await client.head()
    if b" 101 " in head:
        head += await client.exactly(len(b"hello:early"))
    client.abort()
    return head


async def test_an_upgrade_that_is_answered_with_200_stays_http(tmp_path: Path) -> None:
    """threats.md, "HTTP itself": "upgrade answered with 200 (CVE-2024-23326)"."""
    async with saying(OK, OK).running() as origin, opened(tmp_path, web(origin)) as world:
        client = await world.client()
        fields = ("Connection: Upgrade", "Upgrade: websocket")
        smuggled = b"GET http://internal.example/ HTTP/1.1\r\nHost: internal.example\r\n\r\n"
        client.send(get(f"example.com:{origin.port}", "/", *fields) + smuggled)
        assert (await client.reply()).body == b"ok"
        assert (await client.reply()).field("x-deny-reason") == "host-not-listed"
        assert len(origin.heads) == 1


@pytest.mark.parametrize(
    ("fields", "answer"),
    [
        ((), b"Connection: upgrade\r\nUpgrade: websocket\r\n"),
        (("Connection: Upgrade", "Upgrade: websocket"), b"Connection: upgrade\r\nUpgrade: h2c\r\n"),
        (("Connection: Upgrade", "Upgrade: websocket"), b""),
    ],
)
async def test_101_is_taken_for_what_was_asked_only(
    tmp_path: Path, fields: tuple[str, ...], answer: bytes
) -> None:
    """threats.md, "HTTP itself": "upgrade answered with 200 (CVE-2024-23326)"."""
    head = b"HTTP/1.1 101 Switching Protocols\r\n" + answer + b"\r\n"
    async with saying(head).running() as origin, opened(tmp_path, web(origin)) as world:
        reply = await world.ask(get(f"example.com:{origin.port}", "/", *fields))
        assert (reply.status, reply.field("x-deny-reason")) == (502, "upstream-malformed")
        assert world.metrics.tunnels.value == 0


async def test_a_client_that_leaves_takes_its_origin_along(tmp_path: Path) -> None:
    gone = asyncio.Event()
    origin = Origin()

    async def script(reader: StreamReader, _writer: StreamWriter) -> None:
        await origin.read_head(reader)
        await reader.read()
        gone.set()

    origin.script = script
    async with origin.running(), opened(tmp_path, web(origin)) as world:
        client = await world.client()
        client.send(get(f"example.com:{origin.port}"))
        await settled(lambda: bool(origin.heads))
        client.reset()
        async with asyncio.timeout(10):
            await gone.wait()


async def test_a_client_that_has_no_more_to_say_still_gets_its_response(tmp_path: Path) -> None:
    async with saying(OK).running() as origin, opened(tmp_path, web(origin)) as world:
        client = await world.client()
        client.send(get(f"example.com:{origin.port}"))
        client.end()
        assert (await client.reply()).body == b"ok"
        assert await client.rest() == b""


async def test_a_client_that_does_not_read_stops_the_origin(tmp_path: Path) -> None:
    octets = 64 << 20
    sent = 0
    origin = Origin()

    async def script(reader: StreamReader, writer: StreamWriter) -> None:
        nonlocal sent
        await origin.read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % octets)
        while sent < octets:
            writer.write(bytes(1 << 20))
            await writer.drain()
            sent += 1 << 20

    origin.script = script
    limits = msgspec.structs.replace(QUICK, tunnel_buffer_octets=65536)
    async with origin.running(), opened(tmp_path, web(origin), limits=limits) as world:
        client = await world.client()
        client.send(get(f"example.com:{origin.port}"))
        await client.head()
        await client.exactly(1)
        client.pause()
        before = -1
        while before != sent:  # the kernel's buffers fill up, then nothing moves
            before = sent
            await asyncio.sleep(0.1)
        assert sent < octets // 2
        client.resume()
        assert len(await client.exactly(octets - 1)) == octets - 1


async def test_an_origin_is_read_again_after_a_client_that_was_full(tmp_path: Path) -> None:
    many = 8 << 20  # more than the kernel takes, in one response
    big = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % many + bytes(many)
    limits = msgspec.structs.replace(QUICK, tunnel_buffer_octets=4096)
    async with (
        saying(big, OK).running() as origin,
        opened(tmp_path, web(origin), limits=limits) as world,
    ):
        for content in (bytes(many), b"ok"):
            client = await world.client()
            client.send(get(f"example.com:{origin.port}"))
            assert (await client.reply()).body == content
        assert origin.connections == 1


async def test_an_origin_that_does_not_read_stops_the_client(tmp_path: Path) -> None:
    octets = 64 << 20
    go = asyncio.Event()
    origin = Origin()

    async def script(reader: StreamReader, writer: StreamWriter) -> None:
        await origin.read_head(reader)
        await go.wait()
        await reader.readexactly(octets)
        writer.write(OK)

    origin.script = script
    async with origin.running(), opened(tmp_path, web(origin)) as world:
        client = await world.client()
        length = f"Content-Length: {octets}"
        client.send(get(f"example.com:{origin.port}", "/", length, method="POST"))
        sent = 0
        while sent < octets:
            client.send(bytes(1 << 20))
            sent += 1 << 20
            try:
                async with asyncio.timeout(0.3):
                    await client.writer.drain()
            except TimeoutError:
                break
        assert sent < octets // 2
        go.set()
        client.send(bytes(octets - sent))
        assert (await client.reply()).status == 200


async def test_a_refusal_never_stands_in_the_middle_of_a_response(tmp_path: Path) -> None:
    """threats.md, "HTTP itself": "chunk extensions", after the origin began to answer."""
    begun = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf"
    async with saying(begun).running() as origin, opened(tmp_path, web(origin)) as world:
        client = await world.client()
        chunked = "Transfer-Encoding: chunked"
        client.send(get(f"example.com:{origin.port}", "/", chunked, method="POST"))
        assert b" 200 OK" in await client.head()
        assert await client.exactly(4) == b"half"
        client.send(b"5;x=y\r\nhello\r\n")
        assert await client.rest() == b""
        await settled(lambda: world.egress.connections == {})
        assert [line["reason"] for line in await world.lines()] == ["rule", "request-malformed"]


async def test_nothing_is_switched_where_only_what_can_be_read_may_pass(tmp_path: Path) -> None:
    """threats.md, "HTTP itself": "upgrade answered with 200 (CVE-2024-23326)", and with 101.

    What follows a 101 is not decided about: it would carry any path past a rule for paths.
    """
    fields = ("Connection: Upgrade", "Upgrade: websocket")
    async with Origin().running() as origin:
        rule = allow("example.com", ports=[origin.port], addresses=[LOOPBACK], paths=["/a/**"])
        async with opened(tmp_path, rule) as world:
            client = await world.client()
            for _ in range(2):
                client.send(get(f"example.com:{origin.port}", "/a/b", *fields))
                assert (await client.reply()).body == b"ok"
            assert [b"upgrade" in head.lower() for head in origin.heads] == [False, False]


async def test_an_upgrade_is_asked_for_after_the_same_fields_with_another_method(
    tmp_path: Path,
) -> None:
    fields = ("Connection: Upgrade", "Upgrade: websocket")
    async with Origin().running() as origin, opened(tmp_path, web(origin)) as world:
        client = await world.client()
        for method in ("POST", "GET"):
            client.send(get(f"example.com:{origin.port}", "/", *fields, method=method))
            assert (await client.reply()).body == b"ok"
        assert [b"upgrade: websocket" in head for head in origin.heads] == [False, True]


def sized(content: bytes, *fields: str) -> bytes:
    head = "".join(f"{field}\r\n" for field in (*fields, f"Content-Length: {len(content)}"))
    return f"HTTP/1.1 200 OK\r\n{head}\r\n".encode() + content


async def test_a_head_that_an_origin_repeats_is_sent_on_the_same(tmp_path: Path) -> None:
    answers = [sized(b"one"), sized(b"two"), sized(b"four"), sized(b"six", "A: 1"), sized(b"two")]
    async with saying(*answers).running() as origin, opened(tmp_path, web(origin)) as world:
        client = await world.client()
        replies = []
        for _ in answers:
            client.send(get(f"example.com:{origin.port}"))
            replies.append(await client.reply())
        assert [reply.body for reply in replies] == [b"one", b"two", b"four", b"six", b"two"]
        assert [reply.field("a") for reply in replies] == [None, None, None, "1", None]
        assert {reply.field("via") for reply in replies} == {"1.1 sallyport"}
        assert origin.connections == 1
        assert world.metrics.octets.value("down") == sum(map(len, answers))


@pytest.mark.parametrize("cut", [3, -2])
async def test_a_repeated_head_may_come_in_pieces(tmp_path: Path, cut: int) -> None:
    origin = Origin()

    async def script(reader: StreamReader, writer: StreamWriter) -> None:
        for pieces in ([OK], [OK[:cut], OK[cut:]], [OK]):
            await origin.read_head(reader)
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)

    origin.script = script
    async with origin.running(), opened(tmp_path, web(origin)) as world:
        client = await world.client()
        for _ in range(3):
            client.send(get(f"example.com:{origin.port}"))
            assert (await client.reply()).body == b"ok"


async def test_more_than_a_repeated_response_reaches_nobody(tmp_path: Path) -> None:
    """A response that nobody asked for must not answer the next request."""
    async with (
        saying(OK, OK + OK, OK).running() as origin,
        opened(tmp_path, web(origin)) as world,
    ):
        client = await world.client()
        for _ in range(2):
            client.send(get(f"example.com:{origin.port}"))
            assert (await client.reply()).body == b"ok"
        await settled(lambda: len(world.egress.pool) == 0)


async def test_a_repeated_head_answers_head_without_content(tmp_path: Path) -> None:
    bare = OK.removesuffix(b"ok")
    async with (
        saying(OK, bare, bare, OK).running() as origin,
        opened(tmp_path, web(origin)) as world,
    ):
        client = await world.client()
        for method in ("GET", "HEAD", "HEAD", "GET"):
            client.send(get(f"example.com:{origin.port}", method=method))
            reply = await client.reply(is_head=method == "HEAD")
            assert (reply.status, reply.body) == (200, b"" if method == "HEAD" else b"ok")
        assert origin.connections == 1


async def test_a_client_that_ends_is_told_so_with_a_repeated_head(tmp_path: Path) -> None:
    async with saying(OK, OK).running() as origin, opened(tmp_path, web(origin)) as world:
        client = await world.client()
        client.send(get(f"example.com:{origin.port}"))
        assert (await client.reply()).field("connection") is None
        client.send(get(f"example.com:{origin.port}", "/", "Connection: close"))
        assert (await client.reply()).field("connection") == "close"
        assert await client.rest() == b""
