"""Seats: who is ended for whom."""

import asyncio
from functools import partial

import pytest

from proxy.transport.seats import Seats


class Peers:
    """Connections whose peers say something when told to."""

    def __init__(self, most: int) -> None:
        self.seats = Seats(most)
        self.said = [asyncio.Event() for _ in range(4)]
        self.answered = asyncio.Event()
        self.gone: list[int] = []

    async def serve(self, number: int) -> None:
        self.seats.waits()
        await self.said[number].wait()
        self.seats.works()
        await self.answered.wait()

    async def sit(self, *numbers: int) -> None:
        for number in numbers:
            self.seats.take(self.serve(number), partial(self.gone.append, number))
        await asyncio.sleep(0)


@pytest.fixture
def peers() -> Peers:
    return Peers(2)


async def test_there_is_room_until_every_seat_is_taken(peers: Peers) -> None:
    await peers.sit(0)
    assert peers.seats.has_room
    await peers.sit(1)
    full = not peers.seats.has_room
    assert full
    await peers.seats.close()


async def test_the_one_that_waits_longest_is_ended(peers: Peers) -> None:
    await peers.sit(0, 1)
    assert peers.seats.free()
    assert peers.seats.has_room
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert peers.gone == [0]
    await peers.seats.close()
    assert peers.gone == [0, 1]


async def test_one_that_is_answered_is_never_ended(peers: Peers) -> None:
    await peers.sit(0, 1)
    peers.said[0].set()
    await asyncio.sleep(0)
    assert peers.seats.free()
    assert not peers.seats.free()
    peers.answered.set()
    await peers.seats.close()
    assert sorted(peers.gone) == [0, 1]


async def test_one_that_never_began_is_ended_too(peers: Peers) -> None:
    peers.seats.take(peers.serve(0), lambda: peers.gone.append(0))
    assert peers.seats.free()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert peers.gone == [0]
    peers.seats.waits()  # from a task that has no seat: nothing happens
    assert not peers.seats.free()
