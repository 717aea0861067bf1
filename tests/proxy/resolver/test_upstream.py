import asyncio
from collections.abc import Iterable

import pytest

from proxy.errors import UpstreamError
from proxy.limits import Limits
from rules.decision import Reason
from tests.proxy.resolver.asking import BRIEF, NAME, PATIENT, address_in, asking
from tests.proxy.resolver.hostile import (
    BAD,
    GOOD,
    DatagramScript,
    Hostile,
    answer,
    be_silent,
    hostile,
    nothing,
    open_sockets,
    right,
)

SERVFAIL, REFUSED, NXDOMAIN = 2, 5, 3


def saying(rcode: int) -> DatagramScript:
    return lambda query: (answer(query, rcode=rcode),)


def at(address: str) -> DatagramScript:
    return lambda query: (answer(query, address),)


async def test_the_first_is_asked_and_no_other() -> None:
    async with (
        hostile(right) as one,
        hostile(right) as two,
        asking(one.url("udp"), two.url("udp")) as upstreams,
    ):
        await upstreams.ask(NAME, 1)
    assert (len(one.queries), len(two.queries)) == (1, 0)


@pytest.mark.parametrize("rcode", [SERVFAIL, REFUSED, 1, 4])
async def test_another_is_asked_when_one_says_it_cannot(rcode: int) -> None:
    async with (
        hostile(saying(rcode)) as one,
        hostile(right) as two,
        asking(one.url("udp"), two.url("udp")) as upstreams,
    ):
        assert address_in(await upstreams.ask(NAME, 1)) == GOOD
    assert upstreams.metrics.upstream.value("udp", "servfail") == 1
    assert upstreams.metrics.upstream.value("udp", "answered") == 1


async def test_the_last_answer_is_delivered_when_all_say_they_cannot() -> None:
    async with (
        hostile(saying(SERVFAIL)) as one,
        hostile(saying(REFUSED)) as two,
        asking(one.url("udp"), two.url("udp")) as upstreams,
    ):
        message = await upstreams.ask(NAME, 1)
    assert message[3] & 0x0F == REFUSED
    assert (len(one.queries), len(two.queries)) == (1, 1)


async def test_an_answer_that_says_it_cannot_is_better_than_silence() -> None:
    async with (
        hostile(saying(SERVFAIL)) as one,
        hostile(nothing) as two,
        asking(one.url("udp"), two.url("udp"), limits=BRIEF) as upstreams,
    ):
        message = await upstreams.ask(NAME, 1)
    assert message[3] & 0x0F == SERVFAIL


async def test_nxdomain_is_an_answer() -> None:
    async with (
        hostile(saying(NXDOMAIN)) as one,
        hostile(right) as two,
        asking(one.url("udp"), two.url("udp")) as upstreams,
    ):
        message = await upstreams.ask(NAME, 1)
    assert message[3] & 0x0F == NXDOMAIN
    assert two.queries == []


async def test_a_slow_upstream_is_hedged_once_and_the_other_is_remembered() -> None:
    limits = Limits(upstream_timeout_s=20.0, upstream_try_s=20.0, upstream_hedge_s=0.02)
    async with hostile(nothing) as slow, hostile(right) as other, hostile(right) as third:
        urls = [peer.url("udp") for peer in (slow, other, third)]
        async with asking(*urls, limits=limits) as upstreams:
            before = open_sockets()
            await upstreams.ask(NAME, 1)
            assert open_sockets() == before  # the loser's socket is closed
            await upstreams.ask(NAME, 1)
    assert [len(peer.queries) for peer in (slow, other, third)] == [1, 2, 0]
    assert upstreams.metrics.upstream.value("udp", "hedged") == 1


async def test_the_slow_one_may_still_win() -> None:
    """The hedge does not end the first query."""
    held: list[bytes] = []

    def slow(query: bytes) -> Iterable[bytes]:
        held.append(query)
        return ()

    limits = Limits(upstream_timeout_s=20.0, upstream_try_s=20.0, upstream_hedge_s=0.02)
    async with (
        hostile(slow) as one,
        hostile(nothing) as two,
        asking(one.url("udp"), two.url("udp"), limits=limits) as upstreams,
    ):
        task = asyncio.create_task(upstreams.ask(NAME, 1))
        await two.until(lambda peer: len(peer.queries) == 1)
        one.send_datagram(answer(held[0]), one.sources[0])
        assert address_in(await task) == GOOD
        assert upstreams.groups[0].best is upstreams.groups[0].members[0]


async def test_a_stream_is_not_hedged_with_itself() -> None:
    limits = Limits(upstream_timeout_s=0.2, upstream_try_s=0.2, upstream_hedge_s=0.02)
    async with (
        hostile(converse=be_silent) as peer,
        asking(peer.url("tcp"), limits=limits) as upstreams,
    ):
        with pytest.raises(UpstreamError):
            await upstreams.ask(NAME, 1)
    assert len(peer.queries) == 1
    assert upstreams.metrics.upstream.value("tcp", "hedged") == 0


async def test_a_silent_upstream_is_left_after_its_try() -> None:
    limits = Limits(upstream_timeout_s=20.0, upstream_try_s=0.05, upstream_hedge_s=20.0)
    async with (
        hostile(nothing) as one,
        hostile(right) as two,
        asking(one.url("udp"), two.url("udp"), limits=limits) as upstreams,
    ):
        assert address_in(await upstreams.ask(NAME, 1)) == GOOD
    assert upstreams.metrics.upstream.value("udp", "timeout") == 1


async def test_a_silent_upstream_gets_another_turn() -> None:
    turns = iter([nothing, right])

    def script(query: bytes) -> Iterable[bytes]:
        return next(turns)(query)

    limits = Limits(upstream_timeout_s=20.0, upstream_try_s=0.05, upstream_hedge_s=20.0)
    async with hostile(script) as peer, asking(peer.url("udp"), limits=limits) as upstreams:
        assert address_in(await upstreams.ask(NAME, 1)) == GOOD
    assert len(peer.queries) == 2


async def test_one_that_failed_gets_no_other_turn() -> None:
    limits = Limits(upstream_timeout_s=0.3, upstream_try_s=0.05, upstream_hedge_s=20.0)
    async with (
        hostile(saying(SERVFAIL)) as one,
        hostile(nothing) as two,
        asking(one.url("udp"), two.url("udp"), limits=limits) as upstreams,
    ):
        await upstreams.ask(NAME, 1)
    assert len(one.queries) == 1
    assert len(two.queries) > 1


async def test_when_all_fail_the_error_says_how_each_did() -> None:
    async with hostile(nothing) as closed:
        refused = closed.url("tcp")
    async with (
        hostile(nothing) as silent,
        asking(refused, silent.url("udp"), limits=BRIEF) as upstreams,
    ):
        with pytest.raises(UpstreamError) as caught:
            await upstreams.ask(NAME, 1)
    assert caught.value.reason is Reason.UPSTREAM_TIMEOUT
    text = str(caught.value)
    assert refused in text
    assert "refused" in text
    assert f"{silent.url('udp')}: no answer in time" in text


async def test_at_the_bound_questions_fail_at_once_and_are_counted() -> None:
    limits = Limits(upstream_in_flight=2, upstream_try_s=20.0, upstream_hedge_s=20.0)
    async with hostile(nothing) as peer, asking(peer.url("udp"), limits=limits) as upstreams:
        tasks = [asyncio.create_task(upstreams.ask(NAME, 1)) for _ in range(2)]
        await peer.until(lambda peer: len(peer.queries) == 2)
        with pytest.raises(UpstreamError) as caught:
            await upstreams.ask(NAME, 1)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert upstreams.in_flight == 0
    assert caught.value.reason is Reason.CAPACITY
    assert upstreams.metrics.bounds.value("upstream_in_flight") == 1
    assert len(peer.queries) == 2


async def test_closing_fails_what_is_under_way_and_what_comes_later() -> None:
    async with hostile(nothing) as peer:
        before = open_sockets()
        async with asking(peer.url("udp")) as upstreams:
            task = asyncio.create_task(upstreams.ask(NAME, 1))
            await peer.until(lambda peer: len(peer.queries) == 1)
            await upstreams.close()
            for question in (task, upstreams.ask(NAME, 1)):
                with pytest.raises(UpstreamError, match="is closed") as caught:
                    await question
                assert caught.value.reason is Reason.UPSTREAM_UNREACHABLE
            assert open_sockets() == before


async def test_durations_are_observed_for_every_end() -> None:
    async with hostile(right) as peer, asking(peer.url("udp")) as upstreams:
        await upstreams.ask(NAME, 1)
    async with hostile(nothing) as peer, asking(peer.url("udp"), limits=BRIEF) as failing:
        with pytest.raises(UpstreamError):
            await failing.ask(NAME, 1)
    for group in (upstreams, failing):
        assert b"sallyport_upstream_seconds_count 1.0" in group.metrics.render()


async def test_the_proxy_environment_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Closes "environment proxy defeats pinning (CVE-2026-22181)" for look-ups."""
    async with hostile() as trap, hostile() as peer:
        for variable in ("ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY", "all_proxy", "RES_OPTIONS"):
            monkeypatch.setenv(variable, f"http://127.0.0.1:{trap.port}")
        async with asking(peer.url("tcp"), peer.url("udp")) as upstreams:
            assert address_in(await upstreams.ask(NAME, 1)) == GOOD
    assert trap.connections == 0


async def test_a_lying_upstream_is_no_answer_while_an_honest_one_is_there() -> None:
    def lying(query: bytes) -> Iterable[bytes]:
        return (answer(bytes((query[0] ^ 1,)) + query[1:], BAD),)

    limits = Limits(upstream_timeout_s=20.0, upstream_try_s=20.0, upstream_hedge_s=0.02)
    async with (
        hostile(lying) as liar,
        hostile(at(GOOD)) as honest,
        asking(liar.url("udp"), honest.url("udp"), limits=limits) as upstreams,
    ):
        assert address_in(await upstreams.ask(NAME, 1)) == GOOD


async def test_ipv6_upstreams_are_asked() -> None:
    peer = Hostile(right)
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: peer, local_addr=("::1", 0))
    port = transport.get_extra_info("sockname")[1]
    async with asking(f"udp://[::1]:{port}", limits=PATIENT) as upstreams:
        assert address_in(await upstreams.ask(NAME, 1)) == GOOD
    transport.close()
