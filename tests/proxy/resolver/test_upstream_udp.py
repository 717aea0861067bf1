import asyncio
import itertools
import resource
import socket
from collections.abc import Iterable
from ipaddress import IPv4Address

import pytest

from proxy.errors import UpstreamError
from proxy.limits import Limits
from proxy.metrics import Metrics
from proxy.resolver.upstream import Upstreams
from proxy.resolver.upstream_query import Outcome, write_question
from proxy.resolver.upstream_udp import UdpAttempt
from proxy.resolver.upstream_url import Transport, UpstreamAddress
from rules.decision import Reason
from tests.proxy.resolver.asking import BRIEF, NAME, PATIENT, address_in, asking, system_context
from tests.proxy.resolver.hostile import (
    BAD,
    GOOD,
    WRONG,
    Elsewhere,
    Hostile,
    answer,
    be_silent,
    hostile,
    nothing,
    open_sockets,
    right,
)


async def test_the_answer_comes_with_its_question_in_lower_case() -> None:
    async with hostile(right) as peer, asking(peer.url("udp")) as upstreams:
        message = await upstreams.ask(NAME, 1)
    assert message[12:33] == b"\x03www\x07example\x03com\x00\x00\x01\x00\x01"
    assert address_in(message) == GOOD
    assert upstreams.metrics.upstream.value("udp", "answered") == 1


async def test_each_query_has_its_own_port_id_and_case() -> None:
    """Closes "own socket and random port per query ..., id, question incl. 0x20"."""
    async with hostile(right) as peer, asking(peer.url("udp")) as upstreams:
        await asyncio.gather(*(upstreams.ask(NAME, 1) for _ in range(40)))
    assert len({port for _, port in peer.sources}) == 40
    assert len({query[:2] for query in peer.queries}) > 35
    assert len({query[12:28] for query in peer.queries}) > 35
    assert {query[12:28].lower() for query in peer.queries} == {b"\x03www\x07example\x03com"[:16]}


@pytest.mark.parametrize("wrong", WRONG)
async def test_goes_on_listening_after_a_bad_packet(wrong: str) -> None:
    """Closes "one bad packet ends the wait (TuDoor, CVE-2023-29483)"."""

    def script(query: bytes) -> Iterable[bytes]:
        return WRONG[wrong](answer(query, BAD)), answer(query, GOOD)

    async with hostile(script) as peer, asking(peer.url("udp")) as upstreams:
        assert address_in(await upstreams.ask(NAME, 1)) == GOOD
    assert upstreams.metrics.upstream.value("udp", "mismatched") == 1
    assert len(peer.queries) == 1


async def test_goes_on_listening_after_an_empty_datagram() -> None:
    def script(query: bytes) -> Iterable[bytes]:
        return b"", answer(query)

    async with hostile(script) as peer, asking(peer.url("udp")) as upstreams:
        assert address_in(await upstreams.ask(NAME, 1)) == GOOD


async def test_never_sees_an_answer_from_elsewhere() -> None:
    """Closes "Upstream match: ... source; else drop"."""

    def script(query: bytes) -> Iterable[bytes]:
        return Elsewhere(answer(query, BAD)), answer(query, GOOD)

    async with hostile(script) as peer, asking(peer.url("udp")) as upstreams:
        assert address_in(await upstreams.ask(NAME, 1)) == GOOD
    assert upstreams.metrics.upstream.value("udp", "mismatched") == 0


@pytest.mark.parametrize("wrong", WRONG)
async def test_nothing_but_bad_packets_is_malformed(wrong: str) -> None:
    def script(query: bytes) -> Iterable[bytes]:
        return (WRONG[wrong](answer(query, BAD)),)

    async with hostile(script) as peer, asking(peer.url("udp"), limits=BRIEF) as upstreams:
        with pytest.raises(UpstreamError, match="none of which answers") as caught:
            await upstreams.ask(NAME, 1)
    assert caught.value.reason is Reason.UPSTREAM_MALFORMED


async def test_silence_is_a_timeout() -> None:
    async with hostile(nothing) as peer, asking(peer.url("udp"), limits=BRIEF) as upstreams:
        with pytest.raises(UpstreamError, match="no answer in time") as caught:
            await upstreams.ask(NAME, 1)
    assert caught.value.reason is Reason.UPSTREAM_TIMEOUT
    assert upstreams.metrics.upstream.value("udp", "timeout") == 1


async def test_a_lost_datagram_is_sent_again_as_another_query() -> None:
    replies = itertools.chain([nothing], itertools.repeat(right))
    limits = Limits(upstream_timeout_s=20.0, upstream_try_s=20.0, upstream_hedge_s=0.02)

    def script(query: bytes) -> Iterable[bytes]:
        return next(replies)(query)

    async with hostile(script) as peer, asking(peer.url("udp"), limits=limits) as upstreams:
        assert address_in(await upstreams.ask(NAME, 1)) == GOOD
    first, second = peer.queries
    assert first != second
    assert peer.sources[0] != peer.sources[1]
    assert upstreams.metrics.upstream.value("udp", "hedged") == 1


async def test_a_truncated_answer_is_asked_for_over_tcp() -> None:
    def script(query: bytes) -> Iterable[bytes]:
        return (answer(query, truncated=True),)

    async with hostile(script) as peer, asking(peer.url("udp")) as upstreams:
        assert address_in(await upstreams.ask(NAME, 1)) == GOOD
    assert (len(peer.sources), peer.connections) == (1, 1)


async def test_a_truncated_answer_that_tcp_does_not_mend_is_a_timeout() -> None:
    def script(query: bytes) -> Iterable[bytes]:
        return (answer(query, truncated=True),)

    async with (
        hostile(script, be_silent) as peer,
        asking(peer.url("udp"), limits=BRIEF) as upstreams,
    ):
        with pytest.raises(UpstreamError) as caught:
            await upstreams.ask(NAME, 1)
    assert caught.value.reason is Reason.UPSTREAM_TIMEOUT


async def test_a_flood_of_guesses_is_left_for_tcp() -> None:
    """Closes "forged replies into a connected socket: only 16 bits of id are left to guess"."""
    limits = Limits(upstream_mismatches=8, upstream_hedge_s=20.0, upstream_try_s=20.0)

    def script(query: bytes) -> Iterable[bytes]:
        return [WRONG["id"](answer(query, BAD))] * 8 + [answer(query, BAD)]

    async with hostile(script) as peer, asking(peer.url("udp"), limits=limits) as upstreams:
        assert address_in(await upstreams.ask(NAME, 1)) == GOOD  # which came over TCP
    assert upstreams.metrics.upstream.value("udp", "mismatched") == 8
    assert upstreams.metrics.bounds.value("upstream_mismatches") == 1


async def test_an_answer_larger_than_we_asked_for_is_taken_whole() -> None:
    def script(query: bytes) -> Iterable[bytes]:
        return (answer(query) + bytes(60000),)

    async with hostile(script) as peer, asking(peer.url("udp")) as upstreams:
        assert len(await upstreams.ask(NAME, 1)) > 60000


async def test_a_refused_port_fails_at_once() -> None:
    async with hostile() as peer:
        url = peer.url("udp")
    async with asking(url) as upstreams:
        with pytest.raises(UpstreamError, match="refused") as caught:
            await upstreams.ask(NAME, 1)
    assert caught.value.reason is Reason.UPSTREAM_UNREACHABLE


async def test_a_refused_port_lets_the_next_upstream_be_asked_at_once() -> None:
    async with hostile() as closed:
        url = closed.url("udp")
    async with hostile(right) as peer, asking(url, peer.url("udp")) as upstreams:
        assert address_in(await upstreams.ask(NAME, 1)) == GOOD
    assert upstreams.metrics.upstream.value("udp", "unreachable") == 1
    assert upstreams.metrics.upstream.value("udp", "hedged") == 0


async def test_an_address_without_a_route_fails_at_once() -> None:
    before = open_sockets()
    broadcast = UpstreamAddress(Transport.UDP, IPv4Address("255.255.255.255"), 53)
    upstreams = Upstreams([broadcast], PATIENT, Metrics(), system_context())
    with pytest.raises(UpstreamError) as caught:
        await upstreams.ask(NAME, 1)
    assert caught.value.reason is Reason.UPSTREAM_UNREACHABLE
    assert open_sockets() == before


async def test_a_process_without_descriptors_fails_at_once() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with hostile(right) as peer, asking(peer.url("udp")) as upstreams:
        with socket.socket() as lowest:
            free = lowest.fileno()
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
        try:
            with pytest.raises(UpstreamError, match="open files") as caught:
                await upstreams.ask(NAME, 1)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert address_in(await upstreams.ask(NAME, 1)) == GOOD
    assert caught.value.reason is Reason.UPSTREAM_UNREACHABLE


async def test_a_wake_up_without_a_datagram_changes_nothing() -> None:
    """As after one with a bad checksum, which the kernel drops only when it is read."""
    outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
    async with hostile(right) as peer, asking(peer.url("udp")) as upstreams:
        attempt = (
            upstreams.groups[0]
            .members[0]
            .upstream.start(write_question(NAME, 1), outcome.set_result)
        )
        assert isinstance(attempt, UdpAttempt)
        attempt.receive()
        assert isinstance(await outcome, bytes)


async def _cancel_when(peer: Hostile, upstreams: Upstreams, arrived: int) -> None:
    asking_task = asyncio.create_task(upstreams.ask(NAME, 1))
    await peer.until(lambda peer: len(peer.queries) == arrived)
    asking_task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking_task


async def test_a_cancelled_asker_leaves_no_socket() -> None:
    async with hostile(nothing) as peer, asking(peer.url("udp")) as upstreams:
        before = open_sockets()
        await _cancel_when(peer, upstreams, 1)
        assert open_sockets() == before
        assert upstreams.in_flight == 0


async def test_an_asker_cancelled_during_the_query_over_tcp_leaves_nothing_waiting() -> None:
    def script(query: bytes) -> Iterable[bytes]:
        return (answer(query, truncated=True),)

    async with hostile(script, be_silent) as peer:
        before = open_sockets()
        async with asking(peer.url("udp")) as upstreams:
            await _cancel_when(peer, upstreams, 2)
            assert upstreams.in_flight == 0
        await peer.until(lambda peer: peer.closed == 1)
        assert open_sockets() == before
