"""What a running appliance says of itself: `sallyport status`, `app list`, `app show`.

The parts are asked when somebody asks, through the callables of `Sources`; nothing is kept here
but when each app was last seen, which is looked at once a second instead of on each decision.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

from msgspec import Struct

from proxy.audit import Audit
from proxy.audit_line import rfc3339
from proxy.canaries.live import LiveSecrets
from proxy.capabilities.exchange import Exchange
from proxy.control.agent_api import MountedApi
from proxy.control.agents import Shown, nobody
from proxy.control.attesters import Attesting
from proxy.control.identity import IdentityState, Issuing
from proxy.control.revocations import Revoking
from proxy.detection.live import LiveDetection
from proxy.metrics import Metrics, ReloadOutcome
from proxy.refusals import Refusals
from proxy.reload.table import NOTHING_LISTED, ListsInForce
from proxy.tokens.known import Token
from proxy.tokens.live import LiveTokens
from rules.decision import Verdict
from rules.facts import UNKNOWN_APP
from rules.ruleset import App, IdentityLine, Ruleset

_SOON_S = 604800.0  # a token that expires within a week is told of


class Reloaded(Struct, frozen=True, kw_only=True):
    """How the last reload ended; `time` is Unix time, `generation` the one in force since.

    With problems, that generation is of the files as they were before.
    """

    time: float
    generation: int
    outcome: ReloadOutcome
    problems: tuple[str, ...] = ()


class UpstreamState(Struct, frozen=True, kw_only=True):
    """An upstream resolver: `state` in one word, `text` what else there is to say."""

    name: str
    state: str
    zone: str | None = None
    text: str = ""


class Certificate(Struct, frozen=True, kw_only=True):
    """The server certificate; `not_after` is Unix time."""

    names: tuple[str, ...]
    not_after: float


class Sources(Struct, frozen=True, kw_only=True):
    """The parts of the appliance that are asked; what is absent is left out of the answers.

    `wall` returns Unix time, `started` is when we began; `entropy(n)` returns n random octets.
    """

    pid: int
    version: str
    enforcement: str
    started: float
    wall: Callable[[], float]
    entropy: Callable[[int], bytes]
    metrics: Metrics
    tokens: LiveTokens
    audit: Audit
    audit_file: Path
    refusals: Refusals
    ruleset: Callable[[], Ruleset]
    reload: Callable[[], Awaitable[Reloaded]]
    listening: Callable[[], Mapping[str, Sequence[str]]] = dict
    reloaded: Callable[[], Reloaded | None] = lambda: None
    upstreams: Callable[[], Sequence[UpstreamState]] = tuple
    certificate: Callable[[], Certificate | None] = lambda: None
    problems: Callable[[], Mapping[str, str]] = dict
    issuing: Callable[[], Issuing | None] = lambda: None
    revoking: Callable[[], Revoking | None] = lambda: None
    agent_api: Callable[[], MountedApi | None] = lambda: None
    agents: Shown = nobody
    attesting: Callable[[], Attesting | None] = lambda: None
    exchange: Callable[[], Exchange | None] = lambda: None
    detection: Callable[[], LiveDetection | None] = lambda: None
    secrets: Callable[[], LiveSecrets | None] = lambda: None
    listed: Callable[[], ListsInForce] = lambda: NOTHING_LISTED
    reading: Callable[[], str | None] = lambda: None


class TokenView(Struct, frozen=True, kw_only=True):
    """A token as it is shown: times in RFC 3339, never a secret."""

    id: str
    name: str
    purpose: str
    state: str
    created: str
    expires: str
    bind_uid: int | None
    rotated: str | None
    revoked: str | None


class AppSummary(Struct, frozen=True, kw_only=True):
    """One app in short; `decisions` counts since we started, by verdict."""

    name: str
    evidence: tuple[str, ...]
    rules: int
    decisions: dict[str, int]
    last_seen: str | None


class AppDetail(Struct, frozen=True, kw_only=True):
    """One app; each identity line is the keys that stand in it, `line` is its file:line."""

    name: str
    identity: tuple[dict[str, str | int], ...]
    allows: int
    denies: int
    decisions: dict[str, int]
    last_seen: str | None
    tokens: tuple[TokenView, ...]
    refusals: list[dict[str, object]]


class Status(Struct, frozen=True, kw_only=True):
    """Everything at a glance; `bounds` are the limits that were met, and how often.

    `reading` says how far the deny lists are read that a reload is about to bring into force.
    """

    pid: int
    version: str
    enforcement: str
    time: str
    uptime_s: float
    generation: int
    reload: dict[str, object] | None
    listen: dict[str, list[str]]
    upstreams: tuple[UpstreamState, ...]
    apps: tuple[AppSummary, ...]
    tokens: dict[str, int]
    tokens_expiring: tuple[TokenView, ...]
    certificate: dict[str, object] | None
    identity: IdentityState | None
    revoked: int
    audit: dict[str, object]
    bounds: dict[str, int]
    problems: dict[str, str]
    reading: str | None = None


class LastSeen:
    """When the decisions of each app last grew; as exact as `look` is called often."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._sums: dict[str, int] = {}
        self._seen: dict[str, float] = {}

    def look(self, now: float) -> None:
        """Notice which apps asked something since the last look; `now` is Unix time."""
        for app, totals in self._metrics.app_decisions.totals().items():
            decisions = sum(totals.values())
            if self._sums.get(app) != decisions:
                self._sums[app] = decisions
                self._seen[app] = now

    def of(self, app: str) -> str | None:
        """Return when `app` was last seen (RFC 3339); None where it was not since we started."""
        seen = self._seen.get(app)
        return None if seen is None else rfc3339(seen)


def status(sources: Sources, seen: LastSeen) -> Status:
    """Return everything at a glance."""
    now = sources.wall()
    views = [view(token, now) for token in sources.tokens.list()]
    soon = rfc3339(now + _SOON_S)
    issuing, revoking = sources.issuing(), sources.revoking()
    return Status(
        pid=sources.pid,
        version=sources.version,
        enforcement=sources.enforcement,
        time=rfc3339(now),
        uptime_s=round(now - sources.started, 3),
        generation=sources.ruleset().generation,
        reload=_reload(sources.reloaded()),
        listen={kind: list(each) for kind, each in sources.listening().items()},
        upstreams=tuple(sources.upstreams()),
        apps=summaries(sources, seen),
        tokens={
            state: sum(each.state == state for each in views)
            for state in ("valid", "expired", "revoked", "used")
        },
        tokens_expiring=tuple(
            each
            for each in views
            if each.state == "valid" and each.expires < soon and each.rotated is None
        ),
        certificate=_certificate(sources.certificate(), now),
        identity=None if issuing is None else issuing.state(),
        revoked=0 if revoking is None else len(revoking.revocations.list()),
        audit=_audit(sources),
        bounds=_bounds(sources.metrics),
        problems=problems(sources),
        reading=sources.reading(),
    )


def problems(sources: Sources) -> dict[str, str]:
    """Return what is wrong, by part; what /readyz says, and the tokens' file."""
    found = dict(sources.problems())
    if sources.tokens.problem is not None:
        found["tokens"] = sources.tokens.problem
    return found


def summaries(sources: Sources, seen: LastSeen) -> tuple[AppSummary, ...]:
    """Return every app of the rules, then `unknown` and `other` where they asked something."""
    apps = sources.ruleset().apps
    totals = sources.metrics.app_decisions.totals()
    names = [*sorted(apps), *sorted(totals.keys() - apps.keys())]
    return tuple(
        AppSummary(
            name=name,
            evidence=_evidence(app),
            rules=len(app.allows) + len(app.denies),
            decisions=_by_verdict(totals.get(name)),
            last_seen=seen.of(name),
        )
        for name, app in [(name, apps.get(name, App(name))) for name in names]
    )


def detail(
    sources: Sources, seen: LastSeen, name: str, refusals: list[dict[str, object]]
) -> AppDetail | None:
    """Return what there is to say of the app `name`; None where neither rules nor we know it."""
    totals = sources.metrics.app_decisions.totals()
    app = sources.ruleset().apps.get(name)
    if app is None and name != UNKNOWN_APP and name not in totals:
        return None
    app = App(name) if app is None else app
    now = sources.wall()
    of_app = {line.token for line in app.identity}
    tokens = [view(each, now) for each in sources.tokens.list() if each.name in of_app]
    return AppDetail(
        name=name,
        identity=tuple(_line(each) for each in app.identity),
        allows=len(app.allows),
        denies=len(app.denies),
        decisions=_by_verdict(totals.get(name)),
        last_seen=seen.of(name),
        tokens=tuple(tokens),
        refusals=refusals,
    )


def view(token: Token, now: float) -> TokenView:
    """Return `token` as it is shown at `now`."""
    return TokenView(
        id=token.id,
        name=token.name,
        purpose=token.purpose,
        state=token.state(now),
        created=rfc3339(token.created),
        expires=rfc3339(token.expires),
        bind_uid=token.bind_uid,
        rotated=None if token.rotated is None else rfc3339(token.rotated),
        revoked=None if token.revoked is None else rfc3339(token.revoked),
    )


def reload_view(reloaded: Reloaded) -> dict[str, object]:
    """Return how a reload ended, as it is shown."""
    return {
        "time": rfc3339(reloaded.time),
        "generation": reloaded.generation,
        "outcome": reloaded.outcome,
        "problems": list(reloaded.problems),
    }


def _reload(reloaded: Reloaded | None) -> dict[str, object] | None:
    return None if reloaded is None else reload_view(reloaded)


def _certificate(found: Certificate | None, now: float) -> dict[str, object] | None:
    if found is None:
        return None
    days = round((found.not_after - now) / 86400, 1)
    return {"names": list(found.names), "not_after": rfc3339(found.not_after), "days_left": days}


def _audit(sources: Sources) -> dict[str, object]:
    lines = sources.metrics.audit_lines
    counts = {outcome: lines.value(outcome) for outcome in ("written", "folded", "dropped")}
    return {"file": str(sources.audit_file), "problem": sources.audit.status(), **counts}


def _bounds(metrics: Metrics) -> dict[str, int]:
    names = metrics.bounds.row.labels["limit"]
    return {name: metrics.bounds.value(name) for name in names if metrics.bounds.value(name)}


def _by_verdict(totals: Mapping[Verdict, int] | None) -> dict[str, int]:
    return {str(verdict): (totals or {}).get(verdict, 0) for verdict in Verdict}


def _evidence(app: App) -> tuple[str, ...]:
    kinds = {
        "lease": any(line.lease for line in app.identity),
        "certificate": any(line.spiffe for line in app.identity),
        "token": any(line.token for line in app.identity),
        "listener": any(line.listener for line in app.identity),
        "process": any(line.is_process for line in app.identity),
    }
    return tuple(kind for kind, is_there in kinds.items() if is_there)


def _line(line: IdentityLine) -> dict[str, str | int]:
    keys = ("lease", "spiffe", "token", "listener", "uid", "cgroup", "exe_sha256")
    values = {key: getattr(line, key) for key in keys}
    return {"line": line.id, **{key: each for key, each in values.items() if each is not None}}
