"""Each socket speaks what its kind says, from the whole appliance, and ends with it."""

import asyncio
import datetime as dt
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import dns.asyncquery
import dns.message
import dns.rcode
import pytest

from certs.authority import ensure
from certs.files import ROOT_PEM
from proxy.appliance import Appliance
from proxy.audit import AuditSettings
from proxy.config import Listen, Settings
from proxy.limits import Limits
from proxy.renewal import certificate_folder, certificate_names
from tests.proxy.resolver.peers import free_port

KINDS = ("do53", "dot", "doh", "proxy", "metrics")
WAIT_S = 20.0


def settings(folder: Path, limits: Limits) -> Settings:
    ports = {kind: (f"127.0.0.1:{free_port()}",) for kind in KINDS}
    (folder / "rules").mkdir(mode=0o700)
    (folder / "rules" / "a.yaml").write_text("apps: {agent: {allow: []}}\n")
    return Settings(
        state=str(folder),
        rules=(str(folder / "rules"),),
        audit=AuditSettings(str(folder / "audit.jsonl")),
        listen=Listen(**ports),  # type: ignore[arg-type]  # five of its fields, all alike
        upstreams=("udp://127.0.0.1:9",),
        limits=limits,
    )


class Running:
    """A running appliance, its sockets by kind, and what its clients trust."""

    def __init__(self, told: Settings, listen: Mapping[str, list[str]]) -> None:
        self.ports = {kind: int(listen[kind][0].rpartition(":")[2]) for kind in KINDS}
        self.root = certificate_folder(told) / ROOT_PEM

    def trusting(self, *alpn: str) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.root)
        context.set_alpn_protocols(list(alpn))
        return context

    async def tls(self, kind: str, *alpn: str) -> str | None:
        """Return the protocol that a TLS connection to a listener agrees on."""
        _, writer = await asyncio.open_connection(
            "127.0.0.1", self.ports[kind], ssl=self.trusting(*alpn)
        )
        agreed: str | None = writer.get_extra_info("ssl_object").selected_alpn_protocol()
        writer.close()
        with suppress(ssl.SSLError):  # HTTP/2 has said something already that nobody read
            await writer.wait_closed()
        return agreed

    async def says(self, kind: str, request: bytes) -> bytes:
        """Return the first line that a plain connection gets for `request`."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.ports[kind])
        writer.write(request)
        line = await asyncio.wait_for(reader.readline(), WAIT_S)
        writer.close()
        await writer.wait_closed()
        return line


@asynccontextmanager
async def running(folder: Path, limits: Limits | None = None) -> AsyncIterator[Running]:
    told = settings(folder, limits or Limits())
    ensure(certificate_folder(told), certificate_names(told), dt.datetime.now(dt.UTC))
    appliance = Appliance(told)
    ready = await appliance.start()
    try:
        yield Running(told, ready.listen)
    finally:
        await appliance.close()


@pytest.mark.parametrize("ask", [dns.asyncquery.udp, dns.asyncquery.tcp])
async def test_do53_answers_over_both_of_its_sockets(
    tmp_path: Path, ask: Callable[..., object]
) -> None:
    async with running(tmp_path) as appliance:
        query = dns.message.make_query("example.com", "A")
        reply = await ask(query, "127.0.0.1", WAIT_S, appliance.ports["do53"])  # type: ignore[misc]  # any of them
    assert reply.rcode() == dns.rcode.NXDOMAIN


async def test_dot_and_doh_agree_on_their_protocols(tmp_path: Path) -> None:
    async with running(tmp_path) as appliance:
        assert await appliance.tls("dot", "dot") == "dot"
        assert await appliance.tls("doh", "h2", "http/1.1") == "h2"
        assert await appliance.tls("doh", "http/1.1") == "http/1.1"


async def test_the_proxy_and_the_admin_speak_http(tmp_path: Path) -> None:
    async with running(tmp_path) as appliance:
        port = appliance.ports["metrics"]
        request = f"GET /healthz HTTP/1.1\r\nHost: localhost:{port}\r\n\r\n".encode()
        assert (await appliance.says("metrics", request)).startswith(b"HTTP/1.1 200 ")
        request = b"GET http://example.com/ HTTP/1.1\r\nHost: example.com\r\n\r\n"
        assert b" sallyport host-not-listed " in await appliance.says("proxy", request)


async def test_handshakes_are_bounded(tmp_path: Path) -> None:
    """threats.md, "HTTP itself": "Slow loris on head, body, TLS hello"."""
    async with running(tmp_path, Limits(tls_handshakes=1)) as appliance:
        reader, writer = await asyncio.open_connection("127.0.0.1", appliance.ports["dot"])
        assert await appliance.tls("dot", "dot") == "dot"
        assert await asyncio.wait_for(reader.read(), WAIT_S) == b""
        writer.close()
        port = appliance.ports["metrics"]
        scraping, sending = await asyncio.open_connection("127.0.0.1", port)
        sending.write(
            f"GET /metrics HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\n\r\n".encode()
        )
        page = await asyncio.wait_for(scraping.read(), WAIT_S)
        sending.close()
    assert b'sallyport_bounds_total{limit="tls_handshakes"} 1.0' in page


async def test_after_the_end_nothing_accepts(tmp_path: Path) -> None:
    async with running(tmp_path) as appliance:
        ports = appliance.ports
    for kind in KINDS:
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", ports[kind])
