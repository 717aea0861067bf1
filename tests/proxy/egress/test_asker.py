"""Who asks: per request, by what the request presents; 407 where a token would help."""

import asyncio
import subprocess
from pathlib import Path
from typing import override

import pytest

from proxy.attested.binding import Binding, Kind
from proxy.attested.known import Attestations
from proxy.attested.result import Result
from proxy.egress.asker import Asker
from proxy.egress.connect import ESTABLISHED
from proxy.identify import UNKNOWN, Identifier
from proxy.limits import Limits
from proxy.transport.peer import PeerTable, SocketAddress, SocketOwner
from rules.decision import Decision
from rules.facts import Level, Principal
from rules.ruleset import AllowRule, App, IdentityLine, Requirements, Ruleset
from tests.proxy.egress.world import (
    LOOPBACK,
    Origin,
    World,
    basic,
    connect,
    get,
    opened,
    settled,
    token_app,
)
from tests.rules.written import allow

CODER = basic("coder", "spt_coder")
BEARER = "Proxy-Authorization: Bearer spt_coder"


def to(origin: Origin, *, tls: bool = False) -> AllowRule:
    return allow("example.com", ports=[origin.port], addresses=[LOOPBACK], tls=tls)


def with_tokens(world: World, origin: Origin, *names: str) -> str:
    """Let `coder` alone reach the origin, by its token; return the origin's authority."""
    apps = [token_app(name, to(origin)) for name in names or ("coder",)]
    world.use_all(2, world.listener_app(), *apps)
    world.give_tokens(*(app.name for app in apps))
    return f"example.com:{origin.port}"


@pytest.mark.parametrize("credential", [CODER, basic("", "spt_coder"), BEARER])
async def test_a_request_is_of_the_app_whose_token_it_presents(
    tmp_path: Path, credential: str
) -> None:
    async with Origin().running() as origin, opened(tmp_path) as world:
        where = with_tokens(world, origin)
        reply = await world.ask(get(where, "/", credential))
        assert reply.body == b"ok"
        client = await world.client()
        client.send(connect(where, credential))
        assert await client.head() == ESTABLISHED
        lines = await world.lines()
        assert {line["app"] for line in lines} == {"coder"}
        assert all(line["evidence"] == ["token"] for line in lines)


async def test_a_credential_never_goes_upstream(tmp_path: Path) -> None:
    """RFC 9110, section 11.7.2; threats.md, "Identity": tokens leak."""
    async with Origin().running() as origin, opened(tmp_path) as world:
        where = with_tokens(world, origin)
        await world.ask(get(where, "/", CODER, "Proxy-Connection: keep-alive"))
        assert b"proxy-" not in origin.heads[0].lower()
        assert b"spt_" not in origin.heads[0]


async def test_the_principal_is_of_the_request_not_of_the_connection(tmp_path: Path) -> None:
    """threats.md, "Order of checks": "Approval given for one request used for another"."""
    async with Origin().running() as origin, opened(tmp_path) as world:
        where = with_tokens(world, origin, "coder", "other")
        client = await world.client()
        for app in ("coder", "other", "coder"):
            client.send(get(where, "/", basic(app, f"spt_{app}")))
            assert (await client.reply()).body == b"ok"
        client.send(get(where))
        assert (await client.reply()).status == 407
        lines = await world.lines()
        assert {line["app"] for line in lines} == {"coder", "other", "me"}
        assert origin.connections == 2  # connections are pooled by principal


async def test_git_gets_a_clean_407_and_comes_again_on_the_same_connection(tmp_path: Path) -> None:
    async with Origin().running() as origin, opened(tmp_path) as world:
        where = with_tokens(world, origin)
        client = await world.client()
        client.send(connect(where))
        reply = await client.reply()
        assert (reply.status, reply.field("x-deny-reason")) == (407, "host-not-listed")
        challenges = [value for name, value in reply.fields if name == "proxy-authenticate"]
        assert [each.split(" ")[0] for each in challenges] == ["Basic", "Bearer"]
        assert reply.field("connection") is None
        assert b'"status":407' in reply.body
        client.send(connect(where, CODER))
        assert await client.head() == ESTABLISHED


async def test_curl_asks_again_after_the_407(tmp_path: Path) -> None:
    async with Origin().running() as origin, opened(tmp_path) as world:
        where = with_tokens(world, origin)
        proxy = f"http://127.0.0.1:{world.port}"
        curl = ["curl", "-sS", "--noproxy", "", "-x", proxy, "-p", "-U", "coder:spt_coder"]
        done = await asyncio.to_thread(
            subprocess.run, [*curl, "--proxy-anyauth", f"http://{where}/"], capture_output=True,
            check=True,
        )  # fmt: skip
        assert done.stdout == b"ok"


@pytest.mark.parametrize(
    ("fields", "reason", "text"),
    [
        ([basic("coder", "spt_wrong")], "identity-unknown", "no such token"),
        ([basic("coder", "")], "identity-unknown", "neither Basic nor Bearer"),
        (["Proxy-Authorization: Digest x"], "identity-unknown", "neither Basic nor Bearer"),
        (["Proxy-Authorization: Basic !!"], "identity-unknown", "neither Basic nor Bearer"),
        ([CODER, CODER], "identity-unknown", "send one"),
        ([basic("stranger", "spt_coder")], "identity-conflict", ""),
    ],
)
async def test_a_credential_that_is_not_known_is_no_ambient_evidence(
    tmp_path: Path, fields: list[str], reason: str, text: str
) -> None:
    """reference.md: "never a fall-back to ambient evidence"; threats.md, "Identity"."""
    async with Origin().running() as origin, opened(tmp_path) as world:
        world.use_all(2, world.listener_app(to(origin)), token_app("coder"))
        world.give_tokens("coder")
        where = f"example.com:{origin.port}"
        for asked in (connect(where, *fields), get(where, "/", *fields)):
            reply = await world.ask(asked)
            assert (reply.status, reply.field("x-deny-reason")) == (407, reason)
            assert text.encode() in reply.body
            assert b"spt_" not in reply.body
        assert origin.connections == 0
        assert {line["app"] for line in await world.lines()} == {"unknown"}


async def test_without_tokens_nobody_is_asked_for_one(tmp_path: Path) -> None:
    async with opened(tmp_path) as world:
        reply = await world.ask(connect("example.com:443"))
        assert (reply.status, reply.field("proxy-authenticate")) == (403, None)


async def test_what_no_token_would_change_is_no_407(tmp_path: Path) -> None:
    async with Origin().running() as origin, opened(tmp_path) as world:
        where = with_tokens(world, origin)
        reply = await world.ask(get(where, "/", CODER, method="TRACE"))
        assert reply.status == 403
        reply = await world.ask(connect("example.org:443", CODER))
        assert (reply.status, reply.field("x-deny-reason")) == (403, "host-not-listed")
        assert (await world.ask(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")).status == 400


async def test_tries_of_a_connection_are_bounded(tmp_path: Path) -> None:
    limits = Limits(proxy_tick_s=0.02, credential_tries=3)
    async with Origin().running() as origin, opened(tmp_path, limits=limits) as world:
        where = with_tokens(world, origin)
        client = await world.client()
        closes = []
        for number in range(3):
            client.send(connect(where, basic("coder", f"spt_{number}")))
            reply = await client.reply()
            assert reply.status == 407
            closes.append(reply.field("connection"))
        assert closes == [None, None, "close"]
        assert await client.rest() == b""
        assert world.metrics.bounds.value("credential_tries") == 1


async def test_a_token_counts_no_more_on_a_connection_that_used_it(tmp_path: Path) -> None:
    async with Origin().running() as origin, opened(tmp_path) as world:
        where = with_tokens(world, origin)
        client = await world.client()
        client.send(get(where, "/", CODER))
        assert (await client.reply()).body == b"ok"
        world.give_tokens("other")
        client.send(get(where, "/", CODER))
        reply = await client.reply()
        assert reply.field("x-deny-reason") == "identity-unknown"


async def test_a_listener_that_changes_hands_does_so_on_open_connections(tmp_path: Path) -> None:
    """threats.md, "Order of checks": "Reload half applied"."""
    async with Origin().running() as origin, opened(tmp_path, to(Origin())) as world:
        client = await world.client()
        where = f"example.com:{origin.port}"
        world.use(2, to(origin))
        client.send(get(where))
        assert (await client.reply()).body == b"ok"
        world.use_all(3, token_app("coder", to(origin)))
        client.send(get(where))
        reply = await client.reply()
        assert b'"app":"unknown"' in reply.body


async def test_a_token_is_gone_before_the_2xx(tmp_path: Path) -> None:
    """threats.md, "Order of checks": decided under N, registered after the sweep of N+1."""
    async with Origin().running() as origin, opened(tmp_path) as world:
        where = with_tokens(world, origin)
        world.names.meanwhile = lambda: world.give_tokens("other")
        for asked in (connect(where, CODER), get(where, "/", CODER)):
            world.give_tokens("coder")
            reply = await world.ask(asked)
            assert reply.field("x-deny-reason") == "generation-changed"
            assert origin.heads == []


async def test_a_token_that_was_gone_before_the_request_left_stays_gone(tmp_path: Path) -> None:
    """threats.md, "Identity": a revoked credential on an open connection."""
    async with Origin().running() as origin, opened(tmp_path) as world:
        where = with_tokens(world, origin)
        client = await world.client()
        world.names.meanwhile = lambda: world.give_tokens("other")
        for reason in ("generation-changed", "identity-unknown"):
            client.send(get(where, "/", CODER))
            assert (await client.reply()).field("x-deny-reason") == reason
        assert origin.heads == []


async def test_requests_inside_a_connect_are_of_who_opened_it(tmp_path: Path) -> None:
    """A credential inside counts too; what presents none is of the CONNECT's."""
    async with opened(tmp_path) as world:
        world.use_all(2, world.listener_app(), token_app("coder"), token_app("other"))
        world.give_tokens("coder", "other")
        client = await world.client()
        client.send(connect("sallyport.internal:80", CODER))
        assert await client.head() == ESTABLISHED
        ask = "GET / HTTP/1.1\r\nHost: sallyport.internal\r\n{}\r\n"
        for fields, app in (("", b"coder"), (basic("", "spt_other") + "\r\n", b"other")):
            client.send(ask.format(fields).encode())
            assert b'"app":"' + app + b'"' in (await client.reply()).body
        client.send(ask.format("").encode())
        assert b'"app":"coder"' in (await client.reply()).body
        world.give_tokens("other")
        client.send(ask.format("").encode())
        assert (await client.reply()).field("x-deny-reason") == "identity-unknown"


async def test_why_is_answered_to_the_app_that_presents_its_token(tmp_path: Path) -> None:
    async with Origin().running() as origin, opened(tmp_path) as world:
        with_tokens(world, origin, "coder", "other")
        refused = await world.ask(connect("example.org:443", CODER))
        number = refused.phrase.split(" ")[-1]
        mine = await world.ask(get("sallyport.internal", f"/why/{number}", CODER))
        assert (mine.status, b'"app":"coder"' in mine.body) == (200, True)
        other = basic("other", "spt_other")
        assert (await world.ask(get("sallyport.internal", f"/why/{number}", other))).status == 404
        assert (await world.ask(get("sallyport.internal", f"/why/{number}"))).status == 404


async def test_a_stranger_behind_a_407_holds_no_place_for_long(tmp_path: Path) -> None:
    """threats.md, "HTTP itself": slow loris."""
    limits = Limits(proxy_tick_s=0.02, keep_alive_s=0.05)
    async with Origin().running() as origin, opened(tmp_path, limits=limits) as world:
        client = await world.client()
        client.send(connect(with_tokens(world, origin)))
        assert (await client.reply()).status == 407
        assert await client.rest() == b""
        await settled(lambda: not world.egress.connections)


class Counting(PeerTable):
    """Counts how often the kernel is asked who has a socket."""

    def __init__(self) -> None:
        super().__init__(Limits(), lambda: 2e9, lambda _: None)
        self.asked = 0

    @override
    def owner(self, peer: SocketAddress, local: SocketAddress) -> SocketOwner | None:
        self.asked += 1
        return super().owner(peer, local)


async def test_the_kernel_is_asked_again_only_where_who_asks_may_be_another() -> None:
    """Agents attest several times a second: that is nobody's name, and a look-up costs more."""
    peers = Counting()
    attestations = Attestations(Limits(), lambda: 1000.0, lambda _: None)
    line = IdentityLine("f:1", uid=2**31)
    app = App("me", (line,), Requirements(attested=Level.SOFTWARE, max_age_s=300))
    rules = Ruleset(1, {"me": app})
    identifier = Identifier(rules, peers, attestations=attestations)
    ends = (("127.0.0.1", 1), ("127.0.0.1", 2))
    asker = Asker(identifier, *ends, "127.0.0.1:2")
    assert (asker.bindings, peers.asked) == ((), 1)
    before = identifier.epoch
    binding = Binding(Kind.KEY, "0" * 64)
    attestations.add(Result("1", "0" * 64, binding, "me", "", Level.SOFTWARE, "a", 1000.0, 1300.0))
    assert identifier.epoch != before
    assert asker.of(((b"host", b"a.example"),)) == asker.again(None) == UNKNOWN
    assert asker.still(UNKNOWN) == UNKNOWN
    assert asker.still(Principal("me")) is None
    assert peers.asked == 1
    identifier.use(rules)
    assert asker.again(None) == UNKNOWN
    assert peers.asked == 2
    peers.close()


async def test_a_result_that_was_presented_once_may_be_replaced(tmp_path: Path) -> None:
    """A flow stands on the attestation of its connection, not on the text that was sent."""
    async with Origin().running() as origin, opened(tmp_path, to(origin)) as world:
        asker = Asker(world.identifier, ("127.0.0.1", 1), ("127.0.0.1", 2), world.where)
        value = b"Bearer eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJ4In0.c2ln"
        assert isinstance(asker.of(((b"proxy-authorization", value),)), Decision)
        assert asker.again(value) == asker.ambient == asker.principal
