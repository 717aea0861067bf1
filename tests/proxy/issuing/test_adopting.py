import asyncio
import os
import socket
from collections.abc import Iterator

import pytest

from proxy.channel import Adopt, Entitle
from proxy.issuing.adopting import Adopted
from proxy.issuing.caller import Caller
from proxy.limits import Limits
from tests.proxy.issuing.stand import until

LIMITS = Limits(workload_idle_s=60.0)
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"
PING, PONG = (b"\0\0\x08\x06%c\0\0\0\0" % flags + b"12345678" for flags in (0, 1))


class Table:
    def __init__(self) -> None:
        self.callers: list[Caller] = []
        self.kinds: list[str] = []
        self.gone: list[int] = []
        self.adopted = Adopted(self._services, LIMITS, lambda *_: None, self.gone.append)
        self.sockets: list[socket.socket] = []

    def _services(self, kind: str, caller: Caller) -> tuple[()]:
        self.kinds.append(kind)
        self.callers.append(caller)
        return ()

    def adopt(self, number: int) -> socket.socket:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self.sockets.append(ours)
        self.adopted.adopt(Adopt(number, "workload", "coder", ("a",)), theirs.detach())
        return ours


@pytest.fixture
def table() -> Iterator[Table]:
    found = Table()
    yield found
    for each in found.sockets:
        each.close()


async def greeted(sock: socket.socket) -> bytes:
    return await asyncio.get_running_loop().sock_recv(sock, 65536)


async def test_a_connection_is_served_for_its_caller_until_it_ends(table: Table) -> None:
    sock = table.adopt(7)
    assert (await greeted(sock))[3] == 4  # RFC 9113, section 3.4: SETTINGS first
    assert (table.kinds, len(table.adopted)) == (["workload"], 1)
    assert [(each.number, each.app, each.ids) for each in table.callers] == [(7, "coder", ("a",))]
    sock.close()
    await until(lambda: table.gone == [7])
    assert len(table.adopted) == 0


async def test_an_entitlement_reaches_its_connection_alone(table: Table) -> None:
    one, two = table.adopt(1), table.adopt(2)
    for each in (one, two):
        await greeted(each)
    table.adopted.entitle(Entitle(2, "other", ("b",)))
    table.adopted.entitle(Entitle(3, "other", ("b",)))  # gone by now
    assert [each.ids for each in table.callers] == [("a",), ("b",)]
    table.adopted.close()
    await until(lambda: sorted(table.gone) == [1, 2])


async def test_a_connection_without_a_call_is_ended_in_time(table: Table) -> None:
    sock = table.adopt(1)
    await greeted(sock)
    for now in (0.0, 30.0, 59.9):
        table.adopted.sweep(now)
    await asyncio.sleep(0)
    assert table.gone == []
    protocol = table.adopted._open[1]
    protocol.calls += 1  # a call came and went
    table.adopted.sweep(60.0)
    table.adopted.sweep(119.0)
    assert len(table.adopted) == 1
    table.adopted.sweep(121.0)
    await until(lambda: table.gone == [1])


async def test_a_connection_that_has_not_begun_is_not_swept(table: Table) -> None:
    """A workload that connects just when idle ones are looked for ended the issuer."""
    sock = table.adopt(1)
    table.adopted.sweep(0.0)
    await greeted(sock)
    table.adopted.sweep(61.0)
    assert len(table.adopted) == 1
    table.adopted.close()
    await until(lambda: table.gone == [1])


async def test_many_frames_in_one_piece_are_taken_in_turns(table: Table) -> None:
    """threats.md, "Parser": one flood of small frames is not to hold up every other caller."""
    sock = table.adopt(1)
    await greeted(sock)
    protocol, pings = table.adopted._open[1], 500
    protocol.data_received(PREFACE + PING * pings)
    assert len(protocol._unread) > len(PING) * pings // 2
    answered = b""
    while len(answered) < len(PING) * pings:
        answered += await greeted(sock)
    assert answered.count(PONG) == pings
    protocol.data_received(PING * pings)
    protocol.abort()
    await until(lambda: table.gone == [1])
    assert not protocol._unread


async def test_a_connection_with_a_call_is_never_idle(table: Table) -> None:
    await greeted(table.adopt(1))
    protocol = table.adopted._open[1]
    stream = protocol.connection.create_stream(stream_id=1)
    release = protocol.processor.register(stream)
    for now in (0.0, 100.0, 200.0):
        table.adopted.sweep(now)
    assert len(table.adopted) == 1
    release()
    release()  # a second time is none
    table.adopted.close()
    await until(lambda: table.gone == [1])


async def test_what_is_no_socket_is_gone_at_once(table: Table) -> None:
    reading, writing = os.pipe()
    table.adopted.adopt(Adopt(1, "workload"), reading)
    await until(lambda: table.gone == [1])
    os.close(writing)


async def test_what_the_loop_refuses_is_gone_at_once_and_closed(table: Table) -> None:
    """The loop raises a ValueError there: the entry stayed, and the task's end was nobody's."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    fd = theirs.detach()
    with ours:
        table.adopted.adopt(Adopt(1, "workload"), fd)
        await until(lambda: table.gone == [1])
        assert len(table.adopted) == 0
        with pytest.raises(ConnectionRefusedError):
            ours.send(b"x")
