"""DoH over HTTP/1.1: keep-alive, pipelining, content in every framing, and what ends it."""

import asyncio
from pathlib import Path

import dns.message
import pytest

from proxy.limits import Limits
from proxy.resolver.doh_http1 import Http1
from tests.proxy.resolver.doh_stand import PUBLIC, get, http1, parameter, post, public, served, wire
from tests.proxy.resolver.hostile import Conversation, answer, hostile, nothing
from tests.proxy.resolver.test_doh_exchange import exchange

NOWHERE = "udp://127.0.0.1:9"
CHUNKED = ("Content-Type: application/dns-message", "Transfer-Encoding: chunked")
DENIED = f"/dns-query?dns={parameter(wire('denied.example'))}"


def asked(name: str) -> str:
    return f"/dns-query?dns={parameter(wire(name))}"


async def test_get_and_post_on_one_connection(tmp_path: Path) -> None:
    async with (
        hostile(public) as peer,
        served(peer.url("udp"), tmp_path) as it,
        http1(it) as client,
    ):
        for octets in (
            get(asked("example.com")),
            post(wire("example.com", 7)),
            get(
                f"https://localhost:{it.port}{asked('a.example.net')}", host=f"localhost:{it.port}"
            ),
        ):
            reply = await client.ask(octets)
            assert (reply.status, reply.phrase) == (200, "OK")
            assert reply.fields["content-type"] == "application/dns-message"
            assert reply.fields["cache-control"] == "private, max-age=60"
            assert str(dns.message.from_wire(reply.content).answer[0][0]) == PUBLIC
        assert it.plane.context.metrics.dns_queries.value("doh", "answered") == 3


async def test_pipelined_requests_are_answered_in_their_order(tmp_path: Path) -> None:
    """A miss in front holds back the hits behind it (RFC 9112, section 9.3.2)."""
    async with (
        hostile(public) as peer,
        served(peer.url("udp"), tmp_path) as it,
        http1(it) as client,
    ):
        names = [f"n{number}.example.net" for number in range(12)]
        client.writer.write(b"".join(get(asked(name)) for name in names) + get(DENIED) * 20)
        replies = [await client.reply() for _ in range(32)]
    questions = [str(dns.message.from_wire(reply.content).question[0].name) for reply in replies]
    assert questions == [f"{name}." for name in names] + ["denied.example."] * 20


async def test_a_head_gets_the_fields_alone(tmp_path: Path) -> None:
    async with (
        hostile(public) as peer,
        served(peer.url("udp"), tmp_path) as it,
        http1(it) as client,
    ):
        for name in ("example.com", "denied.example"):
            client.writer.write(get(asked(name), method="HEAD"))
            reply = await client.reply(is_head=True)
            assert reply.status == 200
            assert int(reply.fields["content-length"]) > 12
        client.writer.write(get("/", method="HEAD"))
        assert (await client.reply(is_head=True)).status == 404
        assert (await client.ask(get(DENIED))).status == 200


async def test_content_may_be_chunked_and_slow_and_expected(tmp_path: Path) -> None:
    octets = wire("denied.example")
    head = ("Content-Type: application/dns-message", "Transfer-Encoding: chunked")
    async with served(NOWHERE, tmp_path) as it, http1(it) as client:
        client.writer.write(get("/dns-query", *head, "Expect: 100-continue", method="POST"))
        assert (await client.reply()).status == 100
        client.writer.write(b"%x\r\n%b\r\n" % (4, octets[:4]))
        await client.writer.drain()
        client.writer.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(octets) - 4, octets[4:]) + get(DENIED))
        assert (await client.reply()).status == 200
        assert (await client.reply()).status == 200
        for part in (post(octets)[:-5], octets[-5:]):
            client.writer.write(part)
            await client.writer.drain()
        assert (await client.reply()).status == 200


@pytest.mark.parametrize("size", [1, 7, 1000])
async def test_how_the_octets_are_cut_changes_nothing(tmp_path: Path, size: int) -> None:
    octets = wire("denied.example")
    chunked = ("Content-Type: application/dns-message", "Transfer-Encoding: chunked")
    stream = post(octets) + get("/dns-query", *chunked, method="POST")
    stream += b"%x\r\n%b\r\n0\r\n\r\n" % (len(octets), octets) + get(DENIED)
    async with served(NOWHERE, tmp_path) as it:
        speaker = Http1(exchange(it), Limits(), it.plane.hit_bound, lambda: None)
        sent = b""
        for at in range(0, len(stream), size):
            assert not speaker.receive(stream[at : at + size], 0.0)
            sent += speaker.take()
    assert sent.count(b"HTTP/1.1 200 OK\r\n") == 3
    assert speaker.replies == 3


async def test_connections_of_http_1_0_end_unless_they_ask_to_stay(tmp_path: Path) -> None:
    async with served(NOWHERE, tmp_path) as it:
        async with http1(it) as client:
            old = get(DENIED, "Connection: keep-alive").replace(b"HTTP/1.1", b"HTTP/1.0")
            assert (await client.ask(old)).fields["connection"] == "keep-alive"
            last = await client.ask(get(DENIED).replace(b"HTTP/1.1", b"HTTP/1.0"))
            assert last.fields["connection"] == "close"
            assert await client.reader.read() == b""
        async with http1(it) as client:
            assert (await client.ask(get(DENIED, "Connection: close"))).status == 200
            assert await client.reader.read() == b""


@pytest.mark.parametrize(
    ("octets", "status"),
    [
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", 400, id="no host"),
        pytest.param(b"GET  / HTTP/1.1\r\nHost: localhost\r\n\r\n", 400, id="no request line"),
        pytest.param(b"\x16\x03\x01\x00\xa5\x01\x00", 400, id="no HTTP"),
        pytest.param(get("https://evil.example/dns-query"), 400, id="another authority"),
        pytest.param(get("/", *(f"a{n}: {'x' * 8000}" for n in range(9))), 431, id="a long head"),
        pytest.param(
            post(b"", media="text/plain")[:-2] + b"Content-Length: 3\r\n\r\n", 400, id="two lengths"
        ),
        pytest.param(post(bytes(65536)), 413, id="long content"),
        pytest.param(post(b"x" * 12, media="text/plain"), 415, id="another media type"),
        pytest.param(
            get(
                "/dns-query",
                "Content-Type: application/dns-message",
                "Transfer-Encoding: chunked",
                method="POST",
            )
            + b"x\r\n",
            400,
            id="no chunk",
        ),
        pytest.param(
            get("/dns-query", *CHUNKED, method="POST") + b"1;" + b"a" * 70000,
            400,
            id="a chunk extension",
        ),
    ],
)
async def test_what_cannot_be_read_on_ends_the_connection(
    tmp_path: Path, octets: bytes, status: int
) -> None:
    """threats.md, "HTTP itself": unbounded header and body; smuggling."""
    async with served(NOWHERE, tmp_path) as it, http1(it) as client:
        reply = await client.ask(octets)
        assert (reply.status, reply.fields["connection"]) == (status, "close")
        assert reply.fields["content-type"] == "application/problem+json"
        assert await client.reader.read() == b""
        assert it.bounds("head_octets") == (1 if status == 431 else 0)


async def test_chunks_without_end_are_bounded(tmp_path: Path) -> None:
    """threats.md, "HTTP itself": unbounded body."""
    limits = Limits(doh_body_octets=100)
    async with served(NOWHERE, tmp_path, limits) as it, http1(it) as client:
        client.writer.write(get("/dns-query", *CHUNKED, method="POST") + b"65\r\n" + bytes(0x65))
        assert (await client.reply()).status == 413
        assert await client.reader.read() == b""
        assert it.bounds("doh_body_octets") == 1


async def test_chunks_of_one_octet_leave_turns_for_others(tmp_path: Path) -> None:
    """threats.md, "HTTP itself": a read of 256 KiB of them would hold the loop for 0.3 s."""
    async with served(NOWHERE, tmp_path) as it:
        speaker = Http1(exchange(it), Limits(), lambda _: None, lambda: None)
        head = get("/dns-query", *CHUNKED, method="POST")
        assert speaker.receive(head + b"1\r\nA\r\n" * 12 + b"0\r\n\r\n", 0.0) is False
        assert speaker.take().startswith(b"HTTP/1.1 200 ")
        turns = 1
        assert speaker.receive(head + b"1\r\nA\r\n" * 40000 + b"0\r\n\r\n", 0.0)
        while speaker.go_on(0.0):
            turns += 1
        assert speaker.take().startswith(b"HTTP/1.1 200 ")
    assert turns > 20


async def test_an_answer_that_is_due_is_given_before_the_end(tmp_path: Path) -> None:
    release = asyncio.Event()

    async def late(talk: Conversation) -> None:
        query = await talk.query()
        await release.wait()
        await talk.send(answer(query, PUBLIC))
        await talk.until_closed()

    async with (
        hostile(nothing, late) as peer,
        served(peer.url("tcp"), tmp_path, Limits(doh_idle_s=0.05)) as it,
        http1(it) as client,
    ):
        client.writer.write(get(asked("example.com")))
        await peer.until(lambda that: len(that.queries) == 1)
        (each,) = it.plane.open
        timer = each._timer
        # The limit was looked at: it does not cut what is awaited.
        while each._timer is timer:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.01)
        it.plane.leave()
        release.set()
        reply = await client.reply()
        assert (reply.status, reply.fields["connection"]) == (200, "close")
        assert await client.reader.read() == b""


async def test_who_hangs_up_is_not_waited_for(tmp_path: Path) -> None:
    async def never(talk: Conversation) -> None:
        await talk.query()
        await talk.until_closed()

    async with hostile(nothing, never) as peer, served(peer.url("tcp"), tmp_path) as it:
        async with http1(it) as client:
            client.writer.write(get(asked("example.com")))
            await peer.until(lambda that: len(that.queries) == 1)
        while it.listener.connections:  # noqa: ASYNC110 - the loop's next rounds end it
            await asyncio.sleep(0.01)
        assert it.plane.open == set()
