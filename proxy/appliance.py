"""The composition root: settings to objects and listeners, in start order; it owns the clock.

Run as `python -m proxy.appliance DESCRIPTOR`, by the command line: the settings are read there.
Exit codes: 0 after SIGTERM or SIGINT, 3 rules broken, 4 cannot bind or write, 70 a bug of ours.
"""

import asyncio
import logging
import os
import sys
import time
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import uvloop

from proxy.accepting import Accepting, Planes
from proxy.admin import Admin
from proxy.audit import Audit
from proxy.authorize import Authorizer
from proxy.banner import Ready, version
from proxy.binding import Bound, bind_listeners, listening
from proxy.certificates.revoked import Revocation
from proxy.config import Settings
from proxy.control.agent_api import MountedApi
from proxy.control.revocations import Revoking
from proxy.control.status import Reloaded, Sources
from proxy.controlling import KIND, Controlling
from proxy.egress.identity_context import IdentityContexts
from proxy.egress.plane import Egress
from proxy.egress.sweep import sweep, sweep_askers
from proxy.errors import BindError, ConfigError
from proxy.guard import Guard
from proxy.hardening import close_to_debuggers
from proxy.identities import Identities
from proxy.lifetime import live
from proxy.locations import open_state
from proxy.metrics import Metrics
from proxy.outward import parent_of, refuse_circles, upstreams_of
from proxy.proof import Ground, Proof
from proxy.refusals import Refusals
from proxy.reload.assembly import NO_RULES, Assembly, Generation, RebuildError
from proxy.reload.files import public_suffixes
from proxy.reload.handover import Request
from proxy.reload.progress import logged
from proxy.reload.reloader import Reloader
from proxy.reload.watch import look
from proxy.reporting import certificate, issuing, reading, reloaded, upstream_state
from proxy.resolver.doh import DohPlane
from proxy.resolver.lookup import Lookup
from proxy.resolver.query import Resolver
from proxy.revoking import Cutting
from proxy.tls_listeners import TlsListeners
from proxy.transport.interfaces import InterfaceWatch
from proxy.transport.own import OwnSockets
from proxy.transport.peer import PeerTable
from proxy.tuning import tune
from proxy.unix_doors import ISSUERS, bind_doors
from proxy.unverified import recorder
from proxy.workload.doors import Parts, Workload
from proxy.workload.events import Clock
from rules.errors import RuleSyntaxError
from rules.match import RuleIndex
from rules.zones import with_zones

logger = logging.getLogger("sallyport")

EXIT_RULES, EXIT_BIND, EXIT_BUG = 3, 4, 70
_TOLD = 3  # problems of the rules in one sentence of /readyz; `status` has all


class Appliance:
    """Every object of a running appliance, and how they end."""

    def __init__(self, settings: Settings) -> None:
        """Make what needs no I/O."""
        limits = settings.limits
        self._settings = settings
        self._limits = limits
        self._started = time.time()
        self._closing: list[Callable[[], object]] = []
        self._tasks: set[asyncio.Task[object]] = set()
        self.metrics = Metrics(version())
        self._suffixes = public_suffixes()
        self._audit = Audit(settings.audit, limits, self.metrics, time.time, os.urandom)
        self._refusals = Refusals(limits, self.metrics)
        self._own = OwnSockets(set(), set())
        self._clock = Clock(time.time, os.urandom)
        self._identities = Identities(settings, self.metrics, self._clock)
        self._guard = Guard(settings, self._audit, self.metrics, self._suffixes, self._clock)
        self._controlling = Controlling(limits, self.metrics)
        self._bound: list[Bound] = []
        self.metrics.audit_available.read_by(lambda: int(self._audit.status() is None))
        self.metrics.certificate_not_after.read_by(self._certificate_end)

    async def start(self) -> Ready:
        """Read the rules, bind every socket, then accept.

        Raises:
            RuleSyntaxError: rule files are broken (exit 3).
            RebuildError: they cannot be read (exit 3).
            ConfigError: the configuration asks for what cannot be (exit 3).
            BindError: a socket or a file cannot be had (exit 4).
        """
        settings, clock = self._settings, time.perf_counter
        request = Request(
            tuple(settings.rules),
            settings.first_run,
            settings.system,
            tuple(sorted(settings.listen.agents)),
        )
        seen = look(request.folders)  # before they are read: what is written later is seen later
        with ThreadPoolExecutor(1) as pool:
            assembly = Assembly(pool, self._limits.reload_s, clock, logged(clock))
            rules = await assembly.build(request, NO_RULES)
        doors = bind_doors(settings)
        self._bound, skipped = bind_listeners(settings.listen)
        self._own.listeners = {each.address for each in self._bound}
        open_state(settings.state)
        self._audit.start()
        await self._identities.open()
        self._compose(rules)
        await self._proof.open()
        await self._guard.open()
        refuse_circles(self._own, self._upstreams, self._egress.parent)
        self._reloader = Reloader(
            rules, request, seen, self._use, self._sweep, self._limits, self.metrics,
            time.time, clock,
        )  # fmt: skip
        self._watch_void()
        self._watch_interfaces()
        await self._accept()
        self._workload.start(doors.sockets(self._bound))
        if settings.identity.federation or settings.identity.workload_api:
            self._workload.wake()  # others' bundles come through it
        await self._controlling.start(self._sources(), doors.control)
        await self._controlling.start_remote(
            self._bound, self._identities.admins, self._tls.control
        )
        self.metrics.generation.set(rules.number)
        self._reloader.start()
        return self._ready(rules, skipped)

    async def close(self) -> None:
        """Stop accepting, end every connection, and write what audit still holds."""
        await self._reloader.close()
        self._accepting.stop()
        self._guard.stop()
        await self._controlling.close()
        await self._workload.close()
        for task in self._tasks:
            task.cancel()
        await self._egress.close(self._limits.shutdown_s / 2)
        await self._accepting.close()
        await self._lookup.close()
        await self._cutting.close()
        await self._proof.close()
        await self._guard.close()
        await self._identities.close()
        for close in reversed(self._closing):
            close()
        await self._audit.close()

    def reload(self) -> None:
        """Have rules and tokens read again, as SIGHUP asks for."""
        self._reloader.request("signal")
        self._start_task(self._identities.reload())
        self._start_task(self._guard.secrets.reload())

    def _compose(self, rules: Generation) -> None:
        limits, metrics = self._limits, self.metrics
        self._upstreams = upstreams = upstreams_of(self._settings, metrics, self._own)
        self._ruleset = rules.ruleset
        self._authorizer = authorizer = Authorizer(
            self._zoned(rules.index), self._audit, self._refusals, metrics, self._revoked_apps(),
            self._guard.held, self._guard.known,
        )  # fmt: skip
        peers = PeerTable(limits, time.time, metrics.bounds.add)
        self._closing.append(peers.close)
        self._identifier = self._identities.identifier(rules.ruleset, peers)
        metrics.app_decisions.use(rules.ruleset.apps)
        monotonic = asyncio.get_running_loop().time
        self._lookup = Lookup(
            authorizer, upstreams, self._own, limits, metrics, monotonic,
            self._guard.watch(authorizer),
        )  # fmt: skip
        self._resolver = Resolver(
            authorizer, self._lookup, self._refusals, self._suffixes, limits, metrics,
            wall=time.time, entropy=os.urandom,
            sinkhole=self._guard.sink(self._identifier, self._own, lambda: authorizer.generation),
        )  # fmt: skip
        self._workload = self._made_workload()
        self._workload.use(rules.ruleset)
        self._proof = self._made_proof()
        self._egress = Egress(
            authorizer, self._identifier, self._lookup, self._own, limits, metrics,
            self._refusals, time.time, os.urandom, parent_of(self._settings),
            IdentityContexts(
                limits, metrics, time.time, self._settings.egress_anchors,
                self._workload.sign, self._identities.is_revoked, self._identities.is_void,
            ),
            self._proof.api,
        )  # fmt: skip

    def _made_workload(self) -> Workload:
        identities = self._identities
        parts = Parts(
            settings=self._settings,
            names=self._identifier,
            is_barred=identities.is_barred,
            on_trust=identities.believe,
            authorizer=self._authorizer,
            own=self._own,
            audit=self._audit,
            metrics=self.metrics,
            clock=self._clock,
        )
        return Workload(parts)

    def _made_proof(self) -> Proof:
        ground = Ground(
            settings=self._settings,
            identities=self._identities,
            workload=self._workload,
            audit=self._audit,
            metrics=self.metrics,
            ruleset=lambda: self._ruleset,
            clock=self._clock,
            monotonic=asyncio.get_running_loop().time,
        )
        return Proof(ground)

    def _watch_void(self) -> None:
        """Act on whatever becomes void from now on."""
        identities = self._identities
        tokens, revocations = identities.tokens.tokens, identities.revocations.revocations
        self._cutting = Cutting(
            self._egress, tokens, self._reloader.restate, self._audit, self.metrics,
            time.time, os.urandom,
        )  # fmt: skip
        revocations.on_change(self._cutting.changed)
        revocations.on_change(lambda _: self._workload.look())
        identities.revocations.on_written(self._workload.look)  # the issuer reads the file
        tokens.on_void(self._cutting.token_is_void)
        identities.attested.attestations.on_void(self._cutting.lapsed)
        identities.certificates.on_void(lambda: self._start_task(sweep_askers(self._egress)))
        self._cutting.follow(identities.trust)
        self._guard.follow(self._reloader.restate, self._sweep)

    def _revoked_apps(self) -> Mapping[str, Revocation]:
        return self._identities.revocations.revocations.apps

    def _zoned(self, index: RuleIndex) -> RuleIndex:
        return with_zones(index, self._upstreams.zones)

    def _use(self, rules: Generation) -> None:
        self._authorizer.use(self._zoned(rules.index), self._revoked_apps())
        self._identifier.use(rules.ruleset)
        self.metrics.app_decisions.use(rules.ruleset.apps)
        self._ruleset = rules.ruleset
        self._tls.ask()
        self._workload.use(rules.ruleset)

    async def _sweep(self, generation: int) -> int:
        cut = await sweep(self._egress, generation)
        return cut + await sweep_askers(self._egress)

    def _start_task(self, work: Coroutine[None, None, object]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _watch_interfaces(self) -> None:
        watch = InterfaceWatch(lambda found: setattr(self._own, "interfaces", found))
        watch.start()
        self._closing.append(watch.close)

    async def _accept(self) -> None:
        limits, metrics, identities = self._limits, self.metrics, self._identities
        self._tls = TlsListeners(
            self._settings,
            identities.trust,
            lambda: self._identifier.asks_for_certificates,
            time.time,
        )
        if self._tls.renewal is not None:
            self._start_task(self._tls.renewal.run())
        planes = Planes(
            self._resolver,
            self._identifier,
            self._egress,
            DohPlane(
                self._resolver, self._identifier, self._refusals, limits, metrics, self._proof.api
            ),
            Admin(metrics, self._problems, limits, identities.tokens.scrapes),
            self._tls.contexts,
            recorder(self._audit, lambda: self._authorizer.generation),
            identities.leases,
        )
        await self._guard.start()
        self._accepting = Accepting(planes, limits, metrics)
        for bound in self._bound:
            if bound.kind not in {*ISSUERS, KIND}:
                await self._accepting.start(bound)

    def _sources(self) -> Sources:
        return Sources(
            pid=os.getpid(),
            version=version(),
            enforcement=self._settings.enforcement,
            started=self._started,
            wall=time.time,
            entropy=os.urandom,
            metrics=self.metrics,
            tokens=self._identities.tokens,
            audit=self._audit,
            audit_file=Path(self._settings.audit.file),
            refusals=self._refusals,
            ruleset=lambda: self._ruleset,
            reload=self._reloaded_now,
            listening=lambda: listening(self._bound),
            reloaded=lambda: reloaded(self._reloader.status()),
            upstreams=lambda: [upstream_state(each) for each in self._upstreams.status()],
            certificate=lambda: certificate(self._tls.leaf),
            problems=self._problems,
            issuing=lambda: issuing(self._settings, self._identities, self._workload),
            agent_api=lambda: MountedApi(self._proof.api, self._identifier.vouched),
            agents=lambda: self._proof.agents.all(time.time()),
            attesting=lambda: self._proof.attesting,
            exchange=lambda: self._proof.exchange,
            detection=lambda: self._guard.detection,
            secrets=lambda: self._guard.secrets,
            listed=self._reloader.listed,
            reading=lambda: reading(self._reloader.progress()),
            revoking=lambda: Revoking(
                self._identities.revocations, self._cutting.cut, lambda: self._ruleset.apps
            ),
        )

    async def _reloaded_now(self) -> Reloaded:
        await self._identities.reload()
        return reloaded(await self._reloader.reload("control"))

    def _certificate_end(self) -> int:
        leaf = self._tls.leaf
        return 0 if leaf is None else leaf.not_after

    def _problems(self) -> dict[str, str]:
        found = {
            "audit": self._audit.status(),
            "rules": "; ".join(self._reloader.status().told[:_TOLD]),
            **self._identities.problems,
            "certificate": self._tls.problem,
            "issuer": self._workload.problem,
            **self._proof.problems,
            **self._guard.problems,
            "control": self._controlling.problem,
        }
        return {name: text for name, text in found.items() if text}

    def _ready(self, rules: Generation, skipped: list[str]) -> Ready:
        return Ready(
            pid=os.getpid(),
            generation=rules.number,
            enforcement=self._settings.enforcement,
            listen=listening(self._bound),
            rules=list(rules.files),
            notes=[*(each.render() for each in rules.warnings), *rules.notes, *skipped],
        )


def main(argv: list[str]) -> int:
    """Run with the settings that the descriptor `argv[0]` gives as JSON; return the exit code."""
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    os.umask(0o077)
    close_to_debuggers()
    tune()
    with os.fdopen(int(argv[0]), "rb") as handed_over:
        settings = msgspec.json.decode(handed_over.read(), type=Settings)
    try:
        return uvloop.run(live(Appliance(settings), as_json=settings.json))
    except (RuleSyntaxError, RebuildError, ConfigError) as error:
        logger.error("%s", error)  # noqa: TRY400 - the text is for the operator, a trace is not
        return EXIT_RULES
    except BindError as error:
        logger.error("%s", error)  # noqa: TRY400 - as above
        return EXIT_BIND
    except Exception:
        logger.exception("a bug of ours; please report it")
        return EXIT_BUG


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
