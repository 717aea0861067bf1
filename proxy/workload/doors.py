"""The appliance's side of the issuer: it names who calls, and hands the connections over.

    accept -> callers (SO_PEERCRED, SO_PEERPIDFD) -> entitle (identity lines) -> Adopt -> issuer

What a workload sends is read by the issuer alone, which knows no rules; the rules are read here
alone, where there is no key.  A change of the rules, a revocation, and the end of a caller or of
what he was, change what he is entitled to on connections that are open.
"""

import asyncio
import logging
import os
import socket
from collections.abc import Callable
from itertools import count
from time import perf_counter
from typing import Final, Literal, assert_never

from msgspec import Struct

from certs.profile import ADMIN
from proxy.audit import Audit
from proxy.authorize import Authorizer
from proxy.channel import (
    Adopt,
    Challenged,
    Entitle,
    Event,
    Gone,
    Judge,
    Look,
    Named,
    Ready,
    Serve,
    Signed,
    SignedClaims,
    ToAppliance,
    Trust,
    Verified,
    Whose,
)
from proxy.config import Settings
from proxy.control.place import ControlSocket, caller_of
from proxy.metrics import Metrics
from proxy.transport.own import OwnSockets
from proxy.workload.callers import caller_at
from proxy.workload.connections import Connection, Connections
from proxy.workload.entitle import NOTHING, Entitlement, Entitlements, IsBarred, Names
from proxy.workload.events import Clock, Events
from proxy.workload.evidence import Evidence
from proxy.workload.inode import UnixDiag
from proxy.workload.issuer import MODULE, Issuer, Told
from proxy.workload.judge import Judging, judge
from proxy.workload.listening import Listening
from proxy.workload.signing import Signatures
from rules.ruleset import Ruleset

logger = logging.getLogger(__name__)

_A_TURN_S = 0.002  # connections are looked at in a turn of the loop; one may take 10 ms
_A_TICK = 64  # callers that are looked at again in a tick: 0.5 ms

WORKLOAD: Final = "workload"
EXT_AUTHZ: Final = "ext_authz"

type Kind = Literal["workload", "ext_authz"]


class Parts(Struct, frozen=True, kw_only=True):
    """What of the appliance is needed here.

    `names` is the identifier; `on_trust` is told whom to believe, PEM texts by trust domain.
    """

    settings: Settings
    names: Names
    is_barred: IsBarred
    on_trust: Callable[[dict[str, str]], object]
    authorizer: Authorizer
    own: OwnSockets
    audit: Audit
    metrics: Metrics
    clock: Clock


class Handed(Struct, frozen=True):
    """A listening TCP socket that the issuer accepts on: `kind` is enroll or pki."""

    kind: str
    label: str
    socket: socket.socket


class Sockets(Struct, frozen=True):
    """The sockets to serve on, all of them listening, and ours to close."""

    workload: ControlSocket | None = None
    ext_authz: ControlSocket | None = None
    handed: tuple[Handed, ...] = ()


class Workload:
    """Serves workloads, Envoy and enrolment through the issuer, and asks it for signatures."""

    def __init__(self, parts: Parts, module: str = MODULE) -> None:
        """`module` is what the issuer's process runs."""
        settings, metrics = parts.settings, parts.metrics
        self._parts = parts
        self._audit = parts.audit
        self._limits = limits = settings.limits
        self._bound: Callable[[str], None] = metrics.bounds.add
        told = Told(self._receive, self._serves, self._ended)
        self._issuer = Issuer(settings, told, metrics, module)
        self._signatures = Signatures(self._issuer, limits, metrics)
        self.evidence = Evidence(self._issuer, limits, metrics, self._unrecorded)
        """Verifies what attesters send."""
        self._events = Events(parts.audit, metrics, limits, parts.clock)
        self._entitlements = Entitlements(
            parts.names, settings.identity.trust_domain, self._is_barred, limits, self._bound
        )
        self._judging = Judging(parts.names, parts.authorizer, parts.own, parts.clock)
        self._connections = Connections(limits, self._entitled)
        self._envoys: dict[int, socket.socket | None] = {}  # None once the issuer has it
        self._numbers = count(1)
        self._diag = UnixDiag()
        self._listening: dict[str, Listening] = {}
        self._handed: tuple[Handed, ...] = ()
        self._timer: asyncio.TimerHandle | None = None
        self._looking: asyncio.Task[None] | None = None
        self._trust_problem = ""
        self._was_recorded = True
        metrics.workload_connections.read_by(lambda: len(self._connections))

    @property
    def connections(self) -> int:
        """How many connections to the Workload API are open."""
        return len(self._connections)

    @property
    def is_up(self) -> bool:
        """Whether the issuer serves now; it is started when it is first needed."""
        return self._issuer.is_ready

    @property
    def problem(self) -> str | None:
        """What is wrong; None where nothing is."""
        found = (self._issuer.problem, *(each.problem for each in self._listening.values()))
        return "; ".join(each for each in (*found, self._trust_problem) if each) or None

    def start(self, sockets: Sockets) -> None:
        """Accept from now on, in the running loop; the issuer starts when it is first needed."""
        if sockets.workload is not None:
            self._listening[WORKLOAD] = Listening(sockets.workload, self._take_workload)
        if sockets.ext_authz is not None:
            self._listening[EXT_AUTHZ] = Listening(sockets.ext_authz, self._take_envoy)
        for listening in self._listening.values():
            listening.start()
        self._handed = sockets.handed
        for each in self._handed:
            asyncio.get_running_loop().add_reader(each.socket.fileno(), self.wake)
        self._tick()

    def wake(self) -> None:
        """See that the issuer runs, without waiting for it: bundles of others come through it."""
        self._unwatch_handed()
        self._issuer.wake()

    def use(self, ruleset: Ruleset) -> None:
        """Entitle by `ruleset` from now on; call it once the identifier has taken the same.

        What an app may have changes at once, who is which app within some turns of the loop.
        """
        self._entitlements.use(ruleset)
        self._events.generation = ruleset.generation
        self._shrink()

    def look(self) -> None:
        """Take in that revocations or keys have changed: nobody keeps what he may not have."""
        self._shrink()
        self._issuer.send(Look())

    async def sign(self, spiffe_id: str, profile: str = "svid", ttl_s: int = 0) -> Signed:
        """Return a certificate and its key for ourselves or the admin, or a `problem`."""
        unrecorded = self._unrecorded()
        if unrecorded:
            return Signed(0, problem=unrecorded)
        if profile != ADMIN.name and self._parts.is_barred("", spiffe_id):
            # Whatever the rules say: what is presented to an origin is never an admin's.
            return Signed(0, problem=f"{spiffe_id} was revoked, or is kept for admins")
        self.wake()
        return await self._signatures.sign(spiffe_id, profile, ttl_s)

    async def close(self) -> None:
        """Accept no more, end the issuer and every connection."""
        if self._timer is not None:
            self._timer.cancel()
        if self._looking is not None:
            self._looking.cancel()
        for each in self._listening.values():
            each.close()
        self._unwatch_handed()
        await self._issuer.close()
        self._ended()
        for handed in self._handed:
            handed.socket.close()
        self._diag.close()

    def _unwatch_handed(self) -> None:
        for each in self._handed:
            asyncio.get_running_loop().remove_reader(each.socket.fileno())

    # Connections

    def _take_workload(self, connection: socket.socket) -> None:
        caller = None if self._is_away() else caller_at(connection, self._diag)
        if caller is None:
            self._refuse(WORKLOAD, connection)
            return
        met = self._connections.met(caller.uid)
        entitlement = NOTHING
        if met is None:
            entitlement = self._entitlements.of_caller(caller, self._ours())
            met = None if self._connections.is_for(entitlement) else "workload_connections"
        if met is not None:
            self._bound(met)
            caller.close()
            self._refuse(WORKLOAD, connection)
            return
        self._parts.metrics.connections.add(WORKLOAD, "accepted")
        taken = Connection(next(self._numbers), caller, entitlement, connection)
        self._connections.add(taken)
        self._issuer.wake()
        self._pass(taken)

    def _take_envoy(self, connection: socket.socket) -> None:
        is_full = len(self._envoys) >= self._limits.ext_authz_connections
        if is_full:
            self._bound("ext_authz_connections")
        group = self._listening[EXT_AUTHZ].group
        if is_full or self._is_away() or not caller_of(connection).may_ask(group):
            self._refuse(EXT_AUTHZ, connection)
            return
        self._parts.metrics.connections.add(EXT_AUTHZ, "accepted")
        number = next(self._numbers)
        self._envoys[number] = connection
        self._issuer.wake()
        self._pass_envoy(number)

    def _is_away(self) -> bool:
        """Return whether nobody would serve a connection soon: its client comes back later."""
        return self._issuer.is_resting

    def _refuse(self, kind: Kind, connection: socket.socket) -> None:
        connection.close()
        self._parts.metrics.connections.add(kind, "refused")

    def _ours(self) -> tuple[int, int]:
        """Return the ids of our own processes: they are never evidence."""
        return os.getpid(), self._issuer.pid

    def _pass(self, taken: Connection) -> None:
        if taken.socket is None or not self._issuer.is_ready:
            return
        caller, entitled = taken.caller, taken.entitlement
        adopt = Adopt(taken.number, WORKLOAD, entitled.app, entitled.ids, caller.uid, caller.pid)
        self._hand_over(adopt, taken.socket)
        taken.socket = None

    def _pass_envoy(self, number: int) -> None:
        connection = self._envoys.get(number)
        if connection is not None and self._issuer.is_ready:
            self._hand_over(Adopt(number, EXT_AUTHZ), connection)
            self._envoys[number] = None

    def _hand_over(self, adopt: Adopt, connection: socket.socket) -> None:
        """Give the connection away: when the issuer closes it, or ends, its peer sees the end."""
        self._issuer.send(adopt, (connection.fileno(),))
        connection.close()

    def _gone(self, number: int) -> None:
        self._connections.drop(number)
        self._envoys.pop(number, None)

    # Entitlements

    @property
    def _is_recorded(self) -> bool:
        """Return whether what is issued can be recorded, or need not be (`audit.on_failure`)."""
        return self._parts.settings.audit.on_failure != "deny" or self._audit.status() is None

    def _unrecorded(self) -> str:
        """Return why nothing is signed; empty while it is."""
        if self._is_recorded:
            return ""
        return f"nothing is signed unrecorded: audit: {self._audit.status()}"

    def _is_barred(self, app: str, spiffe_id: str) -> bool:
        return not self._is_recorded or self._parts.is_barred(app, spiffe_id)

    def _entitled(self, connection: Connection) -> None:
        if connection.socket is None:
            entitled = connection.entitlement
            self._issuer.send(Entitle(connection.number, entitled.app, entitled.ids))

    def _shrink(self) -> None:
        """Look at each connection's app at once, and at its caller as soon as may be."""
        if not self._connections:
            return
        known: dict[str, Entitlement] = {"": NOTHING}
        for each in self._connections:
            app = each.entitlement.app
            if app not in known:
                known[app] = self._entitlements.of_app(app)
            self._connections.entitle(each, known[app])
        if self._looking is not None:
            self._looking.cancel()
        self._looking = asyncio.get_running_loop().create_task(self._look_at_all())

    async def _look_at_all(self) -> None:
        until = perf_counter() + _A_TURN_S
        for each in self._connections:
            self._connections.entitle(each, self._entitlements.of_caller(each.caller, self._ours()))
            if perf_counter() > until:
                await asyncio.sleep(0)
                until = perf_counter() + _A_TURN_S

    def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._limits.workload_look_s, self._tick)
        for listening in self._listening.values():
            listening.look()
        if self._is_recorded is not self._was_recorded:
            self._was_recorded = self._is_recorded
            self._shrink()
        for each in self._connections.some(_A_TICK):
            if each.entitlement.app and not self._entitlements.is_same(each.caller):
                self._connections.entitle(each, NOTHING)

    # The issuer

    def _serves(self) -> None:
        """Give the issuer, which has just come up, everything that waited for it."""
        self._issuer.send(Look())  # what was revoked since it read the file was told to nobody
        for each in self._handed:
            self._issuer.send(Serve(each.kind, each.label), (each.socket.fileno(),))
        for taken in self._connections:
            self._pass(taken)
        for number in tuple(self._envoys):
            self._pass_envoy(number)
        self._signatures.questions.ready()
        self.evidence.questions.ready()

    def _ended(self) -> None:
        """Let go of what the issuer took with it: clients connect again."""
        self._connections.close()
        for connection in self._envoys.values():
            if connection is not None:
                connection.close()
        self._envoys.clear()
        self._signatures.questions.ended()
        self.evidence.questions.ended()

    def _receive(self, message: ToAppliance, fds: tuple[int, ...]) -> None:
        for fd in fds:  # none is expected
            os.close(fd)
        answer = self._issuer.send
        match message:
            case Gone(connection=number):
                self._gone(number)
            case Whose(call=call, app=app):
                entitled = self._entitlements.of_app(app)
                answer(Named(call, entitled.app, entitled.ids))
            case Judge():
                answer(judge(self._judging, message))
            case Signed() | Verified() | Challenged() | SignedClaims():
                asker = self._signatures if isinstance(message, Signed) else self.evidence
                asker.questions.answered(message)
            case Trust(bundles=bundles, problem=problem):
                self._trust_problem = problem
                if bundles:  # else its keys could not be read: who was believed still is
                    self._parts.on_trust(bundles)
            case Event():
                self._events.take(message)
            case Ready():
                pass  # the issuer's own
            case _:
                assert_never(message)
