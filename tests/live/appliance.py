"""The appliance as a person starts it: a process with folders of its own in a namespace."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from tests.internet import PATH, Namespace, until

ROOT = Path(__file__).resolve().parent.parent.parent
READY_S = 20.0
STOP_S = 5.0  # reference.md: SIGTERM ends it within five seconds
UP = (sys.executable, "-m", "proxy", "up", "--json")

# One app, known by the sockets that it is given: UDP is answered without the detour over TCP.
AGENT = """
apps:
  agent:
    identity: [{listener: "127.0.0.1:5300"}, {listener: "127.0.0.1:3128"}]
    allow:
      - {name: sites, host: [example.com, "*.example.com", example.org], ports: [80, 443]}
    deny:
      - {host: banned.example.org}
"""


class Ready(Struct):
    """The ready event of `up --json` (reference.md, "Command")."""

    event: str
    pid: int
    generation: int
    enforcement: str
    listen: dict[str, list[str]]


class Folders:
    """Where one appliance keeps its configuration, rules and state."""

    def __init__(self, root: Path) -> None:
        self.config = root / "config" / "sallyport"
        self.rules = self.config / "rules"
        self.state = root / "state" / "sallyport"
        self.env = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}:{PATH}",
            "HOME": str(root / "home"),
            "XDG_CONFIG_HOME": str(root / "config"),
            "XDG_STATE_HOME": str(root / "state"),
            "XDG_RUNTIME_DIR": str(root / "runtime"),
        }
        for folder in (self.config, root / "home", root / "state", root / "runtime"):
            folder.mkdir(parents=True)

    def configure(self, text: str) -> None:
        """Write sallyport.yaml."""
        (self.config / "sallyport.yaml").write_text(text)

    def rule(self, text: str, name: str = "rules.yaml") -> Path:
        """Write a rule file and return it."""
        self.rules.mkdir(exist_ok=True, mode=0o755)
        file = self.rules / name
        file.write_text(text)
        file.chmod(0o644)
        return file


def keep(stream: Iterable[str], lines: list[str]) -> None:
    """Move lines from a pipe into a list, so that the writer is never held up."""
    lines.extend(stream)


class Appliance:
    """A running appliance: what it said, and its end."""

    def __init__(self, process: "subprocess.Popen[str]", folders: Folders) -> None:
        self.process = process
        self.folders = folders
        self._out: list[str] = []
        self._err: list[str] = []
        self._threads = [
            threading.Thread(target=keep, args=(process.stdout, self._out), daemon=True),
            threading.Thread(target=keep, args=(process.stderr, self._err), daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    @property
    def stdout(self) -> str:
        """What it printed so far."""
        return "".join(self._out)

    @property
    def stderr(self) -> str:
        """What it logged so far."""
        return "".join(self._err)

    @property
    def ready(self) -> Ready:
        """The ready event."""
        return msgspec.json.decode(self._out[0], type=Ready)

    def wait_ready(self) -> None:
        """Wait until it said that every listener accepts."""
        until(lambda: bool(self._out) or self.process.poll() is not None, "ready", READY_S)
        assert self.process.poll() is None, self.wait()

    def wait(self, wait_s: float = READY_S) -> tuple[int, str]:
        """Wait for its end; return the exit code and what it logged."""
        code = self.process.wait(wait_s)
        for thread in self._threads:
            thread.join()
        return code, self.stderr

    def stop(self) -> tuple[int, str]:
        """Send SIGTERM and wait as long as it may take."""
        self.process.send_signal(signal.SIGTERM)
        return self.wait(STOP_S)

    def audit(self) -> list[dict[str, object]]:
        """Return the lines of evidence on disk."""
        file = self.folders.state / "audit.jsonl"
        return [msgspec.json.decode(line) for line in file.read_bytes().splitlines()]


@contextlib.contextmanager
def launched(
    namespace: Namespace,
    folders: Folders,
    argv: Sequence[str | Path] = UP,
    env: Mapping[str, str] | None = None,
) -> Iterator[Appliance]:
    """Start it in a namespace; whatever happens, it is gone afterwards."""
    process = subprocess.Popen(
        namespace.command(argv),
        cwd=ROOT,
        env={**folders.env, **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    running = Appliance(process, folders)
    try:
        yield running
    finally:
        if process.poll() is None:
            process.kill()
        running.wait()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()


@contextlib.contextmanager
def running(
    namespace: Namespace, folders: Folders, argv: Sequence[str | Path] = UP
) -> Iterator[Appliance]:
    """Start it and wait until it accepts."""
    with launched(namespace, folders, argv) as appliance:
        appliance.wait_ready()
        yield appliance
