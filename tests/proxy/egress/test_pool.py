"""Idle connections to origins: who may have them, and how many there are."""

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest

from proxy.egress.deadlines import Deadlines
from proxy.egress.origin import OriginConnection, OriginKey
from proxy.egress.pool import OriginPool
from proxy.limits import Limits
from proxy.metrics import Metrics
from rules.address import parse_address
from rules.facts import Principal
from rules.name import parse
from tests.proxy.egress.world import Origin, settled

LIMITS = Limits(origin_pool=3, origin_pool_per_origin=2, proxy_tick_s=0.02)


class Resting:
    """A pool, an origin to connect to, and what closes it."""

    def __init__(self, origin: Origin, limits: Limits) -> None:
        self.metrics = Metrics()
        self.pool = OriginPool(limits, self.metrics)
        self.deadlines = Deadlines(limits.proxy_tick_s)
        self._origin = origin

    async def connect(self, host: str = "example.com", app: str = "me") -> OriginConnection:
        key = self.key(host, app)
        _, connection = await asyncio.get_running_loop().create_connection(
            lambda: OriginConnection(
                self.deadlines, self.pool.forget, key, parse_address("127.0.0.1"), "127.0.0.1"
            ),
            self._origin.host,
            self._origin.port,
        )
        return connection

    def key(self, host: str = "example.com", app: str = "me") -> OriginKey:
        return OriginKey(Principal(app), parse(host), self._origin.port)


@pytest.fixture
async def resting() -> AsyncIterator[Resting]:
    async with Origin().running() as origin:
        world = Resting(origin, LIMITS)
        yield world
        world.pool.close()
        await world.deadlines.drain(0.1)


async def test_gives_back_what_rested_last(resting: Resting) -> None:
    first, second = await resting.connect(), await resting.connect()
    resting.pool.put(first)
    resting.pool.put(second)
    assert len(resting.pool) == 2
    assert resting.pool.take(resting.key()) is second
    assert resting.pool.take(resting.key()) is first
    assert resting.pool.take(resting.key()) is None
    assert (len(resting.pool), resting.pool._idle) == (0, {})


@pytest.mark.parametrize(("host", "app"), [("example.org", "me"), ("example.com", "other")])
async def test_keeps_hosts_and_apps_apart(resting: Resting, host: str, app: str) -> None:
    """threats.md, "Between name and address": "pooled connection reused for another name"."""
    resting.pool.put(await resting.connect())
    assert resting.pool.take(resting.key(host, app)) is None


async def test_is_bounded_per_origin_and_in_all(resting: Resting) -> None:
    for _ in range(3):
        resting.pool.put(await resting.connect())
    assert len(resting.pool) == 2
    assert resting.metrics.bounds.value("origin_pool_per_origin") == 1
    for _ in range(2):
        resting.pool.put(await resting.connect("example.org"))
    assert len(resting.pool) == 3
    assert resting.metrics.bounds.value("origin_pool") == 1


async def test_forgets_what_is_lost(resting: Resting) -> None:
    origin = await resting.connect()
    resting.pool.put(origin)
    origin.transport.abort()
    await settled(lambda: len(resting.pool) == 0)
    resting.pool.forget(origin)
    assert len(resting.pool) == 0


async def test_passes_over_what_is_closing(resting: Resting) -> None:
    origin = await resting.connect()
    resting.pool.put(origin)
    origin.transport.abort()
    assert resting.pool.take(resting.key()) is None
    resting.pool.put(origin)
    assert len(resting.pool) == 0


async def test_an_old_connection_does_not_rest(resting: Resting) -> None:
    origin = await resting.connect()
    origin.born -= LIMITS.origin_life_s
    resting.pool.put(origin)
    assert len(resting.pool) == 0
    assert origin.transport.is_closing()


async def test_what_rests_too_long_ends() -> None:
    async with Origin().running() as server:
        resting = Resting(server, msgspec.structs.replace(LIMITS, origin_idle_s=0.05))
        resting.pool.put(await resting.connect())
        await settled(lambda: len(resting.pool) == 0)
        await resting.deadlines.drain(0.1)
