"""Unbound and NSD as upstreams."""

import asyncio
from collections.abc import Iterator

import dns.message
import dns.rdatatype
import pytest

from proxy.errors import UpstreamError
from proxy.resolver.zones import DOH_ALPN
from proxy.transport.tls import DOT_ALPN, UpstreamTlsContext, upstream_context
from rules import rtype
from rules.decision import Reason
from rules.name import DomainName, parse
from tests.authority import PrivateAuthority
from tests.proxy.resolver.asking import BRIEF, asking
from tests.proxy.resolver.peers import LARGE_STRINGS, SERVER, nsd, unbound

WWW, ALIAS, LARGE = parse("www.example"), parse("alias.example"), parse("large.example")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> PrivateAuthority:
    return PrivateAuthority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def nsd_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with nsd(tmp_path_factory.mktemp("nsd")) as port:
        yield port


@pytest.fixture(scope="module")
def unbound_ports(
    tmp_path_factory: pytest.TempPathFactory, authority: PrivateAuthority, nsd_port: int
) -> Iterator[tuple[int, int, int]]:
    with unbound(tmp_path_factory.mktemp("unbound"), authority, nsd_port) as ports:
        yield ports


@pytest.fixture
def client(authority: PrivateAuthority) -> UpstreamTlsContext:
    return upstream_context(authority.certificate, DOT_ALPN)


@pytest.fixture
def https(authority: PrivateAuthority) -> UpstreamTlsContext:
    return upstream_context(authority.certificate, DOH_ALPN)


@pytest.fixture(
    params=["nsd udp", "nsd tcp", "unbound udp", "unbound tcp", "unbound tls", "unbound https"]
)
def url(request: pytest.FixtureRequest, nsd_port: int, unbound_ports: tuple[int, int, int]) -> str:
    server, transport = request.param.split()
    port, dot_port, doh_port = (nsd_port, 0, 0) if server == "nsd" else unbound_ports
    if transport == "https":
        return f"https://127.0.0.1:{doh_port}/dns-query#{SERVER}"
    if transport == "tls":
        return f"tls://127.0.0.1:{dot_port}#{SERVER}"
    return f"{transport}://127.0.0.1:{port}"


async def test_addresses_aliases_and_absent_names(
    url: str, client: UpstreamTlsContext, https: UpstreamTlsContext
) -> None:
    async with asking(url, context=client, https=https) as upstreams:
        www = dns.message.from_wire(await upstreams.ask(WWW, rtype.AAAA))
        alias = dns.message.from_wire(await upstreams.ask(ALIAS, rtype.A))
        absent = dns.message.from_wire(await upstreams.ask(parse("no.www.example"), rtype.A))
    assert www.question[0].name.to_text() == "www.example."
    assert [record.to_text() for record in www.answer[0]] == ["2001:db8::1"]
    assert [rrset.rdtype for rrset in alias.answer] == [dns.rdatatype.CNAME, dns.rdatatype.A]
    assert absent.rcode() == 3


async def test_an_answer_beyond_a_datagram(
    url: str, client: UpstreamTlsContext, https: UpstreamTlsContext
) -> None:
    """The limit is our payload of 1232 octets: UDP answers are truncated, and come over TCP."""
    async with asking(url, context=client, https=https) as upstreams:
        large = dns.message.from_wire(await upstreams.ask(LARGE, rtype.TXT))
    (record,) = large.answer[0]
    assert len(record.strings) == LARGE_STRINGS


async def test_many_at_once(
    url: str, client: UpstreamTlsContext, https: UpstreamTlsContext
) -> None:
    names = [DomainName(f"n{i}.example") for i in range(300)]
    async with asking(url, context=client, https=https) as upstreams:
        messages = await asyncio.gather(*(upstreams.ask(name, rtype.A) for name in names))
    for name, message in zip(names, messages, strict=True):
        read = dns.message.from_wire(message)
        assert read.question[0].name.to_text(omit_final_dot=True) == name
        assert [record.to_text() for record in read.answer[0]] == ["192.0.2.99"]


async def test_dot_with_the_wrong_name_is_refused(
    unbound_ports: tuple[int, int, int], client: UpstreamTlsContext
) -> None:
    url = f"tls://127.0.0.1:{unbound_ports[1]}#dns.example.net"
    async with asking(url, context=client) as upstreams:
        with pytest.raises(UpstreamError, match="Hostname mismatch") as caught:
            await upstreams.ask(WWW, rtype.A)
    assert caught.value.reason is Reason.UPSTREAM_TLS


async def test_doh_on_another_path_is_malformed(
    unbound_ports: tuple[int, int, int], https: UpstreamTlsContext
) -> None:
    url = f"https://127.0.0.1:{unbound_ports[2]}/elsewhere#{SERVER}"
    async with asking(url, https=https) as upstreams:
        with pytest.raises(UpstreamError, match="HTTP status 404") as caught:
            await upstreams.ask(WWW, rtype.A)
    assert caught.value.reason is Reason.UPSTREAM_MALFORMED


async def test_doh_where_dot_is_spoken_meets_the_deadline(
    unbound_ports: tuple[int, int, int], https: UpstreamTlsContext
) -> None:
    """Unbound agrees on h2 there too, and waits for what is no DNS message."""
    url = f"https://127.0.0.1:{unbound_ports[1]}/dns-query#{SERVER}"
    async with asking(url, limits=BRIEF, https=https) as upstreams:
        with pytest.raises(UpstreamError) as caught:
            await upstreams.ask(WWW, rtype.A)
    assert caught.value.reason is Reason.UPSTREAM_TIMEOUT


async def test_dot_on_the_port_of_do53_meets_the_deadline(
    unbound_ports: tuple[int, int, int], client: UpstreamTlsContext
) -> None:
    """A ClientHello begins like a long DNS message: Unbound waits for the rest of it."""
    url = f"tls://127.0.0.1:{unbound_ports[0]}#{SERVER}"
    async with asking(url, limits=BRIEF, context=client) as upstreams:
        with pytest.raises(UpstreamError) as caught:
            await upstreams.ask(WWW, rtype.A)
    assert caught.value.reason is Reason.UPSTREAM_TIMEOUT


async def test_a_server_that_refuses_the_zone_is_left_for_one_that_knows_it(
    nsd_port: int, unbound_ports: tuple[int, int, int]
) -> None:
    """NSD says REFUSED for names outside its zone."""
    urls = [f"udp://127.0.0.1:{nsd_port}", f"udp://127.0.0.1:{unbound_ports[0]}"]
    async with asking(*urls) as upstreams:
        localhost = await upstreams.ask(parse("localhost"), rtype.A)
    assert dns.message.from_wire(localhost).rcode() == 0
    assert upstreams.metrics.upstream.value("udp", "servfail") == 1
