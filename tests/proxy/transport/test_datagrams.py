"""Batches of datagrams over real sockets: order, what is left over, who asked."""

import socket
import time
from collections.abc import Iterator

import pytest

from proxy.transport.datagrams import ALONE, BATCH, Datagrams
from proxy.transport.listen import bind_udp

OCTETS = 64


@pytest.fixture(params=["127.0.0.1", "::1"])
def ends(request: pytest.FixtureRequest) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Return our socket and a client that is connected to it."""
    ours = bind_udp(request.param, 0)
    client = socket.socket(ours.family, socket.SOCK_DGRAM)
    client.settimeout(5)
    client.connect(ours.getsockname())
    yield ours, client
    client.close()
    ours.close()


def say(client: socket.socket, *texts: bytes) -> None:
    for text in texts:
        client.send(text)


def heard(client: socket.socket, count: int) -> list[bytes]:
    return [client.recv(65535) for _ in range(count)]


def echo(wire: bytes, now: float) -> bytes | None:
    """Answer all but what begins with a minus."""
    return None if wire.startswith(b"-") else b"%d:%b" % (now, wire)


def test_each_is_answered_in_order(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, client = ends
    say(client, b"a", b"", b"ccc")
    assert Datagrams(ours, OCTETS).drain(echo, 7.0) == []
    assert heard(client, 3) == [b"7:a", b"7:", b"7:ccc"]


def test_nothing_to_read_is_nothing_to_do(ends: tuple[socket.socket, socket.socket]) -> None:
    assert Datagrams(ends[0], OCTETS).drain(echo, 7.0) == []


def test_what_has_no_answer_is_returned_with_its_sender(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    ours, client = ends
    say(client, b"-1", b"a", b"-2", b"-3", b"b", b"-4")
    left = Datagrams(ours, OCTETS).drain(echo, 1.0)
    assert left == [(text, client.getsockname()) for text in (b"-1", b"-2", b"-3", b"-4")]
    assert heard(client, 2) == [b"1:a", b"1:b"]
    ours.sendto(b"later", left[0][1])
    assert heard(client, 1) == [b"later"]


def test_each_sender_has_its_own_answer(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, client = ends
    with socket.socket(ours.family, socket.SOCK_DGRAM) as other:
        other.settimeout(5)
        other.connect(ours.getsockname())
        for number in range(3):
            say(client, b"one %d" % number)
            say(other, b"two %d" % number)
        Datagrams(ours, OCTETS).drain(echo, 1.0)
        assert heard(client, 3) == [b"1:one 0", b"1:one 1", b"1:one 2"]
        assert heard(other, 3) == [b"1:two 0", b"1:two 1", b"1:two 2"]


def test_more_than_a_batch_waits_for_the_next_turn(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    ours, client = ends
    say(client, *(b"%d" % number for number in range(BATCH + 3)))
    datagrams = Datagrams(ours, OCTETS)
    datagrams.drain(echo, 1.0)
    assert len(heard(client, BATCH)) == BATCH
    datagrams.drain(echo, 2.0)
    assert heard(client, 3) == [b"2:%d" % number for number in range(BATCH, BATCH + 3)]


def test_what_is_too_long_is_cut_and_a_long_answer_goes_by_itself(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    ours, client = ends
    say(client, b"x" * (OCTETS + 1), b"a")
    read: list[bytes] = []

    def answer(wire: bytes, _now: float) -> bytes:
        read.append(wire)
        return wire * 100

    Datagrams(ours, OCTETS).drain(answer, 1.0)
    assert read == [b"x" * OCTETS, b"a"]
    assert sorted(map(len, heard(client, 2))) == [100, OCTETS * 100]


def test_a_sender_that_is_gone_costs_nobody_else_an_answer(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    ours, client = ends
    with socket.socket(ours.family, socket.SOCK_DGRAM) as gone:
        gone.connect(ours.getsockname())
        gone.send(b"gone")
    say(client, b"a", b"b")
    datagrams = Datagrams(ours, OCTETS)
    datagrams.drain(echo, 1.0)
    datagrams.drain(echo, 1.0)  # an ICMP error may have come instead of a datagram
    assert heard(client, 2) == [b"1:a", b"1:b"]


def test_what_cannot_be_sent_is_lost_and_the_rest_is_not(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    ours, client = ends
    say(client, b"a", b"b")
    datagrams = Datagrams(ours, OCTETS)
    own, errors = datagrams._send, iter([-1])

    def send(*arguments: object) -> int:
        failed = next(errors, None)
        return int(own(*arguments)) if failed is None else failed

    datagrams._send = send  # type: ignore[assignment] # a send that fails once
    datagrams.drain(echo, 1.0)
    assert heard(client, 1) == [b"1:b"]


def test_what_came_too_long_ago_is_given_up_and_counted(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    """threats.md, "Parser, transport, cache": twice as many queries as can be served."""
    ours, client = ends
    came: list[float] = []

    def is_lost(at: float, is_all: bool) -> bool:
        came.append(at)
        return not is_all

    datagrams = Datagrams(ours, OCTETS, is_lost)
    before = time.time()
    say(client, b"-1", b"a", b"-2")
    assert datagrams.drain(echo, 1.0, 3) == []
    assert heard(client, 1) == [b"1:a"]  # what can be answered at once is
    assert datagrams.lost == 2
    say(client, b"-1", b"-2")
    assert len(datagrams.drain(echo, 1.0, 3)) == 2  # nothing else waits: no overload
    assert datagrams.lost == 2
    assert before - 1 < came[0] < time.time() + 1


def test_reads_no_more_than_it_is_told_to(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, client = ends
    datagrams = Datagrams(ours, OCTETS)
    say(client, b"-1", b"-2", b"-3")
    assert [wire for wire, _ in datagrams.drain(echo, 1.0, 2)] == [b"-1", b"-2"]
    assert [wire for wire, _ in datagrams.drain(echo, 1.0, 2)] == [b"-3"]


def test_knows_how_many_the_kernel_dropped(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, client = ends
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    datagrams = Datagrams(ours, OCTETS)
    assert datagrams.overflown == 0
    say(client, *[b"-"] * 200)
    kept = 0
    while batch := datagrams.drain(echo, 1.0):
        kept += len(batch)
    assert datagrams.overflown == 200 - kept > 0


def test_after_one_that_came_alone_each_wake_up_reads_one_for_a_while(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    ours, client = ends
    datagrams = Datagrams(ours, OCTETS)
    say(client, b"alone")
    assert datagrams.drain(echo, 1.0) == []
    say(client, b"a", b"-b", b"x" * (OCTETS + 1), b"", b"e", b"f")
    assert datagrams.drain(echo, 2.0) == []
    assert datagrams.drain(echo, 3.0) == [(b"-b", client.getsockname())]
    for _ in range(3):
        datagrams.drain(echo, 4.0)
    assert heard(client, 5) == [b"1:alone", b"2:a", b"4:" + b"x" * OCTETS, b"4:", b"4:e"]
    for _ in range(ALONE - 5):
        assert datagrams.drain(echo, 5.0) == []
    say(client, b"g", b"h")
    datagrams.drain(echo, 6.0)
    assert heard(client, 3) == [b"5:f", b"6:g", b"6:h"]


def test_an_answer_to_one_that_came_alone_may_fail_to_be_sent(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    ours, client = ends
    datagrams = Datagrams(ours, OCTETS)
    datagrams.drain(echo, 1.0)
    say(client, b"a", b"b")
    answers = iter([b"x" * 70_000, b"fits"])  # no datagram is as long as the first
    for _ in range(2):
        assert datagrams.drain(lambda _wire, _now: next(answers), 1.0) == []
    assert heard(client, 1) == [b"fits"]
