"""A corporate parent: CONNECT to the address that was decided on, for every connection."""

import asyncio
import contextlib
import shutil
import socket
import ssl
import subprocess
import tempfile
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from proxy.egress.connect import ESTABLISHED
from proxy.egress.parent import Parent, parse_parent
from proxy.errors import ConfigError
from proxy.limits import Limits
from rules.address import parse_address
from rules.ruleset import AllowRule
from tests.proxy.egress.world import LOCAL, LOOPBACK, Origin, connect, get, opened, settled
from tests.rules.written import allow

OK = b"HTTP/1.1 200 Connection established\r\n\r\n"


def to(origin: Origin) -> AllowRule:
    return allow("example.com", ports=[origin.port], addresses=[LOOPBACK], tls=False)


def relaying(answer: bytes = OK) -> Origin:
    """Return a parent that connects to what it is asked for, as soon as it has said `answer`."""
    parent = Origin()

    async def copy(reader: StreamReader, writer: StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
        writer.close()

    async def script(reader: StreamReader, writer: StreamWriter) -> None:
        head = await parent.read_head(reader)
        host, _, port = head.split(b" ")[1].decode().rpartition(":")
        far_reader, far_writer = await asyncio.open_connection(host, int(port))
        writer.write(answer)
        await asyncio.gather(copy(reader, far_writer), copy(far_reader, writer))

    parent.script = script
    return parent


def at(origin: Origin, authorization: bytes = b"") -> Parent:
    return Parent(parse_address(LOCAL), origin.port, authorization=authorization)


async def test_tunnels_go_through_the_parent_to_the_address_decided_on(tmp_path: Path) -> None:
    """threats.md, "Between name and address": "Rebinding"; a parent never looks a name up."""
    async with relaying().running() as parent, Origin().running() as origin:
        async with opened(tmp_path, to(origin), parent=at(parent)) as world:
            where = f"example.com:{origin.port}"
            client = await world.client()
            client.send(connect(where))
            assert await client.head() == ESTABLISHED
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert (await client.reply()).body == b"ok"
        line, *fields = parent.heads[0].split(b"\r\n")
        assert line == b"CONNECT 127.0.0.1:%d HTTP/1.1" % origin.port
        assert b"host: 127.0.0.1:%d" % origin.port in fields
        assert b"example.com" not in parent.heads[0]


async def test_plain_requests_go_through_it_too_and_are_pooled(tmp_path: Path) -> None:
    async with relaying().running() as parent, Origin().running() as origin:
        credentials = b"Basic dTpw"
        async with opened(tmp_path, to(origin), parent=at(parent, credentials)) as world:
            for _ in range(2):
                reply = await world.ask(get(f"example.com:{origin.port}", "/a"))
                assert reply.body == b"ok"
        assert len(parent.heads) == 1
        assert b"proxy-authorization: Basic dTpw\r\n" in parent.heads[0]
        assert all(b"proxy-authorization" not in head for head in origin.heads)


async def test_an_origin_that_speaks_first_is_heard(tmp_path: Path) -> None:
    async def script(reader: StreamReader, writer: StreamWriter) -> None:
        writer.write(b"220 hello\r\n")
        await reader.read()

    async with (
        relaying(b"HTTP/1.1 100 Continue\r\n\r\n" + OK).running() as parent,
        Origin(script).running() as origin,
        opened(tmp_path, to(origin), parent=at(parent)) as world,
    ):
        client = await world.client()
        client.send(connect(f"example.com:{origin.port}"))
        assert await client.exactly(len(ESTABLISHED) + 11) == ESTABLISHED + b"220 hello\r\n"


async def test_octets_with_the_answer_are_kept_for_a_tunnel(tmp_path: Path) -> None:
    async with (
        relaying(OK + b"220 early\r\n").running() as parent,
        Origin().running() as origin,
        opened(tmp_path, to(origin), parent=at(parent)) as world,
    ):
        client = await world.client()
        client.send(connect(f"example.com:{origin.port}"))
        assert await client.exactly(len(ESTABLISHED) + 11) == ESTABLISHED + b"220 early\r\n"


async def test_octets_before_a_request_are_no_response(tmp_path: Path) -> None:
    """threats.md, "HTTP itself": a response that nobody asked for."""
    smuggled = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno"
    async with relaying(OK + smuggled).running() as parent, Origin().running() as origin:
        async with opened(tmp_path, to(origin), parent=at(parent)) as world:
            reply = await world.ask(get(f"example.com:{origin.port}"))
            assert (reply.status, reply.field("x-deny-reason")) == (502, "upstream-malformed")
        assert origin.heads == []


def answering(answer: bytes, *, close: bool = False) -> Origin:
    parent = Origin()

    async def script(reader: StreamReader, writer: StreamWriter) -> None:
        await parent.read_head(reader)
        writer.write(answer)
        if not close:
            await reader.read()

    parent.script = script
    return parent


@pytest.mark.parametrize(
    ("answer", "status", "reason", "text"),
    [
        (b"HTTP/1.1 407 No\r\n\r\n", 502, "upstream-unreachable", "wants other credentials (407)"),
        (b"HTTP/1.1 403 No\r\n\r\n", 502, "upstream-unreachable", "refuses the CONNECT (403)"),
        (b"HTTP/1.1 503 No\r\n\r\n", 502, "upstream-unreachable", "refuses the CONNECT (503)"),
        (b"HTTP/1.1 504 No\r\n\r\n", 504, "upstream-timeout", "reached nobody in time (504)"),
        (b"SSH-2.0-x\r\n", 502, "upstream-malformed", "does not begin"),
        (b"HTTP/1.1 100 C\r\n\r\n" * 9, 502, "upstream-malformed", "too many interim"),
        (b"", 502, "upstream-unreachable", "closed before it answered"),
    ],
)
async def test_what_the_parent_says_instead(
    tmp_path: Path, answer: bytes, status: int, reason: str, text: str
) -> None:
    async with (
        answering(answer, close=True).running() as parent,
        opened(tmp_path, allow("example.com"), parent=at(parent)) as world,
    ):
        world.names.table["example.com"] = ["93.184.216.34"]
        reply = await world.ask(connect("example.com:443"))
        assert (reply.status, reply.field("x-deny-reason")) == (status, reason)
        line = next(line for line in await world.lines() if line["verdict"] == "fail")
        assert f"the parent proxy 127.0.0.1:{parent.port}: " in line["text"]
        assert text in line["text"]


async def test_a_parent_that_is_not_there(tmp_path: Path) -> None:
    async with Origin().running() as gone:
        pass
    async with opened(tmp_path, allow("example.com"), parent=at(gone)) as world:
        world.names.table["example.com"] = ["93.184.216.34", "93.184.216.35"]
        reply = await world.ask(connect("example.com:443"))
        assert (reply.status, reply.field("x-deny-reason")) == (502, "upstream-unreachable")


async def test_a_parent_that_says_nothing(tmp_path: Path) -> None:
    limits = Limits(proxy_tick_s=0.02, connect_s=0.1)
    async with answering(b"").running() as parent:
        rule = allow("example.com")
        async with opened(tmp_path, rule, limits=limits, parent=at(parent)) as world:
            world.names.table["example.com"] = ["93.184.216.34"]
            reply = await world.ask(connect("example.com:443"))
            assert (reply.status, reply.field("x-deny-reason")) == (504, "upstream-timeout")
            line = next(line for line in await world.lines() if line["verdict"] == "fail")
            assert line["text"].endswith(f"through the parent proxy 127.0.0.1:{parent.port}")


async def test_an_address_that_is_refused_never_reaches_the_parent(tmp_path: Path) -> None:
    async with relaying().running() as parent:
        async with opened(tmp_path, allow("example.com"), parent=at(parent)) as world:
            world.names.table["example.com"] = ["169.254.169.254"]
            reply = await world.ask(connect("example.com:443"))
            assert reply.field("x-deny-reason") == "address-not-allowed"
        assert parent.connections == 0


async def test_a_client_that_leaves_ends_the_asking(tmp_path: Path) -> None:
    async with (
        answering(b"").running() as parent,
        opened(tmp_path, allow("example.com"), parent=at(parent)) as world,
    ):
        world.names.table["example.com"] = ["93.184.216.34"]
        client = await world.client()
        client.send(connect("example.com:443"))
        await settled(lambda: bool(parent.heads))
        client.reset()
        await settled(lambda: not world.egress.connections)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a certificate for `parent.example` and 127.0.0.1."""
    folder = tmp_path_factory.mktemp("parent")
    names = "subjectAltName=DNS:parent.example,IP:127.0.0.1"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-subj", "/CN=parent", "-addext", names, "-days", "2"),
            *("-keyout", folder / "key.pem", "-out", folder / "certificate.pem"),
        ],
        check=True,
        capture_output=True,
    )
    return folder


@pytest.mark.parametrize(
    ("name", "reason"), [("#parent.example", None), ("", None), ("#other.example", "upstream-tls")]
)
async def test_a_parent_over_tls_is_verified(
    tmp_path: Path, certificate: Path, name: str, reason: str | None
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "certificate.pem", certificate / "key.pem")
    async with relaying().running(tls=context) as peer, Origin().running() as origin:
        parent = parse_parent(
            f"https://u:p%40@127.0.0.1:{peer.port}{name}", certificate / "certificate.pem"
        )
        async with opened(tmp_path, to(origin), parent=parent) as world:
            reply = await world.ask(get(f"example.com:{origin.port}"))
            assert reply.field("x-deny-reason") == reason
        if reason is None:
            assert b"proxy-authorization: Basic dTpwQA==\r\n" in peer.heads[0]


@pytest.mark.parametrize(
    "text",
    [
        "http://proxy.corp.example:3128", "http://10.0.0.1", "10.0.0.1:3128", "socks5://10.0.0.1:1",
        "http://secret@10.0.0.1:3128", "http://10.0.0.1:3128/path", "http://10.0.0.1:3128#name",
        "http://u:secret@010.0.0.1:3128", "http://10.0.0.1:99999", "",
    ],
)  # fmt: skip
def test_a_parent_is_an_address_and_a_port(text: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_parent(text, None)
    assert "egress.upstream_proxy" in str(refused.value)
    assert "secret" not in str(refused.value)


def test_what_is_shown_of_a_parent_holds_no_secret() -> None:
    parent = parse_parent("http://user:secret@[2001:db8::1]:3128", None)
    assert repr(parent) == "Parent([2001:db8::1]:3128)"
    assert (parent.tls, parent.authorization) == (None, b"Basic dXNlcjpzZWNyZXQ=")


@contextlib.asynccontextmanager
async def squid(folder: Path) -> AsyncIterator[int]:
    """Run Squid as a parent that takes one user; yield its port."""
    with socket.create_server((LOCAL, 0)) as free:
        port = free.getsockname()[1]
    helper = folder / "auth"
    helper.write_text(
        '#!/bin/sh\nwhile read -r line; do [ "$line" = "u p" ] && echo OK || echo ERR; done\n'
    )
    helper.chmod(0o755)
    file = folder / "squid.conf"
    file.write_text(
        f"http_port 127.0.0.1:{port}\nauth_param basic program {helper}\n"
        "acl known proxy_auth REQUIRED\nhttp_access allow known\nhttp_access deny all\n"
        f"cache deny all\naccess_log none\ncache_log {folder}/cache.log\npid_filename none\n"
        "cache_store_log none\nmemory_cache_shared off\nshutdown_lifetime 0 seconds\n"
        f"coredump_dir {folder}\n"
    )
    command = shutil.which("squid", path="/usr/sbin:/usr/bin") or "squid"
    process = await asyncio.create_subprocess_exec(
        command, "-N", "-f", file, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(10):
            while True:
                with contextlib.suppress(OSError):
                    (await asyncio.open_connection(LOCAL, port))[1].close()
                    break
                await asyncio.sleep(0.02)
        yield port
    finally:
        process.kill()
        await process.wait()


async def test_squid_as_a_parent(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="squid-") as name:  # where its own user may go
        Path(name).chmod(0o755)
        await _ask_through_squid(tmp_path, Path(name))


async def _ask_through_squid(tmp_path: Path, folder: Path) -> None:
    async with squid(folder) as port, Origin().running() as origin:
        for credentials, reason in (("u:p@", None), ("u:no@", "upstream-unreachable")):
            parent = parse_parent(f"http://{credentials}127.0.0.1:{port}", None)
            state = tmp_path / credentials
            state.mkdir()
            async with opened(state, to(origin), parent=parent) as world:
                reply = await world.ask(get(f"example.com:{origin.port}"))
                assert reply.field("x-deny-reason") == reason
