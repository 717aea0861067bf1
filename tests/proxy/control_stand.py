"""A control socket over the real parts, for tests of both its ends."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from proxy.audit import Audit, AuditSettings, Line
from proxy.canaries.live import LiveSecrets
from proxy.capabilities.exchange import Exchange
from proxy.control.agent_api import MountedApi
from proxy.control.attesters import Attesting
from proxy.control.client import ControlClient
from proxy.control.identity import Issuing
from proxy.control.listener import Control
from proxy.control.place import bind_control
from proxy.control.revocations import Revoking
from proxy.control.status import Certificate, Reloaded, Sources, UpstreamState
from proxy.detection.live import LiveDetection
from proxy.flow import Plane
from proxy.limits import Limits
from proxy.metrics import Metrics
from proxy.refusals import Refusal, Refusals
from proxy.tokens.live import LiveTokens
from rules.decision import Reason, Verdict
from rules.facts import Evidence
from rules.ruleset import App, IdentityLine, Ruleset

STARTED = 1_790_000_000.0
RULES = Ruleset(
    3,
    {
        "coder": App(
            "coder",
            identity=(
                IdentityLine("a.yaml:3", token="coder"),  # noqa: S106 - an app's name
                IdentityLine("a.yaml:4", listener="127.0.0.1:53", uid=1000),
            ),
        ),
        "box": App("box", identity=(IdentityLine("a.yaml:9", lease="box"),)),
    },
)


class Stand:
    """What tests look into; `ask` speaks as the command line does, off the loop."""

    def __init__(self, folder: Path, limits: Limits) -> None:
        self.path = folder / "run" / "control.sock"
        self.now = STARTED + 90.0
        self.control: Control
        self.limits = limits
        self.metrics = Metrics()
        self.metrics.app_decisions.use(RULES.apps)
        self.file = folder / "audit.jsonl"
        self.audit = Audit(
            AuditSettings(str(self.file)), limits, self.metrics, time.time, os.urandom
        )
        self.refusals = Refusals(limits, self.metrics)
        self.tokens = LiveTokens(folder / "sallyport.sqlite", limits, self.wall, os.urandom)
        self.reloaded = Reloaded(time=STARTED, generation=3, outcome="changed")
        self.problems: dict[str, str] = {}
        self.ruleset = RULES
        self.issuing: Issuing | None = None
        self.revoking: Revoking | None = None
        self.agent_api: MountedApi | None = None
        self.attesting: Attesting | None = None
        self.exchange: Exchange | None = None
        self.detection: LiveDetection | None = None
        self.secrets: LiveSecrets | None = None
        self.sources = Sources(
            pid=os.getpid(), version="0.9", enforcement="advisory", started=STARTED,
            wall=self.wall, entropy=os.urandom, metrics=self.metrics, tokens=self.tokens,
            audit=self.audit, audit_file=self.file, refusals=self.refusals,
            ruleset=lambda: self.ruleset, reload=self.reload,
            listening=lambda: {"do53": ["127.0.0.1:53"]}, reloaded=lambda: self.reloaded,
            upstreams=lambda: [UpstreamState(name="tls://9.9.9.9", state="up", zone="a.example")],
            certificate=lambda: Certificate(names=("localhost",), not_after=STARTED + 864000),
            problems=lambda: self.problems, issuing=lambda: self.issuing,
            revoking=lambda: self.revoking, agent_api=lambda: self.agent_api,
            attesting=lambda: self.attesting, exchange=lambda: self.exchange,
            detection=lambda: self.detection, secrets=lambda: self.secrets,
        )  # fmt: skip

    def wall(self) -> float:
        return self.now

    async def reload(self) -> Reloaded:
        await asyncio.sleep(0)
        self.reloaded = Reloaded(
            time=self.now, generation=3, outcome="failed", problems=("a.yaml:1 is broken",)
        )
        return self.reloaded

    async def ask(self, method: str, target: str, content: object = None) -> Any:
        return await asyncio.to_thread(ControlClient(self.path).ask, method, target, content)

    async def raw(self, octets: bytes) -> bytes:
        """Send `octets` and return all that comes until the other end closes."""
        reader, writer = await asyncio.open_unix_connection(self.path)
        try:
            writer.write(octets)
            return await reader.read()
        finally:
            writer.close()

    def refuse(self, app: str = "coder", target: str = "evil.example:443") -> str:
        """Refuse something as the authorizer does; return the id."""
        line = Line(
            flow="0" * 32, app=app, evidence=(Evidence.TOKEN,), plane=Plane.HTTP, fact="connect",
            verdict=Verdict.DENY, reason=Reason.HOST_NOT_LISTED, rule=None, generation=3,
            target=target, detail={},
        )  # fmt: skip
        recorded = self.audit.write(line)
        self.metrics.app_decisions.add(app, Verdict.DENY, Reason.HOST_NOT_LISTED)
        refusal = Refusal(
            recorded, app, Plane.HTTP, Reason.HOST_NOT_LISTED, target, "ask the admin", None,
            self.now,
        )  # fmt: skip
        self.refusals.remember(app, recorded, refusal)
        return recorded

    async def lines(self) -> list[dict[str, Any]]:
        """End the audit and return every line of it."""
        await self.audit.close()
        return [msgspec.json.decode(line) for line in self.file.read_bytes().splitlines()]


@asynccontextmanager
async def standing(folder: Path, limits: Limits | None = None) -> AsyncIterator[Stand]:
    stand = Stand(folder, limits or Limits())
    stand.audit.start()
    await stand.tokens.open()
    stand.control = control = Control(stand.sources, stand.limits, stand.metrics)
    await control.start(bind_control(stand.path))
    try:
        yield stand
    finally:
        for _ in range(3):  # asyncio itself loses the socket that it accepts while a server closes
            await asyncio.sleep(0)
        await control.close()
        await stand.tokens.close()
        await stand.audit.close()
