"""Requests to the API for agents at the DoH listener, over both versions of HTTP."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import msgspec
import pytest
from hpack import Encoder
from msgspec import structs

from proxy.limits import Limits
from proxy.resolver.doh_http2 import Http2
from proxy.wire.h2_frame import PREFACE, SETTINGS_ACK, Kind, write_frame, write_settings
from rules.match import index_rules
from rules.ruleset import App, Ruleset
from tests.certs.forgery import WHO
from tests.internet import need
from tests.proxy.agent_api.deciding import Deciding
from tests.proxy.agent_api.endpoints import Endpoints
from tests.proxy.mtls.certified import certified
from tests.proxy.resolver.doh_stand import (
    BOT,
    RULES,
    SECRET,
    Http1Client,
    Reply,
    Served,
    get,
    http1,
    parameter,
    run,
    served,
    wire,
)
from tests.proxy.resolver.test_doh_exchange import exchange
from tests.proxy.wire.h2_peer import POST, WHOLE

NOWHERE = "udp://127.0.0.1:9"
DENIED = f"/dns-query?dns={parameter(wire('denied.example'))}"
JSON = "Content-Type: application/json"
HELLO = b'{"text": "hello"}'
VERSIONS = pytest.mark.parametrize("alpn", ["h2", "http/1.1"])


def post(path: str, content: bytes = HELLO, *fields: str) -> bytes:
    length = f"Content-Length: {len(content)}"
    return get(path, JSON, length, *fields, method="POST") + content


def chunked(path: str, *chunks: bytes, trailers: bytes = b"") -> bytes:
    body = b"".join(b"%x\r\n%b\r\n" % (len(each), each) for each in chunks)
    head = get(path, JSON, "Transfer-Encoding: chunked", method="POST")
    return head + body + b"0\r\n" + trailers + b"\r\n"


@asynccontextmanager
async def serving(
    folder: Path, limits: Limits | None = None
) -> AsyncIterator[tuple[Served, Endpoints]]:
    api = Endpoints(limits)
    async with served(NOWHERE, folder, limits, api=api.api) as it:
        yield it, api


def client(it: Served, alpn: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        http2=alpn == "h2",
        verify=it.context(alpn),
        trust_env=False,
        base_url=f"https://127.0.0.1:{it.port}",
        headers={"content-type": "application/json"},
    )


def text_of(reply: Reply) -> str:
    assert reply.status == 200, reply
    text: str = msgspec.json.decode(reply.content)["text"]
    return text


@VERSIONS
async def test_a_post_is_answered_beside_queries(tmp_path: Path, alpn: str) -> None:
    async with serving(tmp_path) as (it, api), client(it, alpn) as asker:
        for _ in range(2):
            reply = await asker.post("/echo", content=HELLO)
            assert (reply.status_code, reply.json()["text"]) == (200, "hello")
            assert reply.headers["cache-control"] == "no-store"
            assert reply.headers["content-type"] == "application/json"
            told = reply.json()
            assert (told["app"], told["plane"], told["binding"]) == ("me", "dns", "")
            assert (await asker.get(DENIED)).status_code == 200
        assert api.metrics.agent_api_calls.value("answered") == 2


@VERSIONS
async def test_what_http_says_of_a_request(tmp_path: Path, alpn: str) -> None:
    async with serving(tmp_path) as (it, _), client(it, alpn) as asker:
        got = await asker.get("/openapi.json")
        head = await asker.head("/openapi.json")
        assert head.headers["content-length"] == str(len(got.content))
        assert (got.json()["openapi"][:3], head.content) == ("3.1", b"")
        refused = await asker.delete("/state")
        assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD")
        form = {"content-type": "text/plain"}
        assert (await asker.post("/echo", content=HELLO, headers=form)).status_code == 415
        assert (await asker.post("/echo", content=b"{}")).status_code == 400
        assert (await asker.post("/broken", content=b"")).status_code == 500
        assert (await asker.post("/problem", content=b"")).json()["how"] == "attest"
        assert (await asker.get("/nothing")).status_code == 404


@VERSIONS
async def test_web_pages_and_other_names_are_refused(tmp_path: Path, alpn: str) -> None:
    """threats.md, "HTTP itself".

    "A web page in the user's browser reaching /dns-query, /metrics or the API on loopback: Host,
    Origin, Sec-Fetch-Site".
    """
    async with serving(tmp_path) as (it, api), client(it, alpn) as asker:
        for field, status in (
            ({"origin": "https://evil.example"}, 403),
            ({"sec-fetch-site": "cross-site"}, 403),
            ({"host": "evil.example"}, 421),
        ):
            reply = await asker.post("/echo", content=HELLO, headers=field)
            assert reply.status_code == status
        assert api.metrics.agent_api_calls.value("answered") == 0


@VERSIONS
async def test_content_over_the_limit_is_refused(tmp_path: Path, alpn: str) -> None:
    async with serving(tmp_path) as (it, _), client(it, alpn) as asker:
        assert (await asker.post("/echo", content=bytes(65536))).status_code == 413
    async with serving(tmp_path) as (it, api), client(it, alpn) as asker:

        async def dripping() -> AsyncIterator[bytes]:
            for _ in range(70):
                yield bytes(1000)

        assert (await asker.post("/echo", content=dripping())).status_code == 413
        assert api.metrics.bounds.value("agent_api_octets") == 1
        assert it.bounds("doh_body_octets") == 1
    async with serving(tmp_path, Limits(agent_api_octets=100)) as (it, api):
        async with client(it, alpn) as asker:
            assert (await asker.post("/echo", content=bytes(101))).status_code == 413
        assert api.metrics.bounds.value("agent_api_octets") == 1


@pytest.mark.parametrize(("octets", "at_once"), [(60000, 4), (8000, 24)])
async def test_many_posts_at_once_share_the_window(
    tmp_path: Path, octets: int, at_once: int
) -> None:
    """RFC 9113, section 5.2: what was taken is given back, so that the next ones can come."""
    (tmp_path / "content").write_bytes(b'{"text": "%b"}' % (b"x" * octets))
    async with serving(tmp_path) as (it, api):
        said = await run(
            need("h2load"), "-n", "96", "-c", "1", "-m", str(at_once),
            "-d", str(tmp_path / "content"), "-H", "content-type: application/json",
            f"https://localhost:{it.port}/echo",
        )  # fmt: skip
        assert "96 2xx" in said, said
        assert api.metrics.agent_api_calls.value("answered") == 96


async def test_streams_are_answered_in_any_order(tmp_path: Path) -> None:
    async with serving(tmp_path) as (it, api), client(it, "h2") as asker:
        slow = asyncio.create_task(asker.post("/held", content=b""))
        await api.held.wait()
        assert (await asker.post("/echo", content=HELLO)).json()["text"] == "hello"
        assert (await asker.get(DENIED)).status_code == 200
        api.go.set()
        assert (await slow).status_code == 200


async def test_calls_of_an_app_are_bounded(tmp_path: Path) -> None:
    limits = Limits(agent_api_calls_per_app=1)
    async with serving(tmp_path, limits) as (it, api), http1(it) as one, http1(it) as other:
        one.writer.write(post("/held", b""))
        await api.held.wait()
        refused = await other.ask(post("/echo"))
        assert (refused.status, refused.fields["retry-after"]) == (429, "1")
        assert (await other.ask(get(DENIED))).status == 200
        api.go.set()
        assert (await one.reply()).status == 200
        assert text_of(await other.ask(post("/echo"))) == "hello"


async def test_pipelined_requests_are_answered_in_their_order(tmp_path: Path) -> None:
    async with serving(tmp_path) as (it, api), http1(it) as asker:
        asker.writer.write(
            post("/held", b"")
            + post("/echo", b'{"text": "1"}')
            + get(DENIED)
            + chunked("/echo", b'{"text"', b': "2"}', trailers=b"x-sum: 1\r\n")
        )
        await api.held.wait()
        api.go.set()
        assert [text_of(await asker.reply()) for _ in range(2)] == ["", "1"]
        assert (await asker.reply()).fields["content-type"] == "application/dns-message"
        assert text_of(await asker.reply()) == "2"


async def test_a_client_that_expects_it_is_told_to_go_on(tmp_path: Path) -> None:
    async with serving(tmp_path) as (it, _), http1(it) as asker:
        asker.writer.write(post("/echo", HELLO, "Expect: 100-continue")[: -len(HELLO)])
        assert (await asker.reply()).status == 100
        assert text_of(await asker.ask(HELLO)) == "hello"
        refused = await asker.ask(post("/echo", bytes(65536), "Expect: 100-continue")[:-65536])
        assert (refused.status, refused.fields["connection"]) == (413, "close")
        assert await asker.reader.read() == b""


async def test_slow_content_meets_the_idle_limit(tmp_path: Path) -> None:
    async with serving(tmp_path, Limits(doh_idle_s=0.1)) as (it, api), http1(it) as asker:
        asker.writer.write(post("/echo")[:-1])
        assert await asker.reader.read() == b""
        assert it.bounds("doh_idle_s") == 1
        assert api.metrics.agent_api_calls.value("answered") == 0


async def test_a_call_is_not_idle(tmp_path: Path) -> None:
    async with serving(tmp_path, Limits(doh_idle_s=0.05)) as (it, api), http1(it) as asker:
        asker.writer.write(post("/held", b""))
        await api.held.wait()
        (connection,) = it.plane.open
        connection._idle()
        assert connection._speaker.is_waited_for
        api.go.set()
        assert (await asker.reply()).status == 200


async def test_a_reset_stream_takes_its_call_with_it(tmp_path: Path) -> None:
    async with serving(tmp_path) as (it, api):
        memory, limits = it.plane.memory("me"), it.plane.context.limits
        speaker = Http2(
            exchange(it), memory, it.plane.endings, limits, it.plane.hit_bound, lambda: None
        )
        encoder = Encoder()
        encoder.header_table_size = 0
        block = encoder.encode([*POST, (b":path", b"/held")])
        asked = PREFACE + write_settings({}) + SETTINGS_ACK
        asked += write_frame(Kind.HEADERS, WHOLE, 1, block)
        speaker.receive(asked, asyncio.get_running_loop().time())
        assert speaker.is_waited_for
        await api.held.wait()
        speaker.receive(write_frame(Kind.RST_STREAM, 0, 1, (8).to_bytes(4)), 0.0)
        async with asyncio.timeout(10):
            await api.cancelled.wait()
        assert api.metrics.agent_api_under_way.value == 0


@VERSIONS
async def test_a_connection_that_ends_takes_its_calls_with_it(tmp_path: Path, alpn: str) -> None:
    async with serving(tmp_path) as (it, api), client(it, alpn) as asker:
        call = asyncio.create_task(asker.post("/held", content=b""))
        await api.held.wait()
        (connection,) = it.plane.open
        connection.connection_lost(None)
        async with asyncio.timeout(10):
            await api.cancelled.wait()
        connection._transport.abort()
        call.cancel()
        await asyncio.wait([call])


async def test_who_asks_is_who_the_request_says(tmp_path: Path) -> None:
    bearer = f"Authorization: Bearer {SECRET}"
    async with serving(tmp_path) as (it, _), http1(it) as asker:
        replies = [await asker.ask(post("/echo", HELLO, *each)) for each in ((bearer,), ())]
        assert [msgspec.json.decode(each.content)["app"] for each in replies] == ["bot", "me"]
        refused = await asker.ask(post("/echo", HELLO, "Authorization: Bearer spt_other"))
        assert refused.status == 401
        assert "www-authenticate" in refused.fields


async def held(it: Served, api: Endpoints, asker: Http1Client, rules: Ruleset) -> Reply:
    """Return the reply to a call of `bot` while which `rules` come into force."""
    asker.writer.write(post("/held", b"", f"Authorization: Bearer {SECRET}"))
    await api.held.wait()
    it.parts.authorizer.use(index_rules(rules))
    it.plane.context.identifier.use(rules)
    api.go.set()
    return await asker.reply()


async def test_an_answer_is_for_who_asked(tmp_path: Path) -> None:
    apps = {name: app for name, app in RULES.apps.items() if name != "bot"}
    async with serving(tmp_path) as (it, api), http1(it) as asker:
        gone = structs.replace(RULES, generation=2, apps=apps)
        assert (await held(it, api, asker, gone)).status == 401
        api.go.clear()
        api.held.clear()
        it.plane.context.identifier.use(RULES)
        other = structs.replace(gone, apps={**apps, "other": App("other", identity=(BOT,))})
        reply = await held(it, api, asker, other)
        assert reply.status == 401
        assert b"who asked is not that app any more" in reply.content


async def test_over_mtls_the_key_of_the_client_is_the_binding(tmp_path: Path) -> None:
    api = Endpoints()
    async with certified(tmp_path, api=api.api) as world:
        asker = await world.connect("doh", world.court.forger.good(), "http/1.1")
        asker.send(post("/echo") * 2)
        for _ in range(2):
            told = msgspec.json.decode((await asker.reply()).body)
            assert (told["app"], told["spiffe_id"], len(told["binding"])) == ("coder", WHO, 64)
        asker.abort()
        other = await world.connect("doh", world.court.forger.good(WHO + "/nobody"), "http/1.1")
        other.send(post("/echo"))
        assert (await other.reply()).status == 403
        other.abort()


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
async def test_curl_asks_the_listener(tmp_path: Path, version: str) -> None:
    (tmp_path / "content").write_bytes(b'{"text": "%b"}' % (b"x" * 50000))
    async with serving(tmp_path) as (it, _):
        said = await run(
            need("curl"), "-sS", "--noproxy", "*", version, "--cacert", str(it.ca),
            "--json", f"@{tmp_path / 'content'}", f"https://localhost:{it.port}/echo",
        )  # fmt: skip
    assert len(msgspec.json.decode(said)["text"]) == 50000


async def test_without_an_api_there_is_none(tmp_path: Path) -> None:
    async with served(NOWHERE, tmp_path) as it, http1(it) as asker:
        assert (await asker.ask(get("/openapi.json"))).status == 404


@VERSIONS
@pytest.mark.parametrize(("status", "text"), [(403, "PCR 16 differs"), (200, "was revoked")])
async def test_who_is_revoked_by_what_it_asks_is_told_why(
    tmp_path: Path, alpn: str, status: int, text: str
) -> None:
    """Issue 5: a changed PCR voids the certificate that shows it, and the agent is told so.

    What it would have been given is for nobody any more.
    """
    it = Deciding(status)
    async with certified(tmp_path, api=it.api) as world:
        it.meanwhile = world.court.revoke
        context = world.context(world.court.forger.good(), alpn)
        base = f"https://localhost:{world.ports['doh']}"
        async with httpx.AsyncClient(
            http2=alpn == "h2", verify=context, trust_env=False, base_url=base
        ) as asker:
            reply = await asker.post("/decide")
            assert reply.status_code == 403
            assert text in reply.text
