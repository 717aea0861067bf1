"""Which names were answered with our address lately, so that who connects can be told why."""

from collections import OrderedDict

from msgspec import Struct

from proxy.limits import Limits
from proxy.metrics import Metrics
from rules.decision import Decision
from rules.name import DomainName


class Told(Struct, frozen=True):
    """`app` was given our address for `name` at `at` (Unix time) in the refusal `id`."""

    app: str
    name: DomainName
    id: str
    decision: Decision
    at: float


class Names:
    """The last names of each app: `limits.sinkhole_names` of `apps_remembered` apps.

    At either bound the one that was told longest ago makes room, which is counted.
    """

    def __init__(self, limits: Limits, metrics: Metrics) -> None:
        self._limits = limits
        self._metrics = metrics
        self._apps: OrderedDict[str, OrderedDict[DomainName, Told]] = OrderedDict()

    def add(self, told: Told) -> None:
        """Remember `told`."""
        names = self._apps.setdefault(told.app, OrderedDict())
        self._apps.move_to_end(told.app)
        names[told.name] = told
        names.move_to_end(told.name)
        if len(names) > self._limits.sinkhole_names:
            names.popitem(last=False)
            self._metrics.bounds.add("sinkhole_names")
        if len(self._apps) > self._limits.apps_remembered:
            self._apps.popitem(last=False)
            self._metrics.bounds.add("apps_remembered")

    def find(self, app: str | None, name: DomainName, now: float) -> Told | None:
        """Return what `app` was told of `name` lately; with None the last of whatever app."""
        among = list(self._apps) if app is None else [app]
        found = [each for each in map(self._apps.get, among) if each is not None and name in each]
        last = max((each[name] for each in found), key=lambda each: each.at, default=None)
        is_late = last is not None and now - last.at > self._limits.sinkhole_told_s
        return None if is_late else last
