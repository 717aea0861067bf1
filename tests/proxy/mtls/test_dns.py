"""Who asks over DoT and DoH, by certificate; and what is said to whom it does not help."""

import dns.rcode
import msgspec
import pytest
from dns.edns import EDEOption
from dns.message import Message, from_wire

from proxy.metrics import TlsKind, TlsOutcome
from rules.ruleset import Ruleset
from tests.certs.forgery import WHO, Wish
from tests.proxy.egress.world import Reply
from tests.proxy.mtls.certified import (
    OTHER,
    SECRET,
    asked,
    certified,
    post,
    query,
    rules,
)

from pathlib import Path  # isort: skip


def said(reply: Message) -> str:
    """Return the extended error of a reply as `CODE TEXT`."""
    (option,) = [each for each in reply.options if isinstance(each, EDEOption)]
    return f"{int(option.code)} {option.text}"


def is_answered(reply: Message) -> bool:
    return [str(each) for rrset in reply.answer for each in rrset] == ["93.184.215.14"]


def over_doh(reply: Reply) -> Message:
    assert reply.status == 200
    return from_wire(reply.body)


async def test_a_certificate_is_who_asks_over_dot(tmp_path: Path) -> None:
    async with certified(tmp_path) as it:
        peer = await it.connect("dot", it.court.forger.good(), "dot")
        assert is_answered(await asked(peer, query()))
        assert is_answered(await asked(peer, query(unique=8)))
        peer.abort()
        lines = await it.parts.lines()
        assert {(line["app"], *line["evidence"]) for line in lines} == {("coder", "certificate")}  # type: ignore[misc]  # a list


async def test_a_certificate_is_who_asks_over_doh(tmp_path: Path) -> None:
    async with certified(tmp_path) as it:
        peer = await it.connect("doh", it.court.forger.good(), "http/1.1")
        peer.send(post(query()))
        assert is_answered(over_doh(await peer.reply()))
        peer.abort()
        lines = await it.parts.lines()
        assert {line["app"] for line in lines} == {"coder"}


@pytest.mark.parametrize("kind", ["dot", "doh"])
async def test_without_a_certificate_nobody_asks(tmp_path: Path, kind: str) -> None:
    async with certified(tmp_path) as it:
        peer = await it.connect(kind, None, "dot" if kind == "dot" else "http/1.1")
        if kind == "dot":
            reply = await asked(peer, query())
        else:
            peer.send(post(query()))
            reply = over_doh(await peer.reply())
        assert not is_answered(reply)
        peer.abort()


async def test_a_certificate_that_names_nobody_is_refused_over_dot(tmp_path: Path) -> None:
    """threats.md, "Identity": never a fall-back to ambient evidence."""
    async with certified(tmp_path) as it:
        peer = await it.connect("dot", it.court.forger.good(OTHER), "dot")
        for unique in range(20):
            reply = await asked(peer, query(unique=unique))
            assert (reply.id, reply.rcode()) == (unique, dns.rcode.REFUSED)
            assert said(reply).startswith("18 sallyport identity-unknown ")
            assert f"no identity line names {OTHER}" in said(reply)
        peer.abort()
        (line,) = await it.parts.lines()
        assert (line["app"], line["evidence"]) == ("unknown", ["certificate"])
        assert (line["reason"], line["count"]) == ("identity-unknown", 20)


async def test_a_certificate_that_names_nobody_is_refused_over_doh(tmp_path: Path) -> None:
    async with certified(tmp_path) as it:
        peer = await it.connect("doh", it.court.forger.sign(Wish((WHO, WHO))), "http/1.1")
        peer.send(post(query()))
        reply = await peer.reply()
        assert (reply.status, reply.field("x-deny-reason")) == (403, "identity-unknown")
        assert reply.field("www-authenticate") is None
        told = msgspec.json.decode(reply.body)
        assert "2 URIs as alternative names" in told["how"]
        unique = told["instance"].removeprefix("urn:uuid:").replace("-", "")
        peer.send(f"GET /why/{unique} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert (await peer.reply()).status == 403
        peer.abort()


async def test_a_token_of_another_app_beside_a_certificate_is_a_conflict(tmp_path: Path) -> None:
    """threats.md, "Identity": "certificate of one app, token of another" is refused."""
    async with certified(tmp_path) as it:
        peer = await it.connect("doh", it.court.forger.good(), "http/1.1")
        peer.send(post(query(), f"Authorization: Bearer {SECRET}"))
        reply = await peer.reply()
        assert (reply.status, reply.field("x-deny-reason")) == (401, "identity-conflict")
        peer.send(post(query()))
        assert is_answered(over_doh(await peer.reply()))
        peer.abort()
        lines = await it.parts.lines()
        assert (lines[0]["app"], lines[0]["evidence"]) == ("unknown", ["certificate", "token"])


async def test_what_requires_a_certificate_says_so_to_a_token(tmp_path: Path) -> None:
    async with certified(tmp_path) as it:
        it.use(rules(it.origin.port, 2, mtls=True))
        peer = await it.connect("doh", None, "http/1.1")
        peer.send(post(query(), f"Authorization: Bearer {SECRET}"))
        reply = over_doh(await peer.reply())
        assert reply.rcode() == dns.rcode.REFUSED
        assert said(reply).startswith("18 sallyport mtls-required ")
        assert "needs a client certificate" in said(reply)
        peer.abort()
        peer = await it.connect("dot", it.court.forger.good(), "dot")
        assert is_answered(await asked(peer, query()))
        peer.abort()


@pytest.mark.parametrize("kind", ["dot", "doh"])
@pytest.mark.parametrize("how", ["revoked", "ended", "distrusted", "unlisted"])
async def test_an_open_connection_is_refused_once_its_certificate_counts_for_nothing(
    tmp_path: Path, kind: str, how: str
) -> None:
    """threats.md, "Identity": "A revoked or expired client certificate on an open connection"."""
    async with certified(tmp_path) as it:
        peer = await it.connect(
            kind, it.court.forger.good(), "dot" if kind == "dot" else "http/1.1"
        )
        for unique in (1, 2):
            if kind == "dot":
                reply = await asked(peer, query(unique=unique))
            else:
                peer.send(post(query(unique=unique)))
                reply = over_doh(await peer.reply())
            assert is_answered(reply)
        if how == "revoked":
            it.court.revoke()
        elif how == "ended":
            it.court.pass_s(3600)
        elif how == "distrusted":
            it.court.trust.use({})
        else:
            it.use(Ruleset(2, {}))
        if kind == "dot":
            reply = await asked(peer, query(unique=3))
            assert reply.rcode() == dns.rcode.REFUSED
            code = said(reply).split()[2]
        else:
            peer.send(post(query(unique=3)))
            answer = await peer.reply()
            assert answer.status in {401, 403}
            code = answer.field("x-deny-reason") or ""
        assert code == ("revoked" if how == "revoked" else "identity-unknown")
        peer.abort()


async def test_an_answer_under_way_is_not_handed_out_to_a_revoked_asker(tmp_path: Path) -> None:
    for kind in ("dot", "doh"):
        (tmp_path / kind).mkdir()
        async with certified(tmp_path / kind) as it:
            protocol = "dot" if kind == "dot" else "http/1.1"
            peer = await it.connect(kind, it.court.forger.good(), protocol)
            it.meanwhile.append(it.court.revoke)
            if kind == "dot":
                reply = await asked(peer, query())
            else:
                peer.send(post(query()))
                reply = over_doh(await peer.reply())
            assert said(reply).startswith("18 sallyport revoked ")
            peer.abort()


async def test_of_answers_under_way_none_is_handed_out_to_a_revoked_asker(tmp_path: Path) -> None:
    """The first of them finds out; the others are refused by the same."""
    async with certified(tmp_path) as it:
        peer = await it.connect("dot", it.court.forger.good(), "dot")
        it.meanwhile.append(it.court.revoke)
        other = dns.message.make_query("example.com", "AAAA", use_edns=0)
        octets = [query(unique=1), other.to_wire()]
        peer.send(b"".join(len(each).to_bytes(2) + each for each in octets))
        for _ in octets:
            size = int.from_bytes(await peer.exactly(2))
            reply = dns.message.from_wire(await peer.exactly(size))
            assert said(reply).startswith("18 sallyport revoked ")


async def test_an_answer_under_way_is_not_handed_out_for_a_void_token(tmp_path: Path) -> None:
    async with certified(tmp_path) as it:
        peer = await it.connect("doh", None, "http/1.1")
        tokens = it.identifier._tokens
        assert tokens is not None
        it.meanwhile.append(lambda: tokens.use({}, tokens.now()))
        peer.send(post(query(), f"Authorization: Bearer {SECRET}"))
        assert said(over_doh(await peer.reply())).startswith("18 sallyport identity-unknown ")


async def test_handshakes_are_counted_by_how_they_ended(tmp_path: Path) -> None:
    async with certified(tmp_path) as it:
        peer = await it.connect("dot", None, "dot")
        await asked(peer, query())
        peer.abort()

        def counted(kind: TlsKind, outcome: TlsOutcome) -> int:
            return it.parts.metrics.tls_handshakes.value(kind, outcome)

        assert (counted("dot", "done"), counted("doh", "done")) == (1, 0)
