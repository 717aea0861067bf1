"""A stand-in for the appliance's end of the channel: it starts a real issuer, and speaks to it.

It accepts on unix sockets and passes connections on, with the entitlement that a test asks for.
"""

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import msgspec
from msgspec import Struct

from proxy.audit import AuditSettings
from proxy.channel import (
    Adopt,
    Entitle,
    Event,
    Judge,
    Judged,
    Named,
    Ready,
    Sign,
    Signed,
    ToAppliance,
    Whose,
)
from proxy.config import Settings
from proxy.config_identity import IdentitySettings
from proxy.issuing.desk import Desk as IssuingDesk
from proxy.limits import Limits

ROOT = Path(__file__).resolve().parent.parent.parent.parent
TRUST_DOMAIN = "desk.example"
APP = "coder"
ID = f"spiffe://{TRUST_DOMAIN}/agent/coder"
WAIT_S = 20.0


def settings(state: Path, limits: Limits | None = None, **identity: Any) -> Settings:
    """Return settings for an issuer whose state is at `state`."""
    known = {"trust_domain": TRUST_DOMAIN, **identity}
    return Settings(
        state=str(state),
        rules=(),
        audit=AuditSettings(file=str(state / "audit.jsonl")),
        identity=IdentitySettings(**known),
        limits=limits or Limits(),
    )


class Clock:
    """A wall clock that a test may set forward."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead_s


class Desk:
    """One issuer, and what it said: a process, or with a `clock` a thread of this one."""

    def __init__(self, asked: Settings, clock: Clock | None = None) -> None:
        Path(asked.state, "identity").mkdir(mode=0o700, parents=True, exist_ok=True)
        self.settings = asked
        self.connections = 0
        self.calls = 0
        self.said: list[Any] = []
        self.log = ""
        self.failed: Exception | None = None
        self.judge: Callable[[Judge], Judged | None] = lambda _: None
        self.ids = {APP: (ID,)}
        self._told = threading.Condition()
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.process: subprocess.Popen[str] | None = None
        if clock is None:
            self.process = _started(asked, theirs)
        else:
            self._begin(lambda: self._serve(theirs, clock))
        self._begin(self._receive)

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(self, *_: object) -> None:
        """End."""
        self.close()

    def close(self) -> None:
        """End the issuer; what it logged stands in `log`."""
        for each in (self._channel, *self._sockets):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        try:
            if self.process is not None:
                _, self.log = self.process.communicate(timeout=WAIT_S)
        finally:
            if self.process is not None:
                self.process.kill()
                self.process.wait()
            for thread in self._threads:
                thread.join(WAIT_S)
            for each in (self._channel, *self._sockets):
                each.close()

    def until_ended(self) -> None:
        """Wait until an issuer that is a thread has ended by itself."""
        self._threads[0].join(WAIT_S)

    def ready(self) -> Self:
        """Wait until it serves."""
        self.wait(Ready)
        return self

    def wait[T](self, kind: type[T], fits: Callable[[T], bool] = lambda _: True) -> T:
        """Return the first message of `kind` that fits, once it has come."""
        deadline = time.monotonic() + WAIT_S
        with self._told:
            while True:
                for each in self.said:
                    if isinstance(each, kind) and fits(each):
                        return each
                left = deadline - time.monotonic()
                assert left > 0, f"no {kind.__name__} came, but {self.said[-5:]}"
                self._told.wait(left)

    def all[T](self, kind: type[T]) -> list[T]:
        """Return every message of `kind` until now."""
        with self._told:
            return [each for each in self.said if isinstance(each, kind)]

    def events(self, change: str) -> list[Event]:
        """Return the events of a kind until now."""
        return [each for each in self.all(Event) if each.change == change]

    def send(self, message: Struct, *fds: int) -> None:
        """Send a message with descriptors."""
        socket.send_fds(self._channel, [msgspec.json.encode(message)], list(fds))

    def hand_over(
        self,
        sock: socket.socket,
        kind: str = "workload",
        app: str = APP,
        ids: tuple[str, ...] = (ID,),
    ) -> int:
        """Hand a connected socket over; return its number."""
        self.connections += 1
        number = self.connections
        self.send(Adopt(number, kind, app, ids, os.getuid(), os.getpid()), sock.fileno())
        sock.close()
        return number

    def connected(
        self, kind: str = "workload", app: str = APP, ids: tuple[str, ...] = (ID,)
    ) -> tuple[socket.socket, int]:
        """Return the client's end of a connection that was handed over, and its number."""
        ours, theirs = socket.socketpair()
        ours.settimeout(WAIT_S)
        return ours, self.hand_over(theirs, kind, app, ids)

    def listen(
        self, path: Path, kind: str = "workload", app: str = APP, ids: tuple[str, ...] = (ID,)
    ) -> str:
        """Accept at `path` and hand over; return the path as gRPC writes it."""
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(str(path))
        listening.listen(64)
        self._sockets.append(listening)

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    accepted, _ = listening.accept()
                    self.hand_over(accepted, kind, app, ids)

        self._begin(accept)
        return f"unix:{path}"

    def entitle(self, connection: int, app: str, ids: tuple[str, ...]) -> None:
        """Entitle the caller of a connection to something else."""
        self.send(Entitle(connection, app, ids))

    def sign(self, spiffe_id: str, profile: str = "svid", ttl_s: int = 0) -> Signed:
        """Have an SVID signed for the appliance."""
        self.calls += 1
        call = self.calls
        self.send(Sign(call, spiffe_id, profile, ttl_s))
        return self.wait(Signed, lambda each: each.call == call)

    def _serve(self, theirs: socket.socket, clock: Clock) -> None:
        async def run() -> None:
            await IssuingDesk(self.settings, theirs, {}, clock).run()

        try:
            asyncio.run(run())
        except Exception as error:  # noqa: BLE001 - a test looks at it
            self.failed = error

    def _begin(self, work: Callable[[], None]) -> None:
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        self._threads.append(thread)

    def _receive(self) -> None:
        decoder = msgspec.json.Decoder(ToAppliance)
        while True:
            try:
                octets = self._channel.recv(1 << 20)
            except OSError:
                return
            if not octets:
                return
            message = decoder.decode(octets)
            with self._told:
                self.said.append(message)
                self._told.notify_all()
            if isinstance(message, Whose):
                ids = self.ids.get(message.app, ())
                self.send(Named(message.call, message.app if ids else "", ids))
            elif isinstance(message, Judge):
                judged = self.judge(message)
                if judged is not None:
                    self.send(judged)


def _started(asked: Settings, theirs: socket.socket) -> subprocess.Popen[str]:
    memory = os.memfd_create("settings")
    os.write(memory, msgspec.json.encode(asked))
    os.lseek(memory, 0, os.SEEK_SET)
    fds = theirs.fileno(), memory
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "proxy.issuing.main", *map(str, fds)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        pass_fds=fds,
        stderr=subprocess.PIPE,
        text=True,
    )
    theirs.close()
    os.close(memory)
    return process
