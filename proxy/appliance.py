"""The composition root: settings to objects and listeners, in start order; it owns the clock.

Run as `python -m proxy.appliance DESCRIPTOR`, by the command line: the settings are read there.
Exit codes: 0 after SIGTERM or SIGINT, 3 rules broken, 4 cannot bind or write, 70 a bug of ours.
"""

import asyncio
import ctypes
import gc
import logging
import os
import resource
import signal
import ssl
import sys
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import uvloop

from certs.files import SERVER_KEY, SERVER_PEM
from proxy.accepting import Accepting, Planes
from proxy.admin import Admin
from proxy.audit import Audit
from proxy.authorize import Authorizer
from proxy.banner import Ready, ready_json, ready_table, version
from proxy.binding import Bound, bind_listeners, listening
from proxy.config import Settings
from proxy.control.listener import Control
from proxy.control.place import ControlSocket, bind_control
from proxy.control.status import Reloaded, Sources
from proxy.egress.parent import Parent, parse_parent
from proxy.egress.plane import Egress
from proxy.egress.sweep import sweep, sweep_askers
from proxy.errors import BindError, ConfigError
from proxy.identify import Identifier
from proxy.metrics import Metrics
from proxy.notify import Heartbeat, notify
from proxy.refusals import Refusals
from proxy.reload.assembly import NO_RULES, Assembly, Generation, RebuildError
from proxy.reload.files import public_suffixes
from proxy.reload.handover import Request
from proxy.reload.reloader import Reloader
from proxy.reload.watch import look
from proxy.renewal import Renewal, certificate_folder, certificate_names
from proxy.reporting import certificate, reloaded, upstream_state
from proxy.resolver.doh import DohPlane
from proxy.resolver.dot import ALPN as DOT_ALPN
from proxy.resolver.lookup import Lookup
from proxy.resolver.query import Resolver
from proxy.resolver.upstream_url import parse_groups, parse_zones
from proxy.resolver.zones import ZonedUpstreams, zoned_upstreams
from proxy.tokens.known import Token
from proxy.tokens.live import LiveTokens
from proxy.transport.interfaces import InterfaceWatch
from proxy.transport.own import OwnSockets
from proxy.transport.peer import PeerTable
from proxy.transport.server_tls import server_context
from proxy.transport.tls import upstream_context
from rules.address import Address
from rules.errors import RuleSyntaxError
from rules.match import RuleIndex
from rules.zones import with_zones

logger = logging.getLogger("sallyport")

EXIT_RULES, EXIT_BIND, EXIT_BUG = 3, 4, 70
_TOLD = 3  # problems of the rules in one sentence of /readyz; `status` has all
DOH_ALPN = ("h2", "http/1.1")  # RFC 8484, section 5.2
_SWITCH_INTERVAL_S = 0.0005  # a busy thread costs each query a wait for the GIL of this length
_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD = -3, -1  # mallopt(3)
_MMAP_OCTETS, _TRIM_OCTETS = 32 << 20, 64 << 20  # TLS reads with 256 KiB buffers: 5 times faster


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
        state = Path(settings.state)
        self._tokens = LiveTokens(state / "sallyport.sqlite", limits, time.time, os.urandom)
        self._renewal: Renewal | None = None
        self._control: Control | None = None
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
        settings = self._settings
        request = Request(
            tuple(settings.rules),
            settings.first_run,
            settings.system,
            tuple(sorted(settings.listen.agents)),
        )
        seen = look(request.folders)  # before they are read: what is written later is seen later
        with ThreadPoolExecutor(1) as pool:
            assembly = Assembly(pool, self._limits.reload_s, time.perf_counter)
            rules = await assembly.build(request, NO_RULES)
        self._compose(rules)
        self._reloader = Reloader(
            rules, request, seen, self._use, self._sweep, self._limits, self.metrics,
            time.time, time.perf_counter,
        )  # fmt: skip
        control = self._bind_control()
        self._bound, skipped = bind_listeners(settings.listen)
        self._own.listeners = {each.address for each in self._bound}
        self._refuse_circles()
        self._open_state()
        await self._tokens.open()
        self._watch_interfaces()
        await self._accept()
        if control is not None:
            await self._serve_control(control)
        self.metrics.generation.set(rules.number)
        self._reloader.start()
        return self._ready(rules, skipped)

    async def close(self) -> None:
        """Stop accepting, end every connection, and write what audit still holds."""
        await self._reloader.close()
        self._accepting.stop()
        if self._control is not None:
            await self._control.close()
        for task in self._tasks:
            task.cancel()
        await self._egress.close(self._limits.shutdown_s / 2)
        await self._accepting.close()
        await self._lookup.close()
        await self._tokens.close()
        for close in reversed(self._closing):
            close()
        await self._audit.close()

    def reload(self) -> None:
        """Have rules and tokens read again, as SIGHUP asks for."""
        self._reloader.request("signal")
        self._start_task(self._tokens.reload())

    def _compose(self, rules: Generation) -> None:
        limits, metrics = self._limits, self.metrics
        self._upstreams = upstreams = self._made_upstreams()
        self._ruleset = rules.ruleset
        self._authorizer = authorizer = Authorizer(
            self._zoned(rules.index), self._audit, self._refusals, metrics
        )
        peers = PeerTable(limits, time.time, metrics.bounds.add)
        self._closing.append(peers.close)
        self._identifier = Identifier(rules.ruleset, peers, self._tokens.tokens)
        metrics.app_decisions.use(rules.ruleset.apps)
        self._tokens.tokens.on_void(self._token_is_void)
        monotonic = asyncio.get_running_loop().time
        self._lookup = Lookup(authorizer, upstreams, self._own, limits, metrics, monotonic)
        self._resolver = Resolver(
            authorizer, self._lookup, self._refusals, self._suffixes, limits, metrics,
            wall=time.time, entropy=os.urandom,
        )  # fmt: skip
        self._egress = Egress(
            authorizer, self._identifier, self._lookup, self._own, limits, metrics,
            self._refusals, time.time, os.urandom, self._parent(),
        )  # fmt: skip

    def _made_upstreams(self) -> ZonedUpstreams:
        settings = self._settings
        anchors = None if settings.upstream_ca is None else Path(settings.upstream_ca)
        return zoned_upstreams(
            parse_groups(settings.upstreams),
            parse_zones(settings.zones),
            self._limits,
            self.metrics,
            make_context=lambda alpn: upstream_context(anchors, alpn),
            is_own=self._own.is_listener,
        )

    def _parent(self) -> Parent | None:
        settings = self._settings
        if settings.upstream_proxy is None:
            return None
        return parse_parent(settings.upstream_proxy, settings.egress_anchors)

    def _zoned(self, index: RuleIndex) -> RuleIndex:
        return with_zones(index, self._upstreams.zones)

    def _use(self, rules: Generation) -> None:
        self._authorizer.use(self._zoned(rules.index))
        self._identifier.use(rules.ruleset)
        self.metrics.app_decisions.use(rules.ruleset.apps)
        self._ruleset = rules.ruleset

    async def _sweep(self, generation: int) -> int:
        cut = await sweep(self._egress, generation)
        return cut + await sweep_askers(self._egress)

    def _token_is_void(self, _token: Token) -> None:
        self._start_task(sweep_askers(self._egress))

    def _start_task(self, work: Coroutine[None, None, object]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _refuse_circles(self) -> None:
        for upstream in self._upstreams.addresses:
            if self._own.is_listener(upstream.address, upstream.port):
                raise ConfigError(f"upstream {upstream} is our own listener; name another resolver")
        parent = self._egress.parent
        if parent is not None and self._own.is_listener(parent.address, parent.port):
            raise ConfigError(f"upstream_proxy {parent.where} is our own listener; name another")

    def _open_state(self) -> None:
        state = self._settings.state
        try:
            Path(state).mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise BindError(
                f"the state folder {state} cannot be made: {error.strerror};"
                " name a writable one with --state"
            ) from error
        self._audit.start()

    def _watch_interfaces(self) -> None:
        def changed(found: set[Address]) -> None:
            self._own.interfaces = found

        watch = InterfaceWatch(changed)
        watch.start()
        self._closing.append(watch.close)

    async def _accept(self) -> None:
        limits, metrics = self._limits, self.metrics
        planes = Planes(
            self._resolver,
            self._identifier,
            self._egress,
            DohPlane(self._resolver, self._identifier, self._refusals, limits, metrics),
            Admin(metrics, self._problems, limits, self._tokens.scrapes),
            self._tls_contexts(),
        )
        self._accepting = Accepting(planes, limits, metrics)
        for bound in self._bound:
            await self._accepting.start(bound)

    def _bind_control(self) -> ControlSocket | None:
        """Bind it before the ports: it knows whether we run already."""
        listen = self._settings.listen
        return bind_control(Path(listen.control), listen.control_group) if listen.control else None

    async def _serve_control(self, bound: ControlSocket) -> None:
        self._control = Control(self._sources(), self._limits, self.metrics)
        await self._control.start(bound)

    def _tls_contexts(self) -> dict[str, ssl.SSLContext]:
        settings = self._settings
        if not settings.listen.dot and not settings.listen.doh:
            return {}
        folder = certificate_folder(settings)
        files = folder / SERVER_PEM, folder / SERVER_KEY
        contexts = {
            "dot": server_context(*files, DOT_ALPN),
            "doh": server_context(*files, DOH_ALPN),
        }
        names = certificate_names(settings)
        self._renewal = Renewal(folder, names, tuple(contexts.values()), time.time)
        self._start_task(self._renewal.run())
        return contexts

    def _sources(self) -> Sources:
        return Sources(
            pid=os.getpid(),
            version=version(),
            enforcement=self._settings.enforcement,
            started=self._started,
            wall=time.time,
            entropy=os.urandom,
            metrics=self.metrics,
            tokens=self._tokens,
            audit=self._audit,
            audit_file=Path(self._settings.audit.file),
            refusals=self._refusals,
            ruleset=lambda: self._ruleset,
            reload=self._reloaded_now,
            listening=lambda: listening(self._bound),
            reloaded=lambda: reloaded(self._reloader.status()),
            upstreams=lambda: [upstream_state(each) for each in self._upstreams.status()],
            certificate=lambda: certificate(self._renewal.leaf if self._renewal else None),
            problems=self._problems,
        )

    async def _reloaded_now(self) -> Reloaded:
        await self._tokens.reload()
        return reloaded(await self._reloader.reload("control"))

    def _certificate_end(self) -> int:
        leaf = None if self._renewal is None else self._renewal.leaf
        return 0 if leaf is None else leaf.not_after

    def _problems(self) -> dict[str, str]:
        found = {
            "audit": self._audit.status(),
            "rules": "; ".join(self._reloader.status().told[:_TOLD]),
            "tokens": self._tokens.problem,
            "certificate": None if self._renewal is None else self._renewal.problem,
            "control": None if self._control is None else self._control.problem,
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


async def _run(settings: Settings) -> int:
    appliance = Appliance(settings)
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    ready = await appliance.start()
    loop.add_signal_handler(signal.SIGHUP, appliance.reload)
    gc.freeze()  # rules and modules stay: the cyclic collector need not walk them again
    if settings.json:
        for note in ready.notes:
            logger.warning("%s", note)
        print(ready_json(ready), flush=True)  # noqa: T201 - the ready event is our output
    else:
        print(ready_table(ready), flush=True)  # noqa: T201 - so is the table
    heartbeat = Heartbeat(os.environ, os.getpid(), lambda: True)
    notify(os.environ, "READY=1")
    heartbeat.start()
    await ended.wait()
    notify(os.environ, "STOPPING=1")
    heartbeat.close()
    await appliance.close()
    return 0


def _tune() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(_M_MMAP_THRESHOLD, _MMAP_OCTETS)
        libc.mallopt(_M_TRIM_THRESHOLD, _TRIM_OCTETS)


def main(argv: list[str]) -> int:
    """Run with the settings that the descriptor `argv[0]` gives as JSON; return the exit code."""
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    os.umask(0o077)
    _tune()
    with os.fdopen(int(argv[0]), "rb") as handed_over:
        settings = msgspec.json.decode(handed_over.read(), type=Settings)
    try:
        return uvloop.run(_run(settings))
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
