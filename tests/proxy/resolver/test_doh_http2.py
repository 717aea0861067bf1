"""DoH over HTTP/2: hits from their octets, misses when they are there, and what stands around."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from hpack import Decoder, Encoder

from proxy.resolver.doh_http2 import Endings, Http2
from proxy.resolver.doh_request import DohRequest, read_doh
from proxy.resolver.hits import Hit
from proxy.wire.h2_frame import PREFACE, SETTINGS_ACK, Flag, Kind, write_frame, write_settings
from tests.proxy.resolver.doh_stand import Served, parameter, public, served, wire
from tests.proxy.resolver.hostile import hostile
from tests.proxy.resolver.test_doh_exchange import exchange
from tests.proxy.wire.h2_peer import GET, POST, WHOLE, Frame, content, split


def hit(octets: bytes, ttl_s: int) -> Hit:
    made = Hit()
    made.reply, made.ttl_s = octets, ttl_s
    return made


def request(method: str = "GET") -> DohRequest:
    target = b"/dns-query?dns=" + parameter(wire("example.com")).encode()
    fields = ((b"content-type", b"application/dns-message"),) if method == "POST" else ()
    return read_doh(method, b"localhost", target, fields, None)


def fields_of(block: bytes) -> dict[bytes, bytes]:
    return {bytes(name): bytes(value) for name, value in Decoder().decode(block, raw=True)}


def test_a_hit_is_rendered_once() -> None:
    endings, asked = Endings(), request()
    found = hit(b"reply", 60)
    reply = endings.of_hit(asked, b"\0\7rest", found)
    assert reply.content == b"\0\7reply"
    assert fields_of(reply.block)[b"cache-control"] == b"private, max-age=60"
    assert endings.of_hit(asked, b"\0\7rest", found) is reply


@pytest.mark.parametrize(("octets", "ttl_s"), [(b"other", 60), (b"reply", 59)])
def test_a_hit_that_changed_is_rendered_anew(octets: bytes, ttl_s: int) -> None:
    endings, asked = Endings(), request()
    endings.of_hit(asked, b"\0\7rest", hit(b"reply", 60))
    reply = endings.of_hit(asked, b"\0\7rest", hit(octets, ttl_s))
    assert reply.content == b"\0\7" + octets
    assert fields_of(reply.block)[b"cache-control"] == b"private, max-age=%d" % ttl_s


def test_the_id_of_a_post_is_its_own() -> None:
    endings, asked, found = Endings(), request("POST"), hit(b"reply", 60)
    assert [endings.of_hit(asked, wire_, found).content[:2] for wire_ in (b"\0\1x", b"\0\2x")] == [
        b"\0\1",
        b"\0\2",
    ]


def test_long_replies_are_not_kept_and_endings_are_bounded() -> None:
    endings, asked = Endings(), request()
    endings.of_hit(asked, b"\0\7rest", hit(bytes(5000), 60))
    assert asked.last is None
    for ttl_s in range(5000):
        endings.around(b"message", ttl_s)
    assert len(endings._known) < 4097


class Client:
    """HTTP/2 octet by octet on a speaker, without a socket."""

    def __init__(self, it: Served) -> None:
        self.woken = asyncio.Event()
        self.exchange = exchange(it)
        memory = it.plane.memory("me")
        limits = it.plane.context.limits
        self.speaker = Http2(
            self.exchange, memory, it.plane.endings, limits, it.plane.hit_bound, self.woken.set
        )
        self.encoder = Encoder()
        self.encoder.header_table_size = 0
        self.say(PREFACE + write_settings({}) + SETTINGS_ACK)

    def say(self, octets: bytes) -> list[Frame]:
        self.exchange.begin()
        self.speaker.receive(octets, asyncio.get_running_loop().time())
        return list(split(self.speaker.take()))

    def get(self, stream: int, name: str, method: bytes = b"GET") -> list[Frame]:
        path = (b":path", f"/dns-query?dns={parameter(wire(name))}".encode())
        block = self.encoder.encode([(b":method", method), *GET[1:], path])
        return self.say(write_frame(Kind.HEADERS, WHOLE, stream, block))


async def test_a_miss_is_answered_when_it_is_there_and_then_from_its_octets(tmp_path: Path) -> None:
    async with hostile(public) as peer, served(peer.url("udp"), tmp_path) as it:
        client = Client(it)
        assert client.get(1, "example.com") == []
        assert client.speaker.is_waited_for
        await client.woken.wait()
        first = list(split(client.speaker.take()))
        served_ = [client.get(stream, "example.com") for stream in (3, 5, 7)]
        assert client.speaker.replies == 4
        assert it.plane.context.metrics.dns_queries.value("doh", "answered") == 4
        assert len(peer.queries) == 1
    assert all(content(frames)[2:] == content(first)[2:] for frames in served_)
    assert not client.speaker.is_full


async def test_a_head_has_no_content(tmp_path: Path) -> None:
    async with served("udp://127.0.0.1:9", tmp_path) as it:
        (frame,) = Client(it).get(1, "denied.example", b"HEAD")
    assert frame.flags == Flag.END_STREAM | Flag.END_HEADERS
    assert int(fields_of(frame.payload)[b"content-length"]) > 12


async def test_what_is_no_dns_is_a_problem(tmp_path: Path) -> None:
    async with served("udp://127.0.0.1:9", tmp_path) as it:
        client = Client(it)
        block = client.encoder.encode([*GET, (b":path", b"/")])
        frames = client.say(write_frame(Kind.HEADERS, WHOLE, 1, block))
        post = client.encoder.encode(
            [*POST, (b":path", b"/dns-query"), (b"content-type", b"application/dns-message")]
        )
        empty = client.say(write_frame(Kind.HEADERS, WHOLE, 3, post))
    assert fields_of(frames[0].payload)[b":status"] == b"404"
    assert fields_of(empty[0].payload)[b":status"] == b"400"


async def test_a_reset_ends_the_look_up(tmp_path: Path) -> None:
    def silent(_query: bytes) -> Iterator[bytes]:
        return iter(())

    async with hostile(silent) as peer, served(peer.url("udp"), tmp_path) as it:
        client = Client(it)
        client.get(1, "example.com")
        client.get(3, "a.example.net")
        (task, other) = client.speaker._pending.values()
        client.say(write_frame(Kind.RST_STREAM, 0, 1, (8).to_bytes(4)))
        client.speaker.cancel(99)
        await asyncio.wait([task])
        assert task.cancelled()
        client.speaker.end()
        await asyncio.wait([other])
        assert other.cancelled()
        assert client.speaker._pending == {}


async def test_goaway_is_the_end_once_nothing_is_awaited(tmp_path: Path) -> None:
    async with served("udp://127.0.0.1:9", tmp_path) as it:
        client = Client(it)
        client.speaker.leave()
        assert client.speaker.is_done
        assert not client.speaker.go_on(asyncio.get_running_loop().time())
        (goaway,) = split(client.speaker.take())
    assert goaway.kind == Kind.GOAWAY
