"""DNS over TLS to a private upstream: what is verified, what is kept, what is padded."""

import ssl
from pathlib import Path

import dns.message
import pytest

from proxy.errors import UpstreamError
from proxy.limits import Limits
from proxy.transport.tls import DOT_ALPN, UpstreamTlsContext, upstream_context
from rules.decision import Reason
from tests.authority import LIFE, PrivateAuthority
from tests.proxy.resolver.asking import BRIEF, NAME, address_in, asking
from tests.proxy.resolver.hostile import (
    GOOD,
    TLS_1_1_HELLO,
    Conversation,
    Hostile,
    answer,
    hostile,
    open_sockets,
)

SERVER = "dns.example"
PROTOCOL_VERSION_ALERT = bytes.fromhex("1503010002 0246")  # RFC 5246, section 7.2


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> PrivateAuthority:
    return PrivateAuthority(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def client(authority: PrivateAuthority) -> UpstreamTlsContext:
    return upstream_context(authority.certificate, DOT_ALPN)


def server_context(chain: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, key)
    return context


@pytest.fixture
def server(authority: PrivateAuthority) -> ssl.SSLContext:
    return server_context(*authority.issue([SERVER, "127.0.0.1"]))


def dot(peer: Hostile, name: str = SERVER) -> str:
    return f"{peer.url('tls')}#{name}" if name else peer.url("tls")


@pytest.mark.parametrize("name", [SERVER, ""])
async def test_queries_are_padded_on_one_verified_connection(
    client: UpstreamTlsContext, server: ssl.SSLContext, name: str
) -> None:
    """RFC 8467, section 4.1; RFC 7858, section 3.4.  Without a name, the address is verified."""
    async with hostile(tls=server) as peer, asking(dot(peer, name), context=client) as upstreams:
        for _ in range(3):
            assert address_in(await upstreams.ask(NAME, 1)) == GOOD
    assert peer.connections == 1
    assert [len(query) for query in peer.queries] == [128] * 3
    assert [option.otype for option in dns.message.from_wire(peer.queries[0]).options] == [12]
    assert upstreams.metrics.upstream.value("dot", "answered") == 3


async def test_the_session_is_taken_up_by_the_next_connection(
    client: UpstreamTlsContext, server: ssl.SSLContext
) -> None:
    reused: list[bool] = []

    async def converse(talk: Conversation) -> None:
        reused.append(talk.session_reused)
        await talk.send(answer(await talk.query()))

    async with (
        hostile(converse=converse, tls=server) as peer,
        asking(dot(peer), context=client) as upstreams,
    ):
        for _ in range(3):
            assert address_in(await upstreams.ask(NAME, 1)) == GOOD
            await peer.until(lambda peer: peer.closed == peer.connections)
    assert reused == [False, True, True]


async def fails(url: str, client: ssl.SSLContext) -> UpstreamError:
    """Ask, and return how it failed; nothing is left behind by that."""
    before = open_sockets()
    async with asking(url, context=client) as upstreams:
        with pytest.raises(UpstreamError) as caught:
            await upstreams.ask(NAME, 1)
        assert upstreams.metrics.upstream.value("dot", "tls") == 1
    assert len(open_sockets() - before) <= 1  # the server's end may still be closing
    return caught.value


async def test_another_name_is_refused(client: UpstreamTlsContext, server: ssl.SSLContext) -> None:
    async with hostile(tls=server) as peer:
        error = await fails(dot(peer, "other.example"), client)
    assert error.reason is Reason.UPSTREAM_TLS
    assert "Hostname mismatch" in str(error)
    assert peer.queries == []


async def test_an_expired_certificate_is_refused(
    client: UpstreamTlsContext, authority: PrivateAuthority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(authority, "_now", authority._now - 2 * LIFE)
    expired = server_context(*authority.issue([f"expired.{SERVER}"]))
    async with hostile(tls=expired) as peer:
        error = await fails(dot(peer, f"expired.{SERVER}"), client)
    assert error.reason is Reason.UPSTREAM_TLS
    assert "expired" in str(error)
    assert peer.queries == []


async def test_an_unknown_authority_is_refused(server: ssl.SSLContext, tmp_path: Path) -> None:
    stranger = upstream_context(PrivateAuthority(tmp_path).certificate)
    async with hostile(tls=server) as peer:
        error = await fails(dot(peer), stranger)
    assert error.reason is Reason.UPSTREAM_TLS
    assert "issuer" in str(error)


@pytest.mark.parametrize("reply", [TLS_1_1_HELLO, PROTOCOL_VERSION_ALERT])
async def test_tls_1_1_is_refused(client: UpstreamTlsContext, reply: bytes) -> None:
    async def converse(talk: Conversation) -> None:
        await talk.read_some()
        await talk.send_octets(reply)
        await talk.until_closed()

    async with hostile(converse=converse) as peer:
        error = await fails(dot(peer), client)
    assert error.reason is Reason.UPSTREAM_TLS


async def test_plain_text_on_the_port_is_refused(client: UpstreamTlsContext) -> None:
    async def converse(talk: Conversation) -> None:
        await talk.send_octets(b"220 mail.example ESMTP\r\n" * 8)
        await talk.until_closed()

    async with hostile(converse=converse) as peer:
        error = await fails(dot(peer), client)
    assert error.reason is Reason.UPSTREAM_TLS


async def test_a_handshake_that_stalls_meets_the_deadline(client: UpstreamTlsContext) -> None:
    async def converse(talk: Conversation) -> None:
        await talk.until_closed()

    async with hostile(converse=converse) as peer:
        before = open_sockets()
        async with asking(dot(peer), limits=BRIEF, context=client) as upstreams:
            with pytest.raises(UpstreamError, match="no connection in time") as caught:
                await upstreams.ask(NAME, 1)
            await peer.until(lambda peer: peer.closed == 1)
            assert open_sockets() == before
    assert caught.value.reason is Reason.UPSTREAM_TIMEOUT


async def test_a_handshake_may_take_longer_than_a_connection_may_idle(
    client: UpstreamTlsContext, caplog: pytest.LogCaptureFixture
) -> None:
    async def converse(talk: Conversation) -> None:
        await talk.until_closed()

    limits = Limits(upstream_timeout_s=0.15, upstream_try_s=0.15, upstream_tcp_idle_s=0.01)
    async with (
        hostile(converse=converse) as peer,
        asking(dot(peer), limits=limits, context=client) as upstreams,
    ):
        with pytest.raises(UpstreamError, match="no connection in time"):
            await upstreams.ask(NAME, 1)
    ours = [record for record in caplog.records if "StreamReaderProtocol" not in record.message]
    assert ours == []  # Python 3.12's streams log the cancelled task of the test's own server


async def test_a_server_that_closes_in_the_handshake_is_unreachable(
    client: UpstreamTlsContext,
) -> None:
    async def converse(talk: Conversation) -> None:
        await talk.read_some()

    async with hostile(converse=converse) as peer, asking(dot(peer), context=client) as upstreams:
        with pytest.raises(UpstreamError) as caught:
            await upstreams.ask(NAME, 1)
    assert caught.value.reason is Reason.UPSTREAM_UNREACHABLE


async def test_a_failed_dot_upstream_is_never_asked_in_the_clear(
    client: UpstreamTlsContext, server: ssl.SSLContext
) -> None:
    """RFC 8310, section 5: the strict profile."""
    async with hostile(tls=server) as peer:
        await fails(dot(peer, "other.example"), client)
    assert peer.sources == []
    assert peer.queries == []
