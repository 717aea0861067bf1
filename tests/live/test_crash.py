"""kill -9 under load: at most the lines that were still folding are lost, no token, nothing breaks.

A line is written a second after what it tells of (docs/operations.md, "Folding").  So what a
crash takes is the end of the history, never a piece out of it.
"""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from proxy.control.client import ControlClient
from proxy.errors import ProxyError
from tests.internet import Namespace, until
from tests.live.appliance import ROOT, Folders, running

pytestmark = pytest.mark.live

CONFIG = """
listen:
  do53: ["127.0.0.1:5300", "127.0.0.1:5301"]
  dot: []
  doh: []
  proxy: ["127.0.0.1:3128"]
  metrics: []
resolver: {upstreams: ["udp://9.9.9.9:5999"]}
"""
RULES = """
apps:
  asker: {identity: [{listener: "127.0.0.1:5300"}]}
  reader: {identity: [{listener: "127.0.0.1:3128"}]}
  coder: {identity: [{token: coder}]}
"""
REFUSED = re.compile(rb"sallyport host-not-listed ([0-9a-f]{32})")
ENOUGH_TOKENS, ENOUGH_REFUSALS = 20, 4000


def query(number: int) -> bytes:
    """Return a query for a name that nobody asked before, with an OPT (RFC 6891)."""
    label = f"n{number}".encode()
    name = bytes([len(label)]) + label + b"\7example\3net\0"
    head = number.to_bytes(4)[2:] + b"\1\0\0\1\0\0\0\0\0\1"
    return head + name + b"\0\1\0\1" + b"\0\0\x29\x04\xd0\0\0\0\0\0\0"


class Load:
    """Clients of a namespace that ask until the appliance is gone, and remember what they saw."""

    def __init__(self, space: Namespace, control: Path) -> None:
        self._space = space
        self._control = ControlClient(control)
        self.ids: list[str] = []
        self.secrets: list[str] = []
        self.ended = threading.Event()
        self._threads = [
            threading.Thread(target=each, daemon=True)
            for each in (self._ask, self._request, self._issue)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        self.ended.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        with self._space.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(1.0)
            client.connect(("127.0.0.1", 5300))
            for number in range(1 << 30):
                if self.ended.is_set():
                    return
                with contextlib.suppress(TimeoutError, ConnectionRefusedError):
                    client.send(query(number))
                    self._keep(client.recv(1232))

    def _request(self) -> None:
        number = 0
        with self._space.entered():
            while not self.ended.is_set():
                with (
                    contextlib.suppress(OSError),
                    socket.create_connection(("127.0.0.1", 3128), 1.0) as client,
                ):
                    while not self.ended.is_set():
                        number += 1
                        host = f"h{number}.example.net:443"
                        client.sendall(f"CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
                        said = client.recv(8192)
                        if not said:
                            break
                        self._keep(said)

    def _issue(self) -> None:
        while not self.ended.is_set():
            with contextlib.suppress(ProxyError, OSError):
                issued = self._control.ask("POST", "/tokens", {"name": "coder"})
                self.secrets.append(issued["secret"])

    def _keep(self, said: bytes) -> None:
        self.ids += [each.decode() for each in REFUSED.findall(said)]


def control_of(folders: Folders) -> Path:
    return Path(folders.env["XDG_RUNTIME_DIR"], "sallyport", "control.sock")


@pytest.fixture
def space() -> Iterator[Namespace]:
    if os.geteuid() != 0:
        pytest.skip("needs root to make a network namespace")
    with Namespace.made("crash") as made:
        yield made


def crashed(space: Namespace, folders: Folders) -> Load:
    """Load an appliance, kill it in the middle, and return what its clients saw."""
    with running(space, folders) as appliance:
        load = Load(space, control_of(folders))
        load.start()
        file = folders.state / "audit.jsonl"
        until(
            lambda: (
                len(load.secrets) >= ENOUGH_TOKENS
                and len(load.ids) >= ENOUGH_REFUSALS
                and file.stat().st_size > 0
            ),
            "tokens, refusals and lines on the disk",
        )
        appliance.process.send_signal(signal.SIGKILL)
        appliance.wait()
        load.join()
    return load


def lines(folders: Folders) -> list[dict[str, object]]:
    """Return the lines of evidence; half a line may be the last, and no other."""
    octets = (folders.state / "audit.jsonl").read_bytes()
    return [msgspec.json.decode(line) for line in octets.split(b"\n")[:-1] if line]


def second(unique: str) -> float:
    """Return the Unix time that stands in an id (RFC 9562, section 5.7)."""
    return int(unique[:12], 16) / 1000


def test_a_kill_takes_the_last_second_of_evidence_at_most(
    space: Namespace, folders: Folders, report: list[str]
) -> None:
    """threats.md, "Evidence as a weapon": a crash under load."""
    folders.configure(CONFIG)
    folders.rule(RULES)
    load = crashed(space, folders)
    written = {str(line["id"]) for line in lines(folders)}
    lost = [unique for unique in load.ids if unique not in written]
    newest = max(second(unique) for unique in load.ids)
    span_s = newest - min((second(unique) for unique in lost), default=newest)
    report.append(f"crash: {len(set(lost))} of {len(set(load.ids))} ids lost, {span_s:.2f} s")
    # What is lost is the end: each line that was due before one that stands there, stands there.
    last = max(second(unique) for unique in load.ids if unique in written)
    assert [unique for unique in lost if second(unique) < last - 0.5] == []
    # The next start goes on behind half a line, and `why` reads past it.
    with (folders.state / "audit.jsonl").open("ab") as file:
        file.write(b'{"time":"2026-01-01T00:00:00.000000Z","id":"half a li')
    seen = next(unique for unique in load.ids if unique in written)
    with running(space, folders) as appliance:
        assert f'"id":"{seen}"' in why(folders, seen)
        assert appliance.stop()[0] == 0
    assert f'"id":"{seen}"' in why(folders, seen)


def test_a_kill_takes_no_token_whose_secret_was_told(space: Namespace, folders: Folders) -> None:
    """threats.md, "Evidence as a weapon": a crash under load."""
    folders.configure(CONFIG)
    folders.rule(RULES)
    load = crashed(space, folders)
    assert len(load.secrets) >= ENOUGH_TOKENS
    with running(space, folders):
        for secret in load.secrets:
            said = answer(space, secret)
            # A token that is not known is 407; a known one is told what its app may not do.
            assert said.startswith(b"HTTP/1.1 403 sallyport host-not-listed"), said[:80]
        assert answer(space, "unknown").startswith(b"HTTP/1.1 407")


def answer(space: Namespace, secret: str) -> bytes:
    """Return what a CONNECT with a token is told."""
    with space.entered():
        client = socket.create_connection(("127.0.0.1", 3128), 5)
    with client:
        head = "CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n"
        client.sendall(f"{head}Proxy-Authorization: Bearer {secret}\r\n\r\n".encode())
        return client.recv(8192)


def why(folders: Folders, unique: str) -> str:
    argv = (sys.executable, "-m", "proxy", "why", unique, "--json")
    shown = subprocess.run(
        argv, cwd=ROOT, env=folders.env, capture_output=True, text=True, check=False
    )
    return shown.stdout.replace('": ', '":') + shown.stderr
