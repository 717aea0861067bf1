import asyncio
import os
import ssl

import pytest

from proxy.errors import UpstreamError
from proxy.limits import Limits
from proxy.metrics import Metrics
from proxy.resolver.upstream_connection import explain
from proxy.resolver.upstream_query import Outcome, write_question
from proxy.resolver.upstream_stream import StreamUpstream
from proxy.resolver.upstream_url import parse_upstream
from proxy.wire.framing import frame
from rules.decision import Reason
from tests.proxy.resolver.asking import BRIEF, NAME, PATIENT, address_in, asking, system_context
from tests.proxy.resolver.hostile import BAD, GOOD, WRONG, Conversation, answer, be_silent, hostile


def broken(wrong: str, query: bytes) -> bytes:
    """Return a wrong answer that is long enough to be a message on a stream."""
    message = WRONG[wrong](answer(query, BAD))
    return message + bytes(12 - len(message)) if len(message) < 12 else message


@pytest.mark.parametrize("wrong", WRONG)
async def test_what_answers_nothing_is_dropped(wrong: str) -> None:
    """Closes "response mismatch (CVE-2026-33596)" on a stream."""

    async def converse(talk: Conversation) -> None:
        query = await talk.query()
        await talk.send(broken(wrong, query), answer(query))
        await talk.until_closed()

    async with hostile(converse=converse) as peer, asking(peer.url("tcp")) as upstreams:
        assert address_in(await upstreams.ask(NAME, 1)) == GOOD
    assert upstreams.metrics.upstream.value("tcp", "mismatched") == 1


async def test_nothing_but_mismatches_is_malformed_at_the_deadline() -> None:
    async def converse(talk: Conversation) -> None:
        await talk.send(broken("id", await talk.query()))
        await talk.until_closed()

    async with hostile(converse=converse) as peer, asking(peer.url("tcp"), limits=BRIEF) as group:
        with pytest.raises(UpstreamError, match="none of which answers") as caught:
            await group.ask(NAME, 1)
    assert caught.value.reason is Reason.UPSTREAM_MALFORMED


async def test_a_flood_of_mismatches_ends_the_connection() -> None:
    async def converse(talk: Conversation) -> None:
        query = await talk.query()
        await talk.send(*[broken("id", query)] * 64, answer(query, BAD))
        await talk.until_closed()

    async with hostile(converse=converse) as peer, asking(peer.url("tcp")) as upstreams:
        with pytest.raises(UpstreamError, match="in a row that answer nothing") as caught:
            await upstreams.ask(NAME, 1)
        await peer.until(lambda peer: peer.closed == 1)
    assert caught.value.reason is Reason.UPSTREAM_MALFORMED
    assert upstreams.metrics.bounds.value("upstream_mismatches") == 1
    assert upstreams.metrics.upstream.value("tcp", "mismatched") == 64
    assert peer.connections == 1  # what is malformed is not asked for again


async def test_messages_that_nobody_asked_for_are_dropped() -> None:
    async def converse(talk: Conversation) -> None:
        first = await talk.query()
        await talk.send(answer(first), answer(first, BAD), answer(first, BAD))
        await talk.send(answer(await talk.query()))
        await talk.until_closed()

    async with hostile(converse=converse) as peer, asking(peer.url("tcp")) as upstreams:
        assert address_in(await upstreams.ask(NAME, 1)) == GOOD
        assert address_in(await upstreams.ask(NAME, 1)) == GOOD
    assert peer.connections == 1


@pytest.mark.parametrize("octets", [b"\0\0", b"\0\x0bshort messag", frame(bytes(11))])
async def test_a_frame_too_short_for_a_message_is_malformed(octets: bytes) -> None:
    async def converse(talk: Conversation) -> None:
        await talk.query()
        await talk.send_octets(octets)
        await talk.until_closed()

    async with hostile(converse=converse) as peer, asking(peer.url("tcp")) as upstreams:
        with pytest.raises(UpstreamError, match="a DNS message of") as caught:
            await upstreams.ask(NAME, 1)
        await peer.until(lambda peer: peer.closed == 1)
    assert caught.value.reason is Reason.UPSTREAM_MALFORMED


async def test_a_connection_closed_in_a_message_is_malformed() -> None:
    async def converse(talk: Conversation) -> None:
        await talk.send_octets(frame(answer(await talk.query()))[:-3])

    async with hostile(converse=converse) as peer, asking(peer.url("tcp")) as upstreams:
        with pytest.raises(UpstreamError, match="in the middle of a message") as caught:
            await upstreams.ask(NAME, 1)
    assert caught.value.reason is Reason.UPSTREAM_MALFORMED


async def test_a_truncated_answer_over_a_stream_is_malformed() -> None:
    async def converse(talk: Conversation) -> None:
        await talk.send(answer(await talk.query(), truncated=True))
        await talk.until_closed()

    async with hostile(converse=converse) as peer, asking(peer.url("tcp")) as upstreams:
        with pytest.raises(UpstreamError, match="truncated answer over a stream") as caught:
            await upstreams.ask(NAME, 1)
    assert caught.value.reason is Reason.UPSTREAM_MALFORMED


async def test_a_reset_connection_is_unreachable() -> None:
    async def converse(talk: Conversation) -> None:
        await talk.query()
        talk.reset()

    async with hostile(converse=converse) as peer, asking(peer.url("tcp")) as upstreams:
        with pytest.raises(UpstreamError, match="reset") as caught:
            await upstreams.ask(NAME, 1)
    assert caught.value.reason is Reason.UPSTREAM_UNREACHABLE


async def test_an_id_stays_taken_until_the_late_answer_came() -> None:
    """RFC 7766, section 7: what nobody waits for any more answers nobody else."""
    ids = iter([b"\x00\x07", b"\x00\x07", b"\x00\x08"])

    def entropy(count: int) -> bytes:
        return next(ids) if count == 2 else bytes(count)

    async def converse(talk: Conversation) -> None:
        first, second = await talk.query(), await talk.query()
        await talk.send(answer(first, BAD), answer(second, GOOD))
        await talk.until_closed()

    async with hostile(converse=converse) as peer, asking(peer.url("tcp")) as made:
        upstreams = type(made)(made.addresses, PATIENT, made.metrics, system_context(), entropy)
        task = asyncio.create_task(upstreams.ask(NAME, 1))
        await peer.until(lambda peer: len(peer.queries) == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert address_in(await upstreams.ask(NAME, 1)) == GOOD
        await upstreams.close()
    assert [query[:2] for query in peer.queries] == [b"\x00\x07", b"\x00\x08"]
    assert made.metrics.upstream.value("tcp", "mismatched") == 0


async def test_a_connection_that_owes_too_many_answers_gets_no_more_queries() -> None:
    """Askers that went away do not fill the pipeline for ever."""

    async def converse(talk: Conversation) -> None:
        while True:
            query = await talk.query()
            if talk.number > 1:
                await talk.send(answer(query))

    limits = Limits(upstream_tcp_pipeline=4, upstream_try_s=20.0, upstream_hedge_s=20.0)
    async with (
        hostile(converse=converse) as peer,
        asking(peer.url("tcp"), limits=limits) as upstreams,
    ):
        tasks = [asyncio.create_task(upstreams.ask(NAME, 1)) for _ in range(3)]
        await peer.until(lambda peer: len(peer.queries) == 3)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert address_in(await upstreams.ask(NAME, 1)) == GOOD
        await peer.until(lambda peer: peer.closed == 1)
    assert peer.connections == 2


async def test_a_retired_connection_finishes_what_it_has() -> None:
    """One query times out on it, another is answered on it, and a third goes elsewhere."""

    async def converse(talk: Conversation) -> None:
        if talk.number == 1:
            _, second = await talk.query(), await talk.query()
            await talk.peer.until(lambda peer: len(peer.queries) == 3)
            await talk.send(answer(second))
        else:
            await talk.send(answer(await talk.query()))
        await talk.until_closed()

    loop = asyncio.get_running_loop()
    futures: list[asyncio.Future[Outcome]] = [loop.create_future() for _ in range(3)]
    question = write_question(NAME, 1)
    async with hostile(converse=converse) as peer:
        stream = StreamUpstream(parse_upstream(peer.url("tcp")), PATIENT, Metrics(), os.urandom)
        first, _ = (stream.start(question, futures[i].set_result) for i in range(2))
        await peer.until(lambda peer: len(peer.queries) == 2)
        assert first.expire().reason is Reason.UPSTREAM_TIMEOUT
        stream.start(question, futures[2].set_result)
        for answered in await asyncio.gather(*futures[1:]):
            assert isinstance(answered, bytes)
        await peer.until(lambda peer: peer.closed == 1)
        assert not futures[0].done()
        await stream.close()
    assert peer.connections == 2


async def test_a_query_is_repeated_once_also_on_a_connection_of_others() -> None:
    async def converse(talk: Conversation) -> None:
        if talk.number == 1:
            await talk.send(answer(await talk.query()))
        await talk.query()
        await talk.query()
        await talk.peer.until(lambda peer: len(peer.queries) >= 4)

    loop = asyncio.get_running_loop()
    first, repeated, silent, other = (loop.create_future() for _ in range(4))
    question = write_question(NAME, 1)
    async with hostile(converse=converse) as peer:
        stream = StreamUpstream(parse_upstream(peer.url("tcp")), PATIENT, Metrics(), os.urandom)
        stream.start(question, first.set_result)
        assert isinstance(await first, bytes)
        stream.start(question, repeated.set_result)
        attempt = stream.start(question, silent.set_result)
        await peer.until(lambda peer: len(peer.queries) == 3)
        attempt.expire()
        stream.start(question, other.set_result)
        for outcome in await asyncio.gather(repeated, other):
            assert isinstance(outcome, UpstreamError)
        await stream.close()
    assert (len(peer.queries), peer.connections) == (5, 2)


async def test_a_retired_connection_ends_when_nobody_waits_any_more() -> None:
    question = write_question(NAME, 1)
    outcomes: list[Outcome] = []
    async with hostile(converse=be_silent) as peer:
        stream = StreamUpstream(parse_upstream(peer.url("tcp")), PATIENT, Metrics(), os.urandom)
        first, second = (stream.start(question, outcomes.append) for _ in range(2))
        await peer.until(lambda peer: len(peer.queries) == 2)
        first.expire()
        second.cancel()
        await peer.until(lambda peer: peer.closed == 1)
        await stream.close()
    assert outcomes == []


async def test_a_connection_that_answers_others_is_kept_when_one_query_times_out() -> None:
    """A name that is slow to resolve says nothing about the connection."""

    async def converse(talk: Conversation) -> None:
        await talk.query()
        while True:
            await talk.send(answer(await talk.query()))

    loop = asyncio.get_running_loop()
    futures: list[asyncio.Future[Outcome]] = [loop.create_future() for _ in range(3)]
    question = write_question(NAME, 1)
    async with hostile(converse=converse) as peer:
        stream = StreamUpstream(parse_upstream(peer.url("tcp")), PATIENT, Metrics(), os.urandom)
        slow, _ = (stream.start(question, futures[i].set_result) for i in range(2))
        assert isinstance(await futures[1], bytes)
        assert slow.expire().reason is Reason.UPSTREAM_TIMEOUT
        stream.start(question, futures[2].set_result)
        assert isinstance(await futures[2], bytes)
        await stream.close()
    assert peer.connections == 1


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (TimeoutError(), Reason.UPSTREAM_TIMEOUT),
        (ssl.SSLError(1, "wrong version number"), Reason.UPSTREAM_TLS),
        (ConnectionResetError(104, "reset"), Reason.UPSTREAM_UNREACHABLE),
        (OSError("no more words"), Reason.UPSTREAM_UNREACHABLE),
    ],
)
def test_errors_of_sockets_have_a_reason_and_a_text(error: OSError, reason: Reason) -> None:
    explained = explain(error)
    assert explained.reason is reason
    assert str(explained)
