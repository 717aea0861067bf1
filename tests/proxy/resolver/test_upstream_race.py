"""A race and a trial, where `Upstreams` does not show their edges."""

import asyncio

import pytest

from proxy.errors import UpstreamError
from proxy.limits import Limits
from proxy.metrics import Metrics
from proxy.resolver.breaker import BreakerState
from proxy.resolver.upstream_member import Member, MemberMaker
from proxy.resolver.upstream_query import write_question
from proxy.resolver.upstream_race import Race, Trial, explain
from proxy.resolver.upstream_url import parse_upstream
from rules.decision import Reason
from tests.proxy.resolver.asking import NAME, PATIENT, system_context
from tests.proxy.resolver.hostile import hostile, nothing, open_sockets, right

QUESTION = write_question(NAME, 1)
NOWHERE = "udp://255.255.255.255"  # no socket is connected to it without SO_BROADCAST
BRITTLE = Limits(upstream_failures=1)


def member(url: str, metrics: Metrics, limits: Limits = BRITTLE) -> Member:
    return MemberMaker(limits, metrics, bytes, system_context()).make(parse_upstream(url))


def opened(url: str, metrics: Metrics) -> Member:
    one = member(url, metrics)
    one.failed(UpstreamError(Reason.UPSTREAM_TIMEOUT, "as a test says"), 0.0)
    return one


def test_without_anybody_asked_there_was_no_time() -> None:
    assert explain({}).reason is Reason.UPSTREAM_TIMEOUT


async def test_nobody_is_asked_when_no_time_is_left() -> None:
    async with hostile(right) as peer:
        race = Race(
            QUESTION, [member(peer.url("udp"), Metrics())], 0.0, PATIENT, Metrics(), is_last=True
        )
        race.begin()
        with pytest.raises(UpstreamError, match="no time was left"):
            await race.result
    assert peer.queries == []


async def test_what_cannot_be_sent_is_left_for_the_next() -> None:
    metrics = Metrics()
    async with hostile(right) as peer:
        members = [member(NOWHERE, metrics), member(peer.url("udp"), metrics)]
        race = Race(QUESTION, members, 10.0, PATIENT, metrics, is_last=True)
        race.begin()
        await race.result
    assert race.winner is members[1]
    assert race.errors[members[0]].reason is Reason.UPSTREAM_UNREACHABLE
    assert metrics.upstream.value("udp", "unreachable") == 1


async def test_an_asker_that_left_is_told_nothing() -> None:
    metrics = Metrics()
    async with hostile(nothing) as peer:
        race = Race(
            QUESTION, [member(peer.url("udp"), metrics)], 10.0, PATIENT, metrics, is_last=True
        )
        race.begin()
        race.result.cancel()
        race.fail(UpstreamError(Reason.UPSTREAM_UNREACHABLE, "the resolver is closed"))
        assert race.result.cancelled()


async def test_a_trial_that_was_begun_by_a_race_is_given_up_with_it() -> None:
    metrics = Metrics()
    async with hostile(nothing) as peer:
        one = opened(peer.url("udp"), metrics)
        one.breaker.retry_at = 0.0
        race = Race(QUESTION, [one], 10.0, PATIENT, metrics, is_last=True)
        race.begin()
        states = [one.breaker.state]
        race.end()
        states.append(one.breaker.state)
        assert states == [BreakerState.HALF_OPEN, BreakerState.OPEN]
        race.result.cancel()


async def test_a_trial_that_cannot_be_sent_has_failed() -> None:
    one = opened(NOWHERE, Metrics())
    ended: list[Trial] = []
    with pytest.raises(UpstreamError):
        Trial(one, ended.append).begin(QUESTION, 10.0)
    assert one.breaker.state is BreakerState.OPEN
    assert ended == []  # it never began


@pytest.mark.parametrize("within_s", [10.0, 0.01])
async def test_a_trial_that_fails_or_is_late_says_so_once(within_s: float) -> None:
    before = open_sockets()
    async with hostile(nothing) as gone:
        refused = gone.url("udp")
    ended = asyncio.get_running_loop().create_future()
    async with hostile(nothing) as peer:
        # Refused by the kernel at once, or silent until the time is over.
        url = refused if within_s > 1 else peer.url("udp")
        one = opened(url, Metrics())
        Trial(one, ended.set_result).begin(QUESTION, within_s)
        async with asyncio.timeout(10):
            await ended
        await asyncio.sleep(0)  # the breaker is told in the same turn
    assert one.breaker.state is BreakerState.OPEN
    assert one.error in ("Connection refused", "no answer in time")
    assert open_sockets() <= before


async def test_a_trial_that_was_answered_closes_the_breaker() -> None:
    ended = asyncio.get_running_loop().create_future()
    async with hostile(right) as peer:
        one = opened(peer.url("udp"), Metrics())
        Trial(one, ended.set_result).begin(QUESTION, 10.0)
        async with asyncio.timeout(10):
            await ended
        await asyncio.sleep(0)
    assert one.breaker.is_closed
    assert one.rtt_s is not None
