"""A workload in a test's hands: it does on the socket what lines on its stdin say.

The program takes a uid, which it becomes, and the path of the socket.
"""

import json
import os
import socket
import sys
import time
from pathlib import Path


def told(answer: object) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


class Agent:
    """What it can do: an order is the name of a method, and the rest of the line."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.held: list[socket.socket] = []
        self.buffer = b""

    def connect(self, _: str) -> object:
        self.held.append(socket.socket(socket.AF_UNIX))
        try:
            self.held[-1].connect(self.path)
        except OSError as error:
            return error.strerror
        return "done"

    def read(self, _order: str) -> object:
        while b"\n" not in self.buffer:
            try:
                octets = self.held[-1].recv(65536)
            except OSError:
                octets = b""
            if not octets:
                return ""
            self.buffer += octets
        line, _, rest = self.buffer.partition(b"\n")
        self.buffer = rest
        return line.decode()

    def send(self, rest: str) -> object:
        self.held[-1].sendall(rest.encode() + b"\n")
        return "done"

    def exec(self, rest: str) -> object:
        os.set_inheritable(self.held[-1].fileno(), True)
        argv = rest.split()
        told("done")
        return os.execv(argv[0], argv)  # noqa: S606 - what a test says

    def fork(self, rest: str) -> object:
        child = os.fork()
        if child == 0:
            os.close(0)  # who reads what we say waits for the end of it
            os.close(1)
            time.sleep(float(rest))
            os._exit(0)
        return child

    def cgroup(self, rest: str) -> object:
        return Path(rest, "cgroup.procs").write_text(str(os.getpid()))

    def give(self, rest: str) -> object:
        with socket.socket(socket.AF_UNIX) as way:
            way.connect(rest)
            socket.send_fds(way, [b"x"], [self.held[-1].fileno()])
        return "done"

    def take(self, rest: str) -> object:
        with socket.socket(socket.AF_UNIX) as way:
            way.bind(rest)
            way.listen()
            told("ready")
            other, _ = way.accept()
            _, fds, _, _ = socket.recv_fds(other, 1, 1)
            self.held.append(socket.socket(fileno=fds[0]))
        return "done"

    def close(self, _: str) -> object:
        self.held.pop().close()
        return "done"

    def exit(self, _: str) -> object:
        os._exit(0)


def main(uid: int, path: str) -> None:
    """Become `uid`, then obey."""
    if uid != os.getuid():
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    agent = Agent(path)
    for line in sys.stdin:
        what, _, rest = line.rstrip("\n").partition(" ")
        told(getattr(agent, what)(rest))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
