"""DNS over HTTPS to an upstream: what is asked, what is no answer, what is asked again."""

import asyncio
import contextlib
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Callable

import dns.message
import pytest
from h2.errors import ErrorCodes
from h2.settings import SettingCodes
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import ConfigError, UpstreamError
from proxy.limits import Limits
from proxy.resolver import upstream_https
from proxy.resolver.upstream import Upstreams
from proxy.resolver.zones import DOH_ALPN
from proxy.transport.tls import UpstreamTlsContext, upstream_context
from rules.decision import Reason
from tests.authority import PrivateAuthority
from tests.proxy.resolver.asking import BRIEF, NAME, PATIENT, address_in, asking
from tests.proxy.resolver.hostile import (
    BAD,
    GOOD,
    WRONG,
    Conversation,
    Hostile,
    StreamScript,
    answer,
    hostile,
    open_sockets,
)
from tests.proxy.resolver.hostile_http import (
    TYPE,
    HttpScript,
    HttpTalk,
    Request,
    answering,
    over_http,
    silent,
)

SERVER = "dns.example"
QUICK = Limits(upstream_timeout_s=0.3, upstream_try_s=0.3, upstream_hedge_s=20.0)

type Asking = contextlib.AbstractAsyncContextManager[tuple[Hostile, Upstreams]]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> PrivateAuthority:
    return PrivateAuthority(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def client(authority: PrivateAuthority) -> UpstreamTlsContext:
    return upstream_context(authority.certificate, DOH_ALPN)


@pytest.fixture
def server(authority: PrivateAuthority) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue([SERVER, "127.0.0.1"]))
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


def url(peer: Hostile, name: str = SERVER) -> str:
    return f"{peer.url('https')}/dns-query#{name}"


@pytest.fixture
def against(
    client: UpstreamTlsContext, server: ssl.SSLContext
) -> Callable[[StreamScript, Limits], Asking]:
    """Return what asks an upstream that converses like this."""

    @contextlib.asynccontextmanager
    async def run(
        converse: StreamScript, limits: Limits
    ) -> AsyncIterator[tuple[Hostile, Upstreams]]:
        async with (
            hostile(converse=converse, tls=server) as peer,
            asking(url(peer), limits=limits, https=client) as upstreams,
        ):
            yield peer, upstreams

    return run


type Against = Callable[[StreamScript, Limits], Asking]


async def failure(against: Against, script: HttpScript, limits: Limits = PATIENT) -> UpstreamError:
    async with against(over_http(script), limits) as (_, upstreams):
        with pytest.raises(UpstreamError) as caught:
            await upstreams.ask(NAME, 1)
    return caught.value


async def test_queries_are_posts_on_one_verified_connection(against: Against) -> None:
    """RFC 8484, sections 4.1 and 6; RFC 8467: padded to 128 octets.  No field says who we are."""
    requests: list[Request] = []

    async def script(http: HttpTalk) -> None:
        while True:
            requests.append(await http.request())
            await http.respond(requests[-1].stream, answer(requests[-1].content))

    async with against(over_http(script), PATIENT) as (peer, upstreams):
        for _ in range(3):
            assert address_in(await upstreams.ask(NAME, 1)) == GOOD
    assert peer.connections == 1
    assert requests[0].headers == [
        (b":method", b"POST"),
        (b":scheme", b"https"),
        (b":authority", f"{SERVER}:{peer.port}".encode()),
        (b":path", b"/dns-query"),
        (b"accept", b"application/dns-message"),
        (b"content-type", b"application/dns-message"),
        (b"content-length", b"128"),
    ]
    assert [request.content[:2] for request in requests] == [b"\0\0"] * 3
    assert [len(request.content) for request in requests] == [128] * 3
    assert len({request.content[12:29] for request in requests}) > 1  # 0x20
    assert upstreams.metrics.upstream.value("doh", "answered") == 3
    assert upstreams.status()[0].rtt_s is not None


async def test_many_streams_answered_in_any_order(against: Against) -> None:
    async def script(http: HttpTalk) -> None:
        requests = [await http.request() for _ in range(50)]
        for request in reversed(requests):
            await http.respond(request.stream, answer(request.content))
        await http.talk.until_closed()

    async with against(over_http(script), PATIENT) as (peer, upstreams):
        found = await asyncio.gather(*(upstreams.ask(NAME, 1) for _ in range(50)))
    assert {address_in(message) for message in found} == {GOOD}
    assert peer.connections == 1


async def test_no_more_streams_than_the_server_allows(against: Against) -> None:
    """RFC 9113, section 5.1.2."""
    most: list[int] = []

    async def script(http: HttpTalk) -> None:
        await http.request()  # behind its settings
        await http.respond(1, answer(http.talk.peer.queries[0]))
        for _ in range(10):
            request = await http.request()
            most.append(http.http.open_inbound_streams)
            await http.respond(request.stream, answer(request.content))

    settings = {SettingCodes.MAX_CONCURRENT_STREAMS: 2}
    async with against(over_http(script, settings), PATIENT) as (peer, upstreams):
        await upstreams.ask(NAME, 1)
        await asyncio.gather(*(upstreams.ask(NAME, 1) for _ in range(10)))
    assert max(most) <= 2
    assert peer.connections == 1


@pytest.mark.parametrize("kind", sorted(set(WRONG) - {"id"}))
async def test_what_answers_something_else_is_malformed(against: Against, kind: str) -> None:
    async def script(http: HttpTalk) -> None:
        request = await http.request()
        await http.respond(request.stream, WRONG[kind](answer(request.content, BAD)))
        await http.talk.until_closed()

    error = await failure(against, script)
    assert error.reason is Reason.UPSTREAM_MALFORMED
    assert "does not answer the query" in str(error)


async def test_an_id_other_than_the_one_sent_is_malformed(against: Against) -> None:
    async def script(http: HttpTalk) -> None:
        request = await http.request()
        await http.respond(request.stream, b"\0\1" + answer(request.content, BAD)[2:])
        await http.talk.until_closed()

    assert (await failure(against, script)).reason is Reason.UPSTREAM_MALFORMED


@pytest.mark.parametrize(
    ("status", "fields", "said"),
    [
        ("404", (TYPE,), "HTTP status 404"),
        ("301", (TYPE, ("location", "https://evil.example/")), "HTTP status 301"),
        ("503", (TYPE,), "HTTP status 503"),
        ("204", (TYPE,), "HTTP status 204"),
        ("200", (("content-type", "text/html"),), "media type text/html"),
        ("200", (("content-type", "application/dns-json"),), "media type application/dns-json"),
        ("200", (("server", "x"),), "media type none"),
        ("200", (TYPE, ("content-type", "text/html")), "two media types"),
        ("200", (TYPE, ("content-encoding", "gzip")), "encoded content"),
        ("200", (TYPE, ("age", "3600")), "out of a cache"),
    ],
)
async def test_a_response_that_is_no_dns_message_is_malformed(
    against: Against, status: str, fields: tuple[tuple[str, str], ...], said: str
) -> None:
    async def script(http: HttpTalk) -> None:
        request = await http.request()
        await http.respond(request.stream, answer(request.content), *fields, status=status)
        await http.talk.until_closed()

    error = await failure(against, script)
    assert error.reason is Reason.UPSTREAM_MALFORMED
    assert said in str(error)


async def test_parameters_and_fields_that_change_nothing_are_fine(against: Against) -> None:
    async def script(http: HttpTalk) -> None:
        request = await http.request()
        kind = ("content-type", "Application/DNS-Message; charset=x")
        http.http.send_headers(request.stream, [(":status", "103")])
        fields = (kind, ("age", "0"), ("x-a", "1"), ("x-a", "2"))
        await http.respond(request.stream, answer(request.content), *fields)
        await http.talk.until_closed()

    async with against(over_http(script), PATIENT) as (_, upstreams):
        assert address_in(await upstreams.ask(NAME, 1)) == GOOD


async def test_a_giant_body_is_cut_off_at_the_size_of_a_message(against: Against) -> None:
    """threats.md, HTTP itself: unbounded body."""
    sent: list[int] = []

    async def script(http: HttpTalk) -> None:
        request = await http.request()
        http.http.send_headers(request.stream, [(":status", "200"), TYPE])
        while request.stream not in http.reset:
            room = min(http.http.local_flow_control_window(request.stream), 16384)
            if room:
                http.http.send_data(request.stream, bytes(room))
                sent.append(room)
                await http.flush()
            else:
                await http.read()
        second = await http.request()  # the connection goes on
        await http.respond(second.stream, answer(second.content))
        await http.talk.until_closed()

    async with against(over_http(script), PATIENT) as (peer, upstreams):
        with pytest.raises(UpstreamError, match="longer than a DNS message") as caught:
            await upstreams.ask(NAME, 1)
        assert address_in(await upstreams.ask(NAME, 1)) == GOOD
    assert caught.value.reason is Reason.UPSTREAM_MALFORMED
    assert sum(sent) < 4 * upstream_https.MESSAGE_OCTETS
    assert peer.connections == 1


async def test_a_truncated_answer_is_malformed(against: Against) -> None:
    async def script(http: HttpTalk) -> None:
        request = await http.request()
        await http.respond(request.stream, answer(request.content, truncated=True))
        await http.talk.until_closed()

    assert "truncated" in str(await failure(against, script))


async def test_a_connection_that_is_going_away_is_left_and_the_query_sent_again(
    against: Against,
) -> None:
    """RFC 9113, section 6.8: what was not answered is asked on the next connection, once."""

    async def script(http: HttpTalk) -> None:
        request = await http.request()
        await http.respond(request.stream, answer(request.content))
        if http.talk.number == 1:
            await http.request()
            http.http.close_connection()
            await http.flush()
        await http.talk.until_closed()

    async with against(over_http(script), PATIENT) as (peer, upstreams):
        for _ in range(2):
            assert address_in(await upstreams.ask(NAME, 1)) == GOOD
    assert peer.connections == 2
    assert upstreams.metrics.upstream.value("doh", "retried") == 1


async def test_a_server_that_always_goes_away_is_unreachable(against: Against) -> None:
    async def script(http: HttpTalk) -> None:
        await http.request()
        http.http.close_connection(ErrorCodes.ENHANCE_YOUR_CALM)
        await http.flush()
        await http.talk.until_closed()

    error = await failure(against, script)
    assert error.reason is Reason.UPSTREAM_UNREACHABLE
    assert "ENHANCE_YOUR_CALM" in str(error)


async def test_a_refused_stream_is_asked_again_and_any_other_reset_is_a_failure(
    against: Against,
) -> None:
    """RFC 9113, section 8.7: a refused stream was not processed."""
    codes = iter([None, ErrorCodes.REFUSED_STREAM, None, ErrorCodes.INTERNAL_ERROR])

    async def script(http: HttpTalk) -> None:
        for code in codes:
            request = await http.request()
            if code is None:
                await http.respond(request.stream, answer(request.content))
            else:
                http.http.reset_stream(request.stream, code)
                await http.flush()
        await http.talk.until_closed()

    async with against(over_http(script), PATIENT) as (peer, upstreams):
        await upstreams.ask(NAME, 1)
        assert address_in(await upstreams.ask(NAME, 1)) == GOOD
        with pytest.raises(UpstreamError, match="INTERNAL_ERROR") as caught:
            await upstreams.ask(NAME, 1)
    assert caught.value.reason is Reason.UPSTREAM_UNREACHABLE
    assert peer.connections == 1


async def test_half_an_answer_is_none(against: Against) -> None:
    async def script(http: HttpTalk) -> None:
        request = await http.request()
        http.http.send_headers(request.stream, [(":status", "200"), TYPE])
        http.http.send_data(request.stream, answer(request.content)[:-4])
        http.http.reset_stream(request.stream, ErrorCodes.CANCEL)
        await http.flush()
        await http.talk.until_closed()

    error = await failure(against, script)
    assert error.reason is Reason.UPSTREAM_UNREACHABLE
    assert "CANCEL" in str(error)


async def test_a_server_that_refuses_every_stream_is_asked_twice_at_most(against: Against) -> None:
    async def script(http: HttpTalk) -> None:
        while True:
            request = await http.request()
            http.http.reset_stream(request.stream, ErrorCodes.REFUSED_STREAM)
            await http.flush()

    async with against(over_http(script), PATIENT) as (peer, upstreams):
        with pytest.raises(UpstreamError, match="REFUSED_STREAM"):
            await upstreams.ask(NAME, 1)
    assert len(peer.queries) <= 2


async def one(http: HttpTalk) -> None:
    """Answer one request."""
    request = await http.request()
    await http.respond(request.stream, answer(request.content))


async def narrow(http: HttpTalk, window_octets: int) -> None:
    """Answer one request when the client has agreed to a window for the others."""
    request = await http.request()
    http.http.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: window_octets})
    await http.flush()
    while http.acknowledged < 2:
        await http.read()
    await http.respond(request.stream, answer(request.content))


async def test_a_window_that_stays_shut_meets_the_deadline(against: Against) -> None:
    """threats.md, Parser, transport, cache: exhaustion by flow control."""

    async def script(http: HttpTalk) -> None:
        await narrow(http, 0)
        while True:
            await http.read()

    async with against(over_http(script), QUICK) as (peer, upstreams):
        await upstreams.ask(NAME, 1)
        with pytest.raises(UpstreamError) as caught:
            await upstreams.ask(NAME, 1)
    assert caught.value.reason is Reason.UPSTREAM_TIMEOUT
    assert len(peer.queries) == 1


async def test_a_window_that_opens_bit_by_bit_lets_the_query_through(against: Against) -> None:
    async def script(http: HttpTalk) -> None:
        await narrow(http, 10)
        while not http._open:
            await http.read()
        while not http._ready:
            http.http.increment_flow_control_window(50, 3)
            await http.flush()
            await http.read()
        await one(http)
        await http.talk.until_closed()

    async with against(over_http(script), PATIENT) as (_, upstreams):
        await upstreams.ask(NAME, 1)
        assert address_in(await upstreams.ask(NAME, 1)) == GOOD


async def test_an_answer_before_the_whole_query_ends_its_stream(against: Against) -> None:
    """RFC 9113, section 8.1."""

    async def script(http: HttpTalk) -> None:
        await narrow(http, 10)
        while not http._open:
            await http.read()
        await http.respond(3, b"", status="400")
        await http.until_reset(3)
        await one(http)
        await http.talk.until_closed()

    async with against(over_http(script), PATIENT) as (_, upstreams):
        await upstreams.ask(NAME, 1)
        with pytest.raises(UpstreamError, match="HTTP status 400"):
            await upstreams.ask(NAME, 1)


async def test_a_query_nobody_waits_for_ends_its_stream(against: Against) -> None:
    ended = asyncio.Event()

    async def script(http: HttpTalk) -> None:
        request = await http.request()
        await http.until_reset(request.stream)
        ended.set()
        second = await http.request()
        await http.respond(second.stream, answer(second.content))
        await http.talk.until_closed()

    async with against(over_http(script), PATIENT) as (peer, upstreams):
        task = asyncio.create_task(upstreams.ask(NAME, 1))
        await peer.until(lambda peer: len(peer.queries) == 1)
        task.cancel()
        async with asyncio.timeout(10):
            await ended.wait()
        assert address_in(await upstreams.ask(NAME, 1)) == GOOD
    assert peer.connections == 1


@given(st.lists(st.integers(0, 40), max_size=6), st.data())
def test_frames_are_measured_however_they_arrive(lengths: list[int], data: st.DataObject) -> None:
    frames = b"".join(length.to_bytes(3) + bytes(6 + length) for length in lengths)
    frames += (16385).to_bytes(3) + bytes(6)
    measure = upstream_https._FrameLengths()
    while frames:
        cut = data.draw(st.integers(1, len(frames)))
        part, frames = frames[:cut], frames[cut:]
        assert measure.fit(part) is bool(frames)


@pytest.mark.parametrize(
    "octets",
    [b"HTTP/1.1 400 Bad Request\r\n\r\n" * 4, b"\0" * 64, b"\xff" * 64],
)
async def test_octets_that_are_no_http2_are_malformed(against: Against, octets: bytes) -> None:
    async def script(http: HttpTalk) -> None:
        await http.request()
        await http.talk.send_octets(octets)
        await http.talk.until_closed()

    assert (await failure(against, script)).reason is Reason.UPSTREAM_MALFORMED


async def test_a_ping_flood_that_reads_no_replies_ends_the_connection(
    against: Against, monkeypatch: pytest.MonkeyPatch
) -> None:
    """threats.md, Parser, transport, cache: HTTP/2 exhaustion (CVE-2019-9512)."""
    monkeypatch.setattr(upstream_https, "UNREAD_OCTETS", -1)

    async def script(http: HttpTalk) -> None:
        await http.request()
        http.http.ping(b"flooding")
        await http.flush()
        await http.talk.until_closed()

    error = await failure(against, script)
    assert error.reason is Reason.UPSTREAM_MALFORMED
    assert "does not read" in str(error)


async def test_a_silent_server_meets_the_deadline_and_gets_a_new_connection(
    against: Against,
) -> None:
    async def script(http: HttpTalk) -> None:
        await (silent if http.talk.number == 1 else answering)(http)

    async with against(over_http(script), QUICK) as (peer, upstreams):
        with pytest.raises(UpstreamError) as caught:
            await upstreams.ask(NAME, 1)
        assert address_in(await upstreams.ask(NAME, 1)) == GOOD
    assert caught.value.reason is Reason.UPSTREAM_TIMEOUT
    assert peer.connections == 2


async def test_a_reset_connection_is_unreachable(against: Against) -> None:
    async def script(http: HttpTalk) -> None:
        await http.request()
        http.talk.reset()

    assert (await failure(against, script)).reason is Reason.UPSTREAM_UNREACHABLE


async def test_a_server_without_http2_is_no_upstream(
    client: UpstreamTlsContext, server: ssl.SSLContext
) -> None:
    """RFC 9113, section 3.2: nothing is sent where ALPN did not agree on h2."""
    server.set_alpn_protocols(["http/1.1"])
    received: list[bytes] = []

    async def converse(talk: Conversation) -> None:
        received.append(await talk.read_some())

    async with (
        hostile(converse=converse, tls=server) as peer,
        asking(url(peer), https=client) as upstreams,
    ):
        with pytest.raises(UpstreamError) as caught:
            await upstreams.ask(NAME, 1)
    assert caught.value.reason is Reason.UPSTREAM_TLS
    assert b"".join(received) == b""


async def test_a_certificate_for_another_name_is_refused(
    client: UpstreamTlsContext, server: ssl.SSLContext
) -> None:
    async with (
        hostile(converse=over_http(answering), tls=server) as peer,
        asking(url(peer, "dns.example.net"), https=client) as upstreams,
    ):
        with pytest.raises(UpstreamError, match="Hostname mismatch") as caught:
            await upstreams.ask(NAME, 1)
    assert caught.value.reason is Reason.UPSTREAM_TLS
    assert peer.queries == []


async def test_an_idle_connection_is_closed_and_made_anew(against: Against) -> None:
    limits = Limits(
        upstream_timeout_s=20.0,
        upstream_try_s=20.0,
        upstream_hedge_s=20.0,
        upstream_tcp_idle_s=0.05,
    )
    async with against(over_http(answering), limits) as (peer, upstreams):
        await upstreams.ask(NAME, 1)
        await peer.until(lambda peer: peer.closed == 1)
        await upstreams.ask(NAME, 1)
    assert peer.connections == 2


async def test_a_connection_is_left_after_so_many_streams(
    against: Against, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upstream_https, "STREAMS", 2)
    async with against(over_http(answering), PATIENT) as (peer, upstreams):
        for _ in range(4):
            assert address_in(await upstreams.ask(NAME, 1)) == GOOD
    assert peer.connections == 2


async def test_closing_leaves_no_socket(against: Against) -> None:
    before = open_sockets()
    async with against(over_http(silent), BRIEF) as (_, upstreams):
        with pytest.raises(UpstreamError):
            await upstreams.ask(NAME, 1)
        await upstreams.close()
        with pytest.raises(UpstreamError, match="is closed"):
            await upstreams.ask(NAME, 1)
    assert open_sockets() <= before


async def test_without_a_context_there_is_no_upstream() -> None:
    with pytest.raises(ConfigError, match="no TLS context"):
        async with asking("https://127.0.0.1/dns-query"):
            pass


def test_h2_is_loaded_only_where_it_is_wanted() -> None:
    code = "import sys, proxy.resolver.zones; assert 'h2' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


async def test_the_answer_is_read_like_any_other(against: Against) -> None:
    async with against(over_http(answering), PATIENT) as (_, upstreams):
        message = dns.message.from_wire(await upstreams.ask(NAME, 1))
    assert message.question[0].name.to_text() == "www.example.com."
