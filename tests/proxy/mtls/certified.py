"""Every listener with TLS, made of the real parts, beside an authority for its clients."""

import asyncio
import datetime as dt
import os
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import dns.message
from msgspec import Struct

from proxy.accepting import Accepting, Planes
from proxy.admin import Admin
from proxy.agent_api.api import AgentApi
from proxy.attested.known import Attestations
from proxy.binding import Bound
from proxy.certificates.known import Certificates
from proxy.certificates.revoked import Kind, Revocation, Revocations
from proxy.certificates.trust import TrustBundles
from proxy.egress.plane import Egress
from proxy.identify import Identifier
from proxy.limits import Limits
from proxy.resolver.doh import ALPN as DOH_ALPN
from proxy.resolver.doh import DohPlane
from proxy.resolver.dot import ALPN as DOT_ALPN
from proxy.sandbox.leases import Leases
from proxy.tokens.known import Token, Tokens, digest
from proxy.transport.listen import bind_tcp
from proxy.transport.own import OwnSockets
from proxy.transport.peer import PeerTable
from proxy.transport.server_tls import ServerTls
from proxy.unverified import recorder
from rules.match import index_rules
from rules.ruleset import App, IdentityLine, Requirements, Ruleset
from tests.authority import PrivateAuthority
from tests.certs.forgery import TRUST_DOMAIN, WHO, Forged, Forger
from tests.proxy.composed import Composed, composed, ruleset
from tests.proxy.egress.world import Names, Origin, Peer
from tests.proxy.resolver.hostile import answer, hostile
from tests.rules.written import allow

KINDS = ("dot", "doh", "proxy_tls", "proxy", "do53")
PATIENCE_S = 10.0
OTHER = f"spiffe://{TRUST_DOMAIN}/agent/other"
SECRET = "spt_builder"  # noqa: S105 - of a token of this test
_ALPN = {"dot": DOT_ALPN, "doh": DOH_ALPN, "proxy_tls": ()}


class Court:
    """Who is believed, at a time that may run ahead of the clock."""

    def __init__(self, forger: Forger) -> None:
        self.ahead_s = 0.0
        self.forger = forger
        self.trust = TrustBundles()
        self.trust.use({TRUST_DOMAIN: forger.anchors})
        self.revocations = Revocations()
        self.certificates = Certificates(
            self.trust, self.revocations, Limits(), self.now, lambda _: None
        )
        self.attestations = Attestations(Limits(), self.now, lambda _: None)
        self.leases = Leases(Limits(), lambda _: None)

    def now(self) -> float:
        return time.time() + self.ahead_s

    def revoke(self, spiffe_id: str = WHO) -> None:
        self.revocations.use([Revocation(Kind.SPIFFE_ID, spiffe_id, self.now())])

    def pass_s(self, seconds: float) -> None:
        self.ahead_s += seconds
        self.certificates.look(self.now())
        self.attestations.look(self.now())


class Certified(Struct):
    """The running listeners by kind, and what their clients need."""

    parts: Composed
    court: Court
    identifier: Identifier
    egress: Egress
    tls: dict[str, ServerTls]
    ports: dict[str, int]
    ca: Path
    folder: Path
    origin: Origin
    meanwhile: list[Callable[[], object]]
    """What happens while an upstream resolver answers."""
    accepting: Accepting
    names: Names

    def use(self, rules: Ruleset) -> None:
        """Put rules in force, and ask for certificates as they want."""
        self.parts.authorizer.use(index_rules(rules))
        self.identifier.use(rules)
        self.ask()

    def ask(self) -> None:
        anchors = self.court.trust.anchors if self.identifier.asks_for_certificates else None
        for each in self.tls.values():
            each.ask(anchors)

    def files(self, forged: Forged | None = None) -> tuple[Path, Path]:
        """Return where the chain and key of a client are."""
        chain, key, _ = (forged or self.court.forger.good()).write(self.folder)
        return chain, key

    def context(self, forged: Forged | None, *alpn: str) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.ca)
        if alpn:
            context.set_alpn_protocols(list(alpn))
        if forged is not None:
            context.load_cert_chain(*self.files(forged))
        return context

    async def connect(self, kind: str, forged: Forged | None, *alpn: str) -> Peer:
        """Return a TLS connection to a listener, with or without a certificate."""
        context = self.context(forged, *alpn)
        return Peer(*await asyncio.open_connection("127.0.0.1", self.ports[kind], ssl=context))

    @property
    def where(self) -> str:
        """The origin's authority: only its port is allowed."""
        return f"example.com:{self.origin.port}"


def rules(port: int, generation: int = 1, *, mtls: bool = False) -> Ruleset:
    """Return rules of `coder`, by certificate, and of `builder`, by token; both may do the same."""
    own = (allow("example.com", ports=[port], addresses=["127.0.0.0/8"], tls=False),)
    require = Requirements(mtls=mtls)
    return ruleset(
        generation,
        coder=App("coder", (IdentityLine("f:1", spiffe=WHO),), require, allows=own),
        builder=App("builder", (IdentityLine("f:2", token="builder"),), require, allows=own),  # noqa: S106 - a name
    )


def query(name: str = "example.com", unique: int = 7) -> bytes:
    message = dns.message.make_query(name, "A", use_edns=0)
    message.id = unique
    return message.to_wire()


async def asked(peer: Peer, octets: bytes) -> dns.message.Message:
    """Return the reply to a query over DoT."""
    peer.send(len(octets).to_bytes(2) + octets)
    size = int.from_bytes(await peer.exactly(2))
    return dns.message.from_wire(await peer.exactly(size))


def post(octets: bytes, *fields: str) -> bytes:
    """Return a query over DoH, by HTTP/1.1."""
    lines = (
        *("POST /dns-query HTTP/1.1", "Host: localhost", "Content-Type: application/dns-message"),
        *(f"Content-Length: {len(octets)}", *fields, "", ""),
    )
    return "\r\n".join(lines).encode() + octets


def _tokens() -> Tokens:
    tokens = Tokens(time.time)
    token = Token(id="builder.1", name="builder", created=0, expires=1e12)
    tokens.use({digest(SECRET): token}, time.time())
    return tokens


@asynccontextmanager
async def certified(
    folder: Path, limits: Limits | None = None, api: AgentApi | None = None
) -> AsyncIterator[Certified]:
    """Run every plane for the rules of `rules`."""
    limits = limits or Limits()
    authority = PrivateAuthority(folder)
    chain, key = authority.issue(["localhost", "127.0.0.1"])
    meanwhile: list[Callable[[], object]] = []

    def public(octets: bytes) -> tuple[bytes, ...]:
        for each in meanwhile:
            each()
        return (answer(octets, "93.184.215.14"),)

    court = Court(Forger.loose(TRUST_DOMAIN, dt.datetime.now(dt.UTC)))
    async with (
        Origin().running() as origin,
        hostile(public) as upstream,
        composed(rules(origin.port), upstream.url("udp"), folder, limits) as parts,
    ):
        peers = PeerTable(limits, time.time, lambda _: None)
        identifier = Identifier(
            rules(origin.port), peers, _tokens(),
            court.certificates, court.attestations, court.leases,
        )  # fmt: skip
        names = Names(parts.authorizer)
        egress = Egress(
            parts.authorizer, identifier, names, OwnSockets(set(), set()),
            limits, parts.metrics, parts.refusals, time.time, os.urandom, api=api,
        )  # fmt: skip
        tls = {kind: ServerTls(chain, key, alpn) for kind, alpn in _ALPN.items()}
        planes = Planes(
            parts.resolver,
            identifier,
            egress,
            DohPlane(parts.resolver, identifier, parts.refusals, limits, parts.metrics, api),
            Admin(parts.metrics, dict, limits, lambda _: False),
            tls,
            recorder(parts.audit, lambda: parts.authorizer.generation),
            court.leases,
        )
        accepting = Accepting(planes, limits, parts.metrics)
        ports = {}
        for kind in KINDS:
            sock = bind_tcp("127.0.0.1", 0)
            ports[kind] = sock.getsockname()[1]
            await accepting.start(Bound(kind, f"127.0.0.1:{ports[kind]}", sock))
        made = Certified(
            parts, court, identifier, egress, tls, ports, authority.certificate, folder, origin,
            meanwhile, accepting, names,
        )  # fmt: skip
        made.ask()
        try:
            yield made
        finally:
            accepting.stop()
            await egress.close(0.1)
            await accepting.close()
            peers.close()
