"""`https_upgrade`: what comes in plain goes on over TLS to whom it is for, or nowhere."""

import asyncio
import contextlib
import datetime as dt
import os
import socket
import ssl
import subprocess
from asyncio import StreamReader, StreamWriter
from pathlib import Path
from typing import Any

import pytest

from proxy.egress.origin import OriginConnection
from proxy.egress.parent import Parent
from proxy.egress.sweep import sweep, sweep_askers
from proxy.limits import Limits
from rules.address import parse_address
from rules.decision import FileCertificate, UpgradeTls
from rules.rtype import A
from rules.ruleset import AllowRule
from tests import authority as authorities
from tests.authority import PrivateAuthority
from tests.internet import need
from tests.proxy.egress.secured import (
    CODER,
    DOMAIN,
    OTHER,
    Domain,
    Nginx,
    refusing,
    serving,
    svid,
    trusting,
    upgrading,
)
from tests.proxy.egress.test_parent import relaying
from tests.proxy.egress.world import (
    LOCAL,
    LOOPBACK,
    Origin,
    Peer,
    World,
    basic,
    connect,
    get,
    opened,
    saying,
    settled,
    token_app,
)
from tests.rules.written import allow, deny

WEB = upgrading(ports=(80,))
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.fixture
def authority(tmp_path: Path) -> PrivateAuthority:
    (tmp_path / "ca").mkdir()
    return PrivateAuthority(tmp_path / "ca")


@pytest.fixture
def domain(tmp_path: Path) -> Domain:
    return Domain(tmp_path / "identity")


@pytest.fixture
def own_ip() -> str:
    """Return a loopback address whose ports 80 and 443 are ours."""
    return f"127.81.{os.getpid() >> 8 & 255}.{os.getpid() & 255 or 1}"


def to(origin: Origin, certificate: Any = None) -> AllowRule:
    return upgrading(ports=(origin.port,), certificate=certificate)


def asked(origin: Origin, path: str = "/", *fields: str) -> bytes:
    return get(f"example.com:{origin.port}", path, *fields)


async def blamed(world: World) -> tuple[str, str]:
    """Return reason and text of the one failure in audit."""
    (line,) = [line for line in await world.lines() if line["verdict"] == "fail"]
    return line["reason"], line["text"]


# Where it goes


async def test_port_80_is_dialled_on_443_with_the_host_unchanged(
    tmp_path: Path, authority: PrivateAuthority, own_ip: str
) -> None:
    """The origin is told nothing of the plain side; SNI, ALPN and Host are what the agent asked."""
    context = serving(authority)
    names: list[str | None] = []
    context.sni_callback = lambda _socket, name, _context: names.append(name)
    protocols = []
    origin = Origin()

    async def script(reader: StreamReader, writer: StreamWriter) -> None:
        tls = writer.get_extra_info("ssl_object")
        protocols.append((tls.selected_alpn_protocol(), tls.version()))
        await Origin.serve(origin, reader, writer)

    origin.script = script
    async with (
        Origin().running(own_ip, 80) as plain,
        origin.running(own_ip, 443, context),
        opened(tmp_path, WEB, identities=trusting(authority.certificate)) as world,
    ):
        world.names.table["example.com"] = [own_ip]
        assert (await world.ask(get("example.com", "/a?b"))).body == b"ok"
        assert (await world.ask(get("example.com:80"))).body == b"ok"
        assert plain.connections == 0
        lines = await world.lines()
    assert origin.heads[0].startswith(b"GET /a?b HTTP/1.1\r\nhost: example.com\r\n")
    assert b"\r\nhost: example.com\r\n" in origin.heads[1]
    assert not [head for head in origin.heads if b"forwarded" in head.lower()]
    assert names == ["example.com"]
    assert protocols == [("http/1.1", "TLSv1.3")]
    assert {(line["target"], line["address"]) for line in lines} == {
        ("GET http://example.com:80/a", own_ip),
        ("GET http://example.com:80/", own_ip),
    }


async def test_any_other_port_is_dialled_as_it_is(
    tmp_path: Path, authority: PrivateAuthority
) -> None:
    async with Origin().running(tls=serving(authority)) as origin:
        trust = trusting(authority.certificate)
        async with opened(tmp_path, to(origin), identities=trust) as world:
            client = await world.client()
            for _ in range(3):
                client.send(asked(origin))
                assert (await client.reply()).body == b"ok"
            assert origin.connections == 1
    assert f"\r\nhost: example.com:{origin.port}\r\n".encode() in origin.heads[0]


async def test_plain_http_inside_connect_80_goes_on_over_tls(
    tmp_path: Path, authority: PrivateAuthority, own_ip: str
) -> None:
    async with (
        Origin().running(own_ip, 80) as plain,
        Origin().running(own_ip, 443, serving(authority)) as origin,
        opened(tmp_path, WEB, identities=trusting(authority.certificate)) as world,
    ):
        world.names.table["example.com"] = [own_ip]
        client = await world.client()
        client.send(connect("example.com:80"))
        assert (await client.reply()).status == 200
        for path in (b"/a", b"/b"):
            client.send(b"GET %b HTTP/1.1\r\nHost: example.com\r\n\r\n" % path)
            assert (await client.reply()).body == b"ok"
        client.send(b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n")
        assert (await client.reply()).field("x-deny-reason") == "authority-mismatch"
        assert (plain.connections, origin.connections, len(origin.heads)) == (0, 1, 2)


async def test_the_clients_own_tls_gets_nowhere_inside_connect_80(
    tmp_path: Path, authority: PrivateAuthority, own_ip: str
) -> None:
    """Smuggling: nothing but requests that are read passes, and nothing is dialled before one."""
    async with (
        Origin().running(own_ip, 80) as plain,
        Origin().running(own_ip, 443, serving(authority)) as origin,
        opened(tmp_path, WEB, identities=trusting(authority.certificate)) as world,
    ):
        world.names.table["example.com"] = [own_ip]
        client = await world.client()
        client.send(connect("example.com:80"))
        assert (await client.reply()).status == 200
        client.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\r\n\r\n")
        assert (await client.reply()).field("x-deny-reason") == "request-malformed"
        assert (plain.connections, origin.connections) == (0, 0)


async def test_a_connect_to_another_port_is_the_clients_own_tls(
    tmp_path: Path, authority: PrivateAuthority
) -> None:
    trust = ssl.create_default_context(cafile=authority.certificate)
    async with (
        Origin().running(tls=serving(authority)) as origin,
        opened(tmp_path, to(origin)) as world,
    ):
        client = await world.client()
        client.send(connect(f"example.com:{origin.port}"))
        assert (await client.reply()).status == 200
        await client.writer.start_tls(trust, server_hostname="example.com")
        client.send(b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n")
        assert (await client.reply()).body == b"ok"
        client = await world.client()
        client.send(connect(f"example.com:{origin.port}"))
        assert (await client.reply()).status == 200
        client.send(b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n")  # plain is cut
        await client.rest()
        assert len(origin.heads) == 1


async def test_paths_of_one_host_may_differ(tmp_path: Path, authority: PrivateAuthority) -> None:
    """Smuggling: one keep-alive connection carries both, and neither goes the other's way."""
    async with (
        Origin().running(LOCAL) as plain,
        Origin().running("127.0.0.2", plain.port, serving(authority)) as origin,
    ):
        ports = [plain.port]
        rules = [
            allow("example.com", id="p", ports=ports, addresses=[LOOPBACK], paths=["/plain/**"]),
            upgrading(ports=(plain.port,)),
        ]
        trust = trusting(authority.certificate)
        async with opened(tmp_path, *rules, identities=trust) as world:
            client = await world.client()
            for path in ("/plain/a", "/b", "/plain/../c", "/plain/d", "/e"):
                is_plain = path in {"/plain/a", "/plain/d"}
                world.names.table["example.com"] = [LOCAL if is_plain else "127.0.0.2"]
                client.send(get(f"example.com:{plain.port}", path))
                assert (await client.reply()).body == b"ok"
    assert [head.split(b" ")[1] for head in plain.heads] == [b"/plain/a", b"/plain/d"]
    assert [head.split(b" ")[1] for head in origin.heads] == [b"/b", b"/c", b"/e"]


async def test_our_own_listener_is_refused_by_the_port_that_is_dialled(
    tmp_path: Path, authority: PrivateAuthority, own_ip: str
) -> None:
    """threats.md: own listeners by another name; 80 is free, 443 is ours."""
    trust = trusting(authority.certificate)
    async with opened(tmp_path, upgrading(ports=(80,)), identities=trust) as world:
        world.names.table["example.com"] = [own_ip]
        world.own.listeners.add((parse_address(own_ip), 443))
        reply = await world.ask(get("example.com"))
        assert (reply.status, reply.field("x-deny-reason")) == (403, "address-not-allowed")
        (line,) = await world.lines()
        assert (line["fact"], line["port"]) == ("endpoint", 443)


async def test_a_deny_of_the_port_that_is_dialled_holds(
    tmp_path: Path, authority: PrivateAuthority
) -> None:
    rules = (upgrading(ports=(80,)), deny("example.com", ports=[443], id="no"))
    async with opened(tmp_path, *rules, identities=trusting(authority.certificate)) as world:
        reply = await world.ask(get("example.com"))
        assert (reply.status, reply.field("x-deny-reason")) == (403, "rule")


async def test_types_and_race_are_those_of_any_dial(
    tmp_path: Path, authority: PrivateAuthority
) -> None:
    async with Origin().running("127.0.0.2", tls=serving(authority)) as origin:
        rule = to(origin)
        async with opened(tmp_path, rule, identities=trusting(authority.certificate)) as world:
            world.names.table["example.com"] = ["127.0.0.3", "127.0.0.2"]
            assert (await world.ask(asked(origin))).body == b"ok"
            assert A in world.names.asked[0][1]


# What is verified


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("example.org",), "Hostname mismatch"),
        (("*.com",), "Hostname mismatch"),
        ((LOCAL,), "Hostname mismatch"),
    ],
)
async def test_a_certificate_for_another_host_is_upstream_tls(
    tmp_path: Path, authority: PrivateAuthority, names: tuple[str, ...], words: str
) -> None:
    async with Origin().running(tls=serving(authority, *names)) as origin:
        trust = trusting(authority.certificate)
        async with opened(tmp_path, to(origin), identities=trust) as world:
            reply = await world.ask(asked(origin))
            assert (reply.status, reply.field("x-deny-reason")) == (502, "upstream-tls")
            assert reply.field("proxy-status") == (
                'sallyport; error=tls_protocol_error; details="upstream-tls"'
            )
            assert b"mismatch" not in reply.body  # that is for the admin
            reason, text = await blamed(world)
    assert reason == "upstream-tls"
    assert words in text
    assert "CERTIFICATE_VERIFY_FAILED" in text
    assert origin.heads == []


async def test_an_authority_that_is_not_trusted_is_upstream_tls(
    tmp_path: Path, authority: PrivateAuthority
) -> None:
    (tmp_path / "other").mkdir()
    other = PrivateAuthority(tmp_path / "other")
    async with Origin().running(tls=serving(other)) as origin:
        trust = trusting(authority.certificate)
        async with opened(tmp_path, to(origin), identities=trust) as world:
            assert (await world.ask(asked(origin))).status == 502
            assert "unable to get local issuer certificate" in (await blamed(world))[1]
    assert origin.heads == []


async def test_the_systems_authorities_do_not_know_a_private_one(
    tmp_path: Path, authority: PrivateAuthority
) -> None:
    async with (
        Origin().running(tls=serving(authority)) as origin,
        opened(tmp_path, to(origin)) as world,
    ):
        assert (await world.ask(asked(origin))).status == 502
        assert "CERTIFICATE_VERIFY_FAILED" in (await blamed(world))[1]


async def test_an_expired_certificate_is_upstream_tls(
    tmp_path: Path, authority: PrivateAuthority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(authorities, "LIFE", dt.timedelta(seconds=0))
    context = serving(authority)
    async with Origin().running(tls=context) as origin:
        trust = trusting(authority.certificate)
        async with opened(tmp_path, to(origin), identities=trust) as world:
            assert (await world.ask(asked(origin))).status == 502
            assert "certificate has expired" in (await blamed(world))[1]


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1")
async def test_tls_1_1_is_upstream_tls(tmp_path: Path, authority: PrivateAuthority) -> None:
    context = serving(authority)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    async with Origin().running(tls=context) as origin:
        trust = trusting(authority.certificate)
        async with opened(tmp_path, to(origin), identities=trust) as world:
            assert (await world.ask(asked(origin))).status == 502
            assert (await blamed(world))[0] == "upstream-tls"


async def test_there_is_no_way_back_to_plain(tmp_path: Path, authority: PrivateAuthority) -> None:
    """Smuggling: an origin that speaks no TLS never sees the request, however often it is asked."""
    read: list[bytes] = []
    origin = Origin()

    async def script(reader: StreamReader, writer: StreamWriter) -> None:
        read.append(await reader.read(65536))
        writer.write(OK)

    origin.script = script
    async with origin.running():
        trust = trusting(authority.certificate)
        async with opened(tmp_path, to(origin), identities=trust) as world:
            client = await world.client()
            for _ in range(3):
                client.send(asked(origin, "/secret"))
                reply = await client.reply()
                assert (reply.status, reply.field("x-deny-reason")) == (502, "upstream-tls")
            assert "WRONG_VERSION_NUMBER" in (await world.lines())[0]["text"]
    assert len(read) == 3
    assert not [octets for octets in read if b"secret" in octets or not octets.startswith(b"\x16")]


@pytest.mark.parametrize("octets", [b"", b"\x15\x03\x01\x00\x02\x02\x28"])
async def test_an_origin_that_ends_the_handshake_is_upstream_tls(
    tmp_path: Path, authority: PrivateAuthority, octets: bytes
) -> None:
    origin = Origin()

    async def script(reader: StreamReader, writer: StreamWriter) -> None:
        await reader.read(1)
        writer.write(octets)

    origin.script = script
    async with origin.running():
        trust = trusting(authority.certificate)
        async with opened(tmp_path, to(origin), identities=trust) as world:
            assert (await world.ask(asked(origin))).field("x-deny-reason") == "upstream-tls"


@pytest.mark.parametrize("has_parent", [True, False])
async def test_a_handshake_that_stands_still_ends_in_time_and_leaves_nothing(
    tmp_path: Path, authority: PrivateAuthority, *, has_parent: bool
) -> None:
    limits = Limits(proxy_tick_s=0.02, connect_s=0.3)
    ended = asyncio.Event()
    origin = Origin()

    async def script(reader: StreamReader, _writer: StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while await reader.read(65536):
                pass
        ended.set()

    origin.script = script
    async with relaying().running() as proxy, origin.running():
        parent = Parent(parse_address(LOCAL), proxy.port) if has_parent else None
        trust = trusting(authority.certificate)
        async with opened(
            tmp_path, to(origin), limits=limits, parent=parent, identities=trust
        ) as world:
            reply = await world.ask(asked(origin))
            assert (reply.status, reply.field("x-deny-reason")) == (504, "upstream-timeout")
            assert world.metrics.bounds.value("connect_s") == 1
            async with asyncio.timeout(5):
                await ended.wait()
            left = world.egress.deadlines.present()
            assert not [each for each in left if isinstance(each, OriginConnection)]


async def test_an_origin_that_is_not_there_is_unreachable(
    tmp_path: Path, authority: PrivateAuthority
) -> None:
    async with Origin().running() as origin:
        pass
    trust = trusting(authority.certificate)
    async with opened(tmp_path, to(origin), identities=trust) as world:
        assert (await world.ask(asked(origin))).field("x-deny-reason") == "upstream-unreachable"


@pytest.mark.parametrize(("named", "status"), [(LOCAL, 200), ("example.com", 502)])
async def test_the_certificate_of_a_literal_is_for_the_address(
    tmp_path: Path, authority: PrivateAuthority, named: str, status: int
) -> None:
    async with Origin().running(tls=serving(authority, named)) as origin:
        rule = allow(id="l", addresses=[LOOPBACK], ports=[origin.port], upgrade=UpgradeTls())
        async with opened(tmp_path, rule, identities=trusting(authority.certificate)) as world:
            reply = await world.ask(get(f"{LOCAL}:{origin.port}"))
    assert reply.status == status


@pytest.mark.parametrize("is_whole", [True, False])
async def test_a_response_that_is_cut_short_is_not_taken_for_a_whole_one(
    tmp_path: Path, authority: PrivateAuthority, *, is_whole: bool
) -> None:
    """RFC 9112, section 9.8: over TLS an end without close_notify is no end."""
    origin = Origin()

    async def script(reader: StreamReader, writer: StreamWriter) -> None:
        await origin.read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nhalf")
        if not is_whole:
            with socket.socket(fileno=os.dup(writer.get_extra_info("socket").fileno())) as sock:
                sock.shutdown(socket.SHUT_WR)  # TCP ends, TLS does not
            await reader.read()

    origin.script = script
    async with origin.running(tls=serving(authority)):
        trust = trusting(authority.certificate)
        async with opened(tmp_path, to(origin), identities=trust) as world:
            client = await world.client()
            client.send(asked(origin))
            await client.head()
            assert await client.exactly(9) == b"4\r\nhalf\r\n"
            if is_whole:
                assert await client.exactly(5) == b"0\r\n\r\n"
            else:
                assert await client.rest() == b""


# When the rules change


async def test_a_request_that_waited_in_plain_is_not_sent_once_it_is_to_be_upgraded(
    tmp_path: Path, authority: PrivateAuthority
) -> None:
    """Smuggling: the rules change while the look-up goes on, in either direction."""
    async with Origin().running() as plain, Origin().running(tls=serving(authority)) as origin:
        for first, second, where in ((True, False, plain), (False, True, origin)):
            port = where.port
            before = allow("example.com", id="p", ports=[port], addresses=[LOOPBACK])
            after = upgrading(ports=(port,))
            if second:
                before, after = after, before
            folder = tmp_path / str(first)
            folder.mkdir()
            trust = trusting(authority.certificate)
            async with opened(folder, before, identities=trust) as world:
                world.names.meanwhile = lambda: world.use(2, after)  # noqa: B023 - of this turn
                reply = await world.ask(get(f"example.com:{port}"))
                assert (reply.status, reply.field("x-deny-reason")) == (403, "generation-changed")
    assert plain.heads == origin.heads == []


async def test_a_connect_that_waited_is_refused_once_requests_are_to_be_upgraded(
    tmp_path: Path, authority: PrivateAuthority, own_ip: str
) -> None:
    rule = allow("example.com", ports=[80], addresses=[LOOPBACK])
    trust = trusting(authority.certificate)
    async with Origin().running(own_ip, 80), opened(tmp_path, rule, identities=trust) as world:
        world.names.table["example.com"] = [own_ip]
        world.names.meanwhile = lambda: world.use(2, upgrading(ports=(80,)))
        reply = await world.ask(connect("example.com:80"))
        assert (reply.status, reply.field("x-deny-reason")) == (403, "generation-changed")


async def test_what_is_under_way_in_plain_is_cut_once_it_is_to_be_upgraded(
    tmp_path: Path, authority: PrivateAuthority
) -> None:
    for number, (before, after, tls) in enumerate(
        [
            (None, UpgradeTls(), False),
            (UpgradeTls(), None, True),
            (UpgradeTls(), UpgradeTls(), True),
        ]
    ):
        context = serving(authority) if tls else None
        origin = saying(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")
        folder = tmp_path / str(number)
        folder.mkdir()
        async with origin.running(tls=context):
            rules = [
                allow("example.com", ports=[origin.port], addresses=[LOOPBACK], upgrade=upgrade)
                for upgrade in (before, after)
            ]
            trust = trusting(authority.certificate)
            async with opened(folder, rules[0], identities=trust) as world:
                client = await world.client()
                client.send(asked(origin))
                await client.exactly(1)
                world.use(2, rules[1])
                assert await sweep(world.egress, 2) == (0 if before == after else 1)


async def test_a_tunnel_inside_connect_80_is_cut_once_requests_are_to_be_upgraded(
    tmp_path: Path, own_ip: str
) -> None:
    rule = allow("example.com", ports=[80], addresses=[LOOPBACK])
    async with Origin().running(own_ip, 80), opened(tmp_path, rule) as world:
        world.names.table["example.com"] = [own_ip]
        client = await world.client()
        client.send(connect("example.com:80"))
        assert (await client.reply()).status == 200
        assert await sweep(world.egress, 1) == 0
        world.use(2, upgrading(ports=(80,)))
        assert await sweep(world.egress, 2) == 1
        assert await client.rest() == b""


async def test_a_connection_that_rested_in_plain_is_not_taken_for_tls(
    tmp_path: Path, authority: PrivateAuthority
) -> None:
    """A pool never mixes plain and TLS."""
    async with Origin().running() as plain:
        rule = allow("example.com", ports=[plain.port], addresses=[LOOPBACK])
        trust = trusting(authority.certificate)
        async with opened(tmp_path, rule, identities=trust) as world:
            client = await world.client()
            client.send(asked(plain))
            assert (await client.reply()).body == b"ok"
            assert len(world.egress.pool) == 1
            world.use(2, to(plain))
            client.send(asked(plain))
            await settled(lambda: plain.connections == 2)
            assert len(plain.heads) == 1  # it waits for a head, and gets a ClientHello


async def test_what_is_known_of_tunnels_is_not_renewed_by_a_dial_over_tls(
    tmp_path: Path, authority: PrivateAuthority
) -> None:
    """The addresses of a route were looked up for tunnels: a look-up for TLS is another one's."""
    async with Origin().running(tls=serving(authority)) as origin:
        trust = trusting(authority.certificate)
        async with opened(tmp_path, to(origin), identities=trust) as world:
            assert (await world.ask(asked(origin))).body == b"ok"
            (route,) = world.egress.routes._routes.values()
            assert (route.until, route.targets, route.grounds) == (0.0, (), None)
            client = await world.client()
            client.send(connect(f"example.com:{origin.port}"))
            assert (await client.reply()).status == 200
            assert route.targets
            assert route.until


async def test_an_idle_connection_that_the_origin_ended_is_dialled_anew_over_tls(
    tmp_path: Path, authority: PrivateAuthority
) -> None:
    origin = saying(OK, close=True)
    async with origin.running(tls=serving(authority)):
        trust = trusting(authority.certificate)
        async with opened(tmp_path, to(origin), identities=trust) as world:
            client = await world.client()
            for _ in range(3):
                client.send(asked(origin))
                assert (await client.reply()).body == b"ok"
    assert (origin.connections, len(origin.heads)) == (3, 3)


# Parents, and other protocols


async def test_a_parent_is_asked_for_the_port_that_is_dialled(
    tmp_path: Path, authority: PrivateAuthority, own_ip: str
) -> None:
    async with (
        relaying().running() as proxy,
        Origin().running(own_ip, 443, serving(authority)) as origin,
    ):
        parent = Parent(parse_address(LOCAL), proxy.port)
        trust = trusting(authority.certificate)
        rule = upgrading(ports=(80,))
        async with opened(tmp_path, rule, parent=parent, identities=trust) as world:
            world.names.table["example.com"] = [own_ip]
            client = await world.client()
            for _ in range(2):
                client.send(get("example.com"))
                assert (await client.reply()).body == b"ok"
    assert proxy.heads[0].startswith(b"CONNECT %b:443 " % own_ip.encode())
    assert (len(proxy.heads), len(origin.heads)) == (1, 2)


async def test_a_parent_over_tls_carries_tls(tmp_path: Path, authority: PrivateAuthority) -> None:
    async with (
        relaying().running(tls=serving(authority, "parent.example")) as proxy,
        Origin().running(tls=serving(authority)) as origin,
    ):
        tls = ssl.create_default_context(cafile=authority.certificate)
        parent = Parent(parse_address(LOCAL), proxy.port, tls, "parent.example")
        trust = trusting(authority.certificate)
        async with opened(tmp_path, to(origin), parent=parent, identities=trust) as world:
            assert (await world.ask(asked(origin))).body == b"ok"


@pytest.mark.parametrize(
    ("names", "early", "words"),
    [
        (("example.org",), b"", "Hostname mismatch"),
        (("example.com",), b"\x15\x03\x01\x00", "the origin spoke before the handshake"),
    ],
)
async def test_a_parent_in_between_changes_nothing_of_what_is_verified(
    tmp_path: Path, authority: PrivateAuthority, names: tuple[str, ...], early: bytes, words: str
) -> None:
    answer = b"HTTP/1.1 200 OK\r\n\r\n" + early
    async with (
        relaying(answer).running() as proxy,
        Origin().running(tls=serving(authority, *names)) as origin,
    ):
        parent = Parent(parse_address(LOCAL), proxy.port)
        trust = trusting(authority.certificate)
        async with opened(tmp_path, to(origin), parent=parent, identities=trust) as world:
            assert (await world.ask(asked(origin))).field("x-deny-reason") == "upstream-tls"
            assert words in (await blamed(world))[1]
            left = world.egress.deadlines.present()
            assert not [each for each in left if isinstance(each, OriginConnection)]
    assert origin.heads == []


async def test_a_websocket_goes_on_over_tls(tmp_path: Path, authority: PrivateAuthority) -> None:
    origin = Origin()

    async def script(reader: StreamReader, writer: StreamWriter) -> None:
        await origin.read_head(reader)
        fields = b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\n" + fields + b"\r\nhello:")
        writer.write(await reader.readexactly(5))
        await reader.read()

    origin.script = script
    async with origin.running(tls=serving(authority)):
        trust = trusting(authority.certificate)
        async with opened(tmp_path, to(origin), identities=trust) as world:
            client = await world.client()
            client.send(asked(origin, "/", "Connection: Upgrade", "Upgrade: websocket") + b"early")
            assert (await client.head()).startswith(b"HTTP/1.1 101 ")
            assert await client.exactly(11) == b"hello:early"
            world.use(2, to(origin))
            assert await sweep(world.egress, 2) == 0
            client.end()  # TLS has no half-close: both ends go
            assert await client.rest() == b""
            await settled(lambda: world.metrics.tunnels.value == 0)


# What is presented


async def test_nginx_sees_the_svid_of_the_app_and_of_nobody_else(
    tmp_path: Path, authority: PrivateAuthority, domain: Domain, own_ip: str
) -> None:
    """Real nginx with ssl_verify_client; curl as the client, twice on one connection."""
    rule = upgrading(ports=(80,), certificate=svid())
    contexts = domain.contexts(authority.certificate)
    with Nginx(tmp_path, authority, domain.bundle, f"{own_ip}:443"):
        async with opened(tmp_path, rule, identities=contexts) as world:
            world.names.table["example.com"] = [own_ip]
            proxy = f"http://{LOCAL}:{world.port}"
            curl = await asyncio.create_subprocess_exec(
                need("curl"), "-sS", "-w", "|", "--proxy", proxy,
                "http://example.com/", "http://example.com/again",
                stdout=subprocess.PIPE,
            )  # fmt: skip
            said = (await curl.communicate())[0].decode()
    first, second = said.rstrip("|").split("|")
    serial, connection, host, name = first.split(" ")
    assert domain.asked == [CODER]
    assert serial.lower().lstrip("0") == domain.serials[0].lstrip("0")
    assert (host, name) == ("example.com", "example.com")
    assert second == f"{serial} {connection} {host} {name}"  # kept alive


async def test_nginx_is_shown_a_file_that_the_rule_names(
    tmp_path: Path, authority: PrivateAuthority, domain: Domain, own_ip: str
) -> None:
    signed = await domain.sign(OTHER)
    cert, key = tmp_path / "c.pem", tmp_path / "c.key"
    cert.write_text(signed.chain)
    key.write_text(signed.key)
    rule = upgrading(ports=(80,), certificate=FileCertificate(str(cert), str(key)))
    with Nginx(tmp_path, authority, domain.bundle, f"{own_ip}:443"):
        async with opened(tmp_path, rule, identities=trusting(authority.certificate)) as world:
            world.names.table["example.com"] = [own_ip]
            reply = await world.ask(get("example.com"))
    assert reply.body.split(b" ")[0].lower().lstrip(b"0") == signed.serial.lstrip("0").encode()


async def test_what_nginx_says_without_a_certificate_or_to_a_foreign_one_is_passed_on(
    tmp_path: Path, authority: PrivateAuthority, domain: Domain, own_ip: str
) -> None:
    foreign = authority.issue(["foreign.example"])
    other = FileCertificate(*map(str, foreign))
    with Nginx(tmp_path, authority, domain.bundle, f"{own_ip}:443"):
        for number, (certificate, words) in enumerate(
            [(None, b"No required SSL certificate"), (other, b"The SSL certificate error")]
        ):
            folder = tmp_path / str(number)
            folder.mkdir()
            rule = upgrading(ports=(80,), certificate=certificate)
            async with opened(folder, rule, identities=trusting(authority.certificate)) as world:
                world.names.table["example.com"] = [own_ip]
                reply = await world.ask(get("example.com"))
                assert reply.status == 400
                assert words in reply.body
                assert reply.field("x-deny-reason") is None


async def test_an_origin_that_refuses_the_certificate_after_the_handshake_is_upstream_tls(
    tmp_path: Path, authority: PrivateAuthority, domain: Domain, own_ip: str
) -> None:
    """TLS 1.3 says so only when the client reads (RFC 8446, section 4.4.2.4)."""
    trust = trusting(authority.certificate)
    with refusing(authority, domain.bundle, f"{own_ip}:443"):
        async with opened(tmp_path, WEB, identities=trust) as world:
            world.names.table["example.com"] = [own_ip]
            reply = await world.ask(get("example.com"))
            assert (reply.status, reply.field("x-deny-reason")) == (502, "upstream-tls")
            assert "CERTIFICATE_REQUIRED" in (await blamed(world))[1]


async def test_no_issuer_and_no_file_are_upstream_tls(
    tmp_path: Path, authority: PrivateAuthority
) -> None:
    async with Origin().running(tls=serving(authority)) as origin:
        missing = FileCertificate(str(tmp_path / "none.pem"), str(tmp_path / "none.key"))
        for number, (certificate, words) in enumerate(
            [(svid(), "no issuer gives us"), (missing, "none.pem: No such file")]
        ):
            folder = tmp_path / str(number)
            folder.mkdir()
            trust = trusting(authority.certificate)
            async with opened(folder, to(origin, certificate), identities=trust) as world:
                assert (await world.ask(asked(origin))).field("x-deny-reason") == "upstream-tls"
                assert words in (await blamed(world))[1]
    assert origin.connections == 0


async def test_connections_are_shared_across_neither_apps_nor_certificates(
    tmp_path: Path, authority: PrivateAuthority, domain: Domain
) -> None:
    """threats.md: one app's connection, or its identity, in another's hands."""
    shown: list[str] = []
    origin = Origin()

    async def script(reader: StreamReader, writer: StreamWriter) -> None:
        peer = writer.get_extra_info("peercert")
        names = [value for kind, value in peer["subjectAltName"] if kind == "URI"]
        while True:
            head = await origin.read_head(reader)
            shown.append(f"{head.split(b' ')[1].decode()} {names[0]}")
            writer.write(OK)

    origin.script = script
    async with origin.running(tls=serving(authority, client_ca=domain.bundle)):
        ports = (origin.port,)
        one = token_app(
            "one",
            upgrading(ports=ports, certificate=svid(CODER), name="one"),
            allow(
                "example.com", id="two", ports=ports, addresses=[LOOPBACK], paths=["/two/**"],
                upgrade=UpgradeTls(svid(OTHER)),
            ),
        )  # fmt: skip
        two = token_app("two", upgrading(ports=ports, certificate=svid(CODER), name="two"))
        contexts = domain.contexts(authority.certificate)
        async with opened(tmp_path, identities=contexts) as world:
            world.give_tokens("one", "two")
            world.use_all(2, world.listener_app(), one, two)
            client = await world.client()
            for app, path in [("one", "/a"), ("one", "/two/b"), ("two", "/c"), ("one", "/d")]:
                client.send(asked(origin, path, basic("", f"spt_{app}")))
                assert (await client.reply()).body == b"ok"
            assert len(world.egress.pool) == 3
            assert len({each.key for each in world.egress.pool.resting()}) == 3
    assert shown == [f"/a {CODER}", f"/two/b {OTHER}", f"/c {CODER}", f"/d {CODER}"]
    assert origin.connections == 3
    assert domain.asked == [CODER, OTHER]  # one context serves both apps


async def test_what_was_revoked_is_presented_no_more(
    tmp_path: Path, authority: PrivateAuthority, domain: Domain
) -> None:
    """threats.md: a revoked identity is void at once; nothing rests under it either."""
    async with Origin().running(tls=serving(authority, client_ca=domain.bundle)) as origin:
        contexts = domain.contexts(authority.certificate)
        async with opened(tmp_path, to(origin, svid()), identities=contexts) as world:
            client = await world.client()
            client.send(asked(origin))
            assert (await client.reply()).body == b"ok"
            domain.revoked.add(("me", CODER))
            assert await sweep_askers(world.egress) == 1
            client.send(asked(origin, "/again"))
            reply = await client.reply()
            assert (reply.status, reply.field("x-deny-reason")) == (403, "revoked")
            assert len(world.egress.pool) == 0
            assert len(world.egress.identities) == 0
            domain.revoked.clear()
            client.send(asked(origin, "/restored"))
            assert (await client.reply()).body == b"ok"
    assert [head.split(b" ")[1] for head in origin.heads] == [b"/", b"/restored"]
    assert domain.asked == [CODER, CODER]


async def test_a_request_under_way_with_what_was_revoked_is_cut(
    tmp_path: Path, authority: PrivateAuthority, domain: Domain
) -> None:
    origin = saying(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")
    async with origin.running(tls=serving(authority, client_ca=domain.bundle)):
        contexts = domain.contexts(authority.certificate)
        async with opened(tmp_path, to(origin, svid()), identities=contexts) as world:
            client = await world.client()
            client.send(asked(origin))
            await client.exactly(1)
            assert await sweep_askers(world.egress) == 0
            domain.revoked.add(("me", CODER))
            assert await sweep_askers(world.egress) == 1
            lines = await world.lines()
    assert lines[-1]["reason"] == "revoked"


async def test_what_is_revoked_while_it_is_fetched_is_not_presented(
    tmp_path: Path, authority: PrivateAuthority, domain: Domain
) -> None:
    domain.gate = asyncio.Event()
    async with Origin().running(tls=serving(authority, client_ca=domain.bundle)) as origin:
        contexts = domain.contexts(authority.certificate)
        async with opened(tmp_path, to(origin, svid()), identities=contexts) as world:
            client: Peer = await world.client()
            client.send(asked(origin))
            await settled(lambda: domain.asked == [CODER])
            domain.revoked.add(("me", CODER))
            domain.gate.set()
            assert (await client.reply()).field("x-deny-reason") == "revoked"
    assert origin.connections == 0


async def test_no_key_stands_in_audit_or_in_a_refusal(
    tmp_path: Path, authority: PrivateAuthority, domain: Domain
) -> None:
    """threats.md: private keys in logs, audit or error texts."""
    key = tmp_path / "c.key"
    signed = await domain.sign(OTHER)
    key.write_text(signed.key.replace("PRIVATE KEY", "SECRET KEY"))
    wrong = FileCertificate(str(key), str(key))
    async with Origin().running(tls=serving(authority)) as origin:
        trust = trusting(authority.certificate)
        async with opened(tmp_path, to(origin, wrong), identities=trust) as world:
            reply = await world.ask(asked(origin))
            lines = str(await world.lines())
    assert reply.field("x-deny-reason") == "upstream-tls"
    secret = signed.key.splitlines()[1][:20]
    assert secret not in lines + str(reply) + repr(domain.__dict__)
    assert DOMAIN not in reply.body.decode()
