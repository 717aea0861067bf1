import asyncio
import logging
import os
import socket
import struct
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from proxy import channel_socket
from proxy.channel import Adopt, Gone, Look, Ready, Serve, ToIssuer, Trust
from proxy.channel_socket import MOST_OCTETS, QUEUE, ChannelSocket, tell_once


class End:
    """One end, and what came there."""

    def __init__(self, sock: socket.socket) -> None:
        self.came: list[Any] = []
        self.fds: list[int] = []
        self.more = asyncio.Event()
        self.ended = asyncio.Event()
        self.socket = sock
        self.channel = ChannelSocket(sock, ToIssuer, self._receive, self.ended.set)

    def _receive(self, message: Any, fds: tuple[int, ...]) -> None:
        self.came.append(message)
        self.fds += fds
        self.more.set()

    async def until(self, count: int) -> list[Any]:
        async with asyncio.timeout(10):
            while len(self.came) < count:
                self.more.clear()
                await self.more.wait()
        return self.came

    async def until_ended(self) -> None:
        async with asyncio.timeout(10):
            await self.ended.wait()


@pytest.fixture
async def ends() -> AsyncIterator[tuple[End, End]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pair = End(ours), End(theirs)
    yield pair
    for each in pair:
        each.channel.close()
        for fd in each.fds:
            os.close(fd)


async def test_messages_come_whole_and_in_order(ends: tuple[End, End]) -> None:
    ours, theirs = ends
    theirs.channel.start()
    sent = [Adopt(number, "workload", "coder", ("spiffe://a/b",)) for number in range(200)]
    for each in sent:
        ours.channel.send(each)
    assert await theirs.until(200) == sent


async def test_a_copy_of_a_descriptor_travels_beside_its_message(ends: tuple[End, End]) -> None:
    ours, theirs = ends
    theirs.channel.start()
    reading, writing = os.pipe()
    ours.channel.send(Serve("pki", "127.0.0.1:1"), (writing,))
    os.close(writing)
    await theirs.until(1)
    assert not os.get_inheritable(theirs.fds[0])
    os.write(theirs.fds[0], b"x")
    assert os.read(reading, 1) == b"x"
    os.close(reading)


async def test_what_the_other_end_does_not_take_at_once_waits(ends: tuple[End, End]) -> None:
    ours, theirs = ends
    ours.channel.start()
    reading, writing = os.pipe()
    sent = [Adopt(number, "w" * 5000) for number in range(300)]
    for each in sent[:-1]:
        ours.channel.send(each)
    ours.channel.send(sent[-1], (writing,))
    os.close(writing)  # the caller's may go, the copy waits
    theirs.channel.start()
    assert await theirs.until(300) == sent
    os.write(theirs.fds[0], b"y")
    assert os.read(reading, 1) == b"y"
    os.close(reading)


async def test_an_end_that_takes_nothing_ends_the_channel(
    ends: tuple[End, End], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = ends
    monkeypatch.setattr(channel_socket, "QUEUE", 8)
    assert QUEUE > 1000
    reading, writing = os.pipe()
    while not ours.channel.closed:
        ours.channel.send(Adopt(1, "w" * 5000), (writing,))
    await ours.until_ended()
    os.close(writing)
    ours.channel.send(Look())  # nothing happens any more
    ours.channel.close()
    theirs.channel.close()  # and with it the copies that the kernel holds
    assert os.read(reading, 1) == b""  # no other is left
    os.close(reading)


async def test_a_message_that_does_not_fit_is_the_senders_error(ends: tuple[End, End]) -> None:
    ours, theirs = ends
    theirs.channel.start()
    with pytest.raises(ValueError, match="fit the channel"):
        ours.channel.send(Trust({"a": "x" * MOST_OCTETS}))
    longest = Adopt(1, "x" * (MOST_OCTETS - 200))
    ours.channel.send(longest)
    assert await theirs.until(1) == [longest]


async def test_the_end_of_one_end_is_told_to_the_other_once(ends: tuple[End, End]) -> None:
    ours, theirs = ends
    theirs.channel.start()
    ours.channel.close()
    await theirs.until_ended()
    assert theirs.channel.closed
    theirs.channel.send(Look())
    assert not ours.ended.is_set()  # who closes knows


async def test_sending_to_an_end_that_is_gone_ends_the_channel(ends: tuple[End, End]) -> None:
    ours, theirs = ends
    theirs.socket.close()
    ours.channel.send(Look())
    await ours.until_ended()


async def test_a_descriptor_that_is_none_ends_the_channel(
    ends: tuple[End, End], caplog: pytest.LogCaptureFixture
) -> None:
    ours, _ = ends
    ours.channel.start()
    ours.channel.send(Look(), (2**20,))
    await ours.until_ended()
    assert "ends" in caplog.text


@pytest.mark.parametrize(
    "octets",
    [b"{}", b"\xff", b'{"type": "ready"}', b'{"type": "adopt"}', b"[" * 1000, b"x" * 150000],
)
async def test_what_breaks_the_contract_ends_the_channel(
    ends: tuple[End, End], octets: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    ours, theirs = ends
    theirs.channel.start()
    reading, writing = os.pipe()
    with caplog.at_level(logging.WARNING):
        socket.send_fds(ours.socket, [octets], [writing])
        await theirs.until_ended()
    os.close(writing)
    assert os.read(reading, 1) == b""  # what came with it is closed
    os.close(reading)
    assert "not a message of the contract" in caplog.text
    assert "restart sallyport" in caplog.text
    assert theirs.came == []


async def test_a_message_that_was_cut_off_ends_the_channel(ends: tuple[End, End]) -> None:
    """More descriptors than the contract has: none of them is kept."""
    ours, theirs = ends
    theirs.channel.start()
    reading, writing = os.pipe()
    socket.send_fds(ours.socket, [msgspec.json.encode(Look())], [writing] * 64)
    await theirs.until_ended()
    os.close(writing)
    assert os.read(reading, 1) == b""
    os.close(reading)


async def test_a_channel_that_is_reset_ends(ends: tuple[End, End]) -> None:
    ours, theirs = ends
    theirs.channel.start()
    theirs.socket.shutdown(socket.SHUT_RD)
    await theirs.until_ended()
    assert not ours.channel.closed


async def test_closing_within_a_message_stops_reading(ends: tuple[End, End]) -> None:
    ours, theirs = ends
    closing = ChannelSocket(theirs.socket, ToIssuer, lambda *_: closing.close(), theirs.ended.set)
    for _ in range(3):
        ours.channel.send(Look())
    closing.start()
    ours.channel.start()
    await ours.until_ended()
    assert not theirs.ended.is_set()


def test_a_last_message_is_sent_where_no_loop_runs() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        with ours:
            tell_once(ours, Gone(7))
            assert msgspec.json.decode(theirs.recv(1000), type=Gone) == Gone(7)
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        tell_once(theirs, Ready())  # nobody is there: no error
