"""A launcher for tests: it executes a program where there is nothing but the listeners of a lease.

The program is in a network namespace with `lo` alone, and has a sealed environment.  What is
executed is hashed before.  As root nothing more is needed; others get a user namespace, too.
"""

import asyncio
import fcntl
import hashlib
import os
import socket
import struct
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

LOCAL = "127.0.0.1"
PORTS = {"do53": 53, "proxy": 3128, "proxy_tls": 3129, "dot": 853, "doh": 8443}
_SEALED = {"PATH": "/usr/bin:/bin", "http_proxy": f"http://{LOCAL}:3128", "LANG": "C.UTF-8"}
_SIOCSIFFLAGS, _UP = 0x8914, 0x41  # netdevice(7): IFF_UP | IFF_RUNNING
_GO = b"go"
_PATIENCE_S = 20.0


def digest_of(file: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def sockets_inside(kinds: Sequence[str]) -> list[tuple[str, socket.socket]]:
    """Return the sockets of a lease, bound in the namespace that this thread is in."""
    found = []
    for kind in kinds:
        types = [socket.SOCK_STREAM] + ([socket.SOCK_DGRAM] if kind == "do53" else [])
        for each in types:
            sock = socket.socket(socket.AF_INET, each | socket.SOCK_NONBLOCK)
            sock.bind((LOCAL, PORTS[kind]))
            if each == socket.SOCK_STREAM:
                sock.listen()
            found.append((kind, sock))
    return found


def enter() -> None:
    """Take this thread into a network namespace of its own, in which `lo` is up."""
    own = os.CLONE_NEWNET if os.geteuid() == 0 else os.CLONE_NEWNET | os.CLONE_NEWUSER
    os.unshare(own)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", _UP))


def inside_of[T](make: Callable[[], T]) -> T:
    """Return what `make` makes in a network namespace that lasts as long as that does."""

    def inside() -> T:
        enter()
        return make()

    with ThreadPoolExecutor(1) as pool:  # its thread ends: nothing else is ever done there
        return pool.submit(inside).result()


class Inside:
    """A program that waits inside for its lease, and what it says afterwards."""

    def __init__(
        self, process: asyncio.subprocess.Process, ours: socket.socket, sockets: list[socket.socket]
    ) -> None:
        self.process = process
        self._ours = ours
        self.sockets = sockets

    def go(self) -> None:
        """Let it be executed."""
        self._ours.send(_GO)

    async def line(self) -> bytes:
        """Return the next line that it says."""
        assert self.process.stdout is not None
        return await asyncio.wait_for(self.process.stdout.readline(), _PATIENCE_S)

    def say(self, line: bytes) -> None:
        """Tell it a line."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + b"\n")


@asynccontextmanager
async def prepared(kinds: Sequence[str], *program: str) -> AsyncIterator[Inside]:
    """Make a namespace and its sockets; `program` is executed there by `Inside.go`."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-I", __file__, str(theirs.fileno()), ",".join(kinds), *program,
            pass_fds=(theirs.fileno(),),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        theirs.close()
        ours.settimeout(_PATIENCE_S)
        _, handed, _, _ = await asyncio.to_thread(socket.recv_fds, ours, 1, 8)
        try:
            yield Inside(process, ours, [socket.socket(fileno=each) for each in handed])
        finally:
            if process.returncode is None:
                process.kill()
            await process.communicate()


def _main(channel: int, kinds: str, program: list[str]) -> None:
    enter()
    sockets = [sock for _, sock in sockets_inside(kinds.split(","))]
    with socket.socket(fileno=channel) as launcher:
        socket.send_fds(launcher, [b"x"], [sock.fileno() for sock in sockets])
        for sock in sockets:
            sock.close()  # no duplicate stays in the sandbox
        if launcher.recv(8) != _GO:
            return
    os.execve(program[0], program, _SEALED)  # noqa: S606 - that is what a launcher does


if __name__ == "__main__":
    _main(int(sys.argv[1]), sys.argv[2], sys.argv[3:])
