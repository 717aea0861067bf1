"""A sinkhole on loopback with ports of its own, and visitors."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any

import msgspec

from proxy.audit import Audit, AuditSettings
from proxy.config_sinkhole import SinkholeSettings
from proxy.identify import Identifier
from proxy.limits import Limits
from proxy.metrics import Metrics, SinkholeOutcome
from proxy.sinkhole.listen import Sinkhole
from proxy.sinkhole.visits import Desk
from proxy.transport.peer import PeerTable
from rules.decision import Decision, Reason, Refuse, Verdict
from rules.ruleset import App, IdentityLine, Ruleset
from tests.proxy.egress.world import Peer

V4 = IPv4Address("127.53.53.53")
V6 = IPv6Address("fd53::53")
BOTH = SinkholeSettings(str(V4), str(V6))
ID = "0192f3a1" * 4
LISTED = Decision(Verdict.DENY, Reason.LIST, "bad.txt:7", refuse=Refuse.SINKHOLE)
NEAR = ("127.0.0.1:5300", "[::1]:5300")
NOBODY = Ruleset(3, {})
US = Ruleset(3, {"us": App("us", identity=(IdentityLine("a.yaml:3", uid=os.getuid()),))})
"""Every process of our user is the app `us`."""


class Stand:
    """What tests look into."""

    def __init__(self, folder: Path, ruleset: Ruleset, limits: Limits) -> None:
        self.now = 1_790_000_000.0
        self.limits = limits
        self.metrics = Metrics()
        self.file = folder / "audit.jsonl"
        settings = AuditSettings(str(self.file))
        self.audit = Audit(settings, limits, self.metrics, time.time, os.urandom)
        self.peers = PeerTable(limits, time.time, lambda _: None)
        self.desk = Desk(
            Identifier(ruleset, self.peers), self.audit, limits, self.metrics,
            lambda: ruleset.generation, lambda: self.now,
        )  # fmt: skip
        self.sinkhole: Sinkhole
        self.ports: tuple[int, int] = (0, 0)
        self.clients: list[Peer] = []

    def counted(self, outcome: SinkholeOutcome) -> float:
        return self.metrics.sinkhole_connections.value(outcome)

    async def lines(self) -> list[dict[str, Any]]:
        """Return every audit line; ends the audit."""
        await self.audit.close()
        return [msgspec.json.decode(line) for line in self.file.read_bytes().splitlines()]

    async def visit(self, octets: bytes, *, tls: bool = False) -> bytes:
        """Send `octets`, and return what comes until the other end closes."""
        client = await self.client(tls=tls)
        client.send(octets)
        reply = await client.rest()
        client.abort()
        return reply

    async def client(self, *, tls: bool = False) -> Peer:
        """Return a connection, which ends with the stand."""
        client = Peer(*await asyncio.open_connection(str(V4), self.ports[tls]))
        self.clients.append(client)
        return client


@asynccontextmanager
async def opened(
    folder: Path, ruleset: Ruleset = NOBODY, limits: Limits | None = None
) -> AsyncIterator[Stand]:
    """Run a sinkhole of 127.53.53.53 on two free ports."""
    stand = Stand(folder, ruleset, limits or Limits())
    stand.audit.start()
    stand.sinkhole = Sinkhole(SinkholeSettings(str(V4)), NEAR, stand.desk, (0, 0))
    stand.sinkhole.bind()
    http, tls = stand.sinkhole.sockets
    stand.ports = http.getsockname()[1], tls.getsockname()[1]
    await stand.sinkhole.start()
    try:
        yield stand
    finally:
        for client in stand.clients:
            client.abort()
        await stand.sinkhole.close()
        stand.peers.close()
        await stand.audit.close()


async def settled(stand: Stand, outcome: SinkholeOutcome, count: int) -> None:
    """Let the loop run until so many visits ended so."""
    async with asyncio.timeout(10):
        while stand.counted(outcome) < count:  # noqa: ASYNC110 - nobody tells of it
            await asyncio.sleep(0.005)


def get(host: str | None, *fields: str, method: str = "GET", version: str = "1.1") -> bytes:
    """Return a request head."""
    named = [] if host is None else [f"Host: {host}"]
    return "\r\n".join([f"{method} / HTTP/{version}", *named, *fields, "", ""]).encode("latin-1")
