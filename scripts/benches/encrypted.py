"""Load over TLS: pipelined queries by dnsperf and h2load; a handshake each by our own program."""

import math
import re
import subprocess
from base64 import urlsafe_b64encode
from collections.abc import Callable
from pathlib import Path

import dns.message
import msgspec
from msgspec import Struct

from scripts.benches.ground import HERE, LOAD_CPU, pinned

CONNECTIONS, OUTSTANDING, THREADS = 10, 200, 16
STREAMS = 20
NAMES = 1000
_COMPLETED = re.compile(r"Queries completed: +(\d+)")
_LOST = re.compile(r"Queries lost: +(\d+)")
_GOOD = re.compile(r"NOERROR (\d+)")
_OK = re.compile(r"status codes: (\d+) 2xx")
_DONE = re.compile(r"(\d+) done")
_SECONDS = re.compile(r"Run time \(s\): +([\d.]+)")


class Load(Struct):
    """What a generator counted."""

    done: int
    failed: int
    seconds: float
    octets: int = 0
    lost: int = 0

    @property
    def anything(self) -> bool:
        """Whether the server did its work; a large body may outlast the measurement."""
        return self.done > 0 or self.octets > 0


def pipelined(folder: Path, port: int, seconds: float) -> Load:
    """Ask for names in turn over a few connections, many queries at a time on each."""
    names = folder / "names.txt"
    names.write_text("".join(f"h{number:03}.example.net A\n" for number in range(NAMES)))
    argv: list[str | Path] = ["dnsperf", "-m", "dot", "-s", "127.0.0.1", "-p", str(port)]
    argv += ["-d", names, "-T", "1", "-c", str(CONNECTIONS), "-q", str(OUTSTANDING)]
    argv += ["-l", str(math.ceil(seconds))]  # whole seconds only
    ended = subprocess.run(
        pinned(LOAD_CPU, argv), capture_output=True, text=True, check=True, timeout=seconds + 60
    )
    completed, good, lost = (_number(each, ended.stdout) for each in (_COMPLETED, _GOOD, _LOST))
    found = _SECONDS.search(ended.stdout)
    return Load(good, completed - good, float(found[1]) if found else seconds, lost=lost)


def handshakes(folder: Path, port: int, seconds: float, *how: str | Path) -> Load:
    """Connect, ask and close, again and again; `how` are the options of tlsload.c.

    Raises:
        RuntimeError: the generator cannot be built here.
    """
    ended = subprocess.run(
        _tlsload(folder, port, seconds, *how),
        stdout=subprocess.PIPE, check=True, timeout=seconds + 60,
    )  # fmt: skip
    return msgspec.json.decode(ended.stdout, type=Load)


def warm_requests(
    folder: Path, port: int, seconds: float, began: Callable[[], object], *how: str | Path
) -> Load:
    """Send requests over connections that are open; `began` is called when all of them are.

    Raises:
        RuntimeError: the generator cannot be built here.
    """
    argv = _tlsload(folder, port, seconds, *how)
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
        if process.stdout is None or process.stdout.readline() != b"warm\n":
            raise RuntimeError("no connection came up")
        began()
        counted = process.stdout.read()
    return msgspec.json.decode(counted, type=Load)


def _tlsload(folder: Path, port: int, seconds: float, *how: str | Path) -> list[str]:
    program = folder / "tlsload"
    if not program.exists():
        source = HERE / "tlsload.c"
        built = subprocess.run(
            ["cc", "-O2", "-pthread", "-o", program, source, "-lssl", "-lcrypto"], check=False
        )
        if built.returncode:
            raise RuntimeError("tlsload.c needs the headers of OpenSSL (libssl-dev)")
    return pinned(LOAD_CPU, [program, str(port), str(seconds), str(THREADS), *how])


def requests(folder: Path, port: int, seconds: float) -> Load:
    """Get names in turn over a few connections of HTTP/2, some at a time on each."""
    uris = folder / f"uris-{port}.txt"
    uris.write_text("".join(f"{uri(port, number)}\n" for number in range(NAMES)))
    argv: list[str | Path] = ["h2load", "-c", str(CONNECTIONS), "-m", str(STREAMS)]
    argv += ["-D", str(math.ceil(seconds)), "-i", uris]  # whole seconds only
    ended = subprocess.run(
        pinned(LOAD_CPU, argv), capture_output=True, text=True, check=True, timeout=seconds + 60
    )
    good, done = _number(_OK, ended.stdout), _number(_DONE, ended.stdout)
    return Load(good, max(0, done - good), math.ceil(seconds))


def uri(port: int, number: int) -> str:
    """Return the DoH request for one of the names, as a GET."""
    query = dns.message.make_query(f"h{number:03}.example.net", "A", id=0).to_wire()
    parameter = urlsafe_b64encode(query).rstrip(b"=").decode("ascii")
    return f"https://127.0.0.1:{port}/dns-query?dns={parameter}"


def _number(pattern: re.Pattern[str], text: str) -> int:
    found = pattern.search(text)
    return int(found[1]) if found else 0
