"""An upstream resolver that does as it is told, right or wrong.

Over UDP a script says which datagrams answer a query; over TCP or TLS it holds a conversation on
each connection.  Both are on one port of 127.0.0.1.  What arrived is recorded.
"""

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from pathlib import Path
from typing import cast, override

from proxy.wire.framing import frame
from proxy.wire.question import read_question

GOOD, BAD = "192.0.2.1", "203.0.113.66"
# RFC 4346, section 7.4.1.3: a ServerHello of TLS 1.1 with TLS_RSA_WITH_AES_128_CBC_SHA.
TLS_1_1_HELLO = bytes.fromhex("160302002a 02000026 0302" + "5a" * 32 + "00 002f 00")


class Elsewhere(bytes):
    """A datagram that is sent from another port."""

    __slots__ = ()


type DatagramScript = Callable[[bytes], Iterable[bytes]]
type StreamScript = Callable[["Conversation"], Awaitable[None]]


def question_end(message: bytes) -> int:
    return read_question(message).end


def answer(query: bytes, address: str = GOOD, rcode: int = 0, *, truncated: bool = False) -> bytes:
    """Return the answer A `address` to a query; without records for any other rcode or with TC."""
    flags = 0x8180 | rcode | (0x0200 if truncated else 0)
    question = query[12 : question_end(query)]
    head = query[:2] + flags.to_bytes(2) + b"\0\1"
    if rcode or truncated:
        return head + bytes(6) + question
    octets = bytes(map(int, address.split(".")))
    record = b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04" + octets
    return head + b"\0\1\0\0\0\0" + question + record


def _with_question(message: bytes, question: bytes) -> bytes:
    return message[:12] + question + message[question_end(message) :]


def _other_case(message: bytes) -> bytes:
    return _with_question(message, message[12 : question_end(message)].swapcase())


def _other_type(message: bytes) -> bytes:
    end = question_end(message)
    return message[: end - 3] + b"\x10" + message[end - 2 :]


def _other_class(message: bytes) -> bytes:
    end = question_end(message)
    return message[: end - 1] + b"\x03" + message[end:]


def _two_questions(message: bytes) -> bytes:
    end = question_end(message)
    return message[:4] + b"\0\2" + message[6:end] + message[12:end] + message[end:]


WRONG: dict[str, Callable[[bytes], bytes]] = {
    "id": lambda message: bytes((message[0] ^ 0x5A,)) + message[1:],
    "case": _other_case,
    "name": lambda message: _with_question(message, b"\x04evil\x07example\0\0\1\0\1"),
    "type": _other_type,
    "class": _other_class,
    "a query": lambda message: message[:2] + b"\x01" + message[3:],
    "opcode": lambda message: message[:2] + bytes((message[2] | 0x28,)) + message[3:],
    "two questions": _two_questions,
    "no question": lambda message: message[:4] + b"\0\0" + message[6:12],
    "question left out": lambda message: message[:12] + message[question_end(message) :],
    "compressed question": lambda message: _with_question(message, b"\xc0\x0c\0\1\0\1"),
    "cut in the question": lambda message: message[:20],
    "head only": lambda message: message[:12],
    "garbage": lambda message: b"\xff" * len(message),
}
"""What makes an answer none; each takes a right one."""


class Conversation:
    """One connection, as a script sees it; it is closed when the script returns."""

    def __init__(
        self, peer: "Hostile", reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._reader = reader
        self._writer = writer
        self.peer = peer
        self.number = peer.connections

    async def query(self) -> bytes:
        """Return the next query; IncompleteReadError when the other side closed."""
        length = int.from_bytes(await self._reader.readexactly(2))
        message = await self._reader.readexactly(length)
        self.peer.received(message)
        return message

    async def send(self, *messages: bytes) -> None:
        """Send messages, each after its length, in one write."""
        await self.send_octets(b"".join(map(frame, messages)))

    async def send_octets(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    @property
    def session_reused(self) -> bool:
        """Whether the other side took up a TLS session."""
        tls = cast("ssl.SSLObject", self._writer.get_extra_info("ssl_object"))
        return bool(tls.session_reused)

    async def read_some(self) -> bytes:
        """Return whatever comes next."""
        return await self._reader.read(65536)

    def reset(self) -> None:
        """Close with a TCP reset."""
        linger = struct.pack("ii", 1, 0)
        sock = self._writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self._writer.transport.abort()

    async def until_closed(self) -> None:
        """Wait until the other side closed the connection; what it says is dropped."""
        with contextlib.suppress(ConnectionError):
            while await self._reader.read(65536):
                pass


async def respond(talk: Conversation) -> None:
    """Answer every query at once."""
    while True:
        await talk.send(answer(await talk.query()))


async def be_silent(talk: Conversation) -> None:
    """Take every query and say nothing."""
    while True:
        await talk.query()


class Hostile(asyncio.DatagramProtocol):
    """The upstream: its port, and what came to it."""

    def __init__(self, datagrams: DatagramScript) -> None:
        self._script = datagrams
        self._waiters: list[tuple[Callable[[Hostile], bool], asyncio.Future[None]]] = []
        self.port = 0
        self.queries: list[bytes] = []  # over either transport, in order of arrival
        self.sources: list[tuple[str, int]] = []  # of datagrams
        self.connections = 0
        self.closed = 0  # of those connections

    def url(self, transport: str) -> str:
        return f"{transport}://127.0.0.1:{self.port}"

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)
        self._lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._lost.set_result(None)

    @override
    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.sources.append(addr)
        self.received(data)
        for reply in self._script(data):
            (self._other if isinstance(reply, Elsewhere) else self._transport).sendto(reply, addr)

    def send_datagram(self, data: bytes, to: tuple[str, int]) -> None:
        """Send something outside the script."""
        self._transport.sendto(data, to)

    def received(self, query: bytes) -> None:
        self.queries.append(query)
        self._tell()

    async def until(self, condition: Callable[["Hostile"], bool]) -> None:
        """Wait until what came to it fulfils a condition."""
        arrived = asyncio.get_running_loop().create_future()
        self._waiters.append((condition, arrived))
        self._tell()
        async with asyncio.timeout(10):
            await arrived

    @contextlib.asynccontextmanager
    async def _listening(
        self, converse: StreamScript, tls: ssl.SSLContext | None
    ) -> AsyncIterator["Hostile"]:
        loop = asyncio.get_running_loop()
        server = await asyncio.start_server(self._talk(converse), "127.0.0.1", 0, ssl=tls)
        self.port = server.sockets[0].getsockname()[1]
        address = ("127.0.0.1", self.port)
        await loop.create_datagram_endpoint(lambda: self, local_addr=address)
        self._other, _ = await loop.create_datagram_endpoint(
            asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0)
        )
        self._talks: set[asyncio.Task[None]] = set()
        try:
            yield self
        finally:
            server.close()
            for talk in self._talks:
                talk.cancel()
            await asyncio.gather(*self._talks, return_exceptions=True)
            self._other.close()
            self._transport.close()
            await self._lost

    def _talk(
        self, converse: StreamScript
    ) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self._talks.add(cast("asyncio.Task[None]", asyncio.current_task()))
            self.connections += 1
            try:
                await converse(Conversation(self, reader, writer))
            except (EOFError, ConnectionError):
                pass  # the other side closed
            finally:
                writer.transport.abort()  # what was written before is in the kernel
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
                self.closed += 1
                self._tell()

        return talk

    def _tell(self) -> None:
        for condition, arrived in self._waiters:
            if not arrived.done() and condition(self):
                arrived.set_result(None)


def nothing(_query: bytes) -> Iterable[bytes]:
    """Answer no datagram."""
    return ()


def right(query: bytes) -> Iterable[bytes]:
    """Answer every datagram."""
    return (answer(query),)


@contextlib.asynccontextmanager
async def hostile(
    datagrams: DatagramScript = nothing,
    converse: StreamScript = respond,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[Hostile]:
    """Run an upstream with these scripts until the block ends."""
    peer = Hostile(datagrams)
    async with peer._listening(converse, tls):
        yield peer


def open_sockets() -> set[str]:
    """Return the sockets of this process by inode, to see what was left behind."""
    found = set()
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # the folder's own descriptor is gone by now
            found.add(str(descriptor.readlink()))
    return {target for target in found if target.startswith("socket:")}
