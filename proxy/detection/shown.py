"""What is known of the look-ups below a suffix, as it is shown: `sallyport tunnels`."""

from typing import TYPE_CHECKING

from msgspec import Struct, structs

from proxy.audit_line import rfc3339
from proxy.detection.hold import HeldSuffix

if TYPE_CHECKING:
    from rules.detector import State

HELD, ALERTING, WATCHED = "held", "alerting", "watched"


class TunnelView(Struct, frozen=True, kw_only=True):
    """A suffix of an app; octets by window, `since` in RFC 3339.

    What it is held for: by `rule`, `reached` octets of at most `limit`, the audit line's `id`; then
    evidence and samples are as they were.
    """

    app: str
    suffix: str
    state: str
    tier: str = ""
    octets: dict[str, int] = {}
    answers: dict[str, int] = {}
    choice: dict[str, int] = {}
    names: int = 0
    queries: int = 0
    since: str | None = None
    id: str | None = None
    rule: str = ""
    reached: int | None = None
    limit: int | None = None
    evidence: dict[str, float] = {}
    samples: tuple[str, ...] = ()


def of_hold(hold: HeldSuffix) -> TunnelView:
    """Return what is held and not counted any more."""
    return _held(TunnelView(app=hold.app, suffix=hold.suffix, state=HELD, tier=hold.tier), hold)


def of_state(state: "State", hold: HeldSuffix | None) -> TunnelView:
    """Return what was counted; `hold`: it is held as well."""
    view = TunnelView(
        app=state.app,
        suffix=state.suffix,
        state=ALERTING if state.alerting else WATCHED,
        tier=state.tier,
        octets=state.octets,
        answers=state.answers,
        choice=state.choice,
        names=state.names,
        queries=state.queries,
        evidence=state.evidence,
        samples=state.samples,
    )
    return view if hold is None else _held(view, hold)


def _held(view: TunnelView, hold: HeldSuffix) -> TunnelView:
    return structs.replace(
        view,
        state=HELD,
        since=rfc3339(hold.at),
        id=hold.id,
        rule=hold.rule,
        reached=hold.octets,
        limit=hold.limit,
        evidence=hold.evidence,
        samples=hold.samples,
    )
