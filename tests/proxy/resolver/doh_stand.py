"""A DoH listener made of the real parts, with a certificate, and clients that speak to it."""

import asyncio
import ssl
import subprocess
import time
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import dns.message
from msgspec import Struct

from proxy.agent_api.api import AgentApi
from proxy.identify import Identifier
from proxy.limits import Limits
from proxy.resolver.doh import ALPN, DohPlane
from proxy.tokens.known import Token, Tokens, digest
from proxy.transport.handshake import ListenerTls
from proxy.transport.listen import Listener, bind_tcp
from proxy.transport.peer import PeerTable
from proxy.transport.server_tls import ServerTls
from rules.ruleset import App, IdentityLine, Ruleset
from tests.authority import PrivateAuthority
from tests.proxy.composed import Composed, allow, below, composed, exact, ruleset
from tests.proxy.resolver.hostile import answer

PUBLIC = "93.184.215.14"
LABEL = "127.0.0.1:0"
ALLOWED = (allow(exact("example.com"), below("example.net")),)
BOT = IdentityLine("f:2", token="bot")  # noqa: S106 - a token's name
RULES = ruleset(
    me=App("me", identity=(IdentityLine("f:1", listener=LABEL),), allows=ALLOWED),
    bot=App("bot", identity=(BOT,), allows=(allow(exact("bot.example")),)),
)
SECRET = "spt_" + "a" * 43
MESSAGE = "application/dns-message"


def public(query: bytes) -> Iterable[bytes]:
    return (answer(query, PUBLIC),)


class Served(Struct):
    """A running listener; `ca` is what its clients trust."""

    parts: Composed
    plane: DohPlane
    listener: Listener
    port: int
    ca: Path
    tokens: Tokens

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}/dns-query"

    def context(self, *alpn: str) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.ca)
        context.set_alpn_protocols(list(alpn))
        return context

    def bounds(self, bound: str) -> int:
        return self.parts.metrics.bounds.value(bound)


def wire(name: str, unique: int = 0, **options: int) -> bytes:
    message = dns.message.make_query(name, "A", use_edns=0, **options)  # type: ignore[arg-type]  # numbers only
    message.id = unique
    return message.to_wire()


def parameter(octets: bytes) -> str:
    return urlsafe_b64encode(octets).rstrip(b"=").decode()


@asynccontextmanager
async def served(
    upstream: str,
    folder: Path,
    limits: Limits | None = None,
    rules: Ruleset = RULES,
    api: AgentApi | None = None,
) -> AsyncIterator[Served]:
    limits = limits or Limits()
    authority = PrivateAuthority(folder)
    chain, key = authority.issue(["127.0.0.1", "localhost"])
    async with composed(rules, upstream, folder, limits) as parts:
        peers = PeerTable(limits, lambda: 4e9, lambda _: None)
        tokens = Tokens(time.time)
        known = Token(id="bot.1", name="bot", created=0.0, expires=4e9)
        tokens.use({digest(SECRET): known}, time.time())
        identifier = Identifier(rules, peers, tokens)
        plane = DohPlane(parts.resolver, identifier, parts.refusals, limits, parts.metrics, api)
        tls = ListenerTls(ServerTls(chain, key, ALPN), 64, 10.0, parts.metrics.bounds.add)
        sock = bind_tcp("127.0.0.1", 0)
        port: int = sock.getsockname()[1]
        listener = Listener(
            sock,
            plane.factory,
            8,
            lambda: parts.metrics.bounds.add("dns_tcp_connections"),
            LABEL,
            tls,
        )
        await listener.start()
        try:
            yield Served(parts, plane, listener, port, authority.certificate, tokens)
        finally:
            await listener.close()
            peers.close()


async def run(*command: str) -> str:
    child = await asyncio.create_subprocess_exec(
        *command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    output, _ = await child.communicate()
    return output.decode()


class Reply(Struct, frozen=True):
    """A response over HTTP/1.1."""

    status: int
    phrase: str
    fields: Mapping[str, str]
    content: bytes


class Http1Client:
    """One connection of HTTP/1.1, octet by octet."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def ask(self, octets: bytes) -> Reply:
        self.writer.write(octets)
        return await self.reply()

    async def reply(self, *, is_head: bool = False) -> Reply:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        _, status, phrase = head[0].split(" ", 2)
        fields = dict(line.split(": ", 1) for line in head[1:] if line)
        length = 0 if is_head else int(fields.get("content-length", "0"))
        return Reply(int(status), phrase, fields, await self.reader.readexactly(length))


@asynccontextmanager
async def http1(it: Served, *alpn: str) -> AsyncIterator[Http1Client]:
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", it.port, ssl=it.context(*(alpn or ("http/1.1",)))
    )
    try:
        yield Http1Client(reader, writer)
    finally:
        writer.transport.abort()


def get(target: str, *fields: str, host: str = "localhost", method: str = "GET") -> bytes:
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}", *fields]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def post(content: bytes, *fields: str, media: str = MESSAGE) -> bytes:
    more = (f"Content-Type: {media}", f"Content-Length: {len(content)}", *fields)
    return get("/dns-query", *more, method="POST") + content
