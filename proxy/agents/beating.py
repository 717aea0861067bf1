"""Heartbeats of agents, and which agents there are: who attests is one, who beats is one.

    POST /heartbeat {"health": "ok", "version": "1.2", "detail": ""}

What an agent says of itself is shown as that, and changes nothing else.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Annotated, Protocol

from msgspec import Meta, Struct, structs

from proxy.agent_api.api import Route
from proxy.agent_api.asked import ADMIN, Answer, Asked, Caller, ProblemError, encoded
from proxy.agents.state import AgentView, Claimed, Health, State, state_of
from proxy.agents.table import Key, Known, Table
from proxy.attested.binding import Binding
from proxy.attested.result import Result
from proxy.limits import Limits
from proxy.metrics import Metrics
from rules.decision import Reason
from rules.facts import UNKNOWN_APP

_TALLY_S = 1.0  # for how long a count of the states is good: a scrape asks for it twice
_HOW = "ask by the DoH or the proxy_tls listener with your certificate, or inside your lease"


class Proven(Protocol):
    """Attestation results; `proxy.attested.known.Attestations` fulfils it."""

    def current(self, binding: Binding) -> tuple[Result, ...]:
        """Return the results that stand for `binding`."""

    def all(self) -> tuple[Result, ...]:
        """Return every result that is held; some may have expired."""


class Parts(Struct, frozen=True, kw_only=True):
    """What of the appliance is needed here; `wall` returns Unix time in seconds.

    `is_revoked` is asked with an app, a SPIFFE ID and the serial number of a certificate, each
    empty where there is none.
    """

    attestations: Proven
    is_revoked: Callable[[str, str, str], bool]
    limits: Limits
    metrics: Metrics
    wall: Callable[[], float]


class Heartbeat(Struct, frozen=True, forbid_unknown_fields=True):
    """What an agent says of itself."""

    health: Health
    version: Annotated[str, Meta(max_length=64)] = ""
    detail: Annotated[str, Meta(max_length=200)] = ""


class Standing(Struct, frozen=True):
    """A result that stands, for `expires_in` seconds more."""

    level: str
    expires_in: int


class Heard(Struct, frozen=True):
    """The answer to a heartbeat: what stands here, and when the next one is due, in seconds."""

    app: str
    attested: tuple[Standing, ...]
    revoked: bool
    next_s: float


class Agents:
    """All agents; call it from the loop's thread only."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._every_s = parts.limits.agent_heartbeat_s
        self._table = Table(parts.limits, parts.metrics.bounds.add)
        self._tally: Counter[str] = Counter()
        self._attested = 0
        self._tallied = -math.inf
        parts.metrics.agents.read_by(self._counted)
        parts.metrics.agents_attested.read_by(self._share)

    def routes(self) -> tuple[Route, ...]:
        """Return what answers agents."""
        summary = "Say that you live, and hear how you stand"
        return (Route("POST", "/heartbeat", summary, self._beat, takes=Heartbeat, gives=Heard),)

    def all(self, now: float) -> tuple[AgentView, ...]:
        """Return how every agent is at `now`, in the order of their apps and names."""
        standing = self._look(now)
        views = [self._view(each, standing.get(_key(each), ()), now) for each in self._table.all()]
        return tuple(sorted(views, key=lambda each: (each.app, each.agent)))

    async def _beat(self, asked: Asked) -> Answer:
        beat: Heartbeat = asked.value
        caller, now = asked.caller, self._parts.wall()
        known = self._met(caller, now)
        known.heard = now
        known.claimed = Claimed(beat.health, beat.version, beat.detail)
        standing = tuple(
            Standing(each.level.name.lower(), math.floor(each.expires - now))
            for each in self._current(known)
        )
        revoked = self._parts.is_revoked(known.app, known.spiffe_id, known.serial)
        return encoded(Heard(known.app, standing, revoked, self._every_s))

    def _met(self, caller: Caller, now: float) -> Known:
        """Return the agent that calls, known from now on.

        Raises:
            ProblemError: nothing tells it from others, or there is no room.
        """
        svid, app = caller.svid, caller.principal.app
        if app in {UNKNOWN_APP, ADMIN.app}:
            raise ProblemError(403, Reason.IDENTITY_UNKNOWN, "you are no app here", _HOW)
        if svid is None and caller.binding is None:
            text = "nothing here tells one agent of your app from another"
            raise ProblemError(403, Reason.MTLS_REQUIRED, text, _HOW)
        name = _name(app, "" if svid is None else svid.spiffe_id, caller.binding)
        known = self._table.get((app, name))
        if known is None:
            known = Known(app, name, "", "", None, now)
            if not self._table.add(known, self._may_go):
                text = "too many agents are known here"
                raise ProblemError(503, Reason.CAPACITY, text, "try again later")
        else:
            self._table.touch(known, now)
        known.binding = caller.binding
        if svid is not None:
            known.spiffe_id, known.serial = svid.spiffe_id, svid.serial
        return known

    def _may_go(self, known: Known) -> bool:
        """Return whether an agent may make room for another: it is silent."""
        state = state_of(
            is_revoked=False,
            is_proven=bool(self._current(known)),
            heard_s=None if known.heard is None else self._parts.wall() - known.heard,
            every_s=self._every_s,
        )
        return state is State.SILENT

    def _current(self, known: Known) -> tuple[Result, ...]:
        """Return what stands for the key or lease that an agent has now."""
        if known.binding is None:
            return ()
        results = self._parts.attestations.current(known.binding)
        return tuple(each for each in results if each.app == known.app)

    def _look(self, now: float) -> dict[Key, tuple[Result, ...]]:
        """Meet who attested, forget who is long gone; return the results that stand, by agent."""
        standing: dict[Key, tuple[Result, ...]] = {}
        for each in self._parts.attestations.all():
            if now < each.expires:
                key = each.app, _name(each.app, each.spiffe_id, each.binding)
                standing[key] = (*standing.get(key, ()), each)
        for key, results in standing.items():
            self._attested_by(key, max(results, key=_at))
        self._table.forget(now - self._parts.limits.agent_kept_s)
        return standing

    def _attested_by(self, key: Key, newest: Result) -> None:
        app, name = key
        known = self._table.get(key)
        if known is None:
            known = Known(app, name, newest.spiffe_id, newest.serial, newest.binding, newest.at)
            self._table.add(known, self._may_go)
        elif newest.at > known.word:
            self._table.touch(known, newest.at)
            known.binding, known.serial = newest.binding, newest.serial

    def _view(self, known: Known, results: tuple[Result, ...], now: float) -> AgentView:
        heard_s = None if known.heard is None else max(0.0, now - known.heard)
        state = state_of(
            is_revoked=self._parts.is_revoked(known.app, known.spiffe_id, known.serial),
            is_proven=bool(results),
            heard_s=heard_s,
            every_s=self._every_s,
        )
        view = AgentView(
            agent=known.name,
            app=known.app,
            state=state,
            heartbeat_s=heard_s,
            claimed=known.claimed,
        )
        if not results:
            return view
        return structs.replace(
            view,
            level=max(each.level for each in results).name.lower(),
            attested_s=max(0.0, now - max(map(_at, results))),
            expires_s=max(each.expires for each in results) - now,
        )

    def _counted(self) -> Mapping[str, int]:
        """Return how many agents there are in each state."""
        now = self._parts.wall()
        if not 0 <= now - self._tallied < _TALLY_S:
            views = self.all(now)
            self._tallied = now
            self._tally = Counter(str(each.state) for each in views)
            attested = [each for each in views if each.level and each.state is not State.REVOKED]
            self._attested = len(attested)
        return self._tally

    def _share(self) -> float:
        total = sum(self._counted().values())
        return self._attested / total if total else 1.0


def _name(app: str, spiffe_id: str, binding: Binding | None) -> str:
    """Return what tells an agent from others of its app."""
    return spiffe_id or f"{app}/{'' if binding is None else binding.value}"


def _key(known: Known) -> Key:
    return known.app, known.name


def _at(result: Result) -> float:
    return result.at
