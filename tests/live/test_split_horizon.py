"""Split horizon seen from the wire: every packet of a namespace is read, whoever sent it.

The zone's upstream is NSD; the other one records what it is asked.  Do53 throughout, so that a
name on its way can be read.
"""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from proxy.errors import UpstreamError
from proxy.limits import Limits
from proxy.metrics import Metrics
from proxy.resolver.upstream_url import parse_groups, parse_zones
from proxy.resolver.zones import ZonedUpstreams, zoned_upstreams
from proxy.transport.tls import upstream_context
from proxy.wire.question import write_name
from rules.name import DomainName, parse
from rules.rtype import AAAA, TXT, A
from tests.internet import ETH_P_ALL, OUTGOING, Namespace, Packet, read_packet
from tests.proxy.resolver.hostile import Hostile, hostile, right
from tests.proxy.resolver.peers import nsd

pytestmark = pytest.mark.live

# Everything that could lead a question astray comes soon and often.
HASTY = Limits(
    upstream_timeout_s=0.5,
    upstream_try_s=0.1,
    upstream_hedge_s=0.01,
    upstream_failures=1,
    upstream_open_s=0.001,
    upstream_open_most_s=0.001,
)
INNER = [parse(name) for name in ("www.example", "alias.example", "no.www.example", "example")]
OUTER = [parse(name) for name in ("www.example.com", "notexample", "example.net")]


class Wire:
    """What the loopback of a namespace carried; read when it is over."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        self._socket.setblocking(False)
        self._packets: list[Packet] = []

    def ports_that_heard(self, name: DomainName) -> set[int]:
        """Return the ports to which a packet with the name went, answers left out."""
        wanted = write_name(name)
        return {
            packet.port
            for packet in self.packets()
            if any(wanted == _question(message) for message in _messages(packet))
        }

    def packets(self) -> list[Packet]:
        with contextlib.suppress(BlockingIOError):
            while True:
                data, (_, _, kind, *_) = self._socket.recvfrom(65535)
                if kind == OUTGOING:
                    self._packets.extend(read_packet(data))
        return self._packets

    def close(self) -> None:
        self._socket.close()


def _messages(packet: Packet) -> Iterator[bytes]:
    """Yield a payload as a message, and as one behind its length; answers are dropped."""
    for message in (packet.payload, packet.payload[2:]):
        if len(message) > 12 and not message[2] & 0x80:
            yield message


def _question(message: bytes) -> bytes:
    return message[12 : message.find(b"\0", 12) + 1].lower()


@pytest.fixture
def wire() -> Iterator[Wire]:
    with Namespace.made("zones") as namespace, namespace.entered():
        recording = Wire()
        yield recording
        recording.close()


@contextlib.asynccontextmanager
async def zoned(others: Hostile, port: int) -> AsyncIterator[ZonedUpstreams]:
    zone = [[f"udp://127.0.0.1:{port}"], [f"tcp://127.0.0.1:{port}"]]
    upstreams = zoned_upstreams(
        parse_groups([[others.url("udp")], [others.url("tcp")]]),
        parse_zones({"example": zone}),
        HASTY,
        Metrics(),
        make_context=lambda alpn: upstream_context(None, alpn),
        is_own=lambda *_: False,
    )
    try:
        yield upstreams
    finally:
        await upstreams.close()


async def ask_all(upstreams: ZonedUpstreams) -> list[bytes | BaseException]:
    names = [*INNER, *OUTER]
    return await asyncio.gather(
        *(upstreams.ask(name, rtype) for name in names for rtype in (A, AAAA, TXT)),
        return_exceptions=True,
    )


async def test_no_name_is_on_the_wire_to_the_other_horizon(wire: Wire, tmp_path: Path) -> None:
    """threats.md: Forwarding a denied name at all, for names of another horizon.

    First with NSD there, then with NSD gone, so that failover and trials have their reason.
    """
    async with hostile(right) as others:
        with nsd(tmp_path) as port:
            async with zoned(others, port) as upstreams:
                answers = await ask_all(upstreams)
                assert all(isinstance(each, bytes) for each in answers)
                www = await upstreams.ask(parse("www.example"), A)
                assert socket.inet_aton("192.0.2.1") in www
        async with zoned(others, port) as upstreams:
            for _ in range(3):
                answers = await ask_all(upstreams)
            assert sum(isinstance(each, UpstreamError) for each in answers) == 3 * len(INNER)
        for name in INNER:
            assert wire.ports_that_heard(name) == {port}, name
        for name in OUTER:
            assert wire.ports_that_heard(name) == {others.port}, name
