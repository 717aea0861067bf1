"""What was revoked is ended at once and in one go, whatever it is; then its evidence is written."""

import asyncio
import logging
import socket
import ssl
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from msgspec import structs

from proxy.certificates.revoked import Kind, Revocation
from proxy.egress.connect import ESTABLISHED
from proxy.egress.cut import cut, tell
from proxy.egress.dial import KnownDial
from proxy.egress.tunnel import Tunnel
from proxy.tokens.known import digest
from rules.decision import Decision
from rules.match import index_rules
from rules.ruleset import App, Ruleset
from tests.authority import PrivateAuthority
from tests.proxy.egress.test_sweep import is_reset, patient, to, tunnelled
from tests.proxy.egress.world import (
    LOCAL,
    Origin,
    Peer,
    World,
    basic,
    connect,
    get,
    opened,
    settled,
    token_app,
)

CODER = basic("coder", "spt_coder")
TCP_CLOSE = 7  # linux/tcp_states.h


def revoke(world: World, *names: str, apps: tuple[App, ...] = ()) -> None:
    """Put the same rules in force again, with these apps revoked."""
    revoked = {name: Revocation(Kind.APP, name, 1.0) for name in names}
    ruleset = Ruleset(world.authorizer.generation + 1, {app.name: app for app in apps})
    world.authorizer.use(index_rules(ruleset), revoked)


async def test_a_tunnel_is_reset_at_both_ends_and_told_of_afterwards(tmp_path: Path) -> None:
    """threats.md, "Identity": "A cut is an abort with SO_LINGER 0 on both legs"."""
    async with patient().running() as origin, opened(tmp_path, to(origin)) as world:
        client = await tunnelled(world, origin)
        revoke(world, "me")
        count, evidence = cut(world.egress, apps_only=True)
        assert (count, len(evidence)) == (1, 1)
        assert await is_reset(client)
        await settled(lambda: origin.heads == [b"<reset>"])
        await tell(evidence)
        assert world.metrics.tunnels.value == 0
        assert world.metrics.tunnel_cuts.value("revoked") == 1
        await settled(lambda: not world.egress.connections)
        lines = await world.lines()
        (denied,) = [line for line in lines if line["verdict"] == "deny"]
        assert (denied["fact"], denied["reason"]) == ("connect", "revoked")
        assert denied["revoked_at"] == "1970-01-01T00:00:01.000000Z"
        assert any("duration" in line for line in lines)


async def test_what_was_written_and_not_yet_sent_never_arrives(tmp_path: Path) -> None:
    """threats.md, "Identity": measured at the receiver, which stands still meanwhile."""
    piece = b"x" * 65536

    async def script(_: StreamReader, writer: StreamWriter) -> None:
        while True:
            writer.write(piece)
            await writer.drain()

    origin = Origin(script)
    async with origin.running(), opened(tmp_path, to(origin)) as world:
        client = await tunnelled(world, origin)
        client.pause()
        (tunnel,) = [each for each in world.egress.deadlines.present() if isinstance(each, Tunnel)]
        await settled(lambda: tunnel.client.transport.get_write_buffer_size() > 0)
        assert cut_of(world, "me") == (1, 1)
        assert state_of(client) == TCP_CLOSE  # before the loop had another turn


def state_of(client: Peer) -> int:
    """Return the state that the kernel has the connection in."""
    sock = client.writer.get_extra_info("socket")
    state: int = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
    return state


def cut_of(world: World, *names: str) -> tuple[int, int]:
    revoke(world, *names)
    count, evidence = cut(world.egress, apps_only=True)
    return count, len(evidence)


async def test_another_apps_tunnel_goes_on(tmp_path: Path) -> None:
    async with patient().running() as origin, opened(tmp_path) as world:
        apps = (world.listener_app(to(origin)), token_app("coder", to(origin)))
        world.use_all(2, *apps)
        world.give_tokens("coder")
        mine = await tunnelled(world, origin, CODER)
        ambient = await tunnelled(world, origin)
        revoke(world, "coder", apps=apps)
        count, _ = cut(world.egress, apps_only=True)
        assert count == 1
        assert await is_reset(mine)
        ambient.send(b"still")
        await settled(lambda: b"still" in origin.heads)


async def test_a_request_under_way_is_cut(tmp_path: Path) -> None:
    async with patient().running() as origin, opened(tmp_path, to(origin)) as world:
        client = await world.client()
        client.send(get(f"example.com:{origin.port}"))
        await settled(lambda: bool(origin.heads))
        revoke(world, "me")
        _, evidence = cut(world.egress, apps_only=True)
        assert await is_reset(client)
        await settled(lambda: origin.heads[-1] == b"<reset>")
        await tell(evidence)
        denied = [line for line in await world.lines() if line["verdict"] == "deny"]
        assert [(line["fact"], line["reason"]) for line in denied] == [("request", "revoked")]


async def test_a_client_that_rests_and_its_origin_are_cut(tmp_path: Path) -> None:
    async with Origin().running() as origin, opened(tmp_path, to(origin)) as world:
        client = await world.client()
        client.send(get(f"example.com:{origin.port}"))
        assert (await client.reply()).status == 200
        await settled(lambda: len(world.egress.pool) == 1)
        assert cut_of(world, "me") == (2, 0)
        assert await is_reset(client)
        await settled(lambda: len(world.egress.pool) == 0)


async def test_a_last_response_that_is_not_read_is_cut(tmp_path: Path) -> None:
    """What is left of a response goes to nobody, though the request is over."""
    content = 4 << 20

    async def script(reader: StreamReader, writer: StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
        writer.write(head % content + b"x" * content)
        await writer.drain()

    origin = Origin(script)
    async with origin.running(), opened(tmp_path, to(origin)) as world:
        client = await world.client()
        client.pause()
        client.send(get(f"example.com:{origin.port}", "/", "Connection: close"))
        await settled(lambda: world.metrics.proxy_requests.value("forward", "allowed") == 1)
        count, _ = cut_of(world, "me")
        assert count >= 1
        client.resume()
        assert len(await client.rest()) < content


async def test_a_connect_that_is_being_looked_up_is_refused_with_the_reason(
    tmp_path: Path,
) -> None:
    """threats.md, "Order of checks": decided under generation N, registers after N+1."""
    async with patient().running() as origin, opened(tmp_path, to(origin)) as world:
        held = asyncio.Event()

        async def never(*_: object) -> None:
            await held.wait()

        world.names.resolve = never  # type: ignore[assignment,method-assign]  # a resolver that waits
        client = await world.client()
        client.send(connect(f"example.com:{origin.port}"))
        await settled(lambda: bool(world.egress.dials))
        assert cut_of(world, "me") == (1, 0)
        reply = await client.reply()
        assert (reply.status, reply.field("x-deny-reason")) == (403, "revoked")
        assert world.egress.dials == {}
        assert origin.connections == 0


async def test_a_connect_that_is_being_dialled_is_refused_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same, where the address was known and nothing was looked up."""
    async with patient().running() as origin, opened(tmp_path, to(origin)) as world:
        await tunnelled(world, origin)
        client = await world.client()
        begin = KnownDial.begin

        def begin_and_cut(dial: KnownDial) -> None:
            begin(dial)
            assert cut_of(world, "me") == (2, 1)

        monkeypatch.setattr(KnownDial, "begin", begin_and_cut)
        client.send(connect(f"example.com:{origin.port}"))
        reply = await client.reply()
        assert (reply.status, reply.field("x-deny-reason")) == (403, "revoked")


async def test_revoked_while_the_dial_succeeds_is_refused_with_the_reason(
    tmp_path: Path,
) -> None:
    """threats.md, "Order of checks": the generation is compared before the 2xx."""
    async with patient().running() as origin, opened(tmp_path, to(origin)) as world:
        world.names.meanwhile = lambda: revoke(world, "me")
        client = await world.client()
        client.send(connect(f"example.com:{origin.port}"))
        reply = await client.reply()
        assert (reply.status, reply.field("x-deny-reason")) == (403, "revoked")


async def test_what_is_asked_next_is_refused(tmp_path: Path) -> None:
    async with Origin().running() as origin, opened(tmp_path, to(origin)) as world:
        revoke(world, "me")
        for octets in (get(f"example.com:{origin.port}"), connect(f"example.com:{origin.port}")):
            reply = await world.ask(octets)
            assert (reply.status, reply.field("x-deny-reason")) == (403, "revoked")


async def test_a_revoked_token_cuts_all_that_it_opened(tmp_path: Path) -> None:
    async with patient().running() as origin, opened(tmp_path) as world:
        world.use_all(2, world.listener_app(to(origin)), token_app("coder", to(origin)))
        world.give_tokens("coder")
        mine = await tunnelled(world, origin, CODER)
        ambient = await tunnelled(world, origin)
        (known,) = world.tokens.all()
        gone = structs.replace(known, revoked=1.0)
        world.tokens.use({digest("spt_coder"): gone}, world.tokens.now())
        count, evidence = cut(world.egress, apps_only=False)
        assert (count, len(evidence)) == (1, 1)
        assert await is_reset(mine)
        ambient.send(b"still")
        await settled(lambda: b"still" in origin.heads)


async def test_an_upgraded_connection_is_cut(tmp_path: Path) -> None:
    origin = Origin()

    async def script(reader: StreamReader, writer: StreamWriter) -> None:
        await origin.read_head(reader)
        switch = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n"
        writer.write(switch + b"Upgrade: websocket\r\n\r\n")
        await reader.read()

    origin.script = script
    async with origin.running(), opened(tmp_path, to(origin)) as world:
        client = await world.client()
        fields = ("Connection: upgrade", "Upgrade: websocket")
        client.send(get(f"example.com:{origin.port}", "/", *fields))
        assert (await client.reply()).status == 101
        assert cut_of(world, "me") == (1, 1)
        assert await is_reset(client)


async def test_a_flow_that_cannot_be_judged_is_ended_and_the_others_are_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with patient().running() as origin, opened(tmp_path, to(origin)) as world:
        clients = [await tunnelled(world, origin) for _ in range(2)]
        halt, halted = Tunnel.halt, list[Tunnel]()

        def broken(tunnel: Tunnel, decision: Decision) -> object:
            halted.append(tunnel)
            if len(halted) == 1:
                raise ZeroDivisionError
            return halt(tunnel, decision)

        monkeypatch.setattr(Tunnel, "halt", broken)
        with caplog.at_level(logging.CRITICAL):
            assert cut_of(world, "me") == (2, 1)
        for client in clients:
            assert await client.rest() == b""


async def test_evidence_that_cannot_be_written_leaves_the_rest(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.egress.cut.SLICE_S", 0.0)
    told: list[int] = []

    def broken() -> None:
        raise ZeroDivisionError

    with caplog.at_level(logging.CRITICAL):
        await tell([broken, lambda: told.append(1)])
    assert told == [1]


@asynccontextmanager
async def tls_listener(world: World, folder: Path) -> AsyncIterator[tuple[int, ssl.SSLContext]]:
    """Serve the proxy over TLS; yield its port and what its clients trust."""
    authority = PrivateAuthority(folder)
    chain, key = authority.issue([LOCAL])
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(chain, key)
    trusting = ssl.create_default_context(cafile=str(authority.certificate))
    server = await asyncio.get_running_loop().create_server(
        lambda: world.egress.factory(world.listener), LOCAL, 0, ssl=context
    )
    async with server:
        yield server.sockets[0].getsockname()[1], trusting


async def test_a_connection_over_tls_is_reset_at_once(tmp_path: Path) -> None:
    """The client's leg of proxy_tls: what is reset is the TCP connection below."""
    async with (
        patient().running() as origin,
        opened(tmp_path, to(origin)) as world,
        tls_listener(world, tmp_path) as (port, trusting),
    ):
        client = Peer(*await asyncio.open_connection(LOCAL, port, ssl=trusting))
        client.send(connect(f"example.com:{origin.port}"))
        assert await client.head() == ESTABLISHED
        assert cut_of(world, "me") == (1, 1)
        assert state_of(client) == TCP_CLOSE
        await settled(lambda: origin.heads == [b"<reset>"])
        assert await client.rest() == b""
        client.abort()


async def test_revoked_while_the_handshake_is_under_way_is_refused(tmp_path: Path) -> None:
    """threats.md, "Order of checks": what is registered after the cut was decided after it."""
    async with (
        patient().running() as origin,
        opened(tmp_path, to(origin)) as world,
        tls_listener(world, tmp_path) as (port, trusting),
    ):
        reader, writer = await asyncio.open_connection(LOCAL, port)
        await settled(lambda: True)  # the server has accepted, and waits for a ClientHello
        assert cut_of(world, "me") == (0, 0)
        await writer.start_tls(trusting, server_hostname=LOCAL)
        client = Peer(reader, writer)
        client.send(connect(f"example.com:{origin.port}"))
        reply = await client.reply()
        assert (reply.status, reply.field("x-deny-reason")) == (403, "revoked")
        client.abort()
