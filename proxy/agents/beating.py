"""Heartbeats of agents, and which agents there are: who attests is one, who beats is one.

    POST /heartbeat {"health": "ok", "version": "1.2", "detail": ""}

What an agent says of itself is shown as that, and changes nothing else.
"""

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import batched, chain
from typing import Annotated, Protocol

from msgspec import Meta, Struct

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
_SLICE = 128  # results or agents that are looked at in half a millisecond
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
        self._counting: asyncio.Task[None] | None = None
        parts.metrics.agents.read_by(self._counted)
        parts.metrics.agents_attested.read_by(self._share)

    def routes(self) -> tuple[Route, ...]:
        """Return what answers agents."""
        summary = "Say that you live, and hear how you stand"
        return (Route("POST", "/heartbeat", summary, self._beat, takes=Heartbeat, gives=Heard),)

    async def all(self, now: float) -> tuple[AgentView, ...]:
        """Return how every agent is at `now`, in the order of their apps and names.

        It is found out a slice at a time: whatever else there is to do goes on meanwhile.
        """
        views: list[AgentView] = []
        for some in self._looked(now):
            views += some
            await asyncio.sleep(0)
        return tuple(sorted(views, key=lambda each: (each.app, each.agent)))

    def met(self, results: tuple[Result, ...], *, is_void: bool) -> None:  # noqa: ARG002 - it attested
        """Know who attested though nobody has looked while that counted: `Attestations.on_void`."""
        now = self._parts.wall()
        for each in results:
            key = each.app, _name(each.app, each.spiffe_id, each.binding)
            self._attested_by(key, each, now)

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
            if not self._table.add(known, self._may_go, now):
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

    def _looked(self, now: float) -> Iterator[list[AgentView]]:
        """Yield how agents are, after each slice of results and of agents that was looked at.

        Who attested is met, and who is long gone is forgotten.
        """
        standing: dict[Key, tuple[Result, ...]] = {}
        for results in batched(self._parts.attestations.all(), _SLICE):
            for each in results:
                if now < each.expires:
                    key = each.app, _name(each.app, each.spiffe_id, each.binding)
                    standing[key] = (*standing.get(key, ()), each)
                    self._attested_by(key, each, now)
            yield []
        self._table.forget(now - self._parts.limits.agent_kept_s)
        for agents in batched(self._table.all(), _SLICE):
            yield [self._view(each, standing.get(_key(each), ()), now) for each in agents]

    def _attested_by(self, key: Key, result: Result, now: float) -> None:
        app, name = key
        known = self._table.get(key)
        if known is None:
            known = Known(app, name, result.spiffe_id, result.serial, result.binding, result.at)
            self._table.add(known, self._may_go, now)
        elif result.at > known.word:
            self._table.touch(known, result.at)
            known.binding, known.serial = result.binding, result.serial

    def _view(self, known: Known, results: tuple[Result, ...], now: float) -> AgentView:
        heard_s = None if known.heard is None else max(0.0, now - known.heard)
        state = state_of(
            is_revoked=self._parts.is_revoked(known.app, known.spiffe_id, known.serial),
            is_proven=bool(results),
            heard_s=heard_s,
            every_s=self._every_s,
        )
        return AgentView(
            agent=known.name,
            app=known.app,
            state=state,
            level=max(each.level for each in results).name.lower() if results else None,
            attested_s=max(0.0, now - max(map(_at, results))) if results else None,
            expires_s=max(each.expires for each in results) - now if results else None,
            heartbeat_s=heard_s,
            claimed=known.claimed,
        )

    def _counted(self) -> Mapping[str, int]:
        """Return how many agents there are in each state.

        Where there are many it is how many there were before: they are counted once more, off the
        way of whoever asks.
        """
        now = self._parts.wall()
        if self._counting is None and not 0 <= now - self._tallied < _TALLY_S:
            self._tallied = now
            self._count(now)
        return self._tally

    def _count(self, now: float) -> None:
        if len(self._table) + len(self._parts.attestations.all()) <= _SLICE:
            self._tell(list(chain.from_iterable(self._looked(now))))
        else:
            self._counting = asyncio.get_running_loop().create_task(self._count_all(now))

    async def _count_all(self, now: float) -> None:
        try:
            self._tell(await self.all(now))
        finally:
            self._counting = None

    def _tell(self, views: Sequence[AgentView]) -> None:
        self._tally = Counter(str(each.state) for each in views)
        attested = [each for each in views if each.level and each.state is not State.REVOKED]
        self._attested = len(attested)

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
