"""Renewal while connections stay open: real children, a real TLS server."""

import asyncio
import contextlib
import datetime as dt
import ssl
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import cast, override

import pytest
import uvloop

from certs import files
from certs.authority import init
from certs.issuer import LEAF_LIFE
from certs.leaf import Leaf, read_leaf
from certs.names import server_names
from proxy import renewal
from proxy.audit import AuditSettings
from proxy.config import Listen, Settings
from proxy.renewal import Renewal, certificate_folder, certificate_names
from proxy.transport.server_tls import ServerTls

NAMES = server_names(["127.0.0.1"])
LIFE_S = LEAF_LIFE.total_seconds()
DUE = LIFE_S * 3 / 4


type Run = Callable[[Coroutine[None, None, None]], None]


class Clock:
    """The wall clock, moved."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead_s


class Echo(asyncio.Protocol):
    """Sends everything back."""

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports do not derive from asyncio's.
        self._transport = cast("asyncio.Transport", transport)

    @override
    def data_received(self, data: bytes) -> None:
        self._transport.write(data)


class Stand:
    """A folder of keys, a context that serves with them, and what watches both."""

    def __init__(self, folder: Path, names: tuple[str, ...] = NAMES) -> None:
        self.folder = folder
        self.clock = Clock()
        paths = folder / files.SERVER_PEM, folder / files.SERVER_KEY
        self.listeners = [ServerTls(*paths, ("dot",)), ServerTls(*paths, ("h2",))]
        self.renewal = Renewal(folder, names, self.listeners, self.clock)

    @property
    def contexts(self) -> list[ssl.SSLContext]:
        return [each.current for each in self.listeners]

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[int]:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Echo, "127.0.0.1", 0, ssl=self.contexts[0])
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()

    def leaf(self) -> Leaf:
        found = read_leaf(self.folder)
        assert found is not None
        return found


class Client:
    """A connection that verified us, and the certificate that it was shown."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        tls = writer.get_extra_info("ssl_object")
        self.certificate: bytes = tls.getpeercert(binary_form=True)

    async def echo(self, octets: bytes) -> bytes:
        self._writer.write(octets)
        return await self._reader.readexactly(len(octets))

    async def close(self) -> None:
        self._writer.close()
        with contextlib.suppress(OSError, ssl.SSLError):
            await self._writer.wait_closed()


@contextlib.asynccontextmanager
async def connected(stand: Stand, port: int) -> AsyncIterator[Client]:
    trusting = ssl.create_default_context(cafile=stand.folder / files.ROOT_PEM)
    streams = await asyncio.open_connection("127.0.0.1", port, ssl=trusting)
    client = Client(*streams)
    try:
        yield client
    finally:
        await client.close()


@pytest.fixture
def stand(tmp_path: Path) -> Stand:
    folder = tmp_path / "ca"
    init(folder, NAMES, dt.datetime.now(dt.UTC))
    return Stand(folder)


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_an_open_connection_outlives_the_certificate_that_it_began_with(
    tmp_path: Path, run: Run
) -> None:
    """A client verifies by its own clock: the old certificate is made due by its age."""
    init(tmp_path / "ca", NAMES, dt.datetime.now(dt.UTC) - dt.timedelta(seconds=DUE))
    run(renewed_under_a_connection(Stand(tmp_path / "ca")))


async def renewed_under_a_connection(stand: Stand) -> None:
    async with stand.serving() as port, connected(stand, port) as before:
        assert await before.echo(b"one") == b"one"
        await stand.renewal.look()
        assert stand.renewal.problem == ""
        async with connected(stand, port) as after:
            assert after.certificate != before.certificate
            assert await after.echo(b"new") == b"new"
        assert await before.echo(b"two" * 10000) == b"two" * 10000


async def test_a_handshake_that_began_before_ends_with_the_old_certificate(stand: Stand) -> None:
    """The hello is there, the renewal happens, then the server answers: no mixture."""
    trusting = ssl.create_default_context(cafile=stand.folder / files.ROOT_PEM)
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trusting.wrap_bio(down, up, server_hostname="localhost")
    server = stand.contexts[0].wrap_bio(up, down, server_side=True)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    stand.clock.ahead_s = DUE
    await stand.renewal.look()
    with pytest.raises(ssl.SSLWantReadError):
        server.do_handshake()
    client.do_handshake()
    server.do_handshake()


async def test_every_listener_gets_the_new_certificate(stand: Stand) -> None:
    shown = [certificate_of(context) for context in stand.contexts]
    stand.clock.ahead_s = DUE
    await stand.renewal.look()
    new = [certificate_of(context) for context in stand.contexts]
    assert new[0] == new[1] == ssl.PEM_cert_to_DER_cert((stand.folder / "server.pem").read_text())
    assert new[0] not in shown


def certificate_of(context: ssl.SSLContext) -> bytes | None:
    """Return the certificate that a new handshake shows."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    asking = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    asking.check_hostname, asking.verify_mode = False, ssl.CERT_NONE
    client = asking.wrap_bio(down, up)
    server = context.wrap_bio(up, down, server_side=True)
    for side in (client, server, client):
        with contextlib.suppress(ssl.SSLWantReadError):
            side.do_handshake()
    return client.getpeercert(binary_form=True)


@pytest.mark.parametrize(
    ("ahead_s", "renewed"),
    [
        pytest.param(0, False, id="fresh"),
        pytest.param(LIFE_S / 2, False, id="half its life"),
        pytest.param(DUE, True, id="due"),
        pytest.param(LIFE_S * 2, True, id="expired"),
        pytest.param(-12 * 3600, True, id="the clock went back"),
    ],
)
async def test_a_certificate_is_renewed_when_it_is_due(
    stand: Stand, ahead_s: float, renewed: bool
) -> None:
    before = stand.leaf()
    stand.clock.ahead_s = ahead_s
    await stand.renewal.look()
    assert (stand.leaf() != before) is renewed
    assert stand.leaf().is_good(NAMES, stand.clock())
    assert stand.renewal.leaf == stand.leaf()


async def test_a_failure_is_told_once_and_tried_again_later(
    stand: Stand, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = stand.folder / files.ROOT_KEY
    key.chmod(0o644)
    stand.clock.ahead_s = DUE
    shown = certificate_of(stand.contexts[0])
    for _ in range(3):
        await stand.renewal.look()
        assert "cannot be renewed" in stand.renewal.problem
        assert "chmod 600" in stand.renewal.problem
    assert len(caplog.records) == 1
    assert "PRIVATE" not in caplog.text
    assert certificate_of(stand.contexts[0]) == shown
    key.chmod(0o600)
    await stand.renewal.look()
    assert stand.renewal.problem, "too early for another child"
    later = asyncio.get_running_loop().time() + renewal.RETRY_S
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: later, raising=False)
    await stand.renewal.look()
    assert stand.renewal.problem == ""
    assert certificate_of(stand.contexts[0]) != shown


async def test_a_name_that_the_root_does_not_permit_is_a_problem(stand: Stand) -> None:
    other = Stand(stand.folder, server_names(["192.0.2.7"]))
    await other.renewal.look()
    assert "does not permit 192.0.2.7" in other.renewal.problem


async def test_files_that_somebody_replaced_are_loaded(stand: Stand) -> None:
    shown = certificate_of(stand.contexts[0])
    await stand.renewal.look()
    assert certificate_of(stand.contexts[0]) == shown
    init(stand.folder, NAMES, dt.datetime.now(dt.UTC), force=True)
    await stand.renewal.look()
    assert certificate_of(stand.contexts[1]) != shown
    assert stand.renewal.problem == ""


async def test_files_that_do_not_belong_together_are_not_loaded(stand: Stand) -> None:
    shown = certificate_of(stand.contexts[0])
    (stand.folder / files.SERVER_KEY).write_bytes((stand.folder / files.ROOT_KEY).read_bytes())
    await stand.renewal.look()
    assert "KEY_VALUES_MISMATCH" in stand.renewal.problem
    assert certificate_of(stand.contexts[0]) == shown


async def test_files_that_are_being_written_are_left_for_the_next_look(stand: Stand) -> None:
    shown = certificate_of(stand.contexts[0])
    init(stand.folder, NAMES, dt.datetime.now(dt.UTC), force=True)
    with files.locked(stand.folder):
        await stand.renewal.look()
        assert certificate_of(stand.contexts[0]) == shown
    await stand.renewal.look()
    assert certificate_of(stand.contexts[0]) != shown


async def test_a_folder_that_is_gone_is_a_problem_and_no_end(stand: Stand) -> None:
    """threats.md, "Parser, transport, cache"; issue: files removed under it."""
    for path in stand.folder.iterdir():
        path.unlink()
    await stand.renewal.look()
    assert "has no CA: make one with `sallyport ca init`" in stand.renewal.problem


@pytest.mark.parametrize(
    ("script", "said"),
    [
        pytest.param("exec sleep 60", "took longer than 0 s", id="stalls"),
        pytest.param("exit 3", "ended with 3", id="says nothing"),
        pytest.param("printf '%9999s' x >&2; exit 1", "cannot be renewed: x", id="says too much"),
        pytest.param("printf '\\377' >&2; exit 1", "\ufffd", id="says no text"),
    ],
)
async def test_a_child_that_fails_is_a_problem(
    stand: Stand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, said: str
) -> None:
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    monkeypatch.setattr(renewal, "CHILD_S", 0.3)
    stand.clock.ahead_s = DUE
    await stand.renewal.look()
    assert said in stand.renewal.problem
    assert len(stand.renewal.problem) < 700


async def test_a_child_that_cannot_be_started_is_a_problem_and_no_end(
    stand: Stand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a flood of connections holds every descriptor at that time."""
    monkeypatch.setattr(sys, "executable", str(tmp_path / "gone"))
    stand.clock.ahead_s = DUE
    await stand.renewal.look()
    assert "cannot be started: No such file" in stand.renewal.problem


async def test_looking_ends_when_it_is_cancelled(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = asyncio.Event()

    async def look() -> None:
        looked.set()

    monkeypatch.setattr(stand.renewal, "look", look)
    monkeypatch.setattr(renewal, "LOOK_S", 0.0)
    task = asyncio.create_task(stand.renewal.run())
    for _ in range(2):
        await looked.wait()
        looked.clear()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def settings(*dot: str, doh: tuple[str, ...] = ()) -> Settings:
    listen = Listen(dot=dot, doh=doh)
    return Settings(state="/s", rules=(), audit=AuditSettings("/s/audit.jsonl"), listen=listen)


def test_the_names_follow_the_listeners() -> None:
    found = certificate_names(settings("127.0.0.1:8853", doh=("[::1]:8443", "0.0.0.0:443")))
    assert found == ("localhost", "sallyport.internal", "127.0.0.1", "::1")
    assert certificate_folder(settings()) == Path("/s/ca")
