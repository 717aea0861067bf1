"""Handshakes: bounded in number and in time, and never in the way of others."""

import asyncio
import contextlib
import datetime as dt
import gc
import os
import resource
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import override

import pytest

from proxy.transport import handshake
from proxy.transport.handshake import Handshakes, ListenerTls, Unverified
from proxy.transport.server_tls import ServerTls
from tests.authority import PrivateAuthority
from tests.certs.forgery import BREACHES, FORGERIES, TRUST_DOMAIN, Forged, Forger

NAME = "127.0.0.1"
WAIT_S = 20.0
NO_HELLO = bytes.fromhex("1603010005 0100000100")  # a ClientHello of one octet


class Echo(asyncio.Protocol):
    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    @override
    def data_received(self, data: bytes) -> None:
        self.transport.write(data)  # type: ignore[attr-defined]  # uvloop's, see below


class Stand:
    """A listener with room for three handshakes, and clients that trust it."""

    def __init__(self, folder: Path, wait_s: float) -> None:
        authority = PrivateAuthority(folder)
        chain, key = authority.issue([NAME])
        self.tls = ServerTls(chain, key, ())
        self.trusting = ssl.create_default_context(cafile=str(authority.certificate))
        listening = socket.create_server((NAME, 0))
        listening.setblocking(False)
        self.port = listening.getsockname()[1]
        self.bounds: list[str] = []
        self.hit = asyncio.Event()
        self.outcomes: list[str] = []
        self.unverified: list[Unverified] = []
        tls = ListenerTls(
            self.tls, 3, wait_s, self._at_bound, self.outcomes.append, self.unverified.append
        )
        self.handshakes = Handshakes(listening, Echo, tls)
        self.handshakes.start()

    def _at_bound(self, name: str) -> None:
        self.bounds.append(name)
        self.hit.set()

    async def silent(self) -> socket.socket:
        """Connect, and say nothing."""
        under_way = self.handshakes.under_way
        client = socket.create_connection((NAME, self.port))
        client.setblocking(False)
        async with asyncio.timeout(WAIT_S):
            while self.handshakes.under_way == under_way and not self.bounds:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0)
        return client

    async def ended(self, client: socket.socket) -> bool:
        """Wait until the server says something; return whether it said that it is over."""
        receiving = asyncio.get_running_loop().sock_recv(client, 1)
        octets = await asyncio.wait_for(receiving, WAIT_S)
        client.close()
        return octets == b""

    async def echo(self, trusting: ssl.SSLContext | None = None) -> bytes:
        """Say something over TLS and return what comes back."""
        trusting = trusting or self.trusting
        reader, writer = await asyncio.open_connection(NAME, self.port, ssl=trusting)
        writer.write(b"ping")
        answer = await asyncio.wait_for(reader.readexactly(4), WAIT_S)
        writer.close()
        await writer.wait_closed()
        return answer


@pytest.fixture
async def stand(tmp_path: Path) -> AsyncIterator[Stand]:
    stand = Stand(tmp_path, WAIT_S)
    yield stand
    stand.handshakes.stop()


async def test_serves_over_tls(stand: Stand) -> None:
    assert await stand.echo() == b"ping"
    assert stand.bounds == []


def client_of(forged: Forged, folder: Path) -> ssl.SSLContext:
    chain, key, _ = forged.write(folder)
    client = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    client.load_cert_chain(chain, key)
    return client


async def test_a_certificate_that_holds_is_let_in(stand: Stand, tmp_path: Path) -> None:
    forged = Forger.loose(TRUST_DOMAIN, dt.datetime.now(dt.UTC)).good()
    stand.tls.ask(forged.ders[-1:])
    assert await stand.echo(client_of(forged, tmp_path)) == b"ping"
    assert await stand.echo() == b"ping"  # nobody must have one
    assert (stand.outcomes, stand.unverified) == (["done", "done"], [])


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize(
    ("name", "alert", "said"),
    [
        ("expired", "certificate expired", "certificate has expired"),
        ("not-yet-valid", "bad certificate", "certificate is not yet valid"),
        ("unknown-issuer", "unknown ca", "unable to get local issuer certificate"),
        ("self-signed", "unknown ca", "unable to get local issuer certificate"),
        ("without-intermediate", "unknown ca", "unable to get local issuer certificate"),
        ("svid-below-svid", "unknown ca", "invalid CA certificate"),
        ("server-only", "unsupported certificate", "unsuitable certificate purpose"),
        ("mail-only", "unsupported certificate", "unsuitable certificate purpose"),
        (
            "no-digital-signature",
            "certificate unknown",
            "Key usage keyCertSign invalid for non-CA cert",
        ),
    ],
)
async def test_a_certificate_that_does_not_hold_is_told_so_and_recorded(
    stand: Stand, tmp_path: Path, name: str, alert: str, said: str, version: ssl.TLSVersion
) -> None:
    """Issue 4: expired, not yet valid, wrong EKU, unknown issuer, an SVID that signs."""
    forger = Forger.loose(TRUST_DOMAIN, dt.datetime.now(dt.UTC))
    stand.tls.ask(forger.good().ders[-1:])
    client = client_of(FORGERIES[name](forger), tmp_path)
    client.minimum_version = client.maximum_version = version
    with pytest.raises(ssl.SSLError) as caught:
        await stand.echo(client)
    assert caught.value.reason is not None
    assert alert.replace(" ", "_") in caught.value.reason.lower()
    assert stand.outcomes == ["certificate"]
    (client_,) = stand.unverified
    assert client_.text == said
    assert client_.local == (NAME, stand.port)
    assert client_.peer[0] == NAME
    assert await stand.echo() == b"ping"


async def test_a_breach_of_a_name_constraint_fails_the_handshake(
    stand: Stand, tmp_path: Path
) -> None:
    """Issue 4: a stolen intermediate of ours signs for a foreign trust domain."""
    forger = Forger.strict(tmp_path / "domain", dt.datetime.now(dt.UTC))
    stand.tls.ask(forger.good().ders[-1:])
    assert await stand.echo(client_of(forger.good(), tmp_path)) == b"ping"
    for name in sorted(BREACHES):
        with pytest.raises(ssl.SSLError):
            await stand.echo(client_of(FORGERIES[name](forger), tmp_path))
    assert stand.outcomes == ["done", *["certificate"] * len(BREACHES)]
    assert {each.text for each in stand.unverified} <= {
        "permitted subtree violation",
        "excluded subtree violation",
        "unsupported name constraint type",
    }


async def test_who_speaks_no_common_version_is_told_so(stand: Stand) -> None:
    """RFC 8446, section 6.2: the loop alone would drop the alert."""
    old = stand.trusting
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    old.set_ciphers("AES128-SHA")
    with pytest.raises(ssl.SSLError, match="HANDSHAKE_FAILURE"):
        await stand.echo(old)
    assert stand.outcomes == ["failed"]


async def test_a_further_handshake_ends_the_oldest(stand: Stand) -> None:
    """threats.md, "HTTP itself": "Slow loris on head, body, TLS hello"."""
    clients = [await stand.silent() for _ in range(3)]
    assert stand.handshakes.under_way == 3
    assert await stand.echo() == b"ping"
    assert stand.bounds == ["tls_handshakes"]
    assert await stand.ended(clients[0])
    assert stand.handshakes.under_way == 2
    for client in clients:
        client.close()


async def test_a_handshake_has_its_time(tmp_path: Path) -> None:
    stand = Stand(tmp_path, 0.05)
    client = await stand.silent()
    assert await stand.ended(client)
    await asyncio.wait_for(stand.hit.wait(), WAIT_S)
    await asyncio.sleep(0)  # the turn in which the task is done
    assert (stand.bounds, stand.outcomes) == (["tls_handshake_s"], ["timeout"])
    assert stand.handshakes.under_way == 0
    stand.handshakes.stop()


async def test_what_is_no_tls_ends_its_own_connection_only(stand: Stand) -> None:
    reader, writer = await asyncio.open_connection(NAME, stand.port)
    writer.write(b"GET / HTTP/1.1\r\n\r\n")
    await asyncio.wait_for(reader.read(), WAIT_S)
    writer.close()
    await writer.wait_closed()
    gone = socket.create_connection((NAME, stand.port))
    gone.close()
    assert await stand.echo() == b"ping"
    assert stand.bounds == []


async def test_stopping_ends_what_is_under_way_and_frees_the_port(stand: Stand) -> None:
    client = await stand.silent()
    stand.handshakes.stop()
    stand.handshakes.stop()  # a second time changes nothing
    assert stand.handshakes.under_way == 0
    assert await stand.ended(client)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(NAME, stand.port)


async def test_rests_while_there_is_no_descriptor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """threats.md, "Parser, transport, cache": no descriptor left."""
    monkeypatch.setattr(handshake, "_REST_S", 0.05)
    stand = Stand(tmp_path, WAIT_S)
    client = socket.socket()
    client.setblocking(False)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    spare: list[int] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        with contextlib.suppress(OSError):
            while True:
                spare.append(os.dup(0))
        await asyncio.get_running_loop().sock_connect(client, (NAME, stand.port))
        for _ in range(5):
            await asyncio.sleep(0)
        assert stand.handshakes.under_way == 0
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for each in spare:
            os.close(each)
    async with asyncio.timeout(WAIT_S):
        while not stand.handshakes.under_way:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)
    client.close()
    stand.handshakes.stop()


async def test_what_was_sent_meanwhile_does_not_overtake_the_alert(
    stand: Stand, tmp_path: Path
) -> None:
    """A client of TLS 1.3 sends its request before it can know that its certificate is refused."""
    forger = Forger.loose(TRUST_DOMAIN, dt.datetime.now(dt.UTC))
    stand.tls.ask(forger.good().ders[-1:])
    client = client_of(FORGERIES["expired"](forger), tmp_path)
    for _ in range(5):
        reader, writer = await asyncio.open_connection(NAME, stand.port, ssl=client)
        for _ in range(20):
            writer.write(b"x" * 1000)
            await asyncio.sleep(0.001)
        with pytest.raises(ssl.SSLError, match="CERTIFICATE_EXPIRED"):
            await asyncio.wait_for(reader.readexactly(1), WAIT_S)
        writer.transport.abort()


async def test_what_lingers_is_bounded_and_ends_with_the_listener(stand: Stand) -> None:
    gc.collect()  # what other tests left open must not close meanwhile
    before = descriptors()
    clients = []
    for _ in range(6):
        reader, writer = await asyncio.open_connection(NAME, stand.port)
        clients.append(writer)
        writer.write(NO_HELLO)
        assert await asyncio.wait_for(reader.read(), WAIT_S)
    assert len(stand.handshakes._lingering) == 3
    async with asyncio.timeout(WAIT_S):
        while descriptors() - before > len(clients) + 3:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.005)
    stand.handshakes.stop()
    assert not stand.handshakes._lingering
    for each in clients:
        each.close()


async def test_what_lingers_ends_by_itself(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handshake, "_LINGER_S", 0.01)
    reader, writer = await asyncio.open_connection(NAME, stand.port)
    writer.write(NO_HELLO)
    await asyncio.wait_for(reader.read(), WAIT_S)
    async with asyncio.timeout(WAIT_S):
        while stand.handshakes._lingering:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.005)
    writer.close()


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - a count of names
