"""After a reload: what is open and no longer allowed is cut, and nothing slips through."""

import asyncio
import logging
from asyncio import StreamReader, StreamWriter
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.egress import sweep as sweeping
from proxy.egress.connect import ESTABLISHED
from proxy.egress.dial import KnownDial
from proxy.egress.sweep import sweep, sweep_askers
from proxy.egress.tunnel import Tunnel
from proxy.limits import Limits
from rules.address import parse_address
from rules.decision import Decision, Reason, Verdict
from rules.name import parse
from rules.ruleset import AllowRule
from tests.proxy.egress.hellos import hello
from tests.proxy.egress.world import (
    LOOPBACK,
    Origin,
    Peer,
    World,
    basic,
    connect,
    get,
    opened,
    saying,
    settled,
    token_app,
)
from tests.rules.written import allow, deny

CODER = basic("coder", "spt_coder")


def to(origin: Origin, *, tls: bool = False, accept_ech: bool = False) -> AllowRule:
    ports, addresses = [origin.port], [LOOPBACK]
    return allow("example.com", ports=ports, addresses=addresses, tls=tls, accept_ech=accept_ech)


def patient() -> Origin:
    """Return an origin that keeps what it gets, answers nothing, and tells how it ended."""
    origin = Origin()

    async def script(reader: StreamReader, writer: StreamWriter) -> None:
        del writer
        try:
            while data := await reader.read(65536):
                origin.heads.append(data)
            origin.heads.append(b"<end>")
        except ConnectionResetError:
            origin.heads.append(b"<reset>")

    origin.script = script
    return origin


async def tunnelled(world: World, origin: Origin, *fields: str) -> Peer:
    client = await world.client()
    client.send(connect(f"example.com:{origin.port}", *fields))
    assert await client.head() == ESTABLISHED
    return client


async def is_reset(client: Peer) -> bool:
    try:
        await client.reader.read(1)
    except ConnectionResetError:
        return True
    return False


async def test_a_tunnel_whose_rule_is_gone_is_cut_at_both_ends(tmp_path: Path) -> None:
    """threats.md, "Order of checks": "tunnels of a withdrawn rule left open".

    "Identity": "A cut is an abort with SO_LINGER 0 on both legs, measured at the receiver".
    """
    async with patient().running() as origin, opened(tmp_path, to(origin)) as world:
        client = await tunnelled(world, origin)
        world.use(2)
        assert await sweep(world.egress, 2) == 1
        assert await is_reset(client)
        await settled(lambda: origin.heads == [b"<reset>"])
        assert world.metrics.tunnels.value == 0
        assert world.metrics.tunnel_cuts.value("generation-changed") == 1
        await settled(lambda: not world.egress.connections)
        lines = await world.lines()
        denied = [line for line in lines if line["verdict"] == "deny"]
        assert [(line["fact"], line["reason"]) for line in denied] == [
            ("connect", "generation-changed")
        ]
        assert any("duration" in line for line in lines)


async def test_a_flow_that_cannot_be_judged_is_ended_and_the_others_are_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """threats.md, "Order of checks": "tunnels of a withdrawn rule left open"."""
    async with patient().running() as origin, opened(tmp_path, to(origin)) as world:
        clients = [await tunnelled(world, origin) for _ in range(2)]
        judge, judged = Tunnel.stale, list[Tunnel]()

        def stale(tunnel: Tunnel) -> Decision | None:
            judged.append(tunnel)
            if len(judged) == 1:
                raise ZeroDivisionError
            return judge(tunnel)

        monkeypatch.setattr(Tunnel, "stale", stale)
        world.use(2)
        with caplog.at_level(logging.CRITICAL):
            assert await sweep(world.egress, 2) == 1
        for client in clients:
            assert await client.rest() == b""
        await settled(lambda: not world.egress.connections)


async def test_what_is_still_allowed_goes_on(tmp_path: Path) -> None:
    async with patient().running() as origin, opened(tmp_path, to(origin)) as world:
        client = await tunnelled(world, origin)
        world.use(2, to(origin))
        assert await sweep(world.egress, 2) == 0
        client.send(b"still")
        await settled(lambda: origin.heads == [b"still"])


async def test_an_address_that_is_withdrawn_cuts(tmp_path: Path) -> None:
    async with patient().running() as origin, opened(tmp_path, to(origin)) as world:
        await tunnelled(world, origin)
        world.use(2, to(origin), deny(addresses=[LOOPBACK]))
        assert await sweep(world.egress, 2) == 1


@pytest.mark.parametrize(
    ("taken", "owed", "cut"),
    [
        ({"tls": False}, {"tls": True}, 1),
        ({"tls": True}, {"tls": False}, 0),
        ({"tls": True, "accept_ech": True}, {"tls": True}, 1),
        ({"tls": True}, {"tls": True, "accept_ech": True}, 0),
    ],
)
async def test_a_look_that_was_not_taken_is_owed(
    tmp_path: Path, taken: dict[str, bool], owed: dict[str, bool], cut: int
) -> None:
    async with patient().running() as origin, opened(tmp_path, to(origin, **taken)) as world:
        client = await tunnelled(world, origin)
        client.send(hello("example.com"))
        await settled(lambda: bool(origin.heads))
        world.use(2, to(origin, **owed))
        assert await sweep(world.egress, 2) == cut


async def test_a_rule_for_requests_cuts_what_cannot_be_read(tmp_path: Path) -> None:
    async with patient().running() as origin, opened(tmp_path, to(origin)) as world:
        await tunnelled(world, origin)
        ports, addresses = [origin.port], [LOOPBACK]
        world.use(2, allow("example.com", ports=ports, addresses=addresses, methods=["GET"]))
        assert await sweep(world.egress, 2) == 1


async def test_a_request_under_way_is_cut(tmp_path: Path) -> None:
    async with patient().running() as origin, opened(tmp_path, to(origin)) as world:
        client = await world.client()
        client.send(get(f"example.com:{origin.port}"))
        await settled(lambda: bool(origin.heads))
        world.use(2)
        assert await sweep(world.egress, 2) == 1
        assert await is_reset(client)
        await settled(lambda: origin.heads[-1] == b"<reset>")
        denied = [line for line in await world.lines() if line["verdict"] == "deny"]
        assert [(line["fact"], line["reason"]) for line in denied] == [
            ("request", "generation-changed")
        ]


async def test_an_upgraded_connection_is_cut(tmp_path: Path) -> None:
    origin = Origin()

    async def script(reader: StreamReader, writer: StreamWriter) -> None:
        await origin.read_head(reader)
        switch = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n"
        writer.write(switch + b"Upgrade: websocket\r\n\r\n")
        await reader.read()

    origin.script = script
    async with origin.running(), opened(tmp_path, to(origin)) as world:
        fields = ("Connection: upgrade", "Upgrade: websocket")
        client = await world.client()
        client.send(get(f"example.com:{origin.port}", "/", *fields))
        assert (await client.reply()).status == 101
        world.use(2, to(origin, tls=True))
        assert await sweep(world.egress, 2) == 0
        world.use(3)
        assert await sweep(world.egress, 3) == 1
        assert await is_reset(client)


async def test_connections_that_rest_end_with_their_rule(tmp_path: Path) -> None:
    """threats.md, "Between name and address": "pooled connection reused for another name"."""
    async with Origin().running() as origin, opened(tmp_path, to(origin)) as world:
        await world.ask(get(f"example.com:{origin.port}"))
        await settled(lambda: len(world.egress.pool) == 1)
        world.use(2, to(origin))
        assert await sweep(world.egress, 2) == 0
        world.use(3)
        assert await sweep(world.egress, 3) == 1
        await settled(lambda: len(world.egress.pool) == 0)


async def test_an_idle_client_stays(tmp_path: Path) -> None:
    async with Origin().running() as origin, opened(tmp_path, to(origin)) as world:
        client = await world.client()
        client.send(get(f"example.com:{origin.port}"))
        await client.reply()
        world.use(2)
        assert await sweep(world.egress, 2) == 1  # the connection that rests
        assert await sweep_askers(world.egress) == 0
        client.send(get(f"example.com:{origin.port}"))
        assert (await client.reply()).status == 403


async def test_a_full_audit_quota_cuts_nothing(tmp_path: Path) -> None:
    async with patient().running() as origin, opened(tmp_path, to(origin)) as world:
        await tunnelled(world, origin)
        world.use(2, to(origin))
        await world.audit.close()
        assert world.audit.admits("me") is not None
        assert await sweep(world.egress, 2) == 0


async def test_a_flow_that_registers_during_the_sweep_was_decided_by_the_new_rules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """threats.md, "Order of checks".

    "A flow decided under generation N that registers after the sweep of N+1".
    """
    monkeypatch.setattr(sweeping, "SLICE_S", 0.0)
    limits = Limits(proxy_tick_s=0.02, resolution_s=0.0)  # each looks its host up
    async with patient().running() as origin, opened(tmp_path, to(origin), limits=limits) as world:
        for _ in range(4):
            await tunnelled(world, origin)
        clients = [await world.client() for _ in range(8)]
        world.names.meanwhile = lambda: world.use(world.authorizer.generation + 1)
        for client in clients:
            client.send(connect(f"example.com:{origin.port}"))
        replies = [await client.reply() for client in clients]
        assert {reply.status for reply in replies} == {403}
        await sweep(world.egress, world.authorizer.generation)
        await settled(lambda: world.metrics.tunnels.value == 0)


async def test_a_dial_under_way_while_the_rules_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same, where the address was known and nothing was looked up."""
    async with patient().running() as origin, opened(tmp_path, to(origin)) as world:
        await tunnelled(world, origin)
        client = await world.client()
        begin = KnownDial.begin

        def begin_and_reload(dial: KnownDial) -> None:
            begin(dial)
            world.use(2)

        monkeypatch.setattr(KnownDial, "begin", begin_and_reload)
        client.send(connect(f"example.com:{origin.port}"))
        assert (await client.reply()).field("x-deny-reason") == "generation-changed"
        assert world.names.asked == [("example.com", frozenset({1, 28}))]


async def test_the_loop_is_left_after_each_slice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with patient().running() as origin, opened(tmp_path, to(origin)) as world:
        for _ in range(5):
            await tunnelled(world, origin)
        world.use(2)
        ticks: Iterator[float] = iter(range(100))
        monkeypatch.setattr(sweeping, "perf_counter", lambda: next(ticks))
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        counting = asyncio.create_task(count())
        assert await sweep(world.egress, 2) == 5
        counting.cancel()
        assert turns >= 5


async def test_a_sweep_ends_where_a_later_one_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeping, "SLICE_S", 0.0)
    async with patient().running() as origin, opened(tmp_path, to(origin)) as world:
        for _ in range(3):
            await tunnelled(world, origin)
        world.use(2)
        first = asyncio.create_task(sweep(world.egress, 2))
        await asyncio.sleep(0)
        world.use(3, to(origin))
        assert await first <= 1
        assert await sweep(world.egress, 3) == 0
        assert world.metrics.tunnels.value >= 2


async def test_a_revoked_token_cuts_what_it_opened_and_nothing_else(tmp_path: Path) -> None:
    """threats.md, "Identity": what is revoked is cut within the second."""
    async with patient().running() as origin, opened(tmp_path) as world:
        apps = [token_app(name, to(origin)) for name in ("coder", "other")]
        world.use_all(2, world.listener_app(to(origin)), *apps)
        world.give_tokens("coder", "other")
        mine = await tunnelled(world, origin, CODER)
        others = await tunnelled(world, origin, basic("other", "spt_other"))
        ambient = await tunnelled(world, origin)
        asking = await world.client()
        asking.send(get(f"example.com:{origin.port}", "/", CODER))
        await settled(lambda: len(origin.heads) == 1)
        world.give_tokens("other")
        assert await sweep_askers(world.egress) == 2
        assert await is_reset(mine)
        assert await is_reset(asking)
        for client in (others, ambient):
            client.send(b"still")
        await settled(lambda: origin.heads.count(b"still") == 2)
        assert world.metrics.tunnel_cuts.value("identity-unknown") == 1


async def test_an_identity_that_changes_hands_cuts_too(tmp_path: Path) -> None:
    async with patient().running() as origin, opened(tmp_path, to(origin)) as world:
        await tunnelled(world, origin)
        world.use_all(2, token_app("coder", to(origin)))
        assert await sweep(world.egress, 2) == 1
        assert world.metrics.tunnel_cuts.value("generation-changed") == 1


async def test_own_addresses_count_in_a_sweep(tmp_path: Path) -> None:
    async with patient().running() as origin, opened(tmp_path, to(origin)) as world:
        await tunnelled(world, origin)
        world.own.listeners = {*world.own.listeners, (parse_address("127.0.0.1"), origin.port)}
        assert await sweep(world.egress, 1) == 1


@pytest.mark.parametrize("opens", [1, 2])  # the second dials what is known already
async def test_a_tunnel_over_an_alias_that_is_denied_now_is_cut(tmp_path: Path, opens: int) -> None:
    """threats.md, "Order of checks": "tunnels of a withdrawn rule left open": a list's, too."""
    async with patient().running() as origin, opened(tmp_path, to(origin)) as world:
        world.names.chain = (parse("edge.example.net"), parse("node.example.net"))
        clients = [await tunnelled(world, origin) for _ in range(opens)]
        world.use(2, to(origin), deny("other.example.net"))
        assert await sweep(world.egress, 2) == 0
        world.use(3, to(origin), deny("node.example.net"))
        assert await sweep(world.egress, 3) == opens
        for client in clients:
            assert await is_reset(client)


@pytest.mark.parametrize("is_swept", [False, True])
async def test_a_connection_at_rest_over_an_alias_that_is_denied_now_serves_nobody(
    tmp_path: Path, is_swept: bool
) -> None:
    """threats.md, "Between name and address": "pooled connection reused for another name"."""
    ok = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
    async with saying(ok, ok).running() as origin, opened(tmp_path, to(origin)) as world:
        world.names.chain = (parse("edge.example.net"),)
        asked = get(f"example.com:{origin.port}")
        assert (await world.ask(asked)).status == 200
        await settled(lambda: len(world.egress.pool) == 1)
        world.use(2, to(origin), deny("edge.example.net"))
        world.names.table["example.com"] = Decision(Verdict.DENY, Reason.LIST)
        if is_swept:
            assert await sweep(world.egress, 2) == 1
        assert (await world.ask(asked)).status == 403
        await settled(lambda: len(world.egress.pool) == 0)
