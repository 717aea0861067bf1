"""Groups: who is asked when some fail, who is passed over, and how they come back."""

import asyncio
from collections.abc import Iterable
from pathlib import Path

import pytest

from proxy.errors import UpstreamError
from proxy.limits import Limits
from proxy.resolver import upstream_group
from proxy.resolver.breaker import BreakerState
from proxy.resolver.resolv_conf import HostResolvers
from proxy.resolver.upstream import Upstreams
from proxy.resolver.upstream_member import Member
from proxy.wire.question import read_question
from rules.decision import Reason
from tests.proxy.resolver.asking import NAME, address_in, asking
from tests.proxy.resolver.hostile import (
    GOOD,
    DatagramScript,
    Hostile,
    answer,
    hostile,
    nothing,
    open_sockets,
    right,
)

OPEN, CLOSED, HALF_OPEN = BreakerState.OPEN, BreakerState.CLOSED, BreakerState.HALF_OPEN
# One failure opens a breaker, and no trial is due before a test says so.
BRITTLE = Limits(
    upstream_timeout_s=20.0,
    upstream_try_s=0.05,
    upstream_hedge_s=20.0,
    upstream_failures=1,
    upstream_open_s=600.0,
    upstream_open_most_s=600.0,
)


def names(peer: Hostile) -> set[bytes]:
    """Return the names that a peer was asked for."""
    return {query[12 : read_question(query).end - 4].lower() for query in peer.queries}


def member(upstreams: Upstreams, group: int = 0) -> Member:
    return upstreams.groups[group].members[0]


def make_due(upstreams: Upstreams, group: int = 0) -> None:
    assert member(upstreams, group).breaker.state is OPEN
    member(upstreams, group).breaker.retry_at = 0.0


async def comes_to(upstream: Member, state: BreakerState) -> None:
    """Wait until the breaker of an upstream has a state."""
    breaker, arrived = upstream.breaker, asyncio.Event()
    told = breaker._changed

    def changed(before: BreakerState, after: BreakerState) -> None:
        told(before, after)
        if after is state:
            arrived.set()

    breaker._changed = changed
    if breaker.state is not state:
        async with asyncio.timeout(10):
            await arrived.wait()
    breaker._changed = told


class Mending:
    """A script that answers once it is told to."""

    def __init__(self) -> None:
        self.works = False

    def __call__(self, query: bytes) -> Iterable[bytes]:
        return (answer(query),) if self.works else ()


async def test_the_next_group_is_asked_when_all_of_one_failed() -> None:
    async with (
        hostile(nothing) as one,
        hostile(nothing) as two,
        hostile(right) as three,
        asking([one.url("udp"), two.url("udp")], [three.url("udp")], limits=BRITTLE) as upstreams,
    ):
        assert address_in(await upstreams.ask(NAME, 1)) == GOOD
    assert [len(peer.queries) > 0 for peer in (one, two, three)] == [True] * 3


def saying(rcode: int) -> DatagramScript:
    return lambda query: (answer(query, rcode=rcode),)


@pytest.mark.parametrize("rcode", [2, 3, 5])
async def test_no_other_group_is_asked_when_one_answered_whatever_it_said(rcode: int) -> None:
    """A group of another policy is for outages, not to overrule an answer."""
    async with (
        hostile(saying(rcode)) as one,
        hostile(right) as two,
        asking([one.url("udp")], [two.url("udp")], limits=BRITTLE) as upstreams,
    ):
        message = await upstreams.ask(NAME, 1)
        assert member(upstreams).breaker.is_closed
    assert message[3] & 15 == rcode
    assert two.queries == []


async def test_hedging_stays_inside_a_group() -> None:
    held: list[bytes] = []

    def slow(query: bytes) -> Iterable[bytes]:
        held.append(query)
        return ()

    limits = Limits(upstream_timeout_s=20.0, upstream_try_s=10.0, upstream_hedge_s=0.01)
    async with (
        hostile(slow) as one,
        hostile(right) as two,
        asking([one.url("udp")], [two.url("udp")], limits=limits) as upstreams,
    ):
        task = asyncio.create_task(upstreams.ask(NAME, 1))
        await one.until(lambda peer: len(peer.queries) == 2)  # a datagram may be lost
        one.send_datagram(answer(held[1]), one.sources[1])
        assert address_in(await task) == GOOD
    assert two.queries == []


async def test_an_open_upstream_is_passed_over_without_waiting() -> None:
    async with (
        hostile(nothing) as one,
        hostile(right) as two,
        asking([one.url("udp")], [two.url("udp")], limits=BRITTLE) as upstreams,
    ):
        await upstreams.ask(NAME, 1)
        before = len(one.queries)
        for _ in range(5):
            assert address_in(await upstreams.ask(NAME, 1)) == GOOD
    assert len(one.queries) == before
    assert upstreams.metrics.upstreams_open.value == 1
    assert upstreams.metrics.upstream_states.value("udp", "open") == 1


async def test_inside_a_group_too() -> None:
    async with (
        hostile(nothing) as one,
        hostile(right) as two,
        asking(one.url("udp"), two.url("udp"), limits=BRITTLE) as upstreams,
    ):
        await upstreams.ask(NAME, 1)
        upstreams.groups[0].best = None  # else the other would be the first anyway
        before = len(one.queries)
        await upstreams.ask(NAME, 1)
    assert len(one.queries) == before


async def test_a_question_that_others_answer_is_the_trial() -> None:
    """No probe is invented: the trial asks the very question that is being asked."""
    mending = Mending()
    async with (
        hostile(mending) as one,
        hostile(right) as two,
        asking([one.url("udp")], [two.url("udp")], limits=BRITTLE) as upstreams,
    ):
        await upstreams.ask(NAME, 1)
        make_due(upstreams)
        mending.works = True
        before = len(one.queries)
        assert address_in(await upstreams.ask(NAME, 1)) == GOOD
        await comes_to(member(upstreams), CLOSED)
        assert len(one.queries) == before + 1
        others = len(two.queries)
        await upstreams.ask(NAME, 1)
        assert len(two.queries) == others  # the first group is asked again
    assert names(one) == names(two) == {b"\x03www\x07example\x03com\x00"}
    assert upstreams.metrics.upstreams_open.value == 0
    assert upstreams.metrics.upstream_states.value("udp", "half-open") == 1


async def test_a_trial_that_fails_doubles_the_back_off_and_delays_nobody() -> None:
    async with (
        hostile(nothing) as one,
        hostile(right) as two,
        asking([one.url("udp")], [two.url("udp")], limits=BRITTLE) as upstreams,
    ):
        await upstreams.ask(NAME, 1)
        make_due(upstreams)
        await asyncio.gather(*(upstreams.ask(NAME, 1) for _ in range(20)))
        assert member(upstreams).breaker.state is HALF_OPEN  # one trial, and it is still waited for
        await comes_to(member(upstreams), OPEN)
        assert len(one.queries) == 2
        assert member(upstreams).breaker.retry_at > 0.0


async def test_a_trial_that_cannot_be_sent_is_a_failure() -> None:
    async with hostile(right) as good:
        urls = ["udp://255.255.255.255"], [good.url("udp")]  # no socket without SO_BROADCAST
        async with asking(*map(list, urls), limits=BRITTLE) as upstreams:
            broken = member(upstreams)
            broken.failed(UpstreamError(Reason.UPSTREAM_TIMEOUT, "as a test says"), 0.0)
            make_due(upstreams)
            assert address_in(await upstreams.ask(NAME, 1)) == GOOD
            assert not broken.breaker.is_closed


async def test_a_later_group_is_not_tried_again_while_an_earlier_one_answers() -> None:
    """The question is none of its: it would be a leak to a resolver of another policy."""
    async with (
        hostile(right) as one,
        hostile(right) as two,
        asking([one.url("udp")], [two.url("udp")], limits=BRITTLE) as upstreams,
    ):
        other = member(upstreams, 1)
        other.failed(UpstreamError(Reason.UPSTREAM_TIMEOUT, "as a test says"), 0.0)
        make_due(upstreams, 1)
        await upstreams.ask(NAME, 1)
    assert two.queries == []
    assert other.breaker.state is OPEN


async def test_when_all_are_open_they_are_asked_all_the_same() -> None:
    """A breaker chooses; it never refuses a question."""
    mending = Mending()
    async with (
        hostile(mending) as one,
        hostile(nothing) as two,
        asking([one.url("udp")], [two.url("udp")], limits=BRITTLE) as upstreams,
    ):
        with pytest.raises(UpstreamError):
            await asyncio.wait_for(_ask_briefly(upstreams), 10)
        assert [each.state for each in upstreams.status()] == [OPEN, OPEN]
        mending.works = True
        assert address_in(await upstreams.ask(NAME, 1)) == GOOD
        assert [each.state for each in upstreams.status()] == [CLOSED, OPEN]


async def _ask_briefly(upstreams: Upstreams) -> bytes:
    limits = upstreams.limits
    upstreams.limits = Limits(upstream_timeout_s=0.2, upstream_try_s=0.05, upstream_failures=1)
    try:
        return await upstreams.ask(NAME, 1)
    finally:
        upstreams.limits = limits


async def test_a_trial_that_is_due_when_all_are_open_is_the_question_itself() -> None:
    async with (
        hostile(right) as one,
        asking(one.url("udp"), limits=BRITTLE) as upstreams,
    ):
        only = member(upstreams)
        only.failed(UpstreamError(Reason.UPSTREAM_TIMEOUT, "as a test says"), 0.0)
        make_due(upstreams)
        await upstreams.ask(NAME, 1)
        assert only.breaker.is_closed
    assert len(one.queries) == 1
    assert upstreams.metrics.upstream_states.value("udp", "half-open") == 1


async def test_the_error_says_how_each_group_failed() -> None:
    limits = Limits(upstream_timeout_s=0.2, upstream_try_s=0.2, upstream_hedge_s=20.0)
    async with (
        hostile(nothing) as one,
        hostile(nothing) as two,
        asking([one.url("udp")], [two.url("udp")], limits=limits) as upstreams,
    ):
        with pytest.raises(UpstreamError) as caught:
            await upstreams.ask(NAME, 1)
        told = upstreams.status()
    for peer in (one, two):
        assert f"{peer.url('udp')}: no answer in time" in str(caught.value)
    assert [(each.upstream, each.group, each.error) for each in told] == [
        (one.url("udp"), 1, "no answer in time"),
        (two.url("udp"), 2, "no answer in time"),
    ]


async def test_closing_ends_trials_and_no_other_group_is_asked() -> None:
    async with hostile(nothing) as one, hostile(nothing) as two:
        before = open_sockets()
        async with asking([one.url("udp")], [two.url("udp")], limits=BRITTLE) as upstreams:
            member(upstreams).failed(UpstreamError(Reason.UPSTREAM_TIMEOUT, "as said"), 0.0)
            make_due(upstreams)
            task = asyncio.create_task(upstreams.ask(NAME, 1))
            await two.until(lambda peer: len(peer.queries) == 1)
            await upstreams.close()
            with pytest.raises(UpstreamError, match="is closed"):
                await task
            assert member(upstreams).breaker.state is OPEN
            assert open_sockets() == before
    assert len(one.queries) == 1


# system


def resolv_conf(folder: Path, text: str) -> HostResolvers:
    (folder / "resolv.conf").write_text(text)
    return HostResolvers(lambda *_: False, folder / "resolv.conf", folder / "none")


async def test_system_asks_what_the_host_is_configured_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = resolv_conf(tmp_path, "search evil.example\nnameserver 127.0.0.1\n")
    async with hostile(right) as peer:
        monkeypatch.setattr(upstream_group, "PORT", peer.port)
        async with asking("system", host=host) as upstreams:
            assert upstreams.status() == []  # nobody has asked yet
            assert address_in(await upstreams.ask(NAME, 1)) == GOOD
            (told,) = upstreams.status()
    assert told.upstream == peer.url("udp")
    assert names(peer) == {b"\x03www\x07example\x03com\x00"}  # no search list


async def test_system_follows_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = resolv_conf(tmp_path, "nameserver 127.0.0.2\n")
    async with hostile(right) as peer:
        monkeypatch.setattr(upstream_group, "PORT", peer.port)
        async with asking("system", host=host, limits=BRITTLE) as upstreams:
            group = upstreams.groups[0]
            group.refresh(0.0)
            gone = group.members[0]
            (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.1\nnameserver 127.0.0.2\n")
            group.refresh(10.0)
            assert [each.address.sockaddr[0] for each in group.members] == [
                "127.0.0.1",
                "127.0.0.2",
            ]
            assert group.members[1] is gone  # what is known of it stays known


async def test_servers_of_networks_long_left_are_forgotten(tmp_path: Path) -> None:
    host = resolv_conf(tmp_path, "")
    async with asking("system", host=host, limits=BRITTLE) as upstreams:
        group = upstreams.groups[0]
        for number in range(1, 40):
            (tmp_path / "resolv.conf").write_text(f"nameserver 198.51.100.{number}\n")
            group.refresh(number * 10.0)
            group.members[0].failed(UpstreamError(Reason.UPSTREAM_TIMEOUT, "x"), 0.0)
    assert upstreams.metrics.upstreams_open.value == upstream_group._REMEMBERED
    assert len(group._found) == upstream_group._REMEMBERED


async def test_system_without_a_server_says_what_to_do(tmp_path: Path) -> None:
    async with asking("system", host=resolv_conf(tmp_path, "")) as upstreams:
        with pytest.raises(UpstreamError, match="name upstreams under") as caught:
            await upstreams.ask(NAME, 1)
    assert caught.value.reason is Reason.UPSTREAM_UNREACHABLE


async def test_system_without_a_server_leaves_the_question_to_the_others(tmp_path: Path) -> None:
    async with (
        hostile(right) as peer,
        asking(["system"], [peer.url("udp")], host=resolv_conf(tmp_path, "")) as upstreams,
    ):
        assert address_in(await upstreams.ask(NAME, 1)) == GOOD


async def test_a_server_that_is_configured_too_is_not_asked_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = resolv_conf(tmp_path, "nameserver 127.0.0.1\n")
    async with hostile(right) as peer:
        monkeypatch.setattr(upstream_group, "PORT", peer.port)
        async with asking("system", peer.url("udp"), host=host) as upstreams:
            await upstreams.ask(NAME, 1)
            assert len(upstreams.status()) == 1
