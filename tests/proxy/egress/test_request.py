"""One plain HTTP request: what is decided about it, and what its origin then sees."""

import asyncio
from asyncio import StreamReader, StreamWriter
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from proxy.egress.connection import ClientConnection
from rules.decision import Decision, Reason, Verdict
from rules.facts import Level
from rules.ruleset import AllowRule, Requirements
from tests.proxy.egress.world import LOOPBACK, Origin, basic, get, opened, saying, settled
from tests.rules.written import allow, deny

UNKNOWN: Any = "approve"  # an obligation of a later version


def web(origin: Origin, *hosts: str, **keys: Any) -> AllowRule:
    names = hosts or ("example.com",)
    return allow(*names, ports=[origin.port], addresses=[LOOPBACK], **keys)


async def test_forwards_in_origin_form_with_fields_of_its_own(tmp_path: Path) -> None:
    async with Origin().running() as origin, opened(tmp_path, web(origin)) as world:
        reply = await world.ask(get(f"example.com:{origin.port}", "/a?b=c", "X-One: 1"))
        assert (reply.status, reply.body) == (200, b"ok")
        assert reply.field("via") == "1.1 sallyport"
        assert origin.heads == [
            b"GET /a?b=c HTTP/1.1\r\nhost: example.com:%d\r\nvia: 1.1 sallyport\r\nx-one: 1\r\n\r\n"
            % origin.port
        ]


async def test_refuses_a_host_that_no_rule_lists_without_looking_it_up(tmp_path: Path) -> None:
    """threats.md, "Between name and address": "look-up in the refusal path"."""
    async with Origin().running() as origin, opened(tmp_path, web(origin)) as world:
        reply = await world.ask(get(f"example.org:{origin.port}"))
        assert (reply.status, reply.field("x-deny-reason")) == (403, "host-not-listed")
        assert world.names.asked == []
        assert origin.connections == 0


async def test_decides_every_request_of_a_connection(tmp_path: Path) -> None:
    only = {"methods": ["GET"], "paths": ["/a/**"]}
    async with Origin().running() as origin, opened(tmp_path, web(origin, **only)) as world:
        client = await world.client()
        reasons = []
        for path, method in [("/a/b", "GET"), ("/b", "GET"), ("/a/b", "DELETE"), ("/a/c", "GET")]:
            client.send(get(f"example.com:{origin.port}", path, method=method))
            reasons.append((await client.reply()).field("x-deny-reason"))
        assert reasons == [None, "path-not-allowed", "method-not-allowed", None]
        assert [head.split(b" ")[1] for head in origin.heads] == [b"/a/b", b"/a/c"]
        assert world.names.asked[0][1] == frozenset({1, 28})


@pytest.mark.parametrize(
    ("path", "seen"),
    [("/a/../b", b"/b"), ("/a/%2e%2e/b", b"/b"), ("/./a", b"/a"), ("/a%2Fb", b"/a%2Fb")],
)
async def test_forwards_the_normal_form_of_the_path(tmp_path: Path, path: str, seen: bytes) -> None:
    """threats.md, "HTTP itself": "dot segments and encoded slashes in paths (OpenShell #663)"."""
    async with Origin().running() as origin, opened(tmp_path, web(origin)) as world:
        assert (await world.ask(get(f"example.com:{origin.port}", path))).status == 200
        assert origin.heads[0].split(b" ")[1] == seen


@pytest.mark.parametrize("path", ["/a\\b", "/a%5cb", "/a%00b", "/a#b"])
async def test_refuses_paths_that_servers_read_in_two_ways(tmp_path: Path, path: str) -> None:
    """threats.md, "HTTP itself": "dot segments and encoded slashes in paths (OpenShell #663)"."""
    async with Origin().running() as origin, opened(tmp_path, web(origin)) as world:
        reply = await world.ask(get(f"example.com:{origin.port}", path))
        assert (reply.status, reply.field("x-deny-reason")) == (400, "request-malformed")
        assert origin.connections == 0


async def test_tries_a_deny_on_both_readings_of_an_encoded_slash(tmp_path: Path) -> None:
    """threats.md, "HTTP itself": "dot segments and encoded slashes in paths (OpenShell #663)"."""
    private = deny("example.com", paths=["/private/**"])
    async with Origin().running() as origin, opened(tmp_path, web(origin), private) as world:
        reply = await world.ask(get(f"example.com:{origin.port}", "/private%2Fkeys"))
        assert (reply.status, reply.field("x-deny-reason")) == (403, "rule")
        assert origin.connections == 0


async def test_refuses_a_host_field_that_disagrees_with_the_target(tmp_path: Path) -> None:
    """threats.md, "HTTP itself": "absolute-form against Host"."""
    async with Origin().running() as origin, opened(tmp_path, web(origin)) as world:
        target = f"GET http://example.com:{origin.port}/ HTTP/1.1\r\nHost: example.org\r\n\r\n"
        reply = await world.ask(target.encode())
        assert (reply.status, reply.field("x-deny-reason")) == (421, "authority-mismatch")
        assert origin.connections == 0


async def test_a_second_request_may_not_hide_behind_the_host_of_the_first(tmp_path: Path) -> None:
    """threats.md, "HTTP itself": "absolute-form against Host"."""
    async with Origin().running() as origin, opened(tmp_path, web(origin)) as world:
        client = await world.client()
        client.send(get(f"example.com:{origin.port}"))
        assert (await client.reply()).status == 200
        again = f"GET http://example.com:{origin.port}/ HTTP/1.1\r\nHost: example.org\r\n\r\n"
        client.send(again.encode())
        assert (await client.reply()).status == 421


@pytest.mark.parametrize(
    "target", ["/", "*", "https://example.com/", "ftp://example.com/", "example.com:80"]
)
async def test_takes_no_other_form_than_absolute(tmp_path: Path, target: str) -> None:
    async with opened(tmp_path, allow("example.com", ports=[80, 443])) as world:
        octets = f"GET {target} HTTP/1.1\r\nHost: example.com\r\n\r\n"
        reply = await world.ask(octets.encode())
        assert (reply.status, reply.field("x-deny-reason")) == (400, "request-malformed")


async def test_refuses_trace(tmp_path: Path) -> None:
    """threats.md, "HTTP itself": "TRACE echo of an injected header"."""
    async with Origin().running() as origin, opened(tmp_path, web(origin)) as world:
        reply = await world.ask(get(f"example.com:{origin.port}", method="TRACE"))
        assert (reply.status, reply.field("x-deny-reason")) == (403, "method-not-allowed")
        assert origin.connections == 0


@pytest.mark.parametrize("value", ["Basic bWU6eA==", "Bearer x"])
async def test_refuses_a_presented_credential(tmp_path: Path, value: str) -> None:
    """threats.md, "Identity": a credential that nobody issued is no fall-back to the listener."""
    async with Origin().running() as origin, opened(tmp_path, web(origin)) as world:
        asked = get(f"example.com:{origin.port}", "/", f"Proxy-Authorization: {value}")
        reply = await world.ask(asked)
        assert (reply.status, reply.field("x-deny-reason")) == (403, "identity-unknown")
        assert origin.connections == 0
        line = (await world.lines())[-1]
        assert (line["app"], line["evidence"]) == ("unknown", ["token"])


async def test_removes_what_is_for_one_hop_only(tmp_path: Path) -> None:
    """threats.md, "HTTP itself": "`Connection:`-listed end-to-end headers"."""
    hop = ("Connection: close, Hop", "Hop: 1", "TE: trailers", "Proxy-Connection: close")
    async with Origin().running() as origin, opened(tmp_path, web(origin)) as world:
        await world.ask(get(f"example.com:{origin.port}", "/", *hop, "Keep-Alive: 5"))
        for name in (b"connection", b"hop:", b"te:", b"keep-alive"):
            assert name not in origin.heads[0].lower()


async def test_a_connection_option_may_not_strip_what_the_origin_decides_by(
    tmp_path: Path,
) -> None:
    """threats.md, "HTTP itself": "`Connection:`-listed end-to-end headers"."""
    async with Origin().running() as origin, opened(tmp_path, web(origin)) as world:
        asked = get(f"example.com:{origin.port}", "/", "Connection: authorization")
        assert (await world.ask(asked)).field("x-deny-reason") == "request-malformed"


@pytest.mark.parametrize("upgrade", ["h2c", "TLS/1.0", "websocket, h2c"])
async def test_asks_the_origin_for_no_other_protocol_than_websocket(
    tmp_path: Path, upgrade: str
) -> None:
    async with Origin().running() as origin, opened(tmp_path, web(origin)) as world:
        fields = ("Connection: Upgrade, HTTP2-Settings", f"Upgrade: {upgrade}", "HTTP2-Settings: x")
        assert (await world.ask(get(f"example.com:{origin.port}", "/", *fields))).status == 200
        assert b"upgrade" not in origin.heads[0].lower()
        assert b"http2-settings" not in origin.heads[0].lower()


async def test_answers_options_itself_when_no_hop_is_left(tmp_path: Path) -> None:
    """threats.md, "HTTP itself": "Max-Forwards"."""
    async with Origin().running() as origin, opened(tmp_path, web(origin)) as world:
        asked = get(f"example.com:{origin.port}", "/", "Max-Forwards: 0", method="OPTIONS")
        assert (await world.ask(asked)).status == 200
        assert origin.connections == 0


async def test_counts_a_hop_of_options(tmp_path: Path) -> None:
    """threats.md, "HTTP itself": "Max-Forwards"."""
    async with Origin().running() as origin, opened(tmp_path, web(origin)) as world:
        host = f"example.com:{origin.port}"
        await world.ask(get(host, "", "Max-Forwards: 7", method="OPTIONS"))
        assert origin.heads[0].startswith(b"OPTIONS * HTTP/1.1\r\n")
        assert b"\r\nmax-forwards: 6\r\n" in origin.heads[0]
        await world.ask(get(host, "/x", method="OPTIONS"))
        assert b"max-forwards" not in origin.heads[1]
        bad = await world.ask(get(host, "", "Max-Forwards: -1", method="OPTIONS"))
        assert bad.status == 400


async def test_reuses_the_origin_connection_of_the_same_app_and_host(tmp_path: Path) -> None:
    async with Origin().running() as origin, opened(tmp_path, web(origin)) as world:
        for _ in range(3):
            assert (await world.ask(get(f"example.com:{origin.port}"))).status == 200
        assert origin.connections == 1
        assert len(world.names.asked) == 1


async def test_another_host_gets_a_connection_of_its_own(tmp_path: Path) -> None:
    """threats.md, "Between name and address": "pooled connection reused for another name"."""
    async with Origin().running() as origin:
        rule = web(origin, "example.com", "example.org")
        async with opened(tmp_path, rule) as world:
            for host in ("example.com", "example.org"):
                assert (await world.ask(get(f"{host}:{origin.port}"))).status == 200
            assert origin.connections == 2


async def test_a_pooled_connection_is_decided_on_again(tmp_path: Path) -> None:
    """threats.md, "Between name and address": "first answer public, second private"."""
    async with Origin().running() as origin, opened(tmp_path, web(origin)) as world:
        assert (await world.ask(get(f"example.com:{origin.port}"))).status == 200
        world.use(2, allow("example.com", ports=[origin.port]))
        reply = await world.ask(get(f"example.com:{origin.port}"))
        assert (reply.status, reply.field("x-deny-reason")) == (403, "address-not-allowed")
        assert len(world.egress.pool) == 0


async def test_a_generation_that_moved_during_the_look_up_is_asked_again(tmp_path: Path) -> None:
    """threats.md, "Order of checks": a flow decided under generation N and opened under N+1."""
    async with Origin().running() as origin, opened(tmp_path, web(origin)) as world:
        world.names.meanwhile = lambda: world.use(2, allow("example.org"))
        reply = await world.ask(get(f"example.com:{origin.port}"))
        # Endpoint is decided after the look-up, so the new rules are the first to say no.
        assert reply.status == 403
        assert origin.heads == []


async def test_rules_that_still_allow_let_the_request_go_on(tmp_path: Path) -> None:
    async with Origin().running() as origin, opened(tmp_path, web(origin)) as world:
        world.names.meanwhile = lambda: world.use(2, web(origin))
        assert (await world.ask(get(f"example.com:{origin.port}"))).status == 200


async def test_says_that_the_generation_changed(tmp_path: Path) -> None:
    async with Origin().running() as origin, opened(tmp_path, web(origin)) as world:
        changed = web(origin, methods=["POST"])
        world.names.meanwhile = lambda: world.use(2, changed)
        reply = await world.ask(get(f"example.com:{origin.port}"))
        assert (reply.status, reply.field("x-deny-reason")) == (403, "generation-changed")
        assert origin.heads == []


async def test_says_what_must_be_proven_by_now(tmp_path: Path) -> None:
    needed = Requirements(attested=Level.SOFTWARE, max_age_s=300)
    async with Origin().running() as origin, opened(tmp_path, web(origin)) as world:
        world.names.meanwhile = lambda: world.use(2, web(origin, require=needed))
        reply = await world.ask(get(f"example.com:{origin.port}"))
        assert (reply.status, reply.field("x-deny-reason")) == (403, "attestation-required")
        assert origin.heads == []


async def test_rules_that_change_before_the_look_up_begins_are_asked_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """threats.md, "Order of checks": decided under generation N, registered under N+1."""
    async with Origin().running() as origin, opened(tmp_path, web(origin)) as world:
        changed, begin = web(origin, methods=["POST"]), ClientConnection.start

        def start(client: ClientConnection, work: Coroutine[None, None, None]) -> None:
            asyncio.get_running_loop().call_soon(world.use, 2, changed)
            begin(client, work)

        monkeypatch.setattr(ClientConnection, "start", start)
        reply = await world.ask(get(f"example.com:{origin.port}"))
        assert (reply.status, reply.field("x-deny-reason")) == (403, "generation-changed")
        assert origin.heads == []


async def test_an_obligation_that_is_not_known_is_a_denial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Origin().running() as origin, opened(tmp_path, web(origin)) as world:
        strange = Decision(Verdict.ALLOW, Reason.RULE, obligations=(UNKNOWN,))
        monkeypatch.setattr(world.authorizer, "authorize", lambda _flow, _facts: strange)
        reply = await world.ask(get(f"example.com:{origin.port}"))
        assert (reply.status, reply.field("x-deny-reason")) == (503, "internal-error")
        assert origin.connections == 0


async def test_the_failure_of_a_look_up_reaches_the_agent(tmp_path: Path) -> None:
    async with opened(tmp_path, allow("example.com", ports=[80])) as world:
        world.names.table["example.com"] = Decision(Verdict.FAIL, Reason.UPSTREAM_TIMEOUT)
        reply = await world.ask(get("example.com"))
        assert (reply.status, reply.field("x-deny-reason")) == (504, "upstream-timeout")


async def test_retries_once_when_an_idle_connection_was_closed_unseen(tmp_path: Path) -> None:
    origin = Origin()
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

    async def script(reader: StreamReader, writer: StreamWriter) -> None:
        await origin.read_head(reader)
        writer.write(answer)
        if origin.connections == 1:
            await origin.read_head(reader)
        else:
            await reader.read()

    origin.script = script
    async with origin.running(), opened(tmp_path, web(origin)) as world:
        client = await world.client()
        for _ in range(2):
            client.send(get(f"example.com:{origin.port}"))
            assert (await client.reply()).body == b"ok"
        assert origin.connections == 2
        assert len(origin.heads) == 3


async def test_a_request_with_content_is_never_sent_twice(tmp_path: Path) -> None:
    origin = Origin()

    async def script(reader: StreamReader, writer: StreamWriter) -> None:
        await origin.read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        await origin.read_head(reader)

    origin.script = script
    async with origin.running(), opened(tmp_path, web(origin)) as world:
        client = await world.client()
        client.send(get(f"example.com:{origin.port}"))
        assert (await client.reply()).status == 200
        post = get(f"example.com:{origin.port}", "/", "Content-Length: 1", method="POST")
        client.send(post + b"x")
        reply = await client.reply()
        assert (reply.status, reply.field("x-deny-reason")) == (502, "upstream-unreachable")
        assert origin.connections == 1


@pytest.mark.parametrize("methods", [None, ["POST"]])
async def test_a_retry_is_decided_anew(tmp_path: Path, methods: list[str] | None) -> None:
    """threats.md, "Order of checks": the Connect may be allowed still, the request not."""
    origin = Origin()

    async def script(reader: StreamReader, writer: StreamWriter) -> None:
        await origin.read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        await origin.read_head(reader)
        world.use(2, *([web(origin, methods=methods)] if methods else []))

    origin.script = script
    async with origin.running(), opened(tmp_path, web(origin)) as world:
        client = await world.client()
        client.send(get(f"example.com:{origin.port}") * 2)
        assert (await client.reply()).status == 200
        assert (await client.reply()).field("x-deny-reason") == "upstream-unreachable"
        assert origin.connections == 1


async def test_an_allow_is_audited_before_the_request_leaves(tmp_path: Path) -> None:
    async with saying(b"").running() as origin, opened(tmp_path, web(origin)) as world:
        client = await world.client()
        client.send(get(f"example.com:{origin.port}", "/a?secret=1"))
        await settled(lambda: bool(origin.heads))
        lines = await world.lines()
        assert len(lines) == 1
        line = lines[0]
        assert (line["fact"], line["verdict"], line["rule"]) == ("request", "allow", "allow")
        assert (line["path"], line["address"]) == ("/a", "127.0.0.1")
        assert "secret" not in str(line)
        client.abort()


@pytest.mark.parametrize("method", ["trace", "Delete", "get"])
async def test_refuses_methods_that_are_known_by_another_case(tmp_path: Path, method: str) -> None:
    """threats.md, "HTTP itself": "TRACE echo of an injected header", for who reads `trace` so.

    A rule that denies DELETE is one about `delete` to a server that reads it as DELETE.
    """
    denying = deny("example.com", methods=["DELETE"])
    async with Origin().running() as origin, opened(tmp_path, web(origin), denying) as world:
        reply = await world.ask(get(f"example.com:{origin.port}", method=method))
        assert reply.field("x-deny-reason") == "request-malformed"
        assert origin.heads == []


async def test_what_is_sent_again_is_decided_again(tmp_path: Path) -> None:
    """threats.md, "Order of checks": "Another app's cached grant"; "Reload half applied"."""
    async with Origin().running() as origin, opened(tmp_path, web(origin)) as world:
        client = await world.client()
        asked = get(f"example.com:{origin.port}", "/a?b")
        for _ in range(3):
            client.send(asked)
            assert (await client.reply()).status == 200
        world.use(2, web(origin), deny("example.com", paths=["/a"]))
        client.send(asked)
        assert (await client.reply()).field("x-deny-reason") == "rule"
        world.use(3, web(origin))
        client.send(asked)
        assert (await client.reply()).status == 200
        assert len(set(origin.heads)) == 1
        assert len(origin.heads) == 4
        assert world.metrics.decisions.value("request", Verdict.ALLOW, Reason.RULE) == 4


async def test_what_is_sent_again_needs_room_in_the_audit(tmp_path: Path) -> None:
    """No allow stands that could not be recorded."""
    async with Origin().running() as origin, opened(tmp_path, web(origin)) as world:
        client = await world.client()
        asked = get(f"example.com:{origin.port}")
        for _ in range(2):
            client.send(asked)
            assert (await client.reply()).status == 200
        await world.audit.close()
        client.send(asked)
        assert (await client.reply()).field("x-deny-reason") == "audit-unavailable"
        assert len(origin.heads) == 2


async def test_what_is_sent_again_has_the_credential_of_its_own(tmp_path: Path) -> None:
    """A request is of who it shows, not of who asked before it on the same connection."""
    async with Origin().running() as origin, opened(tmp_path, web(origin)) as world:
        client = await world.client()
        asked = get(f"example.com:{origin.port}")
        wrong = get(f"example.com:{origin.port}", "/", basic("me", "no-token"))
        statuses = []
        for octets in (asked, asked, wrong, asked, wrong, asked):
            client.send(octets)
            statuses.append((await client.reply()).status)
        assert [status == 200 for status in statuses] == [True, True, False, True, False, True]
        assert len(origin.heads) == 4


async def test_requests_that_differ_are_read_each(tmp_path: Path) -> None:
    async with Origin().running() as origin, opened(tmp_path, web(origin)) as world:
        client = await world.client()
        for path, more in [
            ("/a", "A: 1"),
            ("/b", "A: 1"),
            ("/a", "A: 2"),
            ("/a", "x" * 5000 + ": 1"),
        ]:
            for _ in range(2):
                client.send(get(f"example.com:{origin.port}", path, more))
                assert (await client.reply()).status == 200
        assert len(origin.heads) == 8
        assert len(set(origin.heads)) == 4


async def test_content_is_never_taken_for_a_request_sent_again(tmp_path: Path) -> None:
    async with Origin().running() as origin, opened(tmp_path, web(origin)) as world:
        client = await world.client()
        asked = get(f"example.com:{origin.port}")
        client.send(asked)
        assert (await client.reply()).status == 200
        client.send(asked + asked[:10])
        assert (await client.reply()).status == 200
        client.send(asked[10:])
        assert (await client.reply()).status == 200
        assert len(origin.heads) == 3
