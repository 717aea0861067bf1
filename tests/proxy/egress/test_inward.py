"""Requests to the API at http://sallyport.internal/ through the proxy."""

import asyncio
import hashlib
import json
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from msgspec import structs

from proxy.egress.connect import ESTABLISHED
from proxy.egress.connection import ClientConnection
from proxy.egress.cut import cut
from proxy.egress.inward import Inward
from proxy.limits import Limits
from rules.decision import Decision, Reason, Verdict
from tests.certs.forgery import Forged
from tests.internet import need
from tests.proxy.agent_api.deciding import Deciding
from tests.proxy.agent_api.endpoints import Endpoints
from tests.proxy.egress.world import (
    QUICK,
    Peer,
    World,
    basic,
    connect,
    get,
    opened,
    settled,
    token_app,
)
from tests.proxy.mtls.certified import Certified, certified

US = "sallyport.internal"
JSON = "Content-Type: application/json"
HELLO = b'{"text": "hello"}'


def post(path: str, content: bytes = HELLO, *fields: str, host: str = US) -> bytes:
    length = f"Content-Length: {len(content)}"
    return get(host, path, JSON, length, *fields, method="POST") + content


def chunked(path: str, *chunks: bytes, trailers: bytes = b"") -> bytes:
    head = get(US, path, JSON, "Transfer-Encoding: chunked", method="POST")
    body = b"".join(b"%x\r\n%b\r\n" % (len(each), each) for each in chunks)
    return head + body + b"0\r\n" + trailers + b"\r\n"


@asynccontextmanager
async def asking(
    folder: Path, limits: Limits = QUICK
) -> AsyncIterator[tuple[World, Endpoints, Peer]]:
    it = Endpoints(limits)
    async with opened(folder, limits=limits, api=it.api) as world:
        yield world, it, await world.client()


async def text_of(client: Peer) -> str:
    reply = await client.reply()
    assert reply.status == 200
    text: str = msgspec.json.decode(reply.body)["text"]
    return text


def connection(world: World) -> ClientConnection:
    (found,) = [
        each for each in world.egress.deadlines.present() if isinstance(each, ClientConnection)
    ]
    return found


async def test_a_post_is_answered_and_the_connection_stays(tmp_path: Path) -> None:
    async with asking(tmp_path) as (world, it, client):
        for number in range(3):
            client.send(post("/echo", b'{"text": "%d"}' % number))
            reply = await client.reply()
            members = msgspec.json.decode(reply.body)
            assert (reply.status, members["text"], members["app"]) == (200, str(number), "me")
            where = members["plane"], members["binding"], members["spiffe_id"]
            assert where == ("http", "", "")
            assert reply.field("connection") is None
            assert reply.field("cache-control") == "no-store"
        assert it.metrics.agent_api_calls.value("answered") == 3
        client.send(get("example.org"))
        assert (await client.reply()).status == 403
        first = (await world.lines())[0]
        assert (first["verdict"], first["reason"], first["target"]) == (
            "allow", "local", "POST http://sallyport.internal:80/echo",
        )  # fmt: skip
        assert world.metrics.proxy_requests.value("internal", "allowed") == 3


async def test_content_comes_in_every_framing_and_in_pieces(tmp_path: Path) -> None:
    async with asking(tmp_path) as (_, _it, client):
        for octets in (
            post("/echo"),
            chunked("/echo", HELLO),
            chunked("/echo", *[bytes([each]) for each in HELLO], trailers=b"x-sum: 1\r\n"),
        ):
            for at in range(0, len(octets), 11):
                client.send(octets[at : at + 11])
                await asyncio.sleep(0)
            assert await text_of(client) == "hello"


async def test_pipelined_requests_are_answered_in_their_order(tmp_path: Path) -> None:
    async with asking(tmp_path) as (_, it, client):
        client.send(
            post("/held", b"")
            + post("/echo", b'{"text": "1"}')
            + chunked("/echo", b'{"text"', b': "2"}')
            + get(US, "/state")
            + get(US)
            + get("example.org")
            + post("/echo", b'{"text": "3"}')
        )
        await it.held.wait()
        assert it.metrics.agent_api_under_way.value == 1
        it.go.set()
        assert [await text_of(client) for _ in range(3)] == ["", "1", "2"]
        assert [(await client.reply()).status for _ in range(3)] == [200, 200, 403]
        assert await text_of(client) == "3"


async def test_more_pipelined_content_than_is_read_ahead_waits(tmp_path: Path) -> None:
    """What is behind a call that takes its time stays in the kernel beyond `head_octets`."""
    async with asking(tmp_path) as (world, it, client):
        content = b'{"text": "%b"}' % (b"x" * 60000)
        client.send(post("/held", b"") + post("/echo", content) * 8)
        await it.held.wait()
        await settled(lambda: connection(world)._paused)
        it.go.set()
        await text_of(client)
        assert [len(await text_of(client)) for _ in range(8)] == [60000] * 8


async def test_a_client_that_expects_it_is_told_to_go_on(tmp_path: Path) -> None:
    """RFC 9110, section 10.1.1."""
    async with asking(tmp_path) as (_, _it, client):
        octets = post("/echo", HELLO, "Expect: 100-continue")
        client.send(octets[: -len(HELLO)])
        assert (await client.reply()).status == 100
        client.send(HELLO)
        assert await text_of(client) == "hello"


async def test_content_over_the_limit_is_not_waited_for(tmp_path: Path) -> None:
    async with asking(tmp_path) as (_, it, client):
        head = post("/echo", bytes(65536), "Expect: 100-continue")[:-65536]
        client.send(head)
        reply = await client.reply()
        assert (reply.status, reply.field("connection")) == (413, "close")
        assert reply.field("content-type") == "application/problem+json"
        assert await client.rest() == b""
        assert it.metrics.bounds.value("agent_api_octets") == 1


async def test_chunks_over_the_limit_are_not_kept(tmp_path: Path) -> None:
    async with asking(tmp_path) as (_, it, client):
        client.send(chunked("/echo", bytes(40000), bytes(40000)) + post("/echo"))
        reply = await client.reply()
        assert (reply.status, reply.field("connection")) == (413, "close")
        assert await client.rest() == b""
        assert it.metrics.agent_api_calls.value("answered") == 0


async def test_content_at_the_limit_is_taken(tmp_path: Path) -> None:
    async with asking(tmp_path) as (_, _it, client):
        content = b'{"text": "%b"}' % (b"x" * (65535 - 12))
        assert len(content) == 65535
        client.send(post("/echo", content))
        assert len(await text_of(client)) == 65535 - 12


@pytest.mark.parametrize("drips", [False, True])
async def test_content_that_is_slow_ends_the_connection(tmp_path: Path, *, drips: bool) -> None:
    """threats.md, "Denial of service": a body that drips is as bad as one that never comes."""
    async with asking(tmp_path, Limits(proxy_tick_s=0.02, head_s=0.2)) as (world, it, client):
        client.send(post("/echo", bytes(60000))[:-59999])
        if drips:
            while not client.reader.at_eof() and not client.writer.is_closing():
                client.send(b" ")
                await asyncio.sleep(0.005)
        assert await client.rest() == b""
        assert world.metrics.bounds.value("head_s") == 1
        assert it.metrics.agent_api_calls.value("answered") == 0


async def test_a_connection_rests_after_a_call_as_after_any_request(tmp_path: Path) -> None:
    limits = Limits(proxy_tick_s=0.02, keep_alive_s=0.05)
    async with asking(tmp_path, limits) as (world, _it, client):
        client.send(post("/echo"))
        assert await text_of(client) == "hello"
        assert await client.rest() == b""
        assert world.metrics.bounds.value("keep_alive_s") == 1


async def test_a_call_is_not_idle(tmp_path: Path) -> None:
    limits = Limits(proxy_tick_s=0.01, keep_alive_s=0.02, head_s=0.02)
    async with asking(tmp_path, limits) as (world, it, client):
        client.send(post("/held", b"{}"))
        await it.held.wait()
        assert connection(world).deadline == float("inf")
        it.go.set()
        assert (await client.reply()).status == 200


async def test_malformed_chunks_are_refused(tmp_path: Path) -> None:
    async with asking(tmp_path) as (_, _it, client):
        client.send(get(US, "/echo", JSON, "Transfer-Encoding: chunked", method="POST") + b"x\r\n")
        reply = await client.reply()
        assert (reply.status, reply.field("x-deny-reason")) == (400, "request-malformed")
        assert await client.rest() == b""


async def test_a_client_that_goes_away_takes_its_call_with_it(tmp_path: Path) -> None:
    async with asking(tmp_path) as (_, it, client):
        client.send(post("/held", b""))
        await it.held.wait()
        client.reset()
        async with asyncio.timeout(10):
            await it.cancelled.wait()
        await settled(lambda: it.metrics.agent_api_under_way.value == 0)


async def test_a_client_that_sends_no_more_gets_its_answer(tmp_path: Path) -> None:
    async with asking(tmp_path) as (_, it, client):
        client.send(post("/held", b""))
        client.end()
        await it.held.wait()
        it.go.set()
        assert (await client.reply()).status == 200
        assert await client.rest() == b""


async def test_half_a_content_is_none(tmp_path: Path) -> None:
    async with asking(tmp_path) as (_, it, client):
        client.send(post("/echo")[:-1])
        client.end()
        assert await client.rest() == b""
        assert it.metrics.agent_api_calls.value("answered") == 0


@pytest.mark.parametrize("field", ["Origin: https://evil.example", "Sec-Fetch-Site: same-site"])
async def test_web_pages_are_refused(tmp_path: Path, field: str) -> None:
    """threats.md, "HTTP itself".

    "A web page in the user's browser reaching /dns-query, /metrics or the API on loopback: Host,
    Origin, Sec-Fetch-Site".
    """
    async with asking(tmp_path) as (_, it, client):
        client.send(post("/echo", HELLO, field))
        assert (await client.reply()).status == 403
        assert await client.rest() == b""
        assert it.metrics.agent_api_calls.value("answered") == 0


async def test_head_and_other_methods(tmp_path: Path) -> None:
    async with asking(tmp_path) as (_, _it, client):
        client.send(get(US, "/openapi.json", method="HEAD"))
        head = await client.reply(is_head=True)
        client.send(get(US, "/openapi.json?x=1"))
        got = await client.reply()
        assert int(head.field("content-length") or 0) == len(got.body) > 100
        client.send(get(US, "/echo", method="DELETE"))
        refused = await client.reply()
        assert (refused.status, refused.field("allow")) == (405, "POST")
        client.send(get(US, "/echo", "Content-Length: 2", method="POST") + b"{}")
        assert (await client.reply()).status == 415
        client.send(post("/echo", b"{}"))
        assert (await client.reply()).status == 400


@pytest.mark.parametrize("close", ["Connection: close", ""])
async def test_the_last_request_ends_the_connection(tmp_path: Path, close: str) -> None:
    async with asking(tmp_path) as (_, _it, client):
        octets = post("/echo", HELLO, *([close] if close else []))
        client.send(octets if close else octets.replace(b"HTTP/1.1", b"HTTP/1.0"))
        reply = await client.reply()
        assert (reply.status, reply.field("connection")) == (200, "close")
        assert await client.rest() == b""


async def test_inside_a_tunnel_to_us(tmp_path: Path) -> None:
    async with asking(tmp_path) as (_, _it, client):
        client.send(connect(f"{US}:80"))
        assert await client.head() == ESTABLISHED
        for _ in range(2):
            client.send(post("/echo").replace(b"http://sallyport.internal", b""))
            assert await text_of(client) == "hello"


async def test_who_asks_is_who_the_request_says(tmp_path: Path) -> None:
    async with asking(tmp_path) as (world, _it, client):
        world.use_all(2, world.listener_app(), token_app("bot"))
        world.give_tokens("bot")
        client.send(post("/echo", HELLO, basic("", "spt_bot")) + post("/echo"))
        apps = [msgspec.json.decode((await client.reply()).body)["app"] for _ in range(2)]
        assert apps == ["bot", "me"]
        client.send(post("/echo", HELLO, basic("", "spt_other")))
        reply = await client.reply()
        assert (reply.status, reply.field("x-deny-reason")) == (407, "identity-unknown")


async def test_an_answer_is_not_for_whom_counts_for_nobody_meanwhile(tmp_path: Path) -> None:
    async with asking(tmp_path) as (world, it, client):
        world.use_all(2, world.listener_app(), token_app("bot"))
        world.give_tokens("bot")
        client.send(post("/held", b"", basic("", "spt_bot")))
        await it.held.wait()
        world.give_tokens()
        it.go.set()
        reply = await client.reply()
        assert (reply.status, reply.field("x-deny-reason")) == (403, "identity-unknown")


async def test_an_answer_is_not_for_another_app(tmp_path: Path) -> None:
    async with asking(tmp_path) as (world, it, client):
        client.send(post("/held", b""))
        await it.held.wait()
        world.use_all(2, structs.replace(world.listener_app(), name="other"))
        it.go.set()
        reply = await client.reply()
        assert (reply.status, reply.field("x-deny-reason")) == (403, "generation-changed")


async def test_what_is_cut_is_not_answered(tmp_path: Path) -> None:
    revoked = Decision(Verdict.DENY, Reason.REVOKED)
    async with asking(tmp_path) as (world, it, client):
        client.send(post("/held", b""))
        await it.held.wait()
        connection(world).sever(revoked)
        await it.cancelled.wait()
        assert await client.rest() == b""


async def test_what_is_cut_while_its_content_comes_ends(tmp_path: Path) -> None:
    revoked = Decision(Verdict.DENY, Reason.REVOKED)
    async with asking(tmp_path) as (world, _it, client):
        client.send(post("/echo")[:-1])
        await settled(lambda: connection(world).is_busy)
        it = connection(world)
        assert isinstance(it._exchange, Inward)
        assert (it.stale(), it.disowned(), it.revoked(apps_only=False)) == (None, None, None)
        it.pause_writing()
        it.resume_writing()
        it.sever(revoked)
        assert await client.rest() == b""


async def test_who_counts_for_nobody_is_told_to_the_sweep(tmp_path: Path) -> None:
    async with asking(tmp_path) as (world, _it, client):
        world.use_all(2, world.listener_app(), token_app("bot"))
        world.give_tokens("bot")
        client.send(post("/echo", HELLO, basic("", "spt_bot"))[:-1])
        await settled(lambda: connection(world).is_busy)
        world.give_tokens()
        decision = connection(world).disowned()
        assert decision is not None
        assert decision.reason is Reason.IDENTITY_UNKNOWN


async def test_over_tls_the_key_of_the_client_is_the_binding(tmp_path: Path) -> None:
    it = Endpoints()
    async with certified(tmp_path, api=it.api) as world:
        forged = world.court.forger.good()
        peer = await world.connect("proxy_tls", forged)
        peer.send(post("/echo") * 3)
        for _ in range(3):
            members = msgspec.json.decode((await peer.reply()).body)
            assert (members["app"], members["text"]) == ("coder", "hello")
            assert len(members["binding"]) == len(hashlib.sha256().hexdigest())
            assert members["spiffe_id"].startswith("spiffe://")
        peer.send(post("/held", b""))
        await it.held.wait()
        peer.abort()
        async with asyncio.timeout(10):
            await it.cancelled.wait()


@asynccontextmanager
async def deciding(folder: Path, it: Deciding) -> AsyncIterator[tuple[Certified, Forged]]:
    """Yield planes whose API revokes who asks before it answers."""
    async with certified(folder, api=it.api) as world:
        forged = world.court.forger.good()

        def revoke() -> None:
            world.court.revoke()
            cut(world.egress, apps_only=False)

        it.meanwhile = revoke
        yield world, forged


async def test_who_is_revoked_by_what_it_asks_is_told_why_and_no_more(tmp_path: Path) -> None:
    """Issue 5: a changed PCR voids the certificate that shows it, and the agent is told so."""
    async with deciding(tmp_path, Deciding()) as (world, forged):
        peer, other = [await world.connect("proxy_tls", forged) for _ in range(2)]
        other.send(post("/decide")[:-1])
        await settled(lambda: len(world.egress.deadlines) == 2)
        peer.send(post("/decide") * 2)
        reply = await peer.reply()
        assert (reply.status, reply.field("connection")) == (403, "close")
        assert "PCR 16 differs" in msgspec.json.decode(reply.body)["detail"]
        assert await peer.rest() == b""
        assert await other.rest() == b""  # cut at once
        again = await world.connect("proxy_tls", forged)
        again.send(post("/decide"))
        assert (await again.reply()).field("x-deny-reason") == "revoked"
        again.abort()


async def test_who_is_revoked_meanwhile_is_given_nothing(tmp_path: Path) -> None:
    async with deciding(tmp_path, Deciding(200)) as (world, forged):
        peer = await world.connect("proxy_tls", forged)
        peer.send(post("/decide"))
        reply = await peer.reply()
        assert (reply.status, reply.field("x-deny-reason")) == (403, "revoked")
        assert await peer.rest() == b""


async def test_who_is_revoked_by_another_hears_nothing_more(tmp_path: Path) -> None:
    async with deciding(tmp_path, Deciding(stays=False)) as (world, forged):
        peer = await world.connect("proxy_tls", forged)
        peer.send(post("/decide"))
        assert await peer.rest() == b""


async def test_curl_asks_through_the_proxy(tmp_path: Path) -> None:
    async with asking(tmp_path) as (world, _it, _client):
        content = json.dumps({"text": "x" * 50000})
        (tmp_path / "content").write_text(content)
        for options in ((), ("-p",), ("-H", "Transfer-Encoding: chunked")):
            child = await asyncio.create_subprocess_exec(
                need("curl"), "-sS", "--noproxy", "", "-x", f"http://127.0.0.1:{world.port}",
                "--json", f"@{tmp_path / 'content'}", *options, f"http://{US}/echo",
                stdout=subprocess.PIPE,
            )  # fmt: skip
            output, _ = await child.communicate()
            assert len(msgspec.json.decode(output)["text"]) == 50000
