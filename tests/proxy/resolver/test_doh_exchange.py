"""Who asks over DoH, whether it may, and what it is told."""

from base64 import b64encode
from pathlib import Path

import dns.message
import dns.rcode
import msgspec
import pytest

from proxy.resolver.doh_answer import Answer, Message
from proxy.resolver.doh_exchange import DohContext, Exchange
from proxy.resolver.doh_request import DohRequest, read_doh
from proxy.resolver.query import Miss
from proxy.wire.fields import Fields
from tests.proxy.resolver.doh_stand import LABEL, SECRET, Served, parameter, public, served, wire
from tests.proxy.resolver.hostile import hostile

PEER, LOCAL = ("127.0.0.1", 40000), ("127.0.0.1", 8443)
BEARER = f"Bearer {SECRET}".encode()


def exchange(it: Served, local: tuple[str, int] = LOCAL, listener: str = LABEL) -> Exchange:
    context: DohContext = it.plane.context
    return Exchange(context, PEER, local, listener)


def asking(
    name: str, *authorization: bytes, authority: bytes | None = b"localhost", method: str = "GET"
) -> DohRequest:
    fields: Fields = tuple((b"authorization", value) for value in authorization)
    target = f"/dns-query?dns={parameter(wire(name))}".encode()
    return read_doh(method, authority, target, fields, None)


async def told(talk: Exchange, request: DohRequest) -> dns.message.Message:
    talk.begin()
    answer = talk.answer(request, b"")
    if isinstance(answer, Miss):
        answer = await talk.finish(answer)
    assert isinstance(answer, Message), answer
    return dns.message.from_wire(answer.octets)


def refused(talk: Exchange, request: DohRequest) -> Answer:
    answer = talk.answer(request, b"")
    assert isinstance(answer, Answer)
    return answer


@pytest.mark.parametrize(
    ("local", "authority", "is_ours"),
    [
        (LOCAL, b"127.0.0.1:8443", True),
        (LOCAL, b"localhost:8443", True),
        (LOCAL, b"LocalHost", True),
        (LOCAL, b"sallyport.internal:8443", True),
        (("::1", 8443), b"[::1]:8443", True),
        (("::ffff:127.0.0.1", 8443), b"127.0.0.1:8443", True),
        (("fe80::1%eth0", 8443), b"[fe80::1]", True),
        (LOCAL, None, False),
        (LOCAL, b"", False),
        (LOCAL, b"evil.example:8443", False),
        (LOCAL, b"127.0.0.2:8443", False),
        (LOCAL, b"localhost:443", False),
        (LOCAL, b"x@localhost", False),
        (LOCAL, b"localhost.evil.example", False),
        (LOCAL, b"127.1:8443", False),
    ],
)
async def test_only_our_own_names_are_answered(
    tmp_path: Path, local: tuple[str, int], authority: bytes | None, *, is_ours: bool
) -> None:
    """threats.md, "HTTP itself": a web page reaching /dns-query by DNS rebinding: Host."""
    async with served("udp://127.0.0.1:9", tmp_path) as it:
        talk = exchange(it, local)
        answer = talk.answer(asking("denied.example", authority=authority), b"")
        if is_ours:
            assert isinstance(answer, Message)
            assert (
                talk.find(asking("denied.example", authority=authority), wire("x.example")) is None
            )
        else:
            assert isinstance(answer, Answer)
            assert answer.status == 421
            assert talk.find(asking("denied.example", authority=authority), b"") is None


async def test_ambient_evidence_names_who_presents_nothing(tmp_path: Path) -> None:
    async with hostile(public) as peer, served(peer.url("udp"), tmp_path) as it:
        talk = exchange(it)
        assert talk.app == "me"
        reply = await told(talk, asking("example.com"))
        again = await told(talk, asking("example.com"))
        assert (await told(talk, asking("bot.example"))).rcode() == dns.rcode.NXDOMAIN
        talk.begin()
        assert talk.find(asking("example.com"), wire("example.com")) is not None
    assert len(reply.answer) == len(again.answer) == 1


@pytest.mark.parametrize("scheme", ["bearer", "basic"])
async def test_a_token_names_its_app(tmp_path: Path, scheme: str) -> None:
    value = BEARER if scheme == "bearer" else b"Basic " + b64encode(f"bot:{SECRET}".encode())
    async with hostile(public) as peer, served(peer.url("udp"), tmp_path) as it:
        talk = exchange(it)
        reply = await told(talk, asking("bot.example", value))
        again = await told(talk, asking("bot.example", value))
        other = await told(talk, asking("example.com", value))
        assert (await told(talk, asking("bot.example"))).rcode() == dns.rcode.NXDOMAIN
        lines = await it.parts.lines()
    assert len(reply.answer) == len(again.answer) == 1
    assert other.rcode() == dns.rcode.NXDOMAIN
    assert {str(line["evidence"]) for line in lines if line["app"] == "bot"} == {"['token']"}
    assert {line["app"] for line in lines} == {"bot", "me"}


@pytest.mark.parametrize(
    "values",
    [
        pytest.param((b"Bearer spt_nobody",), id="a token that nobody made"),
        pytest.param((b"Negotiate abc",), id="another scheme"),
        pytest.param((b"",), id="an empty value"),
        pytest.param((BEARER, BEARER), id="two credentials"),
        pytest.param((b"Basic !",), id="a broken one"),
    ],
)
async def test_a_credential_that_names_nobody_is_never_a_fall_back(
    tmp_path: Path, values: tuple[bytes, ...]
) -> None:
    """threats.md, "Identity": evidence that disagrees is refused, never resolved by order."""
    async with hostile(public) as peer, served(peer.url("udp"), tmp_path) as it:
        talk = exchange(it)
        answer = refused(talk, asking("example.com", *values))
        assert peer.queries == []
        problem = msgspec.json.decode(answer.content)
        fields = dict(answer.fields)
        (line,) = await it.parts.lines()
    assert answer.status == problem["status"] == 401
    assert fields[b"content-type"] == b"application/problem+json"
    assert b"www-authenticate" in fields
    assert (problem["reason"], problem["app"]) == ("identity-unknown", "unknown")
    assert problem["target"] == "example.com A"
    assert (line["reason"], line["app"], line["verdict"]) == ("identity-unknown", "unknown", "deny")
    assert line["id"] == problem["instance"].removeprefix("urn:uuid:").replace("-", "")


async def test_a_token_that_is_void_from_now_on_names_nobody_from_now_on(tmp_path: Path) -> None:
    async with hostile(public) as peer, served(peer.url("udp"), tmp_path) as it:
        talk = exchange(it)
        assert (await told(talk, asking("bot.example", BEARER))).answer
        it.tokens.use({}, 0.0)
        assert refused(talk, asking("bot.example", BEARER)).status == 401
        it.tokens.use({}, 0.0)
        assert (await told(talk, asking("example.com"))).answer


async def test_a_credential_without_a_query_is_a_400(tmp_path: Path) -> None:
    async with served("udp://127.0.0.1:9", tmp_path) as it:
        request = read_doh(
            "GET", b"localhost", b"/dns-query?dns=AAAA", ((b"authorization", b"x"),), None
        )
        assert refused(exchange(it), request).status == 400


async def test_content_that_is_no_query_is_a_400(tmp_path: Path) -> None:
    async with served("udp://127.0.0.1:9", tmp_path) as it:
        request = read_doh("GET", b"localhost", b"/dns-query?dns=AAAA", (), None)
        assert refused(exchange(it), request).status == 400


async def test_content_that_is_too_long_is_a_413(tmp_path: Path) -> None:
    async with served("udp://127.0.0.1:9", tmp_path) as it:
        fields = ((b"content-type", b"application/dns-message"),)
        request = read_doh("POST", b"localhost", b"/dns-query", fields, None)
        for each in (request, asking("example.com"), asking("denied.example")):
            answer = exchange(it).answer(each, None)
            assert isinstance(answer, Answer)
            assert answer.status == 413


async def test_refusals_of_http_are_told_and_not_asked(tmp_path: Path) -> None:
    async with served("udp://127.0.0.1:9", tmp_path) as it:
        request = read_doh("GET", b"localhost", b"/", (), None)
        assert refused(exchange(it), request).status == 404


async def test_why_answers_the_app_that_was_refused_alone(tmp_path: Path) -> None:
    async with served("udp://127.0.0.1:9", tmp_path) as it:
        talk = exchange(it)
        await told(talk, asking("denied.example"))
        (line,) = await it.parts.lines()
        target = f"/why/{line['id']}".encode()
        found = refused(talk, read_doh("GET", b"localhost", target, (), None))
        other = refused(
            talk, read_doh("GET", b"localhost", target, ((b"authorization", BEARER),), None)
        )
        nobody = refused(
            talk, read_doh("GET", b"localhost", target, ((b"authorization", b"x"),), None)
        )
    assert (found.status, other.status, nobody.status) == (200, 404, 401)
    # RFC 9110, section 15.5.2: a 401 says which credential would do.
    assert [name for name, _ in nobody.fields].count(b"www-authenticate") == 2
    assert msgspec.json.decode(found.content)["reason"] == "host-not-listed"


async def test_the_upstream_never_sees_the_id_of_the_client(tmp_path: Path) -> None:
    """threats.md, "Parser, transport, cache": id 0 of DoH/DoQ forwarded to plain DNS."""
    async with hostile(public) as peer, served(peer.url("udp"), tmp_path) as it:
        talk = exchange(it)
        replies = [await told(talk, asking(f"n{number}.example.net")) for number in range(4)]
        ids = {query[:2] for query in peer.queries}
    assert {reply.id for reply in replies} == {0}
    assert len(ids) > 1


async def test_a_query_with_padding_has_a_padded_reply(tmp_path: Path) -> None:
    """RFC 8467, section 4.1."""
    async with hostile(public) as peer, served(peer.url("udp"), tmp_path) as it:
        query = dns.message.make_query("example.com", "A", use_edns=0, pad=128)
        talk = exchange(it)
        target = f"/dns-query?dns={parameter(query.to_wire())}".encode()
        answer = talk.answer(read_doh("GET", b"localhost", target, (), None), b"")
        assert isinstance(answer, Miss)
        message = await talk.finish(answer)
    assert isinstance(message, Message)
    assert len(message.octets) == 468
