"""A certificate of a real issuer opens tunnels over proxy_tls; what is revoked resets both legs.

The origin and the clients are the test's own, so that a reset can be told from an end.
"""

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from msgspec import Struct

from certs.files import SERVER_PEM
from proxy.control.client import ControlClient
from tests.internet import Internet
from tests.live.appliance import Appliance, Folders, running
from tests.live.token_stand import sallyport

pytestmark = pytest.mark.live

CODER = "spiffe://sallyport.internal/agent/coder"
ORIGIN, PORT, PROXY_PORT = "93.184.215.14", 9000, 3129  # example.com of tests.outside
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
PIECE = bytes(65536)
PATIENCE_S = 10.0


class View(Struct):
    """What the appliance tells of a revocation."""

    kind: str
    value: str
    cut: int | None = None


class Desk(Struct, frozen=True):
    """A running appliance, its control socket, and TLS with a certificate and without."""

    internet: Internet
    appliance: Appliance
    control: ControlClient
    certified: ssl.SSLContext
    bare: ssl.SSLContext
    serial: str

    def connected(self, tls: ssl.SSLContext) -> ssl.SSLContext:
        return tls


class Leg:
    """One end of a tunnel; `ended` is how it ended, and when."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.ended: tuple[str, float] | None = None

    async def ending(self) -> tuple[str, float]:
        """Read until the end; return how it ended, and when."""
        try:
            while await self.reader.read(1 << 18):
                pass
        except ConnectionResetError:
            return "reset", time.monotonic()
        return "end", time.monotonic()

    async def fill(self) -> None:
        """Write as much as the other end takes."""
        with contextlib.suppress(ConnectionError):
            while True:
                self.writer.write(PIECE)
                await self.writer.drain()


@pytest.fixture(scope="module")
def desk(internet: Internet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    folders = Folders(tmp_path_factory.mktemp("revocation"))
    folders.configure(CONFIG.format(ca=internet.ca))
    folders.rule(RULES)
    with running(internet.agent, folders) as appliance:
        root, svid = folders.config / "root.pem", folders.config / "id"
        sallyport(folders, "ca", "export", "--out", str(root))
        sallyport(folders, "svid", "coder", "--out", str(svid))
        bare = ssl.create_default_context(cafile=str(root))
        certified = ssl.create_default_context(cafile=str(root))
        certified.load_cert_chain(svid / "svid.pem", svid / "svid.key")
        found = ssl._ssl._test_decode_cert(str(svid / "svid.pem"))
        control = ControlClient(next(Path(folders.env["XDG_RUNTIME_DIR"]).rglob("*.sock")))
        yield Desk(internet, appliance, control, certified, bare, found["serialNumber"])


@asynccontextmanager
async def tunnels(desk: Desk, *contexts: ssl.SSLContext) -> AsyncIterator[list[tuple[Leg, Leg]]]:
    """Open a tunnel with each; yield the two legs of each."""
    met: asyncio.Queue[Leg] = asyncio.Queue()
    with desk.internet.outside.entered():
        listening = socket.create_server((ORIGIN, PORT))
    server = await asyncio.start_server(lambda *ends: met.put_nowait(Leg(*ends)), sock=listening)
    opened = []
    async with server:
        for context in contexts:
            with desk.internet.agent.entered():
                sock = socket.create_connection(("127.0.0.1", PROXY_PORT))
            near = Leg(*await asyncio.open_connection(
                sock=sock, ssl=context, server_hostname="localhost"
            ))  # fmt: skip
            near.writer.write(
                b"CONNECT example.com:%d HTTP/1.1\r\nHost: example.com:%d\r\n\r\n" % (PORT, PORT)
            )
            head = await near.reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200"), head
            opened.append((near, await met.get()))
        yield opened
        for leg in (leg for both in opened for leg in both):
            leg.writer.transport.abort()


@pytest.mark.parametrize("saturated", [False, True])
@pytest.mark.parametrize("what", ["spiffe", "serial", "app"])
async def test_x(desk: Desk, what: str, saturated: bool) -> None:
    named = {"spiffe": CODER, "serial": desk.serial, "app": "coder"}[what]
    async with tunnels(desk, desk.certified, desk.bare) as ((near, far), (other, origin)):
        filling = [asyncio.create_task(leg.fill()) for leg in (near, far)] if saturated else []
        ends = [asyncio.create_task(leg.ending()) for leg in (near, far)]
        await asyncio.sleep(0.5)
        begun = time.monotonic()
        answer = await asyncio.to_thread(desk.control.ask, "POST", "/revocations", {"what": named})
        [view] = msgspec.convert(answer, list[View])
        print(view, time.monotonic() - begun)
        async with asyncio.timeout(PATIENCE_S):
            done = await asyncio.gather(*ends)
        print([(how, at - begun) for how, at in done])
        other.writer.write(b"still")
        assert await origin.reader.readexactly(5) == b"still"
        for each in filling:
            each.cancel()
    await asyncio.to_thread(
        desk.control.ask, "DELETE", f"/revocations?what={view.value}&kind={view.kind}"
    )
