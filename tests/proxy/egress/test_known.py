"""What is known of CONNECTs that repeat: the same as reading and asking anew, and bounded."""

import asyncio
from pathlib import Path

import pytest

from proxy.audit_fold import Fold, Usage
from proxy.audit_line import Line
from proxy.egress.connect import ESTABLISHED
from proxy.egress.known import Closes, Heads, KnownHeads, Routes
from proxy.errors import PeerError
from proxy.flow import Plane
from proxy.limits import Limits
from proxy.metrics import Metrics
from rules.decision import Reason, Verdict
from rules.facts import Principal
from rules.name import parse
from tests.proxy.egress.world import LOOPBACK, Origin, connect, opened, settled
from tests.rules.written import allow, deny

HEAD = connect("example.com:443")


def heads(limits: Limits | None = None) -> tuple[KnownHeads, Heads]:
    limits = limits or Limits()
    known = KnownHeads(limits, Metrics())
    return known, Heads(known, limits)


def fold_of() -> Fold:
    line = Line(
        "f", "me", (), Plane.HTTP, "connect", Verdict.ALLOW, Reason.RULE, None, 1, "example.com", {}
    )
    return Fold("id", line, Usage(1.0), 0.0)


def test_the_same_octets_are_read_once() -> None:
    known, mine = heads()
    other = Heads(known, Limits())
    assert mine.read(HEAD, is_connect=True) == other.read(HEAD, is_connect=True)
    assert len(known) == 1


@pytest.mark.parametrize(
    ("octets", "is_connect"),
    [
        (HEAD + b"early", True),
        (HEAD, False),
        (b"GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n", True),
        (HEAD[:-2], True),
        (connect("example.com:443", "X: " + "x" * 1024), True),
    ],
)
def test_only_a_whole_short_connect_is_kept(octets: bytes, is_connect: bool) -> None:
    known, mine = heads()
    mine.read(octets, is_connect=is_connect)
    assert len(known) == 0


def test_what_is_malformed_stays_so() -> None:
    known, mine = heads()
    for _ in range(2):
        with pytest.raises(PeerError):
            mine.read(b"CONNECT a:1 HTTP/1.1\r\nHost : a\r\n\r\n", is_connect=True)
    assert len(known) == 0


def test_heads_are_bounded() -> None:
    known, mine = heads(Limits(known_heads=2))
    for number in range(3):
        mine.read(connect(f"a{number}.example.com:443"), is_connect=True)
    assert len(known) == 1


def test_routes_are_bounded_and_apart() -> None:
    metrics = Metrics()
    routes = Routes(Limits(known_routes=2), metrics)
    host = parse("example.com")
    mine = routes.get(Principal("me"), host, 443)
    assert routes.get(Principal("me"), host, 443) is mine
    assert routes.get(Principal("you"), host, 443) is not mine
    routes.get(Principal("me"), host, 80)
    assert (len(routes), metrics.bounds.value("known_routes")) == (2, 1)
    assert routes.get(Principal("me"), host, 443) is not mine


async def test_an_address_just_decided_on_is_dialled_again(tmp_path: Path) -> None:
    async with Origin().running() as origin:
        rule = allow("example.com", ports=[origin.port], addresses=[LOOPBACK], tls=False)
        async with opened(tmp_path, rule) as world:
            for _ in range(3):
                client = await world.client()
                client.send(connect(f"example.com:{origin.port}"))
                assert await client.head() == ESTABLISHED
            assert len(world.names.asked) == 1
            flows = {line["flow"] for line in await world.lines()}
            assert len(flows) == 1  # of the errand that looked it up


async def test_not_for_longer_than_resolution_s(tmp_path: Path) -> None:
    limits = Limits(proxy_tick_s=0.02, resolution_s=0.02)
    async with Origin().running() as origin:
        rule = allow("example.com", ports=[origin.port], addresses=[LOOPBACK], tls=False)
        async with opened(tmp_path, rule, limits=limits) as world:
            loop = asyncio.get_running_loop()
            await world.ask(connect(f"example.com:{origin.port}"))
            until = loop.time() + 0.04
            await settled(lambda: loop.time() > until)
            await world.ask(connect(f"example.com:{origin.port}"))
            assert len(world.names.asked) == 2


async def test_nor_under_other_rules_or_own_addresses(tmp_path: Path) -> None:
    """threats.md, "Order of checks": "Another app's cached grant"; "Reload half applied"."""
    async with Origin().running() as origin:
        rule = allow("example.com", ports=[origin.port], addresses=[LOOPBACK], tls=False)
        async with opened(tmp_path, rule) as world:
            asked = connect(f"example.com:{origin.port}")
            client = await world.client()
            client.send(asked)
            assert await client.head() == ESTABLISHED
            world.use(2, rule, deny(addresses=[LOOPBACK]))
            reply = await world.ask(asked)
            assert reply.field("x-deny-reason") == "address-not-allowed"
            world.use(3, rule)
            world.own.interfaces = set(world.own.interfaces)
            assert (await world.ask(asked)).status == 200
            assert len(world.names.asked) == 3


async def test_a_known_address_that_refuses(tmp_path: Path) -> None:
    async with Origin().running() as origin:
        rule = allow("example.com", ports=[origin.port], addresses=[LOOPBACK], tls=False)
        async with opened(tmp_path, rule) as world:
            asked = connect(f"example.com:{origin.port}")
            assert (await world.ask(asked)).status == 200
    async with opened(tmp_path, rule) as world:
        for _ in range(2):
            reply = await world.ask(asked)
            assert (reply.status, reply.field("x-deny-reason")) == (502, "upstream-unreachable")
        assert len(world.names.asked) == 1


async def test_a_known_head_is_of_whoever_sends_it(tmp_path: Path) -> None:
    """threats.md, "Order of checks": "Another app's cached grant"."""
    async with Origin().running() as origin:
        rule = allow("example.com", ports=[origin.port], addresses=[LOOPBACK], tls=False)
        async with opened(tmp_path, rule) as world:
            asked = connect(f"example.com:{origin.port}")
            for _ in range(3):
                assert (await world.ask(asked)).status == 200
            world.use_all(2)  # the listener is nobody's any more
            assert (await world.ask(asked)).status == 403
            world.use(3, rule)
            assert (await world.ask(asked)).status == 200


async def test_a_known_head_for_two_origins_is_refused_each_time(tmp_path: Path) -> None:
    """threats.md, "HTTP itself": "absolute-form against Host"."""
    async with opened(tmp_path, allow("example.com")) as world:
        asked = b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.org:443\r\n\r\n"
        for _ in range(3):
            assert (await world.ask(asked)).field("x-deny-reason") == "authority-mismatch"


def test_what_passed_is_summed_and_told_once() -> None:
    closes = Closes()
    fold = fold_of()
    closes.begin(fold, 1.0)
    closes.more(1, 20, 0.5)
    closes.more(2, 30, 0.25)
    assert closes.settle() == 2
    assert closes.settle() == 0
    assert (fold.count, fold.octets_up, fold.octets_down, fold.duration) == (3, 3, 50, 0.5)
    closes.end()
    closes.more(9, 9, 9.0)
    assert closes.settle() == 1
    assert fold.octets_up == 3
