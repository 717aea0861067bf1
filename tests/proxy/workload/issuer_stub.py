"""A child that speaks the channel as the issuer does, and holds no key.

To each connection that it adopts it writes a line of JSON for what its caller is entitled to, and
another for each change.  What the caller writes are orders: a line of JSON with `do`.  Questions
about evidence it answers with how many there were until then.
"""

import asyncio
import os
import socket
import sys
import time
from typing import Any

import msgspec

from proxy.channel import (
    Adopt,
    Challenge,
    Challenged,
    Entitle,
    Event,
    Gone,
    Judge,
    Judged,
    Look,
    Named,
    Ready,
    Serve,
    Sign,
    SignClaims,
    Signed,
    SignedClaims,
    ToIssuer,
    Trust,
    Verified,
    Verify,
    Whose,
)
from proxy.channel_socket import ChannelSocket
from proxy.config import Settings


class Stub:
    """One process of it."""

    def __init__(self, channel: socket.socket, settings: Settings) -> None:
        self.settings = settings
        self.ended = asyncio.Event()
        self.channel = ChannelSocket(channel, ToIssuer, self.receive, self.ended.set)
        self.open: dict[int, socket.socket] = {}
        self.asker: socket.socket | None = None
        self.looks = 0
        self.buffers: dict[int, bytes] = {}
        self.is_mute = False
        self.questions = 0

    def receive(self, message: ToIssuer, fds: tuple[int, ...]) -> None:
        match message:
            case Adopt(connection=number):
                self.adopt(number, message, fds[0])
            case Entitle(connection=number):
                if number in self.open:
                    self.say(self.open[number], message)
            case Serve():
                listening = socket.socket(fileno=fds[0])
                asyncio.get_running_loop().add_reader(
                    listening, self.greet, listening, f"{message.kind} {message.label}"
                )
            case Sign(call=call, spiffe_id=spiffe_id):
                self.answer(Signed(call, chain=spiffe_id, serial=message.profile))
            case Verify() | Challenge() | SignClaims():
                self.questions += 1
                self.answer(counted(message, str(self.questions)))
            case Named() | Judged():
                assert self.asker is not None
                self.say(self.asker, message)
            case Look():
                self.looks += 1

    def answer(self, answer: Signed | Verified | Challenged | SignedClaims) -> None:
        if not self.is_mute:
            self.channel.send(answer)

    def greet(self, listening: socket.socket, text: str) -> None:
        accepted, _ = listening.accept()
        with accepted:
            accepted.sendall(text.encode())

    def adopt(self, number: int, message: Adopt, fd: int) -> None:
        connection = self.open[number] = socket.socket(fileno=fd)
        connection.setblocking(False)
        self.buffers[number] = b""
        asyncio.get_running_loop().add_reader(connection, self.read, number)
        self.say(connection, message)

    def say(self, connection: socket.socket, message: Any) -> None:
        connection.send(msgspec.json.encode(message) + b"\n")

    def read(self, number: int) -> None:
        connection = self.open[number]
        try:
            octets = connection.recv(65536)
        except OSError:
            octets = b""
        if not octets:
            asyncio.get_running_loop().remove_reader(connection)
            connection.close()
            del self.open[number]
            self.channel.send(Gone(number))
            return
        *lines, self.buffers[number] = (self.buffers[number] + octets).split(b"\n")
        for line in lines:
            self.obey(connection, msgspec.json.decode(line))

    def obey(self, connection: socket.socket, order: dict[str, Any]) -> None:
        self.asker = connection
        what = order.pop("do")
        if what == "die":
            self.channel.send(Event("last-words", "", "stub"))
            os._exit(7)
        elif what == "leave-an-heir":
            heir = os.fork()
            if heir == 0:
                time.sleep(60)
                os._exit(0)
            self.channel.send(Trust({"heir": str(heir)}))
            os._exit(7)
        elif what == "hang-up":
            self.channel.close()
        elif what == "mute":
            self.is_mute = True
            self.say(connection, {})
        elif what == "told":
            told = {
                "looks": self.looks,
                "state": self.settings.state,
                "pid": os.getpid(),
                "questions": self.questions,
            }
            self.say(connection, told)
        else:
            kinds = {"whose": Whose, "judge": Judge, "trust": Trust, "event": Event}
            self.channel.send(msgspec.convert(order, kinds[what]))
            if what in {"trust", "event"}:
                self.say(connection, {})


def counted(
    message: Verify | Challenge | SignClaims, count: str
) -> Verified | Challenged | SignedClaims:
    match message:
        case Verify():
            return Verified(message.call, name=count, key_sha256=message.kind)
        case Challenge():
            return Challenged(message.call, name=count, seed=message.secret)
        case SignClaims():
            return SignedClaims(message.call, count)


async def run(channel: int, settings: int) -> None:
    with os.fdopen(settings, "rb") as handed_over:
        read = msgspec.json.decode(handed_over.read(), type=Settings)
    stub = Stub(socket.socket(fileno=channel), read)
    stub.channel.start()
    stub.channel.send(Ready())
    await stub.ended.wait()


if __name__ == "__main__":
    asyncio.run(run(*map(int, sys.argv[1:])))
