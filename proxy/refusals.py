"""The refusals that an app may still ask about: `/why/ID` and `NAME._why.sallyport.internal`.

Bounded twice: so many refusals of an app, so many apps; the one that was written to longest ago
makes room.  An app finds only its own refusals, never those of another.
"""

from collections import OrderedDict

from msgspec import Struct, structs

from proxy.flow import Plane
from proxy.limits import Limits
from proxy.metrics import Metrics
from rules.decision import Reason


class Refusal(Struct, frozen=True):
    """Why something was refused: `how` says what to do, `rule` is the rule's name or file:line.

    `target` is worded as in the audit line; `time` is Unix time in seconds.
    """

    id: str
    app: str
    plane: Plane
    reason: Reason
    target: str
    how: str
    rule: str | None
    time: float


class _Remembered(Struct):
    """One app's refusals; both tables have the same bound."""

    by_id: OrderedDict[str, Refusal]
    by_name: OrderedDict[str, Refusal]


class Refusals:
    """The last refusals of each app, by id and by the name that was refused."""

    def __init__(self, limits: Limits, metrics: Metrics | None = None) -> None:
        self._limits = limits
        self._metrics = metrics
        self._apps: OrderedDict[str, _Remembered] = OrderedDict()

    def remember(self, app: str, id: str, refusal: Refusal) -> None:  # noqa: A002 - the field's own name
        """Keep `refusal` under `id` and under its target's host name for `app`.

        Refusals that folded share an id: the last one is found under it.
        """
        if len(refusal.target) > self._limits.audit_target_characters:
            target = refusal.target[: self._limits.audit_target_characters]
            refusal = structs.replace(refusal, target=target)
        remembered = self._apps.get(app)
        if remembered is None:
            remembered = self._apps[app] = _Remembered(OrderedDict(), OrderedDict())
            self._bound(self._apps, "apps_remembered")
        else:
            self._apps.move_to_end(app)
        self._keep(remembered.by_id, id, refusal)
        self._keep(remembered.by_name, host_of(refusal.target), refusal)

    def get(self, app: str, id: str) -> Refusal | None:  # noqa: A002 - as above
        """Return what `app` was refused under `id`; None where that is another app's or gone."""
        remembered = self._apps.get(app)
        return None if remembered is None else remembered.by_id.get(id)

    def last(self, app: str, target_name: str) -> Refusal | None:
        """Return the last refusal of the host `target_name` for `app`, in any case, dot or not."""
        remembered = self._apps.get(app)
        return None if remembered is None else remembered.by_name.get(_fold(target_name))

    def _keep(self, table: OrderedDict[str, Refusal], key: str, refusal: Refusal) -> None:
        table[key] = refusal
        table.move_to_end(key)
        self._bound(table, "refusals_per_app")

    def _bound(
        self, table: OrderedDict[str, Refusal] | OrderedDict[str, _Remembered], limit: str
    ) -> None:
        if len(table) > getattr(self._limits, limit):
            table.popitem(last=False)
            if self._metrics is not None:
                self._metrics.bounds.add(limit)


def host_of(target: str) -> str:
    """Return the host in a target as `proxy.target` words it, in lower case.

    `NAME TYPE`, `HOST:PORT`, `[ADDRESS]:PORT`, `NAME ADDRESS`, `literal ADDRESS` and
    `METHOD http://HOST:PORT/PATH`; anything else is returned as it is.
    """
    _, scheme, rest = target.partition("://")
    if scheme:
        authority = rest.partition("/")[0]
    else:
        first, _, second = target.partition(" ")
        authority = second if first == "literal" else first
    if authority.startswith("["):
        return _fold(authority[1:].partition("]")[0])
    host, colon, port = authority.partition(":")
    return _fold(host if colon and ":" not in port else authority)


def _fold(name: str) -> str:
    return name.removesuffix(".").lower()
