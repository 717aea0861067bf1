import asyncio
import socket
from collections.abc import Callable

import pytest

from proxy.errors import UpstreamError
from proxy.limits import Limits
from proxy.resolver.upstream import Upstreams
from proxy.wire.framing import frame
from rules.decision import Reason
from rules.name import DomainName
from tests.proxy.resolver.asking import BRIEF, NAME, address_in, asking
from tests.proxy.resolver.hostile import (
    GOOD,
    Conversation,
    answer,
    be_silent,
    hostile,
    open_sockets,
    respond,
)


def numbered(query: bytes) -> bytes:
    """Return an answer whose address is the number in the query's first label, as in `n7.`."""
    return answer(query, f"192.0.2.{int(query[14 : 13 + query[12]])}")


async def ask_numbers(upstreams: Upstreams, count: int) -> list[str]:
    questions = (upstreams.ask(DomainName(f"n{i}.example"), 1) for i in range(count))
    return [address_in(message) for message in await asyncio.gather(*questions)]


async def test_one_connection_serves_every_query() -> None:
    """RFC 7766, section 6.2.1: connections are reused, queries are pipelined."""
    async with hostile() as peer, asking(peer.url("tcp")) as upstreams:
        for _ in range(3):
            assert address_in(await upstreams.ask(NAME, 1)) == GOOD
        await asyncio.gather(*(upstreams.ask(NAME, 1) for _ in range(50)))
    assert peer.connections == 1
    assert len({query[:2] for query in peer.queries}) > 45
    assert upstreams.metrics.upstream.value("tcp", "answered") == 53


async def test_answers_out_of_order_find_their_queries() -> None:
    """RFC 7766, section 7."""

    async def converse(talk: Conversation) -> None:
        queries = [await talk.query() for _ in range(5)]
        await talk.send(*map(numbered, reversed(queries)))
        await talk.until_closed()

    async with hostile(converse=converse) as peer, asking(peer.url("tcp")) as upstreams:
        assert await ask_numbers(upstreams, 5) == [f"192.0.2.{i}" for i in range(5)]
    assert peer.connections == 1


async def test_an_answer_in_drops_is_read() -> None:
    async def converse(talk: Conversation) -> None:
        for octet in frame(answer(await talk.query())):
            await talk.send_octets(bytes((octet,)))
        await talk.until_closed()

    async with hostile(converse=converse) as peer, asking(peer.url("tcp")) as upstreams:
        assert address_in(await upstreams.ask(NAME, 1)) == GOOD


async def test_the_largest_message_is_read() -> None:
    async def converse(talk: Conversation) -> None:
        message = answer(await talk.query())
        await talk.send(message + bytes(65535 - len(message)))
        await talk.until_closed()

    async with hostile(converse=converse) as peer, asking(peer.url("tcp")) as upstreams:
        assert len(await upstreams.ask(NAME, 1)) == 65535


def half_a_prefix(message: bytes) -> bytes:
    return frame(message)[:1]


def half_a_message(message: bytes) -> bytes:
    return frame(message)[:-1]


def announced_only(_message: bytes) -> bytes:
    return b"\xff\xff"


@pytest.mark.parametrize("octets", [half_a_prefix, half_a_message, announced_only])
async def test_a_stalled_answer_meets_the_deadline(octets: Callable[[bytes], bytes]) -> None:
    """Closes "slow length prefix"; the next query gets a connection that works."""

    async def converse(talk: Conversation) -> None:
        if talk.number > 1:
            await respond(talk)
        await talk.send_octets(octets(answer(await talk.query())))
        await talk.until_closed()

    async with hostile(converse=converse) as peer:
        async with asking(peer.url("tcp"), limits=BRIEF) as upstreams:
            with pytest.raises(UpstreamError) as caught:
                await upstreams.ask(NAME, 1)
            assert caught.value.reason is Reason.UPSTREAM_TIMEOUT
            assert address_in(await upstreams.ask(NAME, 1)) == GOOD
        await peer.until(lambda peer: peer.closed == 2)


async def test_a_connection_closed_after_each_answer_is_made_anew() -> None:
    async def converse(talk: Conversation) -> None:
        await talk.send(answer(await talk.query()))

    async with hostile(converse=converse) as peer, asking(peer.url("tcp")) as upstreams:
        for _ in range(3):
            assert address_in(await upstreams.ask(NAME, 1)) == GOOD
            await peer.until(lambda peer: peer.closed == peer.connections)
    assert peer.connections == 3


async def test_pipelined_queries_survive_a_peer_that_closes_after_each_answer() -> None:
    async def converse(talk: Conversation) -> None:
        await talk.send(numbered(await talk.query()))

    async with hostile(converse=converse) as peer, asking(peer.url("tcp")) as upstreams:
        assert await ask_numbers(upstreams, 4) == [f"192.0.2.{i}" for i in range(4)]
    assert upstreams.metrics.upstream.value("tcp", "retried") >= 3


async def test_a_reused_connection_that_dies_is_tried_again_once() -> None:
    """RFC 7766, section 6.2.4."""

    async def converse(talk: Conversation) -> None:
        await talk.send(answer(await talk.query()))
        await talk.query()

    async with hostile(converse=converse) as peer, asking(peer.url("tcp")) as upstreams:
        await upstreams.ask(NAME, 1)
        assert address_in(await upstreams.ask(NAME, 1)) == GOOD
    assert peer.connections == 2
    assert upstreams.metrics.upstream.value("tcp", "retried") == 1


async def test_the_second_connection_that_dies_is_not_tried_again() -> None:
    async def converse(talk: Conversation) -> None:
        if talk.number == 1:
            await talk.send(answer(await talk.query()))
        await talk.query()

    async with hostile(converse=converse) as peer, asking(peer.url("tcp")) as upstreams:
        await upstreams.ask(NAME, 1)
        with pytest.raises(UpstreamError, match="closed before it answered") as caught:
            await upstreams.ask(NAME, 1)
    assert caught.value.reason is Reason.UPSTREAM_UNREACHABLE
    assert peer.connections == 2


async def test_a_fresh_connection_that_dies_has_failed() -> None:
    async def converse(talk: Conversation) -> None:
        await talk.query()

    async with hostile(converse=converse) as peer, asking(peer.url("tcp")) as upstreams:
        with pytest.raises(UpstreamError, match="closed before it answered"):
            await upstreams.ask(NAME, 1)
    assert peer.connections == 1


async def test_a_refused_connection_is_unreachable() -> None:
    async with hostile() as peer:
        url = peer.url("tcp")
    async with asking(url) as upstreams:
        with pytest.raises(UpstreamError, match="refused") as caught:
            await asyncio.gather(upstreams.ask(NAME, 1), upstreams.ask(NAME, 28))
    assert caught.value.reason is Reason.UPSTREAM_UNREACHABLE


async def test_a_connection_that_is_never_made_is_a_timeout() -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        first, second = socket.socket(), socket.socket()
        with first, second:  # the backlog is full: further SYNs are dropped
            first.connect(full.getsockname())
            second.setblocking(False)
            second.connect_ex(full.getsockname())
            url = f"tcp://127.0.0.1:{full.getsockname()[1]}"
            before = open_sockets()
            async with asking(url, limits=BRIEF) as upstreams:
                with pytest.raises(UpstreamError, match="no connection in time") as caught:
                    await upstreams.ask(NAME, 1)
            assert open_sockets() == before
    assert caught.value.reason is Reason.UPSTREAM_TIMEOUT


async def test_the_pipeline_holds_no_more_than_its_cap() -> None:
    """Closes "TCP pipelining without a cap", towards upstreams: the rest waits for room."""
    most = 0

    async def converse(talk: Conversation) -> None:
        nonlocal most
        open_queries: list[bytes] = []
        while True:
            open_queries.append(await talk.query())
            most = max(most, len(open_queries))
            if len(open_queries) == 3 or len(talk.peer.queries) == 10:
                await talk.send(*map(numbered, open_queries))
                open_queries.clear()

    limits = Limits(upstream_tcp_pipeline=3, upstream_try_s=20.0, upstream_hedge_s=20.0)
    async with (
        hostile(converse=converse) as peer,
        asking(peer.url("tcp"), limits=limits) as upstreams,
    ):
        assert await ask_numbers(upstreams, 10) == [f"192.0.2.{i}" for i in range(10)]
    assert most == 3
    assert peer.connections == 1


async def test_waiting_for_room_is_counted() -> None:
    limits = Limits(upstream_tcp_pipeline=1, upstream_try_s=20.0, upstream_hedge_s=20.0)
    async with hostile() as peer, asking(peer.url("tcp"), limits=limits) as upstreams:
        await upstreams.ask(NAME, 1)
        await asyncio.gather(*(upstreams.ask(NAME, 1) for _ in range(3)))
    assert upstreams.metrics.bounds.value("upstream_tcp_pipeline") == 2


async def test_an_idle_connection_is_closed() -> None:
    limits = Limits(upstream_tcp_idle_s=0.05)
    async with (
        hostile() as peer,
        asking(peer.url("tcp"), limits=limits) as upstreams,
    ):
        await upstreams.ask(NAME, 1)
        await peer.until(lambda peer: peer.closed == 1)
        assert address_in(await upstreams.ask(NAME, 1)) == GOOD
    assert peer.connections == 2
    assert upstreams.metrics.upstream.value("tcp", "retried") == 0


async def test_a_connection_in_use_is_not_idle() -> None:
    """An answer that takes longer than the idle time is still taken."""

    async def converse(talk: Conversation) -> None:
        query = await talk.query()
        later = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(0.12, later.set_result, None)
        await later
        await talk.send(answer(query))
        await talk.until_closed()

    limits = Limits(upstream_tcp_idle_s=0.03)
    async with (
        hostile(converse=converse) as peer,
        asking(peer.url("tcp"), limits=limits) as upstreams,
    ):
        assert address_in(await upstreams.ask(NAME, 1)) == GOOD
    assert peer.connections == 1


async def test_a_cancelled_asker_stops_the_dialling() -> None:
    before = open_sockets()
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        url = f"tls://127.0.0.1:{deaf.getsockname()[1]}#dns.example"
        async with asking(url) as upstreams:
            task = asyncio.create_task(upstreams.ask(NAME, 1))
            deaf.setblocking(False)
            accepted, _ = await asyncio.get_running_loop().sock_accept(deaf)
            with accepted:
                hello = await asyncio.get_running_loop().sock_recv(accepted, 65536)
                assert hello[0] == 22  # a TLS handshake, which will go no further
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                assert await asyncio.get_running_loop().sock_recv(accepted, 1) == b""
    assert open_sockets() == before


async def test_the_next_asker_dials_again_after_a_cancelled_one() -> None:
    async with hostile() as peer, asking(peer.url("tcp")) as upstreams:
        task = asyncio.create_task(upstreams.ask(NAME, 1))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert address_in(await upstreams.ask(NAME, 1)) == GOOD


async def test_closing_closes_connections_that_are_in_use() -> None:
    async with hostile(converse=be_silent) as peer:
        before = open_sockets()
        async with asking(peer.url("tcp")) as upstreams:
            task = asyncio.create_task(upstreams.ask(NAME, 1))
            await peer.until(lambda peer: len(peer.queries) == 1)
            await upstreams.close()
            with pytest.raises(UpstreamError, match="is closed"):
                await task
        await peer.until(lambda peer: peer.closed == 1)
        assert open_sockets() == before
