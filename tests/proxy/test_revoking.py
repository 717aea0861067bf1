"""From a revocation to its last reset: on both planes, in one step, with its evidence."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import dns.message
import dns.rcode
import pytest
from dns.edns import EDEOption
from msgspec import Struct, structs

from proxy.certificates.live import LiveRevocations
from proxy.certificates.revoked import Kind
from proxy.certificates.trust import TrustBundles
from proxy.limits import Limits
from proxy.resolver.query import Asker, Miss
from proxy.revoking import Cutting
from proxy.tokens.known import Tokens, digest
from rules.decision import Reason
from rules.match import index_rules
from rules.ruleset import App
from tests.proxy.composed import ME, Composed, allow, composed, exact, ruleset
from tests.proxy.egress.secured import Domain, svid
from tests.proxy.egress.test_sweep import is_reset, patient, to, tunnelled
from tests.proxy.egress.world import World, basic, get, opened, settled, token_app
from tests.proxy.mtls.certified import certified
from tests.proxy.mtls.test_attested import Gate
from tests.proxy.mtls.test_attested import is_reset as is_cut
from tests.proxy.resolver.hostile import answer, hostile

RULES = ruleset(me=App("me", allows=(allow(exact("example.com")),)))
ASKER = Asker(ME, "udp", 1232, ("127.0.0.1", 40000), "127.0.0.1:53")


class Revoked(Struct):
    """A proxy, and its revocations."""

    world: World
    live: LiveRevocations
    cutting: Cutting


@asynccontextmanager
async def revocable(world: World, folder: Path, *apps: App) -> AsyncIterator[Revoked]:
    """Compose what the appliance does."""
    live = LiveRevocations(folder / "s" / "revoked.sqlite", Limits(), time.time)
    await live.open()
    world.use_all(2, *apps)

    def restate() -> int:
        number = world.authorizer.generation + 1
        rules = ruleset(number, **{app.name: app for app in apps})
        world.authorizer.use(index_rules(rules), live.revocations.apps)
        world.identifier.use(rules)
        return number

    cutting = Cutting(
        world.egress, world.tokens, restate, world.audit, world.metrics, time.time, os.urandom
    )
    live.revocations.on_change(cutting.changed)
    world.tokens.on_void(cutting.token_is_void)
    try:
        yield Revoked(world, live, cutting)
    finally:
        await live.close()
        await cutting.close()


async def test_revoking_an_app_cuts_what_it_has_open_and_restoring_it_lets_it_back(
    tmp_path: Path,
) -> None:
    """threats.md, "Identity": cut within the second, with the reason in audit."""
    async with patient().running() as origin, opened(tmp_path) as world:
        apps = (world.listener_app(to(origin)), token_app("coder", to(origin)))
        world.give_tokens("coder")
        async with revocable(world, tmp_path, *apps) as parts:
            coder = basic("coder", "spt_coder")
            mine = await tunnelled(world, origin, coder)
            ambient = await tunnelled(world, origin)
            await parts.live.revoke(Kind.APP, "coder", why="leaked", by_uid=7)
            cut = await parts.cutting.cut()
            assert cut.flows == 1
            assert await is_reset(mine)
            ambient.send(b"still")
            await settled(lambda: b"still" in origin.heads)
            reply = await world.ask(get(f"example.com:{origin.port}", "/", coder))
            assert (reply.status, reply.field("x-deny-reason")) == (403, "revoked")
            await parts.live.restore(Kind.APP, "coder")
            await tunnelled(world, origin, coder)
        assert world.metrics.revocations.value("app") == 1
        assert "sallyport_revocation_cut_seconds_count 1.0" in world.metrics.render().decode()


async def test_what_another_process_revoked_is_told_to_audit(tmp_path: Path) -> None:
    async with opened(tmp_path) as world:
        async with revocable(world, tmp_path, world.listener_app()) as parts:
            other = LiveRevocations(parts.live.path, Limits(), lambda: 1.0)
            await other.revoke(Kind.APP, "me", why="a leak", by_uid=1000)
            await parts.live.reload()
            await other.restore(Kind.APP, "me")
            await parts.live.reload()
            await parts.cutting.cut()
            await asyncio.sleep(0)
        lines = [line for line in await world.lines() if line["plane"] == "control"]
    revoked, restored = lines
    assert (revoked["target"], revoked["change"], revoked["kind"]) == ("me", "revoked", "app")
    assert (revoked["why"], revoked["by_uid"], revoked["cut"]) == ("a leak", 1000, 0)
    assert revoked["revoked_at"] == "1970-01-01T00:00:01.000000Z"
    assert (restored["target"], restored["change"]) == ("me", "restored")


async def test_a_revoked_token_is_cut_and_counted_and_one_that_expired_is_cut(
    tmp_path: Path,
) -> None:
    async with patient().running() as origin, opened(tmp_path) as world:
        apps = (world.listener_app(to(origin)), *(token_app(n, to(origin)) for n in ("a", "b")))
        world.give_tokens("a", "b")
        async with revocable(world, tmp_path, *apps) as parts:
            first = await tunnelled(world, origin, basic("a", "spt_a"))
            second = await tunnelled(world, origin, basic("b", "spt_b"))
            known = {each.name: each for each in world.tokens.all()}
            gone = {
                digest("spt_a"): structs.replace(known["a"], revoked=time.time()),
                digest("spt_b"): structs.replace(known["b"], expires=1.0),
            }
            world.tokens.use(gone, world.tokens.now())
            assert (await parts.cutting.cut()).flows == 1
            assert await is_reset(first)
            assert await is_reset(second)
        assert world.metrics.revocations.value("token") == 1


@pytest.mark.parametrize("is_void", [True, False])
async def test_what_is_voided_is_cut_in_this_step_and_what_expired_in_slices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_void: bool
) -> None:
    """threats.md, "Identity": cut within the second; others are served while results end."""
    monkeypatch.setattr("proxy.egress.cut.SLICE_S", 0.0)  # one flow at a time
    async with certified(tmp_path) as it:
        gate, forged = Gate(it, cuts=False), it.court.forger.good()
        cutting = Cutting(
            it.egress, Tokens(time.time), lambda: 0, it.parts.audit, it.parts.metrics, time.time,
            os.urandom,
        )  # fmt: skip
        it.court.attestations.on_void(cutting.lapsed)
        gate.attest(forged)
        peers = [await gate.tunnel(forged) for _ in range(3)]
        if is_void:
            it.court.attestations.void(lambda _: True)
        else:
            it.court.pass_s(301)
        assert it.parts.metrics.tunnels.value == (0 if is_void else 3)
        for each in peers:
            assert await is_cut(each)
        await settled(lambda: it.parts.metrics.tunnel_cuts.value("attestation-required") == 3)
        await cutting.close()


def query() -> bytes:
    return dns.message.make_query("example.com", "A", id=7, use_edns=0).to_wire()


def revoke_me(parts: Composed, live: LiveRevocations) -> None:
    generation = parts.authorizer.generation + 1
    rules = index_rules(structs.replace(RULES, generation=generation))
    parts.authorizer.use(rules, live.revocations.apps)


def public(asked: bytes) -> Iterable[bytes]:
    return (answer(asked, "93.184.215.14"),)


async def served(parts: Composed) -> dns.message.Message:
    """Answer a query as a listener does: from what was answered before, else by the resolver."""
    hit = parts.resolver.hits.find(ME, "udp", query(), parts.resolver.now())
    if hit is not None:
        return dns.message.from_wire(query()[:2] + hit.reply)
    reply = parts.resolver.serve(query(), ASKER)
    if isinstance(reply, Miss):
        reply = await parts.resolver.finish(reply)
    assert reply is not None
    return dns.message.from_wire(reply)


def refusal(message: dns.message.Message) -> tuple[int, list[int]]:
    extended = [int(each.code) for each in message.options if isinstance(each, EDEOption)]
    return message.rcode(), extended


async def test_what_was_answered_a_moment_ago_is_answered_no_more(tmp_path: Path) -> None:
    """threats.md, "Order of checks": hits, caches and pins hold under their generation alone."""
    live = LiveRevocations(tmp_path / "s" / "revoked.sqlite", Limits(), time.time)
    async with hostile(public) as peer, composed(RULES, peer.url("udp"), tmp_path) as parts:
        live.revocations.on_change(lambda _: revoke_me(parts, live))
        for _ in range(3):
            assert (await served(parts)).answer
        await live.revoke(Kind.APP, "me")
        assert refusal(await served(parts)) == (dns.rcode.REFUSED, [18])
        assert refusal(await served(parts)) == (dns.rcode.REFUSED, [18])
        await live.restore(Kind.APP, "me")
        assert (await served(parts)).answer
        assert len(peer.queries) == 1


async def test_an_answer_that_comes_after_the_revocation_is_not_given(tmp_path: Path) -> None:
    """threats.md, "Order of checks": revoked while the look-up is upstream."""
    live = LiveRevocations(tmp_path / "s" / "revoked.sqlite", Limits(), time.time)
    revoking: list[asyncio.Task[object]] = []

    def meanwhile(asked: bytes) -> Iterable[bytes]:
        revoking.append(asyncio.ensure_future(live.revoke(Kind.APP, "me")))
        return public(asked)

    async with hostile(meanwhile) as peer, composed(RULES, peer.url("udp"), tmp_path) as parts:
        live.revocations.on_change(lambda _: revoke_me(parts, live))
        message = await served(parts)
        await asyncio.gather(*revoking)
        lines = await parts.lines()
    assert refusal(message) == (dns.rcode.REFUSED, [18])
    assert not message.answer
    assert [line["reason"] for line in lines] == [Reason.REVOKED]


async def test_an_anchor_that_is_believed_no_more_has_svids_fetched_anew(tmp_path: Path) -> None:
    issuer, other = Domain(tmp_path / "one"), Domain(tmp_path / "two")
    ours, theirs = issuer.bundle.read_text(), other.bundle.read_text()
    trust = TrustBundles()
    trust.use({"a.example": ours})
    async with (
        opened(tmp_path, identities=issuer.contexts(issuer.bundle)) as world,
        revocable(world, tmp_path) as it,
    ):
        it.cutting.follow(trust)
        show = world.egress.identities.context_for
        first = await show("me", svid())
        trust.complete(theirs)
        trust.use({"a.example": ours, "b.example": theirs})
        assert await show("me", svid()) is first
        trust.use({"b.example": theirs})
        assert await show("me", svid()) is not first
