"""A certificate of a real issuer opens tunnels over proxy_tls; what is revoked resets both legs.

The origin and the clients are the test's own, so that a reset can be told from an end.
"""

import asyncio
import socket
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlencode

import msgspec
import pytest
from cryptography import x509
from msgspec import Struct

from proxy.control.client import ControlClient
from tests.internet import Internet
from tests.live.appliance import Folders, running
from tests.live.legs import PATIENCE_S, Leg, aborting, endings
from tests.live.token_stand import sallyport

pytestmark = pytest.mark.live

CODER = "spiffe://sallyport.internal/agent/coder"
ORIGIN, PORT, PROXY_PORT = "93.184.215.14", 9000, 3129  # example.com of tests.outside
AUTHORITY = b"example.com:%d" % PORT
RULES = f"""
apps:
  coder:
    identity: [{{spiffe: "{CODER}"}}]
    require: [mtls]
    allow:
      - {{host: example.com, ports: [{PORT}], tls: false}}
  other:
    identity: [{{listener: "127.0.0.1:{PROXY_PORT}"}}]
    allow:
      - {{host: example.com, ports: [{PORT}], tls: false}}
"""
CONFIG = """
listen: {{proxy_tls: ["127.0.0.1:3129"], proxy: []}}
resolver: {{upstream_ca: {ca}}}
"""


class View(Struct):
    """What the appliance tells of a revocation."""

    kind: str
    value: str
    cut: int | None = None


class Desk(Struct, frozen=True):
    """A running appliance, its control socket, and TLS with a certificate and without."""

    internet: Internet
    control: ControlClient
    certified: ssl.SSLContext
    bare: ssl.SSLContext
    named: dict[str, str]


@pytest.fixture(scope="module")
def desk(internet: Internet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    folders = Folders(tmp_path_factory.mktemp("revocation"))
    folders.configure(CONFIG.format(ca=internet.ca))
    folders.rule(RULES)
    with running(internet.agent, folders):
        root, svid = folders.config / "root.pem", folders.config / "id"
        sallyport(folders, "ca", "export", "--out", str(root))
        sallyport(folders, "svid", "coder", "--out", str(svid))
        bare = ssl.create_default_context(cafile=str(root))
        certified = ssl.create_default_context(cafile=str(root))
        certified.load_cert_chain(svid / "svid.pem", svid / "svid.key")
        leaf = x509.load_pem_x509_certificate((svid / "svid.pem").read_bytes())
        named = {"app": "coder", "spiffe-id": CODER, "serial": f"{leaf.serial_number:x}"}
        control = ControlClient(next(Path(folders.env["XDG_RUNTIME_DIR"]).rglob("*.sock")))
        yield Desk(internet, control, certified, bare, named)


@asynccontextmanager
async def tunnels(desk: Desk, *contexts: ssl.SSLContext) -> AsyncIterator[list[tuple[Leg, Leg]]]:
    """Open a tunnel with each; yield the two legs of each."""
    met: asyncio.Queue[Leg] = asyncio.Queue()
    with desk.internet.outside.entered():
        listening = socket.create_server((ORIGIN, PORT))
    server = await asyncio.start_server(lambda *ends: met.put_nowait(Leg(*ends)), sock=listening)
    opened: list[tuple[Leg, Leg]] = []
    ends: list[Leg] = []
    async with server, aborting(ends):
        for context in contexts:
            with desk.internet.agent.entered():
                sock = socket.create_connection(("127.0.0.1", PROXY_PORT))
            near = Leg(*await asyncio.open_connection(
                sock=sock, ssl=context, server_hostname="localhost"
            ))  # fmt: skip
            ends.append(near)
            near.writer.write(
                b"CONNECT example.com:%d HTTP/1.1\r\nHost: example.com:%d\r\n\r\n" % (PORT, PORT)
            )
            async with asyncio.timeout(PATIENCE_S):
                head = await near.reader.readuntil(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 200"), head
                far = await met.get()
            ends.append(far)
            opened.append((near, far))
        yield opened


async def revoked(desk: Desk, kind: str) -> View:
    wanted = {"what": desk.named[kind]}
    answer = await asyncio.to_thread(desk.control.ask, "POST", "/revocations", wanted)
    [view] = msgspec.convert(answer, list[View])
    return view


async def restored(desk: Desk, kind: str) -> None:
    query = urlencode({"what": desk.named[kind], "kind": kind})
    await asyncio.to_thread(desk.control.ask, "DELETE", f"/revocations?{query}")


@pytest.mark.parametrize("is_saturated", [False, True])
@pytest.mark.parametrize("kind", ["spiffe-id", "serial", "app"])
async def test_what_a_certificate_opened_is_reset_at_both_ends_and_nothing_else(
    desk: Desk, kind: str, report: list[str], *, is_saturated: bool
) -> None:
    """threats.md, "Identity": "A revoked or expired client certificate on an open connection"."""
    async with tunnels(desk, desk.certified, desk.bare) as ((near, far), (other, origin)):
        ends = await endings((near, far), is_saturated=is_saturated)
        async with asyncio.timeout(PATIENCE_S):
            begun = time.monotonic()
            view = await revoked(desk, kind)
            (near_how, near_at), (far_how, far_at) = await asyncio.gather(*ends)
            assert (view.kind, view.cut) == (kind, 1)
            assert (near_how, far_how) == ("reset", "reset")
            other.writer.write(b"still")
            assert await origin.reader.readexactly(5) == b"still"
    await restored(desk, kind)
    last_ms = (max(near_at, far_at) - begun) * 1000
    report.append(f"revoked {kind}, saturated {is_saturated}: last reset after {last_ms:.0f} ms")
