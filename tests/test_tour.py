"""The reading tours of `proxy/__init__.py` are what a real query and a real CONNECT enter."""

import asyncio
import datetime as dt
import json
import re
import ssl
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType
from typing import override

import dns.asyncquery
import dns.message
import dns.rdatatype
import dns.rrset
import pytest
import uvloop

import proxy
from certs.authority import ensure
from certs.files import ROOT_PEM
from proxy.appliance import Appliance
from proxy.audit import AuditSettings
from proxy.config import Listen, Settings
from proxy.renewal import certificate_folder, certificate_names
from tests.authority import PrivateAuthority
from tests.proxy.lines import until
from tests.proxy.resolver.peers import free_port

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("proxy", "rules", "certs")
TOOL = 4  # of sys.monitoring's six: 0 debugger, 1 coverage, 2 profiler, 5 optimizer
START = sys.monitoring.events.PY_START
WAIT_S = 20.0
NAME = "example.com"
TOURS = ("DNS over DoT", "CONNECT")

DETECTOR = {
    f"rules/{name}.py"
    for name in (
        *("account", "accounts", "budget", "changes", "cloaking", "common_labels", "detector"),
        *("evidence", "flux", "label_shape", "novelty", "popularity", "ration", "scales"),
        *("space_saving", "subname", "tally", "tiers", "window"),
    )
}
"""The arithmetic of the tunnel detector: one tour of its own, which docs/detection.md tells."""

VALUES = {
    *DETECTOR,
    "rules/listing.py",
    "rules/secret_scan.py",
    "rules/watched.py",
    "rules/address.py",
    "rules/match.py",
    "rules/name.py",
    "rules/required.py",
    "rules/rtype.py",
    "rules/ruleset.py",
    "rules/special.py",
    "rules/zones.py",
    "proxy/flow.py",
    "proxy/target.py",
    "proxy/sandbox/lease.py",
    "proxy/resolver/answer.py",
    "proxy/resolver/asker.py",
    "proxy/egress/obligations.py",
}
"""What is read when wanted: values, and pure functions of values.  So is all of proxy/wire/."""

OTHERS = {
    # both
    "proxy/held.py": "what leaked is refused: a look into a dict that is mostly empty",
    "proxy/canaries/known.py": "registered secrets: mostly none",
    "proxy/detection/live.py": "the detector: each look-up is shown to it before it leaves",
    "proxy/detection/rulings.py": "beside it: what its findings are called",
    "proxy/database/lazy.py": "beside it: its file is looked after once a second",
    "proxy/attested/ages.py": "beside them: results grow old",
    "proxy/attested/earlier.py": "beside them, as ages",
    "proxy/attested/known.py": "beside them, as ages",
    "proxy/attested/live.py": "beside them, as ages",
    "proxy/renewal.py": "beside them: the certificate is looked at now and then",
    "certs/leaf.py": "beside them, as renewal",
    "certs/files.py": "beside them, as renewal",
    "proxy/reload/reloader.py": "beside them: rule files are looked at now and then",
    "proxy/reload/watch.py": "beside them, as reloader",
    "proxy/accepting.py": "makes the protocol of each new connection",
    "proxy/transport/handshake.py": "TLS handshakes, bounded; then the protocol begins",
    "proxy/transport/server_tls.py": "TLS: the context of a listener",
    "proxy/transport/presented.py": "TLS: which certificates a connection has shown",
    "proxy/transport/listen.py": "accepting: read once for all listeners",
    "proxy/transport/own.py": "which addresses are ours: a set look-up for each Endpoint",
    "proxy/identify.py": "evidence to principal: once a connection, in the second tour",
    "proxy/metrics.py": "counting: one increment wherever something happens",
    "proxy/exposition.py": "counting: the increment itself",
    "proxy/audit.py": "evidence: hangs at authorize",
    "proxy/audit_file.py": "evidence, on a thread of its own",
    "proxy/audit_fold.py": "evidence: repeats into one line",
    "proxy/audit_line.py": "evidence: a line as octets",
    "proxy/audit_writer.py": "evidence, on a thread of its own",
    # the look-up, which a CONNECT shares with a query
    "proxy/resolver/lookup.py": "cache, upstream, walk, pin: each in a file of its own",
    "proxy/resolver/hits.py": "answers what was answered within this second: no first query",
    "proxy/resolver/tally.py": "what hits counted, added to the metrics",
    "proxy/resolver/dot.py": "a name for stream over TLS",
    "proxy/resolver/zones.py": "which upstreams a name is asked of",
    "proxy/resolver/upstream_group.py": "a step of upstream: a group and its order",
    "proxy/resolver/upstream_race.py": "a step of upstream: hedging inside a group",
    "proxy/resolver/upstream_member.py": "a step of upstream: one resolver and its breaker",
    "proxy/resolver/breaker.py": "a step of upstream: whether it is passed over",
    "proxy/resolver/cache.py": "a step of lookup",
    "proxy/resolver/pins.py": "a step of lookup",
    "proxy/resolver/response.py": "a step of lookup: octets to records",
    "proxy/resolver/upstream.py": "a step of lookup, in the first tour",
    "proxy/resolver/upstream_query.py": "how upstream words a question",
    "proxy/resolver/upstream_udp.py": "how upstream asks over UDP",
    "proxy/resolver/walk.py": "a step of lookup: every record is a question or an endpoint",
    # the connection around a tunnel
    "proxy/egress/allowed.py": "which addresses of an origin were allowed a moment ago",
    "proxy/egress/admission.py": "how many connections an app may have",
    "proxy/egress/connect.py": "the order of a CONNECT's steps, each in a file of its own",
    "proxy/egress/dialling.py": "a dial that is under way, which a revocation ends",
    "proxy/egress/deadlines.py": "one clock for all limits in seconds",
    "proxy/egress/hello.py": "the ClientHello at the beginning of a tunnel",
    "proxy/egress/plane.py": "makes the protocol of each connection",
    "proxy/egress/origin.py": "the connection that dial makes",
    "proxy/egress/asker.py": "who asks, by what the request presents",
    "proxy/egress/context.py": "what every connection shares",
    "proxy/egress/evidence.py": "the audit lines of a tunnel",
    "proxy/egress/known.py": "saves reading the same head again",
    "proxy/egress/underway.py": "the request under way, which a CONNECT has not",
    "proxy/egress/request.py": "plain HTTP: what CONNECT shares with it",
}
"""What else is entered, and why a reader need not stop there."""


@contextmanager
def files_entered() -> Iterator[list[str]]:
    """Collect the file of each function of ours that is entered, in order of first entry."""
    seen: list[str] = []

    def enter(code: CodeType, _offset: int) -> object:
        path = Path(code.co_filename)
        if path.is_relative_to(ROOT) and path.relative_to(ROOT).parts[0] in ROOMS:
            seen.append(str(path.relative_to(ROOT)))
        return sys.monitoring.DISABLE  # once a code object

    order: list[str] = []
    sys.monitoring.use_tool_id(TOOL, "tour")
    sys.monitoring.restart_events()
    sys.monitoring.register_callback(TOOL, START, enter)
    sys.monitoring.set_events(TOOL, START)
    try:
        yield order
    finally:
        sys.monitoring.set_events(TOOL, 0)
        sys.monitoring.register_callback(TOOL, START, None)
        sys.monitoring.free_tool_id(TOOL)
        order.extend(seen)


class Nameserver(asyncio.DatagramProtocol):
    """An upstream that answers 127.0.0.1 to everything."""

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    @override
    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        query = dns.message.from_wire(data)
        reply = dns.message.make_response(query)
        if query.question[0].rdtype == dns.rdatatype.A:
            name = query.question[0].name
            reply.answer.append(dns.rrset.from_text(name, 60, "IN", "A", "127.0.0.1"))
        self.transport.sendto(reply.to_wire(), addr)  # type: ignore[attr-defined]  # uvloop's


async def say_hello(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello")
    writer.close()


def socket_of(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port)


async def resolve(dot: tuple[str, int], root: Path) -> str:
    query = dns.message.make_query(NAME, "A")
    trusting = ssl.create_default_context(cafile=root)
    reply = await dns.asyncquery.tls(query, dot[0], WAIT_S, dot[1], ssl_context=trusting)
    return str(reply.answer[0][0])


async def fetch(proxy_: tuple[str, int], port: int, context: ssl.SSLContext) -> bytes:
    reader, writer = await asyncio.open_connection(*proxy_)
    writer.write(f"CONNECT {NAME}:{port} HTTP/1.1\r\nHost: {NAME}:{port}\r\n\r\n".encode())
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
    await writer.start_tls(context, server_hostname=NAME)
    writer.write(f"GET / HTTP/1.1\r\nHost: {NAME}\r\n\r\n".encode())
    body = await reader.read()
    writer.close()
    return body


async def walk_tours(folder: Path) -> dict[str, list[str]]:
    """Run an appliance, ask it over TLS, then connect through it; return the files of each."""
    authority = PrivateAuthority(folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue([NAME]))
    origin = await asyncio.start_server(say_hello, "127.0.0.1", 0, ssl=context)
    port = origin.sockets[0].getsockname()[1]
    loop = asyncio.get_running_loop()
    upstream, _ = await loop.create_datagram_endpoint(Nameserver, ("127.0.0.1", 0))
    told = settings(folder, port, upstream.get_extra_info("sockname")[1])
    ensure(certificate_folder(told), certificate_names(told), dt.datetime.now(dt.UTC))
    appliance = Appliance(told)
    ready = await appliance.start()
    trusting = ssl.create_default_context(cafile=authority.certificate)
    try:
        dot, proxy_ = (socket_of(ready.listen[kind][0]) for kind in ("dot", "proxy"))
        with files_entered() as query:
            assert await resolve(dot, certificate_folder(told) / ROOT_PEM) == "127.0.0.1"
            # Its end is still the query's: the next tour begins when the connection is gone.
            listeners = appliance._accepting._own.listeners
            await until(lambda: not any(each.connections for each in listeners))
        with files_entered() as connect:
            assert (await fetch(proxy_, port, trusting)).endswith(b"\r\n\r\nhello")
    finally:
        await appliance.close()
        upstream.close()
        origin.close()
    return dict(zip(TOURS, (query, connect), strict=True))


def settings(folder: Path, origin: int, upstream: int) -> Settings:
    rules = folder / "rules"
    rules.mkdir(mode=0o700)
    allow = {"host": NAME, "ports": [origin], "addresses": ["127.0.0.1/32"]}
    # By listener: the appliance and its client are one process here, which is never evidence.
    dot, proxy_ = (f"127.0.0.1:{free_port()}" for _ in range(2))
    app = {"identity": [{"listener": dot}, {"listener": proxy_}], "allow": [allow]}
    (rules / "a.yaml").write_text(json.dumps({"apps": {"agent": app}}))
    return Settings(
        state=str(folder),
        rules=(str(rules),),
        audit=AuditSettings(str(folder / "audit.jsonl")),
        listen=Listen(do53=(), dot=(dot,), proxy=(proxy_,), metrics=()),
        upstreams=(f"udp://127.0.0.1:{upstream}",),
    )


@pytest.fixture(scope="module")
def entered(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    return uvloop.run(walk_tours(tmp_path_factory.mktemp("tour")))


def tour_of(title: str) -> list[str]:
    """Return the tour as the docstring of the package tells it, as paths."""
    text = (proxy.__doc__ or "").partition(f"\n{title}:")[2]
    listed = re.split(r"\n\S|\n\n", text, maxsplit=1)[0]
    names = [name.strip() for name in listed.replace("\n", " ").split(",")]
    return [f"{name if name.startswith('rules/') else f'proxy/{name}'}.py" for name in names]


@pytest.mark.parametrize("title", TOURS)
def test_a_tour_has_six_files_that_exist(title: str) -> None:
    assert len(set(tour_of(title))) == 6
    assert [name for name in tour_of(title) if not (ROOT / name).is_file()] == []


@pytest.mark.parametrize("title", TOURS)
def test_the_files_of_a_tour_are_entered_in_its_order(
    entered: dict[str, list[str]], title: str
) -> None:
    events = iter(entered[title])  # a subsequence of them: `in` goes on where it found the last
    assert [name for name in tour_of(title) if name in events] == tour_of(title)


@pytest.mark.parametrize("title", TOURS)
def test_what_comes_between_is_a_value_or_is_named_with_its_reason(
    entered: dict[str, list[str]], title: str
) -> None:
    known = {*tour_of(title), *VALUES, *OTHERS}
    between = [name for name in dict.fromkeys(entered[title]) if not name.startswith("proxy/wire/")]
    assert [name for name in between if name not in known] == []


def test_every_name_in_the_lists_is_of_a_file_that_exists() -> None:
    assert [name for name in (*VALUES, *OTHERS) if not (ROOT / name).is_file()] == []
    assert VALUES & OTHERS.keys() == set()


@pytest.mark.parametrize("title", TOURS)
def test_the_architecture_tells_the_same_tours(title: str) -> None:
    rows = [
        [cell.strip().strip("`") for cell in line.strip("|").split("|")]
        for line in (ROOT / "ARCHITECTURE.md").read_text().splitlines()
        if line.startswith("|")
    ]
    at = next(number for number, row in enumerate(rows) if row == list(TOURS))
    column = [row[TOURS.index(title)] for row in rows[at + 2 : at + 8]]
    assert column == tour_of(title)
