"""Who asks at the proxy over TLS, by certificate; and how open flows end with it."""

import asyncio
import socket
import ssl
from pathlib import Path

import msgspec
import pytest
from msgspec import Struct

from proxy.egress.connect import ESTABLISHED
from proxy.egress.sweep import sweep_askers
from rules.ruleset import Ruleset
from tests.certs.forgery import FORGERIES
from tests.proxy.egress.world import Peer, basic, connect, get, settled
from tests.proxy.mtls.certified import OTHER, SECRET, Certified, certified, rules

BUILDER = basic("", SECRET)


async def tunnel(it: Certified, peer: Peer) -> None:
    peer.send(connect(it.where))
    assert await peer.head() == ESTABLISHED
    peer.send(b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n")
    assert (await peer.reply()).body == b"ok"


async def test_a_certificate_is_who_asks_for_requests_and_tunnels(tmp_path: Path) -> None:
    async with certified(tmp_path) as it:
        peer = await it.connect("proxy_tls", it.court.forger.good())
        for _ in range(3):
            peer.send(get(it.where))
            assert (await peer.reply()).body == b"ok"
        await tunnel(it, peer)
        peer.abort()
        lines = await it.parts.lines()
        assert {line["app"] for line in lines} == {"coder"}
        assert all(line["evidence"] == ["certificate"] for line in lines)


async def test_without_a_certificate_a_token_is_asked_for(tmp_path: Path) -> None:
    async with certified(tmp_path) as it:
        peer = await it.connect("proxy_tls", None)
        peer.send(get(it.where))
        reply = await peer.reply()
        assert reply.status == 407
        peer.send(get(it.where, "/", BUILDER))
        assert (await peer.reply()).body == b"ok"
        peer.abort()


async def test_what_requires_a_certificate_says_so(tmp_path: Path) -> None:
    """Issue 4: an absent certificate gets 403 with the reason, with a token and without TLS."""
    async with certified(tmp_path) as it:
        it.use(rules(it.origin.port, 2, mtls=True))
        for kind in ("proxy_tls", "proxy"):
            if kind == "proxy_tls":
                peer = await it.connect(kind, None)
            else:
                streams = await asyncio.open_connection("127.0.0.1", it.ports[kind])
                peer = Peer(*streams)
            peer.send(connect(it.where, BUILDER))
            reply = await peer.reply()
            assert (reply.status, reply.field("x-deny-reason")) == (403, "mtls-required")
            assert b"needs a client certificate" in reply.body
            peer.abort()
        peer = await it.connect("proxy_tls", it.court.forger.good())
        await tunnel(it, peer)
        peer.abort()


async def test_a_certificate_that_names_nobody_is_told_so(tmp_path: Path) -> None:
    """A token is not asked for: it would not help."""
    async with certified(tmp_path) as it:
        peer = await it.connect("proxy_tls", it.court.forger.good(OTHER))
        peer.send(get(it.where))
        reply = await peer.reply()
        assert (reply.status, reply.field("x-deny-reason")) == (403, "identity-unknown")
        assert f"no identity line names {OTHER}" in msgspec.json.decode(reply.body)["how"]
        peer.send(get(it.where, "/", BUILDER))
        reply = await peer.reply()
        assert reply.field("x-deny-reason") == "identity-unknown"
        peer.abort()
        lines = await it.parts.lines()
        assert [(line["evidence"], line["count"]) for line in lines] == [(["certificate"], 2)]


async def test_a_token_of_another_app_is_a_conflict(tmp_path: Path) -> None:
    """threats.md, "Identity": evidence that disagrees is refused, never resolved by order."""
    async with certified(tmp_path) as it:
        peer = await it.connect("proxy_tls", it.court.forger.good())
        for octets in (get(it.where, "/", BUILDER), connect(it.where, BUILDER)):
            peer.send(octets)
            reply = await peer.reply()
            assert reply.field("x-deny-reason") == "identity-conflict"
        peer.abort()


@pytest.mark.parametrize("how", ["revoked", "ended"])
async def test_open_flows_end_with_the_certificate(tmp_path: Path, how: str) -> None:
    """threats.md, "Identity": "A revoked or expired client certificate on an open connection"."""
    async with certified(tmp_path) as it:
        cuts: list[asyncio.Task[int]] = []

        def void(*_: object) -> None:
            cuts.append(asyncio.get_running_loop().create_task(sweep_askers(it.egress)))

        it.court.certificates.on_void(void)
        it.court.revocations.on_change(void)
        peer, idle = [await it.connect("proxy_tls", it.court.forger.good()) for _ in range(2)]
        await tunnel(it, peer)
        idle.send(get(it.where))
        assert (await idle.reply()).body == b"ok"
        if how == "revoked":
            it.court.revoke()
        else:
            it.court.pass_s(3600)
        assert await asyncio.gather(*cuts) == [1]
        assert await peer.rest() == b""
        idle.send(get(it.where))
        reply = await idle.reply()
        reason = "revoked" if how == "revoked" else "identity-unknown"
        assert reply.field("x-deny-reason") == reason
        idle.abort()
        lines = await it.parts.lines()
        assert [line["reason"] for line in lines if line["verdict"] == "deny"] == [reason, reason]


async def test_a_tunnel_lasts_while_another_certificate_ends(tmp_path: Path) -> None:
    async with certified(tmp_path) as it:
        peer = await it.connect("proxy_tls", it.court.forger.good())
        await tunnel(it, peer)
        it.court.revoke(OTHER)
        assert await sweep_askers(it.egress) == 0
        peer.send(b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n")
        assert (await peer.reply()).body == b"ok"
        peer.abort()


async def test_a_forged_certificate_is_in_audit_and_in_the_metrics(tmp_path: Path) -> None:
    """Issue 4: an invalid certificate fails the handshake and is audited."""
    async with certified(tmp_path) as it:
        forged = FORGERIES["unknown-issuer"](it.court.forger)
        for kind, protocol in (("proxy_tls", ""), ("dot", "dot"), ("doh", "h2")):
            peer = await it.connect(kind, forged, *filter(None, [protocol]))
            with pytest.raises(ssl.SSLError, match=r"(?i)unknown.ca"):
                await peer.exactly(1)
        counted = it.parts.metrics.tls_handshakes
        await settled(lambda: counted.value("doh", "certificate") == 1)
        lines = await it.parts.lines()
        said = "unable to get local issuer certificate"
        assert [(line["plane"], line["target"]) for line in lines] == [
            (plane, f"127.0.0.1:{it.ports[kind]}: {said}")
            for kind, plane in (("proxy_tls", "http"), ("dot", "dns"), ("doh", "dns"))
        ]
        assert all(line["reason"] == "identity-unknown" for line in lines)
        assert all(line["evidence"] == ["certificate"] for line in lines)
        assert all(str(line["peer"]).startswith("127.0.0.1:") for line in lines)


class Talk(Struct, frozen=True):
    """One exchange over TLS, and what a client keeps of it."""

    reply: bytes
    session: ssl.SSLSession | None
    is_resumed: bool | None


def talk(
    context: ssl.SSLContext, port: int, octets: bytes, session: ssl.SSLSession | None = None
) -> Talk:
    with (
        socket.create_connection(("127.0.0.1", port)) as plain,
        context.wrap_socket(plain, server_hostname="localhost", session=session) as connection,
    ):
        connection.sendall(octets)
        return Talk(connection.recv(4096), connection.session, connection.session_reused)


async def test_a_session_from_before_the_rules_asked_names_nobody(tmp_path: Path) -> None:
    """threats.md, "Identity": "TLS session resumption skips client-certificate checks"."""
    async with certified(tmp_path) as it:
        port = it.ports["proxy_tls"]
        it.use(Ruleset(2, {}))
        client = it.context(it.court.forger.good())
        before = await asyncio.to_thread(talk, client, port, get(it.where))
        assert b" sallyport host-not-listed " in before.reply
        again = await asyncio.to_thread(talk, client, port, get(it.where), before.session)
        assert again.is_resumed
        it.use(rules(it.origin.port, 3, mtls=True))
        stranger = it.context(None)
        after = await asyncio.to_thread(talk, stranger, port, get(it.where))
        assert b" 407 " in after.reply
        after = await asyncio.to_thread(talk, client, port, get(it.where), again.session)
        assert not after.is_resumed
        assert after.reply.endswith(b"\r\n\r\nok")
        assert after.session is not None
        assert not after.session.has_ticket


async def test_a_refusal_that_ends_the_connection_is_read_to_its_end(tmp_path: Path) -> None:
    """TLS has no half that could be closed: what the client still sends is read all the same."""
    async with certified(tmp_path) as it:
        for _ in range(3):
            peer = await it.connect("proxy_tls", it.court.forger.good())
            peer.send(connect("denied.example:443"))
            peer.send(b"\x16\x03\x01" + bytes(4000))
            reply = await peer.reply()
            assert (reply.status, reply.field("x-deny-reason")) == (403, "host-not-listed")
            assert reply.field("connection") == "close"
            assert await peer.rest() == b""
            peer.abort()
        lines = await it.parts.lines()
        assert {line["reason"] for line in lines} == {"host-not-listed"}


@pytest.mark.parametrize("side", ["client", "origin"])
async def test_a_tunnel_ends_with_either_side(
    tmp_path: Path, side: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with certified(tmp_path) as it:
        peer = await it.connect("proxy_tls", it.court.forger.good())
        await tunnel(it, peer)
        if side == "origin":
            for task in tuple(it.origin._tasks):
                task.cancel()
            assert await peer.rest() == b""
        else:
            peer.writer.close()
        tunnels = it.parts.metrics.tunnels
        await settled(lambda: tunnels.value == 0)
        peer.abort()
        assert caplog.records == []
