"""`sallyport demo`: an allowed look-up and request, a refused one, and a rebinding attempt.

It needs no internet: a nameserver and an HTTPS origin of its own stand on loopback, and a real
appliance is started on free ports with rules made for them.  Each step is asked over DNS and
over the proxy, as an agent would, and shown with what came back.
"""

import asyncio
import datetime as dt
import json
import os
import ssl
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import dns.asyncquery
import dns.edns
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import msgspec
from dns.exception import DNSException
from msgspec import Struct
from rich.console import Console
from rich.table import Table
from rich.text import Text

from certs.ephemeral import EphemeralServer, ephemeral_server
from proxy.demo_world import ALLOWED, REBINDING, REFUSED, World, world

_ROOT = str(Path(__file__).resolve().parent.parent)
_STEP_S = 5.0
_READY_S = 8.0
_WHOLE_S = 10.0  # it takes one or two
_HEAD_OCTETS = 16384

_RULES = """\
apps:
  demo:
    identity:
      - process: {{uid: {uid}}}
    allow:
      - name: the-origin
        host: {allowed}
        ports: [{port}]
        addresses: [127.0.0.1/32]
      - name: a-name-that-turns-on-us
        host: {rebinding}
        ports: [{port}]
"""
_CONFIG = """\
listen:
  {{do53: ["127.0.0.1:0"], dot: [], doh: [], proxy: ["127.0.0.1:0"], metrics: [], control: ""}}
resolver: {{upstreams: ["udp://127.0.0.1:{port}"]}}
rules: [rules]
state: state
"""


class Step(Struct, frozen=True):
    """One thing that was tried: what was asked, and what came back on that plane."""

    plane: str
    asked: str
    verdict: str
    answer: str


class _Ready(Struct, frozen=True):
    listen: dict[str, list[str]]


def run(*, as_json: bool) -> int:
    """Run the demonstration and print it; return 0 when every step went as it must."""
    try:
        steps = asyncio.run(_demonstrate())
    except (TimeoutError, OSError, EOFError, DNSException, msgspec.MsgspecError) as error:
        why = str(error) or type(error).__name__
        sys.stderr.write(f"sallyport: the demonstration failed: {why}\n")
        return 1
    if as_json:
        sys.stdout.write(msgspec.json.encode(steps).decode() + "\n")
    else:
        _show(steps)
    return 0 if [step.verdict for step in steps] == ["allowed", "refused", "refused"] * 2 else 1


async def _demonstrate() -> list[Step]:
    now = dt.datetime.now(dt.UTC)  # noqa: TID251 - a program of its own, with its clock
    server = ephemeral_server((ALLOWED, REFUSED, REBINDING), now)
    with tempfile.TemporaryDirectory(prefix="sallyport-demo-") as folder:
        async with (
            asyncio.timeout(_WHOLE_S),
            world(server, Path(folder)) as made,
            _appliance(Path(folder), made) as ready,
        ):
            do53, proxy = (_socket(ready.listen[kind][0]) for kind in ("do53", "proxy"))
            names = (ALLOWED, REFUSED, REBINDING)
            looked_up = [await _look_up(do53, name) for name in names]
            fetched = [await _fetch(proxy, name, made, server) for name in names]
            return looked_up + fetched


@asynccontextmanager
async def _appliance(folder: Path, made: World) -> AsyncIterator[_Ready]:
    rules_folder, config = folder / "rules", folder / "sallyport.yaml"
    rules_folder.mkdir(mode=0o700)  # whatever the umask: what others may write is no rule
    rules = _RULES.format(uid=os.getuid(), allowed=ALLOWED, rebinding=REBINDING, port=made.https)
    _write(rules_folder / "demo.yaml", rules)
    _write(config, _CONFIG.format(port=made.dns))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-m", "proxy", "up", "--json", "--config", config,
        stdout=asyncio.subprocess.PIPE, env={**os.environ, "PYTHONPATH": _ROOT},
    )  # fmt: skip
    try:
        assert process.stdout is not None  # noqa: S101 - asked for above
        line = await asyncio.wait_for(process.stdout.readline(), _READY_S)
        if not line:
            raise EOFError("the appliance ended before it was ready")
        yield msgspec.json.decode(line, type=_Ready)
    finally:
        with suppress(ProcessLookupError):  # it ended by itself and has said why
            process.terminate()
        await process.wait()


def _write(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text)


async def _look_up(do53: tuple[str, int], name: str) -> Step:
    query = dns.message.make_query(name, dns.rdatatype.A, use_edns=True)
    reply = await dns.asyncquery.tcp(query, do53[0], _STEP_S, do53[1])
    texts = [
        option.text or "" for option in reply.options if isinstance(option, dns.edns.EDEOption)
    ]
    addresses = [str(item) for rrset in reply.answer for item in rrset]
    answer = ", ".join(addresses) or f"{dns.rcode.to_text(reply.rcode())}  {' '.join(texts)}"
    verdict = "allowed" if addresses else "refused" if texts else "failed"
    return Step("DNS", f"{name} A", verdict, answer)


async def _fetch(proxy: tuple[str, int], name: str, made: World, server: EphemeralServer) -> Step:
    reader, writer = await asyncio.open_connection(*proxy, limit=_HEAD_OCTETS)
    asked = f"CONNECT {name}:{made.https}"
    try:
        async with asyncio.timeout(_STEP_S):
            writer.write(f"{asked} HTTP/1.1\r\nHost: {name}:{made.https}\r\n\r\n".encode())
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            status = head.split("\r\n", 1)[0].split(" ", 1)[1]
            if not status.startswith("200"):
                verdict = "refused" if "x-deny-reason" in head.lower() else "failed"
                return Step("HTTP", asked, verdict, f"{status}  {await _how(reader, head)}")
            context = ssl.create_default_context(cadata=server.authority)
            await writer.start_tls(context, server_hostname=name)
            writer.write(f"GET / HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode())
            body = (await reader.read()).decode("latin-1").rpartition("\r\n\r\n")[2]
            return Step("HTTP", f"{asked}, GET / inside", "allowed", body.strip())
    finally:
        writer.close()


async def _how(reader: asyncio.StreamReader, head: str) -> str:
    fields = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
    body = await reader.readexactly(int(fields.get("content-length", "0")))
    return str(json.loads(body).get("how", "")) if body else ""


def _socket(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port)


def _show(steps: list[Step]) -> None:
    table = Table("plane", "asked", "verdict", "answer")
    colours = {"allowed": "green", "refused": "yellow", "failed": "red"}
    for step in steps:
        verdict = Text(step.verdict, colours[step.verdict])
        table.add_row(step.plane, Text(step.asked), verdict, Text(step.answer))
    console = Console()
    console.print(table)
    console.print(f"{REBINDING} is allowed, but its answer is 127.0.0.1: a name may not turn")
    console.print("into an address of this host or network unless its rule says `addresses:`.")
