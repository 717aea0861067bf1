"""Batches of datagrams over real sockets: order, what is left over, who asked."""

import socket
from collections.abc import Iterator

import pytest

from proxy.transport.datagrams import BATCH, Datagrams
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
