"""A program inside a lease, launched for real: who it is, what is proven of it, and its end."""

import hashlib
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import dns.message
import dns.rcode
import pytest

from proxy.attested.binding import Binding, Kind
from proxy.attested.result import Result
from proxy.binding import Bound
from proxy.egress.cut import cut_lapsed
from proxy.sandbox.lease import Lease, LeaseError, Measured
from proxy.transport.listen import bind_tcp
from rules.facts import Level
from rules.ruleset import App, IdentityLine, Requirements, Ruleset
from tests.launcher import Inside, digest_of, inside_of, prepared, sockets_inside
from tests.proxy.composed import ruleset
from tests.proxy.egress.world import connect, get, settled
from tests.proxy.mtls.certified import SECRET, Certified, certified, query
from tests.rules.written import allow

KINDS = ("do53", "proxy")
AGENT = """
import socket, sys

def tcp():
    return socket.create_connection(("127.0.0.1", 3128), timeout=10)

def dns(octets):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(10)
        sock.connect(("127.0.0.1", 53))
        sock.send(octets)
        return sock.recv(4096)

def http(octets):
    with tcp() as sock:
        sock.sendall(octets)
        return sock.recv(65536)

def hold(octets):
    global held
    held = tcp()
    held.sendall(octets)
    return held.recv(65536)

def wait(_):
    return held.recv(1) or b"end"

def out(_):
    socket.create_connection(("192.0.2.1", 80), timeout=10)

for line in sys.stdin:
    what, octets = line.split()
    try:
        said = globals()[what](bytes.fromhex(octets))
    except OSError as error:
        said = type(error).__name__.encode() + b" " + str(error.errno).encode()
    print(said.hex(), flush=True)
"""


def rules(port: int, generation: int = 2) -> Ruleset:
    """Return rules of `coder`, by its lease, which has to be proven what was launched."""
    own = (allow("example.com", ports=[port], addresses=["127.0.0.0/8"], tls=False),)
    require = Requirements(attested=Level.LAUNCHED, max_age_s=300)
    return ruleset(
        generation,
        coder=App("coder", (IdentityLine("f:1", lease="coder"),), require, allows=own),
        builder=App("builder", (IdentityLine("f:2", token="builder"),), allows=own),  # noqa: S106 - a name
    )


class Leased:
    """A running proxy, and an agent inside a lease of it."""

    def __init__(self, it: Certified, agent: Inside, lease: Lease) -> None:
        self.it = it
        self.agent = agent
        self.lease = lease

    async def does(self, what: str, octets: bytes = b"x") -> bytes:
        self.agent.say(f"{what} {octets.hex()}".encode())
        return bytes.fromhex((await self.agent.line()).decode())

    async def asks(self) -> dns.message.Message:
        return dns.message.from_wire(await self.does("dns", query()))

    async def gets(self, *fields: str) -> bytes:
        return await self.does("http", get(self.it.where, "/", *fields))

    def attest(self) -> None:
        now = self.it.court.now()
        binding = Binding(Kind.LEASE, self.lease.id)
        token = hashlib.sha256(b"a token").hexdigest()
        self.it.court.attestations.add(
            Result("1", token, binding, "coder", "", Level.LAUNCHED, "a", now, now + 300)
        )


@asynccontextmanager
async def leased(folder: Path) -> AsyncIterator[Leased]:
    script = folder / "agent.py"
    script.write_text(AGENT)
    program = Path(sys.executable).resolve()
    lease = Lease("3fd1", "coder", Measured(digest_of(program), digest_of(script)))
    async with (
        certified(folder) as it,
        prepared(KINDS, str(program), "-I", str(script)) as agent,
    ):
        it.use(rules(it.origin.port))
        it.court.attestations.use({"coder": (300,)})
        kinds = ("do53", "do53", "proxy")
        bounds = [
            Bound(kind, "ignored", sock) for kind, sock in zip(kinds, agent.sockets, strict=True)
        ]
        await it.accepting.lend(lease, bounds)
        agent.go()
        yield Leased(it, agent, lease)


async def test_what_was_launched_is_let_through_and_nothing_else_gets_out(tmp_path: Path) -> None:
    async with leased(tmp_path) as box:
        assert (await box.asks()).rcode() == dns.rcode.REFUSED
        assert b"attestation-required" in await box.gets()
        box.attest()
        reply = await box.asks()
        assert [str(each) for rrset in reply.answer for each in rrset] == ["93.184.215.14"]
        assert (await box.gets()).startswith(b"HTTP/1.1 200")
        assert (await box.does("out")).startswith(b"OSError 101")  # ENETUNREACH
        lines = await box.it.parts.lines()
        assert {line["app"] for line in lines} == {"coder"}
        assert all(line["evidence"] == ["lease"] for line in lines)


async def test_a_token_of_another_app_is_in_conflict_with_the_lease(tmp_path: Path) -> None:
    """threats.md, "Identity": evidence that disagrees is refused, never resolved by order."""
    async with leased(tmp_path) as box:
        box.attest()
        said = await box.gets(f"Proxy-Authorization: Bearer {SECRET}")
        assert b"identity-conflict" in said


async def test_a_lapse_cuts_the_tunnel_and_empties_the_warm_cache(tmp_path: Path) -> None:
    async with leased(tmp_path) as box:
        court, told = box.it.court, []

        def lapsed(results: tuple[Result, ...], *, is_void: bool) -> None:
            assert not is_void
            told.append(cut_lapsed(box.it.egress, {each.binding for each in results}))

        court.attestations.on_void(lapsed)
        box.attest()
        for _ in range(3):
            assert (await box.asks()).answer
        assert (await box.does("hold", connect(box.it.where))).startswith(b"HTTP/1.1 200")
        court.pass_s(301)
        assert told[0][0] == 1
        assert (await box.does("wait")).startswith(b"ConnectionResetError")
        refused = await box.asks()
        assert refused.rcode() == dns.rcode.REFUSED
        assert [int(option.code) for option in refused.options if option.otype == 15] == [18]
        assert b"attestation-required" in await box.gets()


async def test_an_answer_under_way_over_udp_is_for_who_is_still_proven(tmp_path: Path) -> None:
    async with leased(tmp_path) as box:
        box.attest()
        box.it.meanwhile.append(lambda: box.it.court.pass_s(301))
        reply = await box.asks()
        assert (reply.rcode(), list(reply.answer)) == (dns.rcode.REFUSED, [])


async def test_a_lease_that_ends_takes_everything_with_it(tmp_path: Path) -> None:
    async with leased(tmp_path) as box:
        box.attest()
        it = box.it
        assert (await box.does("hold", connect(it.where))).startswith(b"HTTP/1.1 200")
        await it.accepting.end(box.lease.id)
        assert (await box.does("wait")).startswith(b"ConnectionResetError")
        assert (await box.gets()).startswith(b"ConnectionRefusedError")
        assert (await box.does("dns")).startswith(b"ConnectionRefusedError")
        await it.accepting.end(box.lease.id)  # it has ended already
        await settled(lambda: not it.egress.connections)
        assert it.court.leases.all() == ()
        lines = await it.parts.lines()
        (cut,) = [line for line in lines if line["verdict"] == "deny"]
        assert (cut["fact"], cut["reason"]) == ("connect", "identity-unknown")


async def test_a_second_lease_of_the_same_id_leaves_the_first_alone(tmp_path: Path) -> None:
    async with leased(tmp_path) as box:
        box.attest()
        others = inside_of(lambda: sockets_inside(["proxy"]))
        with pytest.raises(LeaseError, match="in force already"):
            await box.it.accepting.lend(box.lease, [Bound(kind, "", each) for kind, each in others])
        assert others[0][1].fileno() == -1
        assert (await box.gets()).startswith(b"HTTP/1.1 200")


async def test_what_cannot_be_served_is_no_lease(tmp_path: Path) -> None:
    async with certified(tmp_path) as it:
        others = inside_of(lambda: sockets_inside(["do53", "dot"]))
        del it.tls["dot"]
        bounds = [Bound(kind, "", each) for kind, each in others]
        with pytest.raises(KeyError):
            await it.accepting.lend(Lease("a", "coder"), bounds)
        assert [each.fileno() for _, each in others] == [-1] * 3
        assert it.court.leases.all() == ()


async def test_sockets_that_no_lease_can_have_are_closed(tmp_path: Path) -> None:
    """threats.md, "Identity": sockets of the host namespace passed as listeners."""
    async with certified(tmp_path) as it:
        for kind in ("proxy", "metrics"):
            sock = bind_tcp("127.0.0.1", 0)
            with pytest.raises(LeaseError):
                await it.accepting.lend(Lease("a", "coder"), [Bound(kind, "", sock)])
            assert sock.fileno() == -1
        assert it.court.leases.all() == ()
