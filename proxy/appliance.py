"""The composition root: settings to objects and listeners, in start order; it owns the clock.

Run as `python -m proxy.appliance SETTINGS`, by the command line, with the settings as JSON.
Exit codes: 0 after SIGTERM or SIGINT, 3 rules broken, 4 cannot bind or write, 70 a bug of ours.
"""

import asyncio
import ctypes
import gc
import logging
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import uvloop

from proxy.admin import Admin
from proxy.audit import Audit
from proxy.authorize import Authorizer
from proxy.banner import Ready, ready_json, ready_table, version
from proxy.binding import Bound, bind_listeners, listening
from proxy.config import Settings
from proxy.egress.plane import Egress
from proxy.errors import BindError, ConfigError
from proxy.identify import Identifier
from proxy.metrics import Metrics
from proxy.refusals import Refusals
from proxy.reload import RuleFiles, check_listeners, public_suffixes, read_rules
from proxy.resolver.do53 import Do53Tcp, Do53Udp
from proxy.resolver.lookup import Lookup
from proxy.resolver.query import Resolver
from proxy.resolver.upstream import Upstreams
from proxy.resolver.upstream_url import parse_upstream
from proxy.transport.interfaces import InterfaceWatch
from proxy.transport.listen import Listener
from proxy.transport.own import OwnSockets
from proxy.transport.peer import PeerTable
from proxy.transport.tls import DOT_ALPN, upstream_context
from rules.address import Address
from rules.errors import RuleSyntaxError
from rules.match import index_rules
from rules.ruleset import Ruleset

logger = logging.getLogger("sallyport")

EXIT_RULES, EXIT_BIND, EXIT_BUG = 3, 4, 70
_SWITCH_INTERVAL_S = 0.0005  # a busy thread costs each query a wait for the GIL of this length
_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD = -3, -1  # mallopt(3)
_MMAP_OCTETS, _TRIM_OCTETS = 32 << 20, 64 << 20  # TLS reads with 256 KiB buffers: 5 times faster
_FIRST_GENERATION = 1


class Appliance:
    """Every object of a running appliance, and how they end."""

    def __init__(self, settings: Settings) -> None:
        """Make what needs no I/O.

        Raises:
            ConfigError: an upstream or its trust anchors cannot be used (exit 3).
        """
        limits = settings.limits
        self._settings = settings
        self._limits = limits
        self._notes: list[str] = []
        self._closing: list[Callable[[], object]] = []
        self._listeners: list[Listener] = []
        self.metrics = Metrics(version())
        self._suffixes = public_suffixes()
        self._audit = Audit(settings.audit, limits, self.metrics, time.time, os.urandom)
        self._refusals = Refusals(limits, self.metrics)
        self._own = OwnSockets(set(), set())
        self._admin = Admin(self.metrics, self._problems, limits)

    async def start(self) -> Ready:
        """Read the rules, bind every socket, then accept.

        Raises:
            RuleSyntaxError: rule files are broken (exit 3).
            ConfigError: the configuration asks for what cannot be (exit 3).
            BindError: a socket or a file cannot be had (exit 4).
        """
        settings = self._settings
        files = read_rules(
            settings.rules, _FIRST_GENERATION, self._suffixes, first_run=settings.first_run
        )
        ruleset = files.loaded.ruleset
        check_listeners(ruleset, {*settings.listen.do53, *settings.listen.proxy})
        self._notes += [warning.render() for warning in files.loaded.warnings]
        self._notes += files.notes
        self._compose(ruleset)
        self._bound, skipped = bind_listeners(settings.listen)
        self._notes += skipped
        self._own.listeners = {each.address for each in self._bound}
        self._refuse_circles()
        self._open_state()
        self._watch_interfaces()
        for bound in self._bound:
            await self._accept(bound)
        self.metrics.generation.set(ruleset.generation)
        return self._ready(files)

    async def close(self) -> None:
        """Stop accepting, end every connection, and write what audit still holds."""
        for listener in self._listeners:
            listener.stop()
        await self._egress.close(self._limits.shutdown_s / 2)
        await asyncio.gather(*(listener.close() for listener in self._listeners))
        await self._admin.close()
        await self._lookup.close()
        for close in reversed(self._closing):
            close()
        await self._audit.close()

    def _compose(self, ruleset: Ruleset) -> None:
        limits, metrics = self._limits, self.metrics
        authorizer = Authorizer(index_rules(ruleset), self._audit, self._refusals, metrics)
        peers = PeerTable(limits, time.time, metrics.bounds.add)
        self._closing.append(peers.close)
        self._identifier = Identifier(ruleset, peers)
        monotonic = asyncio.get_running_loop().time
        self._lookup = Lookup(authorizer, self._upstreams(), self._own, limits, metrics, monotonic)
        self._resolver = Resolver(
            authorizer, self._lookup, self._refusals, self._suffixes, limits, metrics,
            wall=time.time, entropy=os.urandom,
        )  # fmt: skip
        self._egress = Egress(
            authorizer, self._identifier, self._lookup, self._own, limits, metrics,
            self._refusals, time.time, os.urandom,
        )  # fmt: skip

    def _upstreams(self) -> Upstreams:
        settings = self._settings
        addresses = [parse_upstream(text) for text in settings.upstreams]
        anchors = None if settings.upstream_ca is None else Path(settings.upstream_ca)
        context = upstream_context(anchors, DOT_ALPN)
        return Upstreams(addresses, self._limits, self.metrics, context, os.urandom)

    def _refuse_circles(self) -> None:
        for text in self._settings.upstreams:
            upstream = parse_upstream(text)
            if self._own.is_listener(upstream.address, upstream.port):
                raise ConfigError(f"upstream {text} is our own listener; name another resolver")

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

    async def _accept(self, bound: Bound) -> None:
        if bound.kind == "metrics":
            await self._admin.start(bound.socket)
        elif bound.socket.type == socket.SOCK_DGRAM:
            udp = Do53Udp(bound.socket, bound.label, self._resolver, self._identifier, self._limits)
            udp.start()
            self._closing.append(udp.close)
        else:
            limits = self._limits
            factory = self._egress.factory if bound.kind == "proxy" else self._do53_tcp
            name = "proxy_connections" if bound.kind == "proxy" else "dns_tcp_connections"
            listener = Listener(
                bound.socket, factory, getattr(limits, name),
                lambda: self.metrics.bounds.add(name), bound.label,
            )  # fmt: skip
            await listener.start()
            self._listeners.append(listener)

    def _do53_tcp(self, listener: Listener) -> asyncio.BaseProtocol:
        return Do53Tcp(listener, self._resolver, self._identifier, self._limits)

    def _problems(self) -> dict[str, str]:
        audit = self._audit.status()
        return {} if audit is None else {"audit": audit}

    def _ready(self, files: RuleFiles) -> Ready:
        return Ready(
            pid=os.getpid(),
            generation=files.loaded.ruleset.generation,
            enforcement=self._settings.enforcement,
            listen=listening(self._bound),
            rules=list(files.files),
            notes=self._notes,
        )


async def _run(settings: Settings) -> int:
    appliance = Appliance(settings)
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):  # a closed terminal is an end
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    ready = await appliance.start()
    gc.freeze()  # rules and modules stay: the cyclic collector need not walk them again
    if settings.json:
        for note in ready.notes:
            logger.warning("%s", note)
        print(ready_json(ready), flush=True)  # noqa: T201 - the ready event is our output
    else:
        print(ready_table(ready), flush=True)  # noqa: T201 - so is the table
    await ended.wait()
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
    """Run with the settings in `argv[0]`, JSON of `Settings`; return the exit code."""
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    os.umask(0o077)
    _tune()
    settings = msgspec.json.decode(argv[0], type=Settings)
    try:
        return uvloop.run(_run(settings))
    except (RuleSyntaxError, ConfigError) as error:
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
