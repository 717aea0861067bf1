"""A proxy made of the real parts on loopback, origins that misbehave on demand, and clients."""

import asyncio
import os
import socket
import ssl
import struct
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import msgspec
from msgspec import structs

from proxy.agent_api.api import AgentApi
from proxy.audit import Audit, AuditSettings
from proxy.authorize import Authorizer
from proxy.egress.identity_context import IdentityContexts
from proxy.egress.parent import Parent
from proxy.egress.plane import Egress
from proxy.flow import Flow
from proxy.identify import Identifier
from proxy.limits import Limits
from proxy.metrics import Metrics
from proxy.refusals import Refusals
from proxy.resolver.resolution import Resolution
from proxy.tokens.known import Token, Tokens, digest
from proxy.transport.listen import Listener, bind_tcp
from proxy.transport.own import OwnSockets
from proxy.transport.peer import PeerTable
from rules.address import Address, parse_address
from rules.decision import Decision
from rules.match import index_rules
from rules.name import DomainName
from rules.ruleset import AllowRule, App, DenyRule, IdentityLine, Ruleset

type Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

LOCAL = "127.0.0.1"
LOOPBACK = "127.0.0.0/8"
QUICK = Limits(proxy_tick_s=0.02)
PATIENCE_S = 10.0


class Reply(msgspec.Struct):
    """A response as a client read it."""

    status: int
    phrase: str
    fields: list[tuple[str, str]]
    body: bytes

    def field(self, name: str) -> str | None:
        return next((value for key, value in self.fields if key == name), None)


class Peer:
    """One end of a connection in a test's hands."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, octets: bytes) -> None:
        self.writer.write(octets)

    def end(self) -> None:
        self.writer.write_eof()

    async def head(self) -> bytes:
        """Return the octets of a head, b"" at the end of the stream."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                return await self.reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as error:
            return error.partial

    async def reply(self, *, is_head: bool = False) -> Reply:
        """Return the next response with its content."""
        lines = (await self.head()).decode("latin-1").split("\r\n")
        _, status, phrase = (*lines[0].split(" ", 2), "")[:3]
        pairs = [line.partition(":") for line in lines[1:] if line]
        fields = [(name.lower(), value.strip()) for name, _, value in pairs]
        reply = Reply(int(status), phrase, fields, b"")
        empty = is_head or reply.status in {100, 101, 103, 204, 304}
        if not empty and reply.field("transfer-encoding") == "chunked":
            reply.body = await self._chunks()
        elif not empty and (length := reply.field("content-length")) is not None:
            reply.body = await self.exactly(int(length))
        elif not empty and reply.phrase != "Connection established":
            reply.body = await self.rest()
        return reply

    async def exactly(self, octets: int) -> bytes:
        async with asyncio.timeout(PATIENCE_S):
            return await self.reader.readexactly(octets)

    async def rest(self) -> bytes:
        """Return everything until the end; a reset counts as one."""
        read = b""
        try:
            async with asyncio.timeout(PATIENCE_S):
                while data := await self.reader.read(65536):
                    read += data
        except ConnectionError:
            pass
        return read

    def abort(self) -> None:
        self.writer.transport.abort()

    def pause(self) -> None:
        """Read no more."""
        cast("asyncio.Transport", self.writer.transport).pause_reading()

    def resume(self) -> None:
        """Read on."""
        cast("asyncio.Transport", self.writer.transport).resume_reading()

    def reset(self) -> None:
        """Close with a reset."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def _chunks(self) -> bytes:
        body = b""
        while octets := int(await self.reader.readline(), 16):
            body += await self.exactly(octets + 2)
            body = body[:-2]
        while (line := await self.reader.readline()) != b"\r\n":
            body += b"[" + line.strip() + b"]"  # a trailer, shown
        return body


class Origin:
    """A server that runs `script` on each connection and keeps the heads that it saw."""

    def __init__(self, script: Script | None = None) -> None:
        self.script = script or self.serve
        self.heads: list[bytes] = []
        self.connections = 0
        self.host = LOCAL
        self.port = 0
        self._tasks: set[asyncio.Task[Any]] = set()

    @asynccontextmanager
    async def running(
        self, host: str = LOCAL, port: int = 0, tls: ssl.SSLContext | None = None
    ) -> AsyncIterator["Origin"]:
        self.host = host
        server = await asyncio.start_server(self._accept, host, port, ssl=tls)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def read_head(self, reader: asyncio.StreamReader) -> bytes:
        head = await reader.readuntil(b"\r\n\r\n")
        self.heads.append(head)
        return head

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer every request with `ok`."""
        while True:
            await self.read_head(reader)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self.script(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()


def saying(*octets: bytes, close: bool = False) -> Origin:
    """Return an origin that answers each head with the next of `octets`."""
    origin = Origin()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in octets:
            await origin.read_head(reader)
            writer.write(answer)
        if not close:
            await reader.read()

    origin.script = script
    return origin


class Names:
    """A stand-in for the resolver: what each name stands for, or why it has no address."""

    def __init__(self, authorizer: Authorizer) -> None:
        self.table: dict[str, list[str] | Decision] = {}
        self.asked: list[tuple[str, frozenset[int]]] = []
        self.flow = ""
        self.chain: tuple[DomainName, ...] = ()
        self.meanwhile: Callable[[], object] = lambda: None
        self._authorizer = authorizer

    async def resolve(self, flow: Flow, name: DomainName, types: frozenset[int]) -> Resolution:
        self.asked.append((name, types))
        generation = self._authorizer.generation
        found = self.table.get(name, [LOCAL])
        await asyncio.sleep(0)
        self.meanwhile()
        if isinstance(found, Decision):
            return Resolution((), generation, found, flow.id)
        addresses, errand = tuple(map(parse_address, found)), self.flow or flow.id
        return Resolution(addresses, generation, flow=errand, chain=self.chain)


class World:
    """The proxy, and what tests look into."""

    def __init__(self, folder: Path, limits: Limits) -> None:
        self.limits = limits
        self.metrics = Metrics()
        self.file = folder / "audit.jsonl"
        settings = AuditSettings(str(self.file))
        self.audit = Audit(settings, limits, self.metrics, time.time, os.urandom)
        self.refusals = Refusals(limits, self.metrics)
        self.authorizer: Authorizer
        self.names: Names
        self.egress: Egress
        self.listener: Listener
        self.identifier: Identifier
        self.tokens = Tokens(time.time)
        self.where = ""  # of the listener
        self.own = OwnSockets(set(), set())
        self.clients: list[Peer] = []

    @property
    def port(self) -> int:
        port: int = self.listener.socket.getsockname()[1]
        return port

    def use(self, generation: int, *rules: AllowRule | DenyRule) -> None:
        """Put `rules` of the app `me` in force."""
        self.use_all(generation, self.listener_app(*rules))

    def use_all(self, generation: int, *apps: App) -> None:
        """Put exactly these apps in force, for decisions and for identities."""
        ruleset = Ruleset(generation, {app.name: app for app in apps})
        self.authorizer.use(index_rules(ruleset))
        self.identifier.use(ruleset)

    def listener_app(self, *rules: AllowRule | DenyRule) -> App:
        """Return the app `me`, which is who comes to the listener, with `rules`."""
        return _app(self.where, rules)

    def give_tokens(self, *names: str) -> None:
        """Let exactly these tokens be valid; the secret of each is `spt_` and its name."""
        self.tokens.use(
            {
                digest(f"spt_{name}"): Token(id=f"{name}.1", name=name, created=0, expires=1e12)
                for name in names
            },
            self.tokens.now(),
        )

    async def client(self) -> Peer:
        """Return a connection to the proxy, which ends with the world."""
        peer = Peer(*await asyncio.open_connection(LOCAL, self.port))
        self.clients.append(peer)
        return peer

    async def ask(self, octets: bytes, *, is_head: bool = False) -> Reply:
        """Return the proxy's response to `octets` on a connection of its own."""
        client = await self.client()
        client.send(octets)
        reply = await client.reply(is_head=is_head)
        client.abort()
        return reply

    async def lines(self) -> list[dict[str, Any]]:
        """Return every audit line; ends the audit."""
        await self.audit.close()
        return [msgspec.json.decode(line) for line in self.file.read_bytes().splitlines()]


def token_app(name: str, *rules: AllowRule | DenyRule) -> App:
    """Return an app that is who presents the token of its name, with `rules`."""
    line = IdentityLine(f"{name}.yaml:3", token=name)
    return structs.replace(_app("", rules), name=name, identity=(line,))


def basic(user: str, secret: str, field: str = "Proxy-Authorization") -> str:
    """Return the field that presents a token as HTTP clients do (RFC 7617)."""
    return f"{field}: Basic {b64encode(f'{user}:{secret}'.encode()).decode()}"


def _app(listener: str, rules: Iterable[AllowRule | DenyRule]) -> App:
    every = tuple(rules)
    return App(
        "me",
        identity=(IdentityLine("me.yaml:3", listener=listener),),
        allows=tuple(rule for rule in every if isinstance(rule, AllowRule)),
        denies=tuple(rule for rule in every if isinstance(rule, DenyRule)),
    )


@asynccontextmanager
async def opened(
    folder: Path,
    *rules: AllowRule | DenyRule,
    limits: Limits = QUICK,
    parent: Parent | None = None,
    identities: Callable[[World], IdentityContexts] | None = None,
    api: AgentApi | None = None,
) -> AsyncIterator[World]:
    """Run a proxy whose listener is the app `me` with `rules`."""
    world = World(folder, limits)
    sock = bind_tcp(LOCAL, 0)
    where = f"{LOCAL}:{sock.getsockname()[1]}"
    world.where = where
    ruleset = Ruleset(1, {"me": _app(where, rules)})
    world.authorizer = Authorizer(index_rules(ruleset), world.audit, world.refusals, world.metrics)
    world.names = Names(world.authorizer)
    peers = PeerTable(limits, time.time, lambda _: None)
    world.own.listeners.add((parse_address(LOCAL), sock.getsockname()[1]))
    world.identifier = Identifier(ruleset, peers, world.tokens)
    world.egress = Egress(
        world.authorizer, world.identifier, world.names, world.own, limits,
        world.metrics, world.refusals, time.time, os.urandom, parent,
        None if identities is None else identities(world), api,
    )  # fmt: skip
    world.audit.start()
    world.listener = Listener(
        sock,
        world.egress.factory,
        limits.proxy_connections,
        lambda: world.metrics.bounds.add("proxy_connections"),
    )
    await world.listener.start()
    try:
        yield world
    finally:
        for client in world.clients:
            client.abort()
        world.listener.stop()
        await world.egress.close(0.1)
        await world.listener.close()
        peers.close()
        await world.audit.close()


async def settled(is_so: Callable[[], bool]) -> None:
    """Let the loop run until `is_so`."""
    async with asyncio.timeout(PATIENCE_S):
        while not is_so():  # noqa: ASYNC110 - what is waited for has no event of its own
            await asyncio.sleep(0.005)


def get(host: str, path: str = "/", *fields: str, method: str = "GET") -> bytes:
    """Return a request in absolute-form."""
    lines = [f"{method} http://{host}{path} HTTP/1.1", f"Host: {host}", *fields, "", ""]
    return "\r\n".join(lines).encode("latin-1")


def connect(authority: str, *fields: str) -> bytes:
    """Return a CONNECT request."""
    lines = [f"CONNECT {authority} HTTP/1.1", f"Host: {authority}", *fields, "", ""]
    return "\r\n".join(lines).encode("latin-1")


def addresses(*texts: str) -> list[Address]:
    """Return the addresses that `texts` spell."""
    return [parse_address(text) for text in texts]
