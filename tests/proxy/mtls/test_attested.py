"""What requires an attestation, over connections with a certificate: open while it is proven."""

import asyncio
import hashlib
from asyncio import StreamReader, StreamWriter
from functools import partial
from pathlib import Path

import dns.rcode
import msgspec
import pytest
from dns.message import Message

from proxy.attested.binding import Binding, of_key
from proxy.attested.result import Result
from proxy.certificates.read import read_svid
from proxy.certificates.svid import Svid
from proxy.egress.connect import ESTABLISHED
from proxy.egress.cut import cut_lapsed, end_lapsed, tell
from proxy.egress.sweep import sweep, sweep_askers
from proxy.egress.tunnel import Tunnel
from rules.facts import Level
from rules.freshness import thresholds
from rules.ruleset import App, IdentityLine, Requirements, Ruleset
from tests.certs.forgery import WHO, Forged
from tests.proxy.composed import ruleset
from tests.proxy.egress.world import Peer, connect, get, settled
from tests.proxy.mtls.certified import OTHER, Certified, asked, certified, post, query
from tests.proxy.mtls.test_dns import is_answered, over_doh, said
from tests.rules.written import allow

TOKEN = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJ4In0.c2ln"  # noqa: S105 - of this test
PRESENTED = f"Proxy-Authorization: Bearer {TOKEN}"
FRESH = Requirements(attested=Level.SOFTWARE, max_age_s=300)
FRESHER = Requirements(attested=Level.SOFTWARE, max_age_s=60)


def rules(it: Certified, generation: int = 2, require: Requirements = FRESH) -> Ruleset:
    """Return rules of `coder`, who has to attest, and of `other`, who has not."""
    port = it.origin.port

    def own(app_require: Requirements) -> tuple[object, ...]:
        return (
            allow(
                "example.com", ports=[port], addresses=["127.0.0.0/8"], tls=False,
                require=app_require,
            ),
        )  # fmt: skip

    apps = {
        "coder": App("coder", (IdentityLine("f:1", spiffe=WHO),), allows=own(require)),  # type: ignore[arg-type]  # rules
        "other": App("other", (IdentityLine("f:2", spiffe=OTHER),), allows=own(Requirements())),  # type: ignore[arg-type]  # rules
    }
    return ruleset(generation, **apps)


class Gate:
    """The planes, and what a composition root does with attestations."""

    def __init__(self, it: Certified, *, slices: bool = False, cuts: bool = True) -> None:
        self.it = it
        self.slices = slices
        self.cuts: list[int] = []
        self.voids: list[bool] = []
        self.made = 0
        it.use(rules(it))
        if cuts:
            it.court.attestations.on_void(self.lapsed)

    def lapsed(self, results: tuple[Result, ...], *, is_void: bool) -> None:
        self.voids.append(is_void)
        if self.slices:
            work = end_lapsed(self.it.egress, {each.binding for each in results})
            self.ended = asyncio.get_running_loop().create_task(work)
            return
        count, evidence = cut_lapsed(self.it.egress, {each.binding for each in results})
        self.cuts.append(count)
        self.told = asyncio.get_running_loop().create_task(tell(evidence))

    def attest(self, forged: Forged, token: str = TOKEN, app: str = "coder") -> None:
        self.made += 1
        now = self.it.court.now()
        digest = hashlib.sha256(token.encode()).hexdigest()
        self.it.court.attestations.add(Result(
            str(self.made), digest, binding_of(forged), app, WHO, Level.SOFTWARE, "ab",
            now, now + 300,
        ))  # fmt: skip

    async def client(self, forged: Forged) -> Peer:
        return await self.it.connect("proxy_tls", forged)

    async def tunnel(self, forged: Forged, *fields: str) -> Peer:
        peer = await self.client(forged)
        peer.send(connect(self.it.where, *fields))
        assert await peer.head() == ESTABLISHED
        return peer

    async def stands(self, peer: Peer) -> bool:
        peer.send(b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n")
        return (await peer.reply()).body == b"ok"


def binding_of(forged: Forged) -> Binding:
    svid = read_svid(forged.ders)
    assert isinstance(svid, Svid)
    return of_key(svid)


async def is_reset(peer: Peer) -> bool:
    try:
        return await peer.reader.read(1) == b""
    except ConnectionResetError:
        return True


async def test_a_connection_with_the_attested_key_passes_and_presents_nothing(
    tmp_path: Path,
) -> None:
    async with certified(tmp_path) as it:
        gate, forged = Gate(it), it.court.forger.good()
        peer = await gate.client(forged)
        peer.send(get(it.where))
        reply = await peer.reply()
        assert (reply.status, reply.field("x-deny-reason")) == (403, "attestation-required")
        gate.attest(forged)
        for fields in ((), (PRESENTED,), ()):
            peer.send(get(it.where, "/", *fields))
            assert (await peer.reply()).body == b"ok"
        tunnel = await gate.tunnel(forged, PRESENTED)
        assert await gate.stands(tunnel)
        for each in (peer, tunnel):
            each.abort()


@pytest.mark.parametrize("where", ["another key", "a plain port"])
async def test_a_copied_result_is_refused_and_says_why(tmp_path: Path, where: str) -> None:
    """threats.md, "Identity": an attestation token copied to another process."""
    async with certified(tmp_path) as it:
        gate = Gate(it)
        gate.attest(it.court.forger.good())
        if where == "a plain port":
            streams = await asyncio.open_connection("127.0.0.1", it.ports["proxy"])
            thief, text = Peer(*streams), "this connection shows none"
        else:
            thief, text = await gate.client(it.court.forger.good()), "another TLS key"
        for octets in (get(it.where, "/", PRESENTED), connect(it.where, PRESENTED)):
            thief.send(octets)
            reply = await thief.reply()
            assert reply.field("x-deny-reason") == "attestation-required"
            assert text in msgspec.json.decode(reply.body)["how"]
        thief.abort()


async def test_a_tunnel_is_cut_when_its_attestation_lapses_and_no_other_is(tmp_path: Path) -> None:
    """Issue 5: continuous; threats.md, "Identity": resets on both legs."""
    async with certified(tmp_path) as it:
        gate, forged, other = Gate(it), it.court.forger.good(), it.court.forger.good()
        stranger = it.court.forger.good(OTHER)
        gate.attest(forged)
        peer = await gate.tunnel(forged)
        it.court.ahead_s = 100
        gate.attest(other, "x")
        fresh, free = await gate.tunnel(other), await gate.tunnel(stranger)
        it.court.pass_s(201)
        assert gate.cuts == [1]
        assert await is_reset(peer)
        assert await gate.stands(fresh)
        assert await gate.stands(free)
        await gate.told
        assert it.parts.metrics.tunnel_cuts.value("attestation-required") == 1
        peer, again = await gate.client(forged), await gate.client(other)
        peer.send(connect(it.where))
        assert (await peer.reply()).field("x-deny-reason") == "attestation-required"
        for each in (fresh, free, peer, again):
            each.abort()
        lines = await it.parts.lines()
        (denied,) = [line for line in lines if line["verdict"] == "deny"]
        assert (denied["reason"], denied["count"]) == ("attestation-required", 2)


async def test_a_flow_lasts_while_its_agent_attests_anew(tmp_path: Path) -> None:
    """What is proven changes with age and anew: who asks is the same, and so is the answer."""
    async with certified(tmp_path) as it:
        gate, forged = Gate(it), it.court.forger.good()
        both = rules(it, 2)
        capable = msgspec.structs.replace(both.apps["coder"], require=Requirements())
        aged = allow("elsewhere.example", require=FRESHER)
        capable = msgspec.structs.replace(capable, allows=(*capable.allows, aged))
        it.use(msgspec.structs.replace(both, apps={**both.apps, "coder": capable}))
        assert thresholds(Ruleset(1, {"coder": capable}))["coder"] == (60, 300)
        gate.attest(forged)
        peer = await gate.tunnel(forged, PRESENTED)
        it.court.pass_s(61)  # not fresh enough for the other rule
        assert gate.cuts == [0]
        assert await sweep_askers(it.egress) == 0
        gate.attest(forged, "a newer one")
        assert await sweep_askers(it.egress) == 0
        assert await sweep(it.egress, it.parts.authorizer.generation) == 0
        it.use(msgspec.structs.replace(both, generation=3, apps={**both.apps, "coder": capable}))
        assert await sweep(it.egress, 3) == 0
        assert await gate.stands(peer)
        it.use(rules(it, 4, FRESHER))
        assert await sweep(it.egress, 4) == 0
        it.court.pass_s(61)
        assert gate.cuts[-1] == 1
        assert await is_reset(peer)


@pytest.mark.parametrize("methods", [None, ["GET"]])
async def test_a_request_under_way_is_cut_when_its_attestation_lapses(
    tmp_path: Path, methods: list[str] | None
) -> None:
    async with certified(tmp_path) as it:
        gate, forged = Gate(it), it.court.forger.good()
        both = rules(it, 3)
        (rule,) = both.apps["coder"].allows
        rule = msgspec.structs.replace(rule, methods=methods and frozenset(methods))
        coder = msgspec.structs.replace(both.apps["coder"], allows=(rule,))
        it.use(msgspec.structs.replace(both, apps={**both.apps, "coder": coder}))
        held: list[bytes] = []

        async def script(reader: StreamReader, writer: StreamWriter) -> None:
            del writer
            held.append(await reader.readuntil(b"\r\n\r\n"))
            try:
                await reader.read(1)
            except ConnectionResetError:
                held.append(b"<reset>")

        it.origin.script = script
        gate.attest(forged)
        peer, idle = await gate.client(forged), await gate.client(forged)
        peer.send(get(it.where))
        await settled(lambda: len(held) == 1)
        it.court.attestations.void(lambda _: True)
        assert gate.cuts == [1]  # one that rests is asked with its next request
        assert await is_reset(peer)
        await settled(lambda: held[1:] == [b"<reset>"])
        idle.send(get(it.where))
        assert (await idle.reply()).field("x-deny-reason") == "attestation-required"
        idle.abort()


@pytest.mark.parametrize("is_tunnel", [True, False])
@pytest.mark.parametrize("happens", ["attests anew", "lapses"])
async def test_what_is_being_looked_up_goes_on_while_it_is_proven(
    tmp_path: Path, happens: str, is_tunnel: bool
) -> None:
    async with certified(tmp_path) as it:
        gate, forged = Gate(it), it.court.forger.good()
        both = rules(it)
        aged = allow("elsewhere.example", require=FRESHER)
        coder = both.apps["coder"]
        coder = msgspec.structs.replace(coder, allows=(*coder.allows, aged))
        it.use(msgspec.structs.replace(both, apps={**both.apps, "coder": coder}))
        gate.attest(forged)
        it.court.pass_s(61)
        new = partial(gate.attest, forged, "newer")
        it.names.meanwhile = new if happens == "attests anew" else partial(it.court.pass_s, 300)
        peer = await gate.client(forged)
        peer.send(connect(it.where) if is_tunnel else get(it.where))
        if is_tunnel and happens == "attests anew":
            assert await peer.head() == ESTABLISHED
        else:
            reply = await peer.reply()
            reason = None if happens == "attests anew" else "attestation-required"
            assert reply.field("x-deny-reason") == reason
        it.names.meanwhile = lambda: None
        peer.abort()


async def over(kind: str, peer: Peer, unique: int) -> Message:
    if kind == "dot":
        return await asked(peer, query(unique=unique))
    peer.send(post(query(unique=unique)))
    return over_doh(await peer.reply())


def protocol(kind: str) -> str:
    return "dot" if kind == "dot" else "http/1.1"


@pytest.mark.parametrize("kind", ["dot", "doh"])
async def test_no_warm_answer_outlives_the_attestation(tmp_path: Path, kind: str) -> None:
    async with certified(tmp_path) as it:
        gate, forged = Gate(it), it.court.forger.good()
        gate.attest(forged)
        peer = await it.connect(kind, forged, protocol(kind))
        for unique in range(5):
            assert is_answered(await over(kind, peer, unique))
        it.court.pass_s(301)
        for unique in range(5):
            reply = await over(kind, peer, unique)
            assert reply.rcode() == dns.rcode.REFUSED
            assert said(reply).startswith("18 sallyport attestation-required ")
        gate.attest(forged)
        assert is_answered(await over(kind, peer, 9))
        peer.abort()


@pytest.mark.parametrize("kind", ["dot", "doh"])
async def test_an_answer_under_way_is_for_who_is_still_proven(tmp_path: Path, kind: str) -> None:
    """It is neither handed out after a lapse, nor refused because there is a newer result."""
    async with certified(tmp_path) as it:
        gate, forged = Gate(it), it.court.forger.good()
        gate.attest(forged)
        aged = allow("elsewhere.example", require=FRESHER)
        both = rules(it)
        coder = both.apps["coder"]
        coder = msgspec.structs.replace(coder, allows=(*coder.allows, aged))
        it.use(msgspec.structs.replace(both, apps={**both.apps, "coder": coder}))
        peer = await it.connect(kind, forged, protocol(kind))
        it.meanwhile.append(lambda: it.court.pass_s(61))
        assert is_answered(await over(kind, peer, 1))
        it.meanwhile[:] = [lambda: it.court.pass_s(301)]
        it.court.attestations.void(lambda _: True)
        gate.attest(forged)
        other = await it.connect(kind, forged, protocol(kind))
        reply = await _cold(kind, other)
        assert said(reply).startswith("18 sallyport attestation-required ")
        for each in (peer, other):
            each.abort()


async def _cold(kind: str, peer: Peer) -> Message:
    """Return the answer to what is not in the cache."""
    message = dns.message.make_query("example.com", "AAAA", use_edns=0)
    if kind == "dot":
        return await asked(peer, message.to_wire())
    peer.send(post(message.to_wire()))
    return over_doh(await peer.reply())


async def test_what_has_expired_is_ended_a_little_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others are served meanwhile; what ends by itself is left alone."""
    monkeypatch.setattr("proxy.egress.cut.SLICE_S", 0.0)  # one flow at a time
    async with certified(tmp_path) as it:
        gate, forged, other = Gate(it, slices=True), it.court.forger.good(), it.court.forger.good()
        gate.attest(forged)
        peers = [await gate.tunnel(forged) for _ in range(3)]
        it.court.ahead_s = 100
        gate.attest(other, "x")
        fresh = await gate.tunnel(other)
        it.court.pass_s(201)
        assert gate.voids == [False]
        assert it.parts.metrics.tunnels.value == 4  # not in one go
        for _ in range(20):  # turns of the loop, until the first was met
            await asyncio.sleep(0)
            if it.parts.metrics.tunnels.value == 3:
                break
        lost = next(
            each
            for each in it.egress.deadlines.present()
            if isinstance(each, Tunnel) and each.asker.bindings[0] != binding_of(other)
        )
        lost.end()
        assert await gate.ended == 2
        for each in peers:
            assert await is_reset(each)
        assert await gate.stands(fresh)
        fresh.abort()


async def test_what_has_expired_is_all_ended_within_the_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever others want of the loop: after `LAPSE_S` what is left goes in one go."""
    monkeypatch.setattr("proxy.egress.cut.SLICE_S", 0.0)
    monkeypatch.setattr("proxy.egress.cut.LAPSE_S", 0.0)
    async with certified(tmp_path) as it:
        gate, forged = Gate(it, slices=True), it.court.forger.good()
        gate.attest(forged)
        peers = [await gate.tunnel(forged) for _ in range(3)]
        it.court.pass_s(301)
        assert it.parts.metrics.tunnels.value == 3
        await asyncio.sleep(0)
        assert it.parts.metrics.tunnels.value == 0
        assert await gate.ended == 3
        for each in peers:
            assert await is_reset(each)
