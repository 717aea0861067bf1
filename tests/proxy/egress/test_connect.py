"""CONNECT: every decision before the 2xx, and no octet of the client before it."""

import asyncio
import os
import ssl
import subprocess
from asyncio import StreamReader, StreamWriter
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from proxy.egress.connect import ESTABLISHED
from proxy.egress.connection import ClientConnection
from proxy.egress.tunnel import Tunnel
from rules.address import parse_address
from rules.decision import Decision, Reason, Verdict
from rules.facts import Level
from rules.ruleset import AllowRule, Requirements
from tests.proxy.egress.hellos import client_context, hello
from tests.proxy.egress.world import (
    LOCAL,
    LOOPBACK,
    Origin,
    Peer,
    World,
    connect,
    opened,
    settled,
)
from tests.rules.written import allow

UNKNOWN: Any = "approve"  # an obligation of a later version


def tunnel_to(origin: Origin, *, tls: bool = False, host: str = "example.com") -> AllowRule:
    return allow(host, ports=[origin.port], addresses=[LOOPBACK], tls=tls)


def echo() -> Origin:
    """Return an origin that sends back what it gets, and keeps it."""
    origin = Origin()

    async def script(reader: StreamReader, writer: StreamWriter) -> None:
        while data := await reader.read(65536):
            origin.heads.append(data)
            writer.write(data)

    origin.script = script
    return origin


async def established(world: World, authority: str) -> Peer:
    client = await world.client()
    client.send(connect(authority))
    assert await client.head() == ESTABLISHED
    return client


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a self-signed certificate."""
    folder = tmp_path_factory.mktemp("certificate")
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-subj", "/CN=example.com", "-days", "2"),
            *("-keyout", folder / "key.pem", "-out", folder / "certificate.pem"),
        ],
        check=True,
        capture_output=True,
    )
    return folder


def server_context(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "certificate.pem", certificate / "key.pem")
    return context


async def test_tunnels_both_ways(tmp_path: Path) -> None:
    async with echo().running() as origin, opened(tmp_path, tunnel_to(origin)) as world:
        client = await established(world, f"example.com:{origin.port}")
        client.send(b"hello")
        assert await client.exactly(5) == b"hello"
        assert world.metrics.tunnels.value == 1


async def test_octets_behind_the_head_wait_for_the_2xx(tmp_path: Path) -> None:
    """threats.md, "HTTP itself": "CONNECT early data (CVE-2025-64763)"."""
    async with echo().running() as origin, opened(tmp_path, tunnel_to(origin)) as world:
        client = await world.client()
        client.send(connect(f"example.com:{origin.port}") + b"early")
        assert await client.head() == ESTABLISHED
        assert await client.exactly(5) == b"early"
        assert origin.heads == [b"early"]


async def test_octets_behind_a_refused_connect_are_no_request(tmp_path: Path) -> None:
    """threats.md, "HTTP itself": "CONNECT early data (CVE-2025-64763)"."""
    async with opened(tmp_path) as world:
        client = await world.client()
        client.send(connect("example.org:443") + b"GET http://example.org/ HTTP/1.1\r\n\r\n")
        reply = await client.reply()
        assert (reply.status, reply.field("connection")) == (403, "close")
        assert await client.rest() == b""


async def test_a_server_of_several_addresses_may_speak_first(tmp_path: Path) -> None:
    """SSH and SMTP: the greeting comes while the addresses still race (RFC 8305)."""

    async def script(reader: StreamReader, writer: StreamWriter) -> None:
        writer.write(b"220 hello\r\n")
        writer.write(await reader.readexactly(4))

    async with Origin(script).running() as origin, opened(tmp_path, tunnel_to(origin)) as world:
        world.names.table["example.com"] = [LOCAL, "127.0.0.2"]
        client = await established(world, f"example.com:{origin.port}")
        assert await client.exactly(11) == b"220 hello\r\n"
        client.send(b"ehlo")
        assert await client.exactly(4) == b"ehlo"


@pytest.mark.parametrize(
    ("authority", "reason", "status"),
    [
        ("example.org:443", "host-not-listed", 403),
        ("example.com:22", "port-not-allowed", 403),
        ("192.0.2.7:443", "literal-not-allowed", 403),
        ("[2001:db8::1]:443", "literal-not-allowed", 403),
        ("example.com", "name-malformed", 400),
        ("example.com:0", "name-malformed", 400),
        ("example.com:65536", "name-malformed", 400),
        ("attacker.example\\x00.example.com:443", "name-malformed", 400),
        ("0x7f000001:443", "name-malformed", 400),
    ],
)
async def test_refuses_before_anything_is_looked_up(
    tmp_path: Path, authority: str, reason: str, status: int
) -> None:
    """threats.md, "Between name and address": "look-up in the refusal path"."""
    async with opened(tmp_path, allow("example.com")) as world:
        reply = await world.ask(connect(authority))
        assert (reply.status, reply.field("x-deny-reason")) == (status, reason)
        assert world.names.asked == []


async def test_a_host_field_for_another_authority_is_refused(tmp_path: Path) -> None:
    """threats.md, "Between name and address": "Host/:authority and CONNECT target must agree"."""
    async with opened(tmp_path, allow("example.com")) as world:
        octets = b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.org:443\r\n\r\n"
        reply = await world.ask(octets)
        assert (reply.status, reply.field("x-deny-reason")) == (421, "authority-mismatch")


async def test_a_host_field_that_names_this_proxy_says_nothing_of_an_origin(
    tmp_path: Path,
) -> None:
    """Node's bare `http.request` with CONNECT sends the proxy's own address as Host."""
    async with opened(tmp_path, allow("example.org")) as world:
        octets = b"CONNECT example.com:443 HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n" % world.port
        reply = await world.ask(octets)
        assert (reply.status, reply.field("x-deny-reason")) == (403, "host-not-listed")


async def test_a_presented_credential_is_refused(tmp_path: Path) -> None:
    async with opened(tmp_path, allow("example.com")) as world:
        reply = await world.ask(connect("example.com:443", "Proxy-Authorization: Basic eDp5"))
        assert (reply.status, reply.field("x-deny-reason")) == (403, "identity-unknown")


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254", "100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254",
        "fd20:ce::254", "fd00:c1::a9fe:a9fe", "fd00:42::42", "0.0.0.0", "::", "127.0.0.1",
        "10.0.0.1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::",
    ],
)  # fmt: skip
async def test_a_name_may_not_stand_for_a_special_address(tmp_path: Path, address: str) -> None:
    """threats.md, "Between name and address".

    "0.0.0.0 and :: (CVE-2026-100574); own listeners and own interface addresses; metadata:
    169.254.169.254, 100.100.100.200, 168.63.129.16, 192.0.0.192, fd00:ec2::/32, fd20:ce::254,
    fd00:c1::a9fe:a9fe, fd00:42::42".
    """
    async with opened(tmp_path, allow("example.com")) as world:
        world.names.table["example.com"] = [address]
        reply = await world.ask(connect("example.com:443"))
        assert (reply.status, reply.field("x-deny-reason")) == (403, "address-not-allowed")
        line = (await world.lines())[0]
        assert line["fact"] == "endpoint"
        assert parse_address(str(line["address"])) == parse_address(address)


@pytest.mark.parametrize("spelling", ["127.0.0.1", "127.0.0.9", "0.0.0.0", "::ffff:127.0.0.1"])
async def test_our_own_listener_is_no_destination(tmp_path: Path, spelling: str) -> None:
    """threats.md, "Between name and address": "own listeners and own interface addresses"."""
    async with opened(tmp_path) as world:
        everything = ["0.0.0.0/0", "::/0"]
        world.use(2, allow("example.com", ports=[world.port], addresses=everything))
        world.names.table["example.com"] = [spelling]
        reply = await world.ask(connect(f"example.com:{world.port}"))
        assert (reply.status, reply.field("x-deny-reason")) == (403, "address-not-allowed")


async def test_a_second_look_up_never_happens(tmp_path: Path) -> None:
    """threats.md, "Between name and address": "Rebinding: first answer public, second private"."""
    async with echo().running() as origin, opened(tmp_path, tunnel_to(origin)) as world:
        await established(world, f"example.com:{origin.port}")
        assert world.names.asked == [("example.com", frozenset({1, 28}))]


async def test_environment_variables_do_not_lead_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """threats.md, "Between name and address".

    "environment proxy defeats pinning (CVE-2026-22181)".
    """
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with echo().running() as origin, opened(tmp_path, tunnel_to(origin)) as world:
        await established(world, f"example.com:{origin.port}")
        assert origin.connections == 1


async def test_a_literal_needs_a_rule_with_addresses(tmp_path: Path) -> None:
    async with echo().running() as origin:
        rule = allow(ports=[origin.port], addresses=[LOOPBACK], tls=False)
        async with opened(tmp_path, rule) as world:
            client = await established(world, f"127.0.0.1:{origin.port}")
            client.send(b"hello")
            assert await client.exactly(5) == b"hello"
            assert world.names.asked == []


async def test_a_generation_that_moves_before_the_2xx_is_asked_again(tmp_path: Path) -> None:
    """threats.md, "Order of checks".

    "A flow decided under generation N that registers after the sweep of N+1".
    """
    async with echo().running() as origin, opened(tmp_path, tunnel_to(origin)) as world:
        readable = allow("example.com", ports=[origin.port], addresses=[LOOPBACK], methods=["GET"])
        world.names.meanwhile = lambda: world.use(2, readable)
        reply = await world.ask(connect(f"example.com:{origin.port}"))
        assert (reply.status, reply.field("x-deny-reason")) == (403, "generation-changed")
        world.use(3, tunnel_to(origin))
        world.names.meanwhile = lambda: world.use(4, tunnel_to(origin))
        await established(world, f"example.com:{origin.port}")


async def test_what_must_be_proven_by_now_is_said_of_what_was_dialled_meanwhile(
    tmp_path: Path,
) -> None:
    needed = Requirements(attested=Level.SOFTWARE, max_age_s=300)
    async with echo().running() as origin, opened(tmp_path, tunnel_to(origin)) as world:
        guarded = allow(
            "example.com", ports=[origin.port], addresses=[LOOPBACK], tls=False, require=needed
        )
        world.names.meanwhile = lambda: world.use(2, guarded)
        reply = await world.ask(connect(f"example.com:{origin.port}"))
        assert (reply.status, reply.field("x-deny-reason")) == (403, "attestation-required")


async def test_rules_that_change_before_the_look_up_begins_are_asked_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """threats.md, "Order of checks": decided under generation N, registered under N+1."""
    async with echo().running() as origin, opened(tmp_path, tunnel_to(origin)) as world:
        readable = allow("example.com", ports=[origin.port], addresses=[LOOPBACK], methods=["GET"])
        begin = ClientConnection.start

        def start(client: ClientConnection, work: Coroutine[None, None, None]) -> None:
            asyncio.get_running_loop().call_soon(world.use, 2, readable)
            begin(client, work)

        monkeypatch.setattr(ClientConnection, "start", start)
        reply = await world.ask(connect(f"example.com:{origin.port}"))
        assert (reply.status, reply.field("x-deny-reason")) == (403, "generation-changed")


async def test_obligations_of_the_new_generation_count(tmp_path: Path) -> None:
    async with echo().running() as origin, opened(tmp_path, tunnel_to(origin)) as world:
        world.names.meanwhile = lambda: world.use(2, tunnel_to(origin, tls=True))
        client = await established(world, f"example.com:{origin.port}")
        client.send(b"no TLS")
        assert (await client.rest())[5:] == b"\x02\x31"
        assert origin.heads == []


async def test_an_obligation_that_is_not_known_is_a_denial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path, allow("example.com")) as world:
        strange = Decision(Verdict.ALLOW, Reason.RULE, obligations=(UNKNOWN,))
        monkeypatch.setattr(world.authorizer, "authorize", lambda _flow, _facts: strange)
        reply = await world.ask(connect("example.com:443"))
        assert (reply.status, reply.field("x-deny-reason")) == (503, "internal-error")
        assert world.names.asked == []


async def test_a_rule_with_methods_lets_no_tunnel_through(tmp_path: Path) -> None:
    async with opened(tmp_path, allow("example.com", methods=["GET"])) as world:
        reply = await world.ask(connect("example.com:443"))
        assert (reply.status, reply.field("x-deny-reason")) == (403, "inspection-unavailable")
        assert world.names.asked == []


async def test_an_origin_that_refuses_is_a_bad_gateway(tmp_path: Path) -> None:
    async with echo().running() as origin:
        rule = tunnel_to(origin)
        where = f"example.com:{origin.port}"
    async with opened(tmp_path, rule) as world:
        reply = await world.ask(connect(where))
        assert (reply.status, reply.field("x-deny-reason")) == (502, "upstream-unreachable")
        assert reply.field("proxy-status") == (
            'sallyport; error=destination_unavailable; details="upstream-unreachable"'
        )


async def test_an_origin_that_closes_at_once(tmp_path: Path) -> None:
    async def script(_reader: StreamReader, writer: StreamWriter) -> None:
        writer.transport.abort()

    async with Origin(script).running() as origin, opened(tmp_path, tunnel_to(origin)) as world:
        client = await world.client()
        client.send(connect(f"example.com:{origin.port}"))
        # It is a matter of microseconds whether that is seen before the 2xx or after it.
        assert (await client.head()).split(b" ")[1] in {b"200", b"502"}
        await client.rest()
        client.abort()
        await settled(lambda: world.metrics.tunnels.value == 0)


async def test_both_lines_of_a_tunnel_stand_under_one_id(tmp_path: Path) -> None:
    async with echo().running() as origin, opened(tmp_path, tunnel_to(origin)) as world:
        world.names.flow = "0192f3a0000070008000000000000001"
        client = await established(world, f"example.com:{origin.port}")
        client.send(b"hello")
        await client.exactly(5)
        client.end()
        assert await client.rest() == b""
        await settled(lambda: world.metrics.tunnels.value == 0)
        lines = [line for line in await world.lines() if line["fact"] == "connect"]
        assert {line["id"] for line in lines} == {lines[0]["id"]}
        assert {line["flow"] for line in lines} == {"0192f3a0000070008000000000000001"}
        assert (lines[-1]["octets_up"], lines[-1]["octets_down"]) == (5, 5)
        assert lines[-1]["duration"] >= 0


async def test_tls_goes_through_untouched(tmp_path: Path, certificate: Path) -> None:
    context = server_context(certificate)
    async with (
        Origin().running(tls=context) as origin,
        opened(tmp_path, tunnel_to(origin, tls=True)) as world,
    ):
        curl = ["curl", "-sSk", "--noproxy", "", "-x", f"http://127.0.0.1:{world.port}"]
        done = await asyncio.to_thread(
            subprocess.run,
            [*curl, f"https://example.com:{origin.port}/"],
            capture_output=True, check=True,
        )  # fmt: skip
        assert done.stdout == b"ok"


async def test_a_hello_retry_goes_through(tmp_path: Path, certificate: Path) -> None:
    context = server_context(certificate)
    context.set_ecdh_curve("secp384r1")  # which no client offers a share for at first
    async with (
        Origin().running(tls=context) as origin,
        opened(tmp_path, tunnel_to(origin, tls=True)) as world,
    ):
        client = await established(world, f"example.com:{origin.port}")
        await client.writer.start_tls(client_context(), server_hostname="example.com")
        client.send(b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n")
        assert (await client.reply()).body == b"ok"


@pytest.fixture
def port_80() -> str:
    """Return a loopback address whose port 80 is ours."""
    return f"127.80.{os.getpid() >> 8 & 255}.{os.getpid() & 255 or 1}"


async def test_plain_http_inside_connect_80_is_decided_request_by_request(
    tmp_path: Path, port_80: str
) -> None:
    rule = allow("example.com", ports=[80], addresses=[LOOPBACK], methods=["GET"])
    async with Origin().running(port_80, 80) as origin, opened(tmp_path, rule) as world:
        world.names.table["example.com"] = [port_80]
        client = await established(world, "example.com:80")
        asked = b" /a HTTP/1.1\r\nHost: example.com\r\n\r\n"
        client.send(b"GET" + asked)
        assert (await client.reply()).body == b"ok"
        client.send(b"POST" + asked)
        assert (await client.reply()).field("x-deny-reason") == "method-not-allowed"
        client.send(b"GET /a HTTP/1.1\r\nHost: example.org\r\n\r\n")
        assert (await client.reply()).field("x-deny-reason") == "authority-mismatch"
        assert origin.connections == 1
        assert b"\r\nhost: example.com\r\n" in origin.heads[0]
        assert len(origin.heads) == 1


async def test_other_targets_inside_connect_80(tmp_path: Path, port_80: str) -> None:
    rule = allow("example.com", ports=[80], addresses=[LOOPBACK])
    async with Origin().running(port_80, 80) as origin, opened(tmp_path, rule) as world:
        world.names.table["example.com"] = [port_80]
        host = b" HTTP/1.1\r\nHost: example.com\r\n\r\n"
        client = await established(world, "example.com:80")
        for target in (b"GET http://example.com/b", b"OPTIONS *"):
            client.send(target + host)
            assert (await client.reply()).status == 200
        assert [head.split(b" ")[1] for head in origin.heads] == [b"/b", b"*"]
        client.send(b"GET http://example.org/" + host)
        assert (await client.reply()).field("x-deny-reason") == "authority-mismatch"
        client = await established(world, "example.com:80")
        client.send(b"GET /a#b" + host)
        assert (await client.reply()).status == 400


async def test_tls_inside_connect_80_follows_the_hello_rules(tmp_path: Path, port_80: str) -> None:
    rule = allow("example.com", ports=[80], addresses=[LOOPBACK])
    async with echo().running(port_80, 80) as origin, opened(tmp_path, rule) as world:
        world.names.table["example.com"] = [port_80]
        client = await established(world, "example.com:80")
        client.send(hello("example.com"))
        await settled(lambda: bool(origin.heads))
        client = await established(world, "example.com:80")
        client.send(hello("example.org"))
        assert (await client.rest())[5:] == b"\x02\x31"


async def test_tls_inside_connect_80_is_cut_where_a_rule_has_methods(
    tmp_path: Path, port_80: str
) -> None:
    rule = allow("example.com", ports=[80], addresses=[LOOPBACK], methods=["GET"])
    async with echo().running(port_80, 80) as origin, opened(tmp_path, rule) as world:
        world.names.table["example.com"] = [port_80]
        client = await established(world, "example.com:80")
        client.send(hello("example.com"))
        assert (await client.rest())[5:] == b"\x02\x31"
        assert world.metrics.tunnel_cuts.value("inspection-unavailable") == 1
        assert origin.heads == []


async def test_our_own_host_is_reached_inside_connect_80(tmp_path: Path) -> None:
    async with opened(tmp_path) as world:
        client = await established(world, "sallyport.internal:80")
        client.send(b"GET / HTTP/1.1\r\nHost: sallyport.internal\r\n\r\n")
        assert (await client.reply()).status == 200


async def test_what_an_origin_says_first_on_port_80_is_no_response(
    tmp_path: Path, port_80: str
) -> None:
    """threats.md, "HTTP itself": a response that nobody asked for is never taken for one."""

    async def script(reader: StreamReader, writer: StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno")
        await reader.read()

    origin, good = Origin(script), Origin()
    origin.script = script
    rule = allow("example.com", ports=[80], addresses=[LOOPBACK])
    async with origin.running(port_80, 80), opened(tmp_path, rule) as world:
        world.names.table["example.com"] = [port_80]
        client = await established(world, "example.com:80")
        present = world.egress.deadlines.present()
        waiting = next(each for each in present if isinstance(each, Tunnel))
        await settled(lambda: bool(getattr(waiting.origin, "held", b"")))
        origin.script = good.serve
        client.send(b"GET /a HTTP/1.1\r\nHost: example.com\r\n\r\n")
        assert (await client.reply()).body == b"ok"
        assert origin.connections == 2
