"""The table of connections: bounded, watched, and gone through in turn."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator

import pytest

from proxy.limits import Limits
from proxy.workload.callers import Caller
from proxy.workload.connections import Connection, Connections
from proxy.workload.entitle import NOTHING, Entitlement
from tests.proxy.lines import until

CODER = Entitlement("coder", ("spiffe://a.example/coder",))


class Desk:
    """A table, and what it told."""

    def __init__(self) -> None:
        self.changed: list[tuple[int, Entitlement]] = []
        limits = Limits(workload_connections=4, workload_connections_per_uid=2)
        self.connections = Connections(limits, self._told)
        self.ends: list[socket.socket] = []

    def _told(self, each: Connection) -> None:
        self.changed.append((each.number, each.entitlement))

    def add(
        self,
        number: int,
        uid: int = 1,
        pidfd: int | None = None,
        entitlement: Entitlement = CODER,
    ) -> Connection:
        ours, theirs = socket.socketpair()
        self.ends.append(theirs)
        made = Connection(number, Caller(0, uid, pidfd), entitlement, ours)
        self.connections.add(made)
        return made


def _reap(child: int) -> None:
    os.waitpid(child, 0)


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    made = Desk()
    yield made
    made.connections.close()
    for each in made.ends:
        each.close()


async def test_each_uid_and_all_of_them_are_bounded(desk: Desk) -> None:
    desk.add(1)
    assert desk.connections.met(1) is None
    desk.add(2)
    assert desk.connections.met(1) == "workload_connections_per_uid"
    assert desk.connections.met(2) is None
    desk.add(3, uid=2)
    desk.add(4, uid=3)
    assert desk.connections.met(4) == "workload_connections"
    desk.connections.drop(1)
    assert desk.connections.met(1) is None
    desk.connections.drop(2)
    assert (len(desk.connections), desk.connections._of_uid) == (2, {2: 1, 3: 1})


async def test_who_is_entitled_to_nothing_leaves_half_of_the_room(desk: Desk) -> None:
    """A user with subordinate uids is many users: what is bounded per uid binds none of them."""
    desk.add(1, entitlement=Entitlement("coder"))
    assert desk.connections.is_for(NOTHING)
    desk.add(2, uid=2, entitlement=NOTHING)
    assert not desk.connections.is_for(NOTHING)
    assert desk.connections.is_for(CODER)
    desk.connections.drop(1)
    desk.add(3)
    assert desk.connections.is_for(NOTHING)


async def test_one_that_is_dropped_is_closed_with_all_that_is_its(desk: Desk) -> None:
    made = desk.add(1, pidfd=os.pidfd_open(os.getpid()))
    desk.connections.drop(1)
    desk.connections.drop(1)
    assert made.caller.pidfd is None
    assert made.socket is not None
    assert made.socket.fileno() == -1
    desk.connections.entitle(made, NOTHING)
    assert desk.changed == []


async def test_only_a_change_is_told(desk: Desk) -> None:
    made = desk.add(1)
    desk.connections.entitle(made, CODER)
    desk.connections.entitle(made, NOTHING)
    desk.connections.entitle(made, NOTHING)
    assert desk.changed == [(1, NOTHING)]


async def test_the_end_of_a_caller_is_told_once(desk: Desk) -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    desk.add(1, pidfd=os.pidfd_open(child))
    desk.add(2, pidfd=os.pidfd_open(os.getpid()))
    await until(lambda: bool(desk.changed))
    for _ in range(3):
        await asyncio.sleep(0)
    assert desk.changed == [(1, NOTHING)]
    _reap(child)


async def test_all_are_looked_at_in_turn(desk: Desk) -> None:
    def turn() -> list[int]:
        return [each.number for each in desk.connections.some(2)]

    assert turn() == []
    for number in (1, 2, 3):
        desk.add(number, uid=number)
    assert [turn(), turn(), turn()] == [[1, 2], [3], [1, 2]]
    desk.connections.drop(3)
    assert [turn(), turn()] == [[], [1, 2]]
    assert [each.number for each in desk.connections] == [1, 2]
