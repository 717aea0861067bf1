"""Heartbeats over the API, with real attestations: how agents stand, and what they claim."""

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.agent_api.api import AgentApi
from proxy.agent_api.asked import ADMIN, JSON, Asked, Caller
from proxy.agents.beating import Agents, Parts
from proxy.agents.state import AgentView, State
from proxy.attested.binding import Binding, Kind, of_key
from proxy.attested.known import Attestations
from proxy.attested.result import Result
from proxy.certificates.svid import Svid
from proxy.flow import Plane
from proxy.limits import Limits
from proxy.metrics import Metrics
from rules.facts import Level, Principal

NOW = 1_790_000_000.0
APP = "coder"
OK = {"health": "ok", "version": "1.2", "detail": "all is well"}


def svid(name: str = "coder", key: str = "") -> Svid:
    key = key or name[0]
    spiffe_id = f"spiffe://desk.example/{name}"
    return Svid(spiffe_id, f"5e{key}", 0, 1 << 40, key * 64, key * 64)


def by_key(name: str = "coder", key: str = "", app: str = APP) -> Caller:
    """An agent with a certificate."""
    shown = svid(name, key)
    return Caller(Principal(app), Plane.DNS, "127.0.0.1:8443", shown, of_key(shown))


def by_lease(lease: str = "lease-1") -> Caller:
    return Caller(Principal(APP), Plane.HTTP, "lent", None, Binding(Kind.LEASE, lease))


class Stand:
    """The API with heartbeats, over attestations of which a test makes some."""

    def __init__(self, **limits: int) -> None:
        self.now = NOW
        self.limits = Limits(**limits)
        self.metrics = Metrics()
        self.revoked: set[str] = set()
        self.made = 0
        bound = self.metrics.bounds.add
        self.attestations = Attestations(self.limits, self.wall, bound)
        self.attestations.use({APP: (300,), "box": (300,)})
        parts = Parts(
            attestations=self.attestations,
            is_revoked=lambda *each: not self.revoked.isdisjoint(each),
            limits=self.limits,
            metrics=self.metrics,
            wall=self.wall,
        )
        self.agents = Agents(parts)
        self.api = AgentApi(self.agents.routes(), self.limits, self.metrics)

    def wall(self) -> float:
        return self.now

    async def beat(self, caller: Caller, content: Any = None, status: int = 200) -> Any:
        octets = json.dumps(OK if content is None else content).encode()
        asked = Asked("POST", "/heartbeat", caller, JSON, octets)
        answer = await self.api.answer(asked)
        assert answer.status == status, answer.content
        return json.loads(answer.content)

    def attest(self, caller: Caller, level: Level = Level.SOFTWARE, ttl_s: float = 300.0) -> None:
        self.made += 1
        assert caller.binding is not None
        shown = caller.svid
        result = Result(
            id=f"{self.made}",
            token_sha256=f"{self.made:064x}",
            binding=caller.binding,
            app=caller.principal.app,
            spiffe_id="" if shown is None else shown.spiffe_id,
            level=level,
            attester="a",
            at=self.now,
            expires=self.now + ttl_s,
            serial="" if shown is None else shown.serial,
        )
        assert self.attestations.add(result)

    async def all(self) -> tuple[AgentView, ...]:
        return await self.agents.all(self.now)

    async def states(self) -> list[State]:
        return [each.state for each in await self.all()]


async def test_a_heartbeat_says_how_the_agent_stands() -> None:
    stand = Stand()
    assert await stand.beat(by_key()) == {
        "app": APP, "attested": [], "revoked": False, "next_s": 30.0,
    }  # fmt: skip
    stand.attest(by_key())
    stand.now += 60.5
    stand.attest(by_key(), Level.TPM, 120.0)
    answer = await stand.beat(by_key())
    assert sorted(answer["attested"], key=lambda each: str(each["level"])) == [
        {"level": "software", "expires_in": 239},
        {"level": "tpm", "expires_in": 120},
    ]


async def test_what_stands_for_another_key_or_app_is_not_told() -> None:
    stand = Stand()
    stand.attest(by_key())
    assert (await stand.beat(by_key(key="b")))["attested"] == []
    assert (await stand.beat(by_key(app="box")))["attested"] == []


async def test_an_agent_is_shown_with_what_it_claims() -> None:
    stand = Stand()
    stand.attest(by_key(), Level.TPM)
    await stand.beat(by_key(), {"health": "failing", "detail": "\u001b[2J\u202e"})
    stand.now += 10
    (view,) = await stand.all()
    assert (view.agent, view.app) == (svid().spiffe_id, APP)
    assert (view.state, view.level) == (State.VALID, "tpm")
    assert (view.attested_s, view.expires_s, view.heartbeat_s) == (10.0, 290.0, 10.0)
    assert view.claimed is not None
    assert (view.claimed.health, view.claimed.version) == ("failing", "")
    assert view.claimed.detail == "\u001b[2J\u202e"


async def test_its_state_follows_attestation_heartbeats_and_revocation() -> None:
    stand = Stand()
    await stand.beat(by_key())
    assert await stand.states() == [State.STALE]  # it never attested
    stand.attest(by_key(), ttl_s=300)
    assert await stand.states() == [State.VALID]
    stand.now += 91
    assert await stand.states() == [State.STALE]  # three heartbeats did not come
    await stand.beat(by_key())
    assert await stand.states() == [State.VALID]
    stand.now += 210
    assert await stand.states() == [State.SILENT]  # neither stands
    await stand.beat(by_key())
    assert await stand.states() == [State.STALE]  # the result has expired
    for what in (APP, svid().spiffe_id, svid().serial):
        stand.revoked = {what}
        assert await stand.states() == [State.REVOKED]
        assert (await stand.beat(by_key()))["revoked"] is True


async def test_who_attests_is_an_agent_without_any_heartbeat() -> None:
    stand = Stand()
    stand.attest(by_lease(), Level.LAUNCHED)
    (view,) = await stand.all()
    assert (view.agent, view.state, view.level) == (f"{APP}/lease-1", State.VALID, "launched")
    assert (view.heartbeat_s, view.claimed) == (None, None)
    stand.now += 300
    (view,) = await stand.all()
    assert (view.state, view.level, view.attested_s) == (State.SILENT, None, None)
    stand.now += 86400
    assert await stand.all() == ()


async def test_an_agent_stays_the_same_over_a_new_certificate() -> None:
    stand = Stand()
    stand.attest(by_key())
    await stand.beat(by_key())
    stand.now += 1
    stand.attest(by_key(key="b"))
    assert len(await stand.all()) == 1
    stand.revoked = {svid(key="b").serial}
    assert await stand.states() == [State.REVOKED]


async def test_agents_of_a_lease_and_of_keys_are_told_apart() -> None:
    stand = Stand()
    for caller in (by_lease("lease-2"), by_lease(), by_key("b"), by_key("a"), by_key(app="box")):
        await stand.beat(caller)
    assert [each.agent for each in await stand.all()] == [
        svid().spiffe_id,
        f"{APP}/lease-1",
        f"{APP}/lease-2",
        svid("a").spiffe_id,
        svid("b").spiffe_id,
    ]


@pytest.mark.parametrize(
    ("caller", "reason"),
    [
        (Caller(Principal("unknown"), Plane.HTTP, "", svid(), of_key(svid())), "identity-unknown"),
        (Caller(ADMIN, Plane.CONTROL, "", is_admin=True), "identity-unknown"),
        (Caller(Principal(APP), Plane.HTTP, "127.0.0.1:3128"), "mtls-required"),
    ],
)
async def test_who_cannot_be_told_from_others_is_no_agent(caller: Caller, reason: str) -> None:
    stand = Stand()
    refused = await stand.beat(caller, status=403)
    assert refused["reason"] == reason
    assert "with your certificate" in refused["how"]
    assert await stand.all() == ()


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"health": "fine"},
        {"health": "ok", "version": "v" * 65},
        {"health": "ok", "detail": "d" * 201},
        {"health": "ok", "state": "valid"},
        {"health": "ok", "version": 1},
        [],
    ],
)
async def test_what_is_no_heartbeat_is_refused(content: Any) -> None:
    stand = Stand()
    await stand.beat(by_key(), content, status=400)
    assert await stand.all() == ()


@given(st.binary(max_size=60) | st.text(max_size=60).map(lambda each: each.encode("utf-8")))
async def test_whatever_comes_is_answered(octets: bytes) -> None:
    stand = Stand()
    answer = await stand.api.answer(Asked("POST", "/heartbeat", by_key(), JSON, octets))
    assert answer.status == 400
    assert await stand.all() == ()


async def test_at_a_bound_who_is_silent_makes_room_and_else_nobody() -> None:
    stand = Stand(agents=2, agents_per_app=2)
    stand.attest(by_key("a"), ttl_s=600)
    await stand.all()
    await stand.beat(by_key("b"))
    refused = await stand.beat(by_key("c"), status=503)
    assert refused["reason"] == "capacity"
    assert stand.metrics.bounds.value("agents_per_app") == 1
    stand.now += 91
    await stand.beat(by_key("c"))
    assert [each.agent for each in await stand.all()] == [svid("a").spiffe_id, svid("c").spiffe_id]


async def test_who_attests_while_there_is_no_room_is_not_shown() -> None:
    stand = Stand(agents=1)
    await stand.beat(by_key("a"))
    stand.attest(by_key("b"))
    assert [each.agent for each in await stand.all()] == [svid("a").spiffe_id]
    assert stand.metrics.bounds.value("agents") == 1


async def test_who_attested_and_is_void_before_anybody_looks_is_shown() -> None:
    stand = Stand()
    stand.attestations.on_void(stand.agents.met)
    for name in "ab":
        stand.attest(by_key(name))
    stand.revoked = {svid("a").serial}
    stand.attestations.void(lambda _: True)
    assert [(each.agent, each.state, each.level) for each in await stand.all()] == [
        (svid("a").spiffe_id, State.REVOKED, None),
        (svid("b").spiffe_id, State.SILENT, None),
    ]


async def test_states_and_the_share_that_is_attested_are_measured() -> None:
    stand = Stand()
    page = stand.metrics.render().decode()
    assert "sallyport_agents_attested_ratio 1.0" in page
    for name in "abcd":
        await stand.beat(by_key(name))
    for name in "abc":
        stand.attest(by_key(name))
    stand.revoked = {svid("a").spiffe_id}
    stand.now += 1
    page = stand.metrics.render().decode()
    for state, count in (("valid", 2), ("stale", 1), ("revoked", 1), ("silent", 0)):
        assert f'sallyport_agents{{state="{state}"}} {count}.0' in page
    assert "sallyport_agents_attested_ratio 0.5" in page
    stand.now -= 60  # a clock that is set back keeps no old count
    assert 'sallyport_agents{state="valid"} 2.0' in stand.metrics.render().decode()


async def test_who_neither_attests_nor_beats_leaves_no_trace() -> None:
    stand = Stand()
    await stand.beat(by_key(), {"health": "fine"}, status=400)
    await stand.beat(Caller(Principal(APP), Plane.HTTP, "127.0.0.1:3128"), status=403)
    assert await stand.all() == ()
    page = stand.metrics.render().decode()
    assert all(f'sallyport_agents{{state="{state}"}} 0.0' in page for state in State)
    await stand.beat(by_key())
    stand.now += stand.limits.agent_kept_s + 1
    assert await stand.all() == ()


async def test_others_run_while_many_agents_are_looked_at() -> None:
    """What is asked of thousands keeps no look-up waiting."""
    stand = Stand()
    for number in range(1000):
        stand.attest(by_lease(f"lease-{number}"))
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    meanwhile = asyncio.create_task(other())
    assert len(await stand.all()) == 1000
    assert turns >= 2 * 1000 // 128
    meanwhile.cancel()


async def test_many_are_counted_off_the_way_of_who_asks() -> None:
    stand = Stand()
    for number in range(200):
        stand.attest(by_lease(f"lease-{number}"))
    assert 'sallyport_agents{state="valid"} 0.0' in stand.metrics.render().decode()
    stand.now += 15
    stand.metrics.render()  # one count is under way, and no other is begun
    assert await stand.all()
    await asyncio.sleep(0)
    assert 'sallyport_agents{state="valid"} 200.0' in stand.metrics.render().decode()
    assert "sallyport_agents_attested_ratio 1.0" in stand.metrics.render().decode()
