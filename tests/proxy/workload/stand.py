"""The appliance's side of the issuer over the real parts, for tests.

A child speaks the channel as the issuer does; workloads are processes of their own.
"""

import asyncio
import os
import shutil
import sys
import tempfile
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import msgspec

from proxy.audit import Audit, AuditSettings
from proxy.authorize import Authorizer
from proxy.config import Settings
from proxy.control.place import EXT_AUTHZ, OPEN_WORKLOAD, WORKLOAD, bind_door
from proxy.identify import Identifier
from proxy.limits import Limits
from proxy.metrics import Metrics
from proxy.refusals import Refusals
from proxy.transport.own import OwnSockets
from proxy.transport.peer import PeerTable
from proxy.workload.doors import Handed, Parts, Sockets, Workload
from proxy.workload.events import Clock
from rules.address import parse_address
from rules.match import index_rules
from rules.ruleset import App, IdentityLine, Ruleset

STUB = "tests.proxy.workload.issuer_stub"
SILENT = "tests.proxy.workload.issuer_silent"
FAILING = "tests.proxy.workload.issuer_failing"
DOMAIN = "spiffe://sallyport.internal"
PATIENCE_S = 20.0
MY_UID = os.getuid()
NOBODY = 65534
_AGENT = Path(__file__).with_name("agent.py")


def app(name: str, *ids: str, **process: Any) -> App:
    """An app whose callers are known by `process`, and that has these SPIFFE IDs."""
    lines = [IdentityLine(f"a.yaml:{at}", spiffe=each) for at, each in enumerate(ids, 10)]
    if process:
        lines.append(IdentityLine("a.yaml:2", **process))
    return App(name, identity=tuple(lines))


def ruleset(*apps: App, generation: int = 1) -> Ruleset:
    return Ruleset(generation, {each.name: each for each in apps})


CODER = app("coder", f"{DOMAIN}/coder", uid=MY_UID)


class Agent:
    """A workload: a process of its own."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.pid = process.pid

    async def tell(self, order: str) -> Any:
        assert self.process.stdin is not None
        self.process.stdin.write(order.encode() + b"\n")
        return await self.answer()

    async def answer(self) -> Any:
        assert self.process.stdout is not None
        line = await asyncio.wait_for(self.process.stdout.readline(), PATIENCE_S)
        return msgspec.json.decode(line) if line else None

    async def read(self) -> dict[str, Any]:
        """Return the next line that the issuer wrote to him; {} where the connection has ended."""
        line = await self.tell("read")
        return msgspec.json.decode(line) if line else {}

    async def ask(self, **order: Any) -> dict[str, Any]:
        """Have the stub do something; return the next line."""
        await self.tell("send " + msgspec.json.encode(order).decode())
        return await self.read()

    async def connect(self) -> dict[str, Any]:
        """Connect; return what he is entitled to by the first line, {} where he is refused."""
        said = await self.tell("connect")
        return await self.read() if said == "done" else {"error": said}

    async def end(self) -> None:
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()
        assert self.process.stdin is not None
        self.process.stdin.close()


class Stand:
    """What tests look into."""

    def __init__(
        self,
        folder: Path,
        rules: Ruleset,
        limits: Limits,
        module: str,
        on_failure: Literal["deny", "allow"],
    ) -> None:
        self.folder = folder
        self.path = folder / "run" / "workload.sock"
        self.limits = limits
        self.metrics = Metrics()
        self.file = folder / "audit.jsonl"
        audit = AuditSettings(str(self.file), on_failure=on_failure)
        self.audit = Audit(audit, limits, self.metrics, time.time, os.urandom)
        self.settings = Settings(state=str(folder / "state"), rules=(), audit=audit, limits=limits)
        self.peers = PeerTable(limits, time.time, self.metrics.bounds.add)
        self.identifier = Identifier(rules, self.peers)
        refusals = Refusals(limits, self.metrics)
        self.authorizer = Authorizer(index_rules(rules), self.audit, refusals, self.metrics)
        self.barred: set[str] = set()
        self.trusted: list[dict[str, str]] = []
        self.agents: list[Agent] = []
        parts = Parts(
            settings=self.settings,
            names=self.identifier,
            is_barred=lambda name, spiffe_id: bool({name, spiffe_id} & self.barred),
            on_trust=self.trusted.append,
            authorizer=self.authorizer,
            own=OwnSockets({(parse_address("127.0.0.1"), 3128)}, set()),
            audit=self.audit,
            metrics=self.metrics,
            clock=Clock(time.time, os.urandom),
        )
        self.workload = Workload(parts, module)
        self.workload.use(rules)

    def use(self, rules: Ruleset) -> None:
        """Bring other rules into force, as the appliance does."""
        self.authorizer.use(index_rules(rules))
        self.identifier.use(rules)
        self.workload.use(rules)

    async def agent(self, uid: int = MY_UID, path: Path | None = None) -> Agent:
        """A workload that runs as `uid`, and has not connected yet."""
        command = (sys.executable, str(_AGENT), str(uid), str(path or self.path))
        process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE)
        made = Agent(process)
        self.agents.append(made)
        return made

    async def lines(self) -> list[dict[str, Any]]:
        """End the audit and return every line of it."""
        await self.audit.close()
        return [msgspec.json.decode(line) for line in self.file.read_bytes().splitlines()]

    def entitled(self) -> list[str]:
        """The app of each connection that is open, as the appliance sees it."""
        return [each.entitlement.app for each in self.workload._connections]

    def met(self, limit: str) -> int:
        return self.metrics.bounds.value(limit)


@asynccontextmanager
async def standing(
    *apps: App,
    limits: Limits | None = None,
    module: str = STUB,
    is_open: bool = False,
    envoy: bool = False,
    handed: tuple[Handed, ...] = (),
    prepare: Callable[[Path], object] = lambda _: None,
    on_failure: Literal["deny", "allow"] = "deny",
) -> AsyncIterator[Stand]:
    folder = Path(tempfile.mkdtemp(prefix="workload-"))  # other users can get to it, once opened
    folder.chmod(0o711 if is_open else 0o700)
    prepare(folder)
    stand = Stand(folder, ruleset(*(apps or (CODER,))), limits or Limits(), module, on_failure)
    stand.audit.start()
    door = OPEN_WORKLOAD if is_open else WORKLOAD
    ext_authz = bind_door(EXT_AUTHZ, folder / "run" / "ext_authz.sock") if envoy else None
    stand.workload.start(Sockets(bind_door(door, stand.path), ext_authz, handed))
    try:
        yield stand
    finally:
        for agent in stand.agents:
            await agent.end()
        await stand.workload.close()
        await stand.audit.close()
        stand.peers.close()
        shutil.rmtree(folder)
