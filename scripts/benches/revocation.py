"""How long after `sallyport revoke` the last octet comes in, with 1,000 saturated tunnels.

Measured at both receivers, the clients and the origin, which are one process.  What the kernel
has received for them is out: their buffers are small, so that reading those is no part of it.
The worst of the rounds counts.  What comes before the request is the start of a Python program,
on cores that are busy: a row of its own.
"""

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
from msgspec import Struct

from proxy.control.client import ControlClient
from scripts.benches import servers
from scripts.benches.ground import (
    LOAD_CPU,
    ORIGIN,
    ORIGIN_ADDRESS,
    SERVER_CPU,
    pinned,
    started,
)
from scripts.benches.planes import Plan, Result

TUNNELS, OTHERS = 1000, 100
ORIGIN_PORT, OTHER_PORT = 9000, 3129
GOAL_MS = 1000.0
WAIT_S = 60.0


class Seen(Struct):
    """What the load tells: times of its last octets and ends, how its connections ended."""

    up: float
    down: float
    last_end: float
    left: int
    resets: int
    closes: int


class View(Struct):
    """What the appliance tells: how many connections it cut."""

    cut: int


class Took(Struct, frozen=True):
    """Seconds from the request until the last octet came in, and until the answer."""

    last_s: float
    answer_s: float


type Ask = Callable[[Path], list[View]]
"""Revokes the app `bench` of the appliance that is configured by a file."""


def measure(plan: Plan) -> list[Result]:
    """Return the time until the last octet: the worst of the rounds, either way."""
    rows = []
    with _upstream(plan):
        for others in (0, OTHERS):
            name = f"revoke+{others}" if others else "revoke"
            every = [_once(plan, others, _by_request) for _ in range(plan.rounds)]
            rows += [
                _row(name, "from the request", max(each.last_s for each in every)),
                _row(name, "from the answer", max(each.last_s - each.answer_s for each in every)),
            ]
        command = _once(plan, 0, _by_command)
    return [*rows, _row("revoke", "from the command's start", command.last_s)]


def _row(bench: str, what: str, seconds: float) -> Result:
    took_ms = seconds * 1000
    return Result(
        bench, what, took_ms, GOAL_MS, GOAL_MS / max(took_ms, 1.0), "ms to the last octet"
    )


def _by_request(config: Path) -> list[View]:
    content = {"what": "bench"}
    answer = ControlClient(_control(config.parent)).ask("POST", "/revocations", content)
    return msgspec.convert(answer, list[View])


def _by_command(config: Path) -> list[View]:
    words = ["revoke", "bench", "--json", "--config", str(config)]
    told = subprocess.run([sys.executable, "-m", "proxy", *words], check=True, capture_output=True)
    return msgspec.json.decode(told.stdout, type=list[View])


def _once(plan: Plan, others: int, ask: Ask) -> Took:
    folder = plan.folder
    config = _configured(folder)
    argv: list[str | Path] = [sys.executable, "-m", "proxy", "up", "--config", config]
    with (
        started("sallyport", argv, servers.PROXY_PORT, SERVER_CPU, folder),
        _load(folder, others) as load,
    ):
        if _line(load) != b"saturated\n":
            raise RuntimeError("the tunnels do not fill")
        begun = time.monotonic()
        [view] = ask(config)
        answered = time.monotonic()
        seen = msgspec.json.decode(_line(load), type=Seen)
    if seen.left or view.cut != TUNNELS or seen.closes:
        raise RuntimeError(f"not cut: {seen}, {view}")
    return Took(max(seen.up, seen.down) - begun, answered - begun)


def _line(load: "subprocess.Popen[bytes]") -> bytes:
    return b"" if load.stdout is None else load.stdout.readline()


@contextlib.contextmanager
def _load(folder: Path, others: int) -> Iterator["subprocess.Popen[bytes]"]:
    groups = [str(servers.PROXY_PORT), str(TUNNELS)]
    groups += [str(OTHER_PORT), str(others)] if others else []
    where = [ORIGIN_ADDRESS, str(ORIGIN_PORT), ORIGIN, str(WAIT_S)]
    argv = pinned(LOAD_CPU, [folder / "revocationload", *where, *groups])
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


@contextlib.contextmanager
def _upstream(plan: Plan) -> Iterator[None]:
    folder = plan.folder
    upstream = servers.upstream(folder)
    with started("upstream", upstream, servers.UPSTREAM_PORT, LOAD_CPU, folder):
        yield


def _control(folder: Path) -> Path:
    return folder / "run" / "control.sock"


def _configured(folder: Path) -> Path:
    """Write rules for two apps, each known by its listener; return the configuration."""
    (folder / "rules").mkdir(mode=0o755, exist_ok=True)
    apps = {"bench": servers.PROXY_PORT, "other": OTHER_PORT}
    rules = "".join(
        f'  {name}:\n    identity: [{{listener: "127.0.0.1:{port}"}}]\n'
        f'    allow: [{{host: "*.example.net", ports: [{ORIGIN_PORT}], tls: false}}]\n'
        for name, port in apps.items()
    )
    (folder / "rules" / "bench.yaml").write_text(f"apps:\n{rules}")
    state = folder / "state"
    (state / "revoked.sqlite").unlink(missing_ok=True)
    file = folder / "sallyport.yaml"
    file.write_text(f"""
listen:
  do53: ["127.0.0.1:{servers.DO53_PORT}"]
  dot: []
  doh: []
  proxy: ["127.0.0.1:{servers.PROXY_PORT}", "127.0.0.1:{OTHER_PORT}"]
  metrics: []
  control: "{_control(folder)}"
  proxy_tls: []
  workload: ""
resolver: {{upstreams: ["udp://127.0.0.1:{servers.UPSTREAM_PORT}"]}}
rules: ["{folder}/rules"]
state: "{state}"
""")
    return file
