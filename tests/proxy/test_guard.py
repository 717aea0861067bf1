"""What keeps look-ups from carrying anything out, composed as the appliance has it."""

import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import islice
from pathlib import Path

import msgspec
import pytest

from proxy.audit import Audit, AuditSettings
from proxy.authorize import Authorizer
from proxy.canaries.secret import WantedSecret
from proxy.config_sinkhole import SinkholeSettings
from proxy.errors import BindError
from proxy.flow import Flow, Plane
from proxy.guard import Guard
from proxy.identify import Identifier
from proxy.metrics import Metrics
from proxy.refusals import Refusals
from proxy.transport.own import OwnSockets
from proxy.transport.peer import PeerTable
from proxy.workload.events import Clock
from rules.decision import Decision, Reason
from rules.facts import Question
from rules.match import index_rules
from rules.name import DomainName, parse
from rules.rtype import A
from rules.ruleset import App
from tests.proxy.composed import ME, SUFFIXES, allow, below, ruleset
from tests.proxy.detection.stand import SUFFIX, payload
from tests.proxy.patients import settings_in
from tests.rules.test_secret_scan import key_of

RULES = ruleset(me=App("me", allows=(allow(below("com")),)))
FLOW = Flow("f" * 32, ME, Plane.DNS)


class Stand:
    """A guard, the authorizer that it guards, and what it asked the reloader for."""

    def __init__(self, folder: Path, sinkhole: SinkholeSettings) -> None:
        settings = msgspec.structs.replace(settings_in(folder), sinkhole=sinkhole)
        Path(settings.state).mkdir(exist_ok=True)
        limits, self.metrics = settings.limits, Metrics()
        audit = AuditSettings(str(folder / "audit.jsonl"))
        self.audit = Audit(audit, limits, self.metrics, time.time, os.urandom)
        clock = Clock(time.time, os.urandom)
        self.guard = Guard(settings, self.audit, self.metrics, SUFFIXES, clock)
        self.authorizer = Authorizer(
            index_rules(RULES), self.audit, Refusals(limits, self.metrics), self.metrics,
            held=self.guard.held, leaks=self.guard.known,
        )  # fmt: skip
        self.detection = self.guard.watch(self.authorizer)
        self.own = OwnSockets(set(), set())
        self.peers = PeerTable(limits, time.time, lambda _: None)
        self.restated = 0
        self.swept: list[int] = []

    def sink(self) -> None:
        identifier = Identifier(RULES, self.peers)
        self.guard.sink(identifier, self.own, lambda: self.authorizer.generation)

    def restate(self) -> int:
        self.restated += 1
        return self.restated

    async def sweep(self, generation: int) -> int:
        self.swept.append(generation)
        return 0

    def decide(self, name: DomainName) -> Decision:
        return self.authorizer.authorize(FLOW, Question(ME, name, A))

    async def leave(self, name: DomainName) -> Decision | None:
        """Have a look-up that is allowed leave; return why it must not."""
        return await self.detection.admit(FLOW, Question(ME, name, A), self.decide(name))


@asynccontextmanager
async def standing(
    folder: Path,
    sinkhole: SinkholeSettings = SinkholeSettings(),  # noqa: B008 - a frozen value
) -> AsyncIterator[Stand]:
    stand = Stand(folder, sinkhole)
    stand.audit.start()
    stand.sink()
    try:
        await stand.guard.open()
        stand.guard.follow(stand.restate, stand.sweep)
        await stand.guard.start()
        yield stand
    finally:
        stand.guard.stop()
        await stand.guard.close()
        await stand.audit.close()
        stand.peers.close()


async def test_what_leaks_is_held_and_all_that_is_open_is_decided_anew(tmp_path: Path) -> None:
    async with standing(tmp_path) as stand:
        refusals = [await stand.leave(name) for name in islice(payload(), 40)]
        reasons = {each.reason for each in refusals if each is not None}
        assert refusals[0] is None
        assert Reason.TUNNEL_DETECTED in reasons
        assert stand.decide(SUFFIX).rule == f"held:{SUFFIX}"
        assert stand.restated == 1
    assert stand.swept == [1]
    async with standing(tmp_path) as stand:  # it started again
        assert stand.decide(SUFFIX).rule == f"held:{SUFFIX}"
        assert await stand.detection.clear("me", SUFFIX) is not None
        assert stand.decide(SUFFIX).reason is Reason.RULE
        assert stand.restated == 1


async def test_a_secret_is_looked_for_as_soon_as_it_is_registered(tmp_path: Path) -> None:
    name = parse(f"{key_of(1).decode()}.example.com")
    async with standing(tmp_path) as stand:
        assert stand.decide(name).reason is Reason.RULE
        await stand.guard.secrets.add(WantedSecret("deploy-key", key_of(1)), 0)
        assert stand.decide(name).rule == "secret:deploy-key"
        assert (stand.restated, stand.metrics.secrets.value) == (1, 1)
    async with standing(tmp_path) as stand:
        assert stand.decide(name).rule == "secret:deploy-key"
        assert stand.metrics.secrets.value == 1


async def test_without_a_configured_sinkhole_there_is_none(tmp_path: Path) -> None:
    async with standing(tmp_path) as stand:
        assert stand.guard.sinkhole is None
        assert stand.own.sinkholes == frozenset()
        assert not any(stand.guard.problems.values())


async def test_a_sinkhole_that_cannot_listen_is_a_problem_and_no_address(tmp_path: Path) -> None:
    """192.0.2.0/24 is nobody's, so that nothing can be bound there."""
    async with standing(tmp_path, SinkholeSettings("192.0.2.53")) as stand:
        assert stand.guard.sinkhole is not None
        assert stand.own.sinkholes == frozenset()
        assert "192.0.2.53" in str(stand.guard.problems["sinkhole"])


async def test_secrets_that_cannot_be_read_are_no_start(tmp_path: Path) -> None:
    """Nobody would know what must not leak."""
    async with standing(tmp_path) as stand:
        file = stand.guard.secrets.path
    file.write_bytes(b"no database" * 100)
    with pytest.raises(BindError, match=file.name):
        async with standing(tmp_path):
            pass
