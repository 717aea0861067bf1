"""Counting, and how counts are shown: this is the only file that knows Prometheus.

Counting is one dict increment without a lock, so that it may stand on a hot path; call it from
the loop's thread only.  A label value outside its closed set is a bug of ours.  It is counted as
`other`, and a warning is raised, which the tests turn into an error (filterwarnings) and
production prints once.
"""

import warnings
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import product
from math import prod
from typing import override

from msgspec import Struct
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from rules.decision import Reason, Verdict
from rules.facts import UNKNOWN_APP

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""The media type of `Page.render`: the Prometheus text format, which every scraper reads."""

OTHER = "other"

_SERIES_FROM_THE_START = 40
_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class Row(Struct, frozen=True):
    """One metric as the manual lists it; `labels` maps a label to its closed set of values."""

    name: str
    kind: str
    labels: Mapping[str, tuple[str, ...]]
    help: str


class Count[*Labels]:
    """A counter over labels with closed value sets."""

    def __init__(self, name: str, text: str, **labels: Iterable[str]) -> None:
        closed = {label: tuple(str(value) for value in values) for label, values in labels.items()}
        self.row = Row(name, "counter", closed, text)
        self._values: dict[tuple[*Labels] | tuple[str, ...], int] = {}
        # A series that appears with its first count has no rate() of that count: few stand at 0.
        if prod(map(len, closed.values())) <= _SERIES_FROM_THE_START:
            self._values = dict.fromkeys(product(*closed.values()), 0)
        self.before_read: Callable[[], None] | None = None

    def add(self, *labels: *Labels, n: int = 1) -> None:
        """Count `n` more under these label values."""
        try:
            self._values[labels] += n
        except KeyError:
            self._first(labels, n)

    def value(self, *labels: *Labels) -> int:
        """Return what was counted under these label values."""
        if self.before_read is not None:
            self.before_read()
        return self._values.get(labels, 0)

    def family(self) -> Metric:
        """Return the counter in the form that Prometheus renders."""
        if self.before_read is not None:
            self.before_read()
        family = CounterMetricFamily(self.row.name, self.row.help, labels=tuple(self.row.labels))
        for labels, value in sorted(self._values.items()):
            family.add_metric([str(label) for label in labels], value)
        return family

    def _first(self, labels: tuple[object, ...], n: int) -> None:
        closed = tuple(self.row.labels.values())
        words = tuple(str(label) for label in labels)
        fitted = tuple(
            word if word in values else OTHER
            for word, values in zip(
                (*words, *[OTHER] * len(closed))[: len(closed)], closed, strict=True
            )
        )
        if fitted != words:
            text = f"{self.row.name}: {words} is outside the closed label sets"
            warnings.warn(text, RuntimeWarning, stacklevel=3)
        self._values[fitted] = self._values.get(fitted, 0) + n


class AppCount:
    """Decisions of each app; shown only to who may know which apps there are.

    An app that the rules do not name is counted as `other`; so is one beyond `most` of them, and
    `at_most` is called then.  What an app counted stays when the rules forget it.
    """

    def __init__(self, most: int, at_most: Callable[[], None]) -> None:
        labels = {"app": (UNKNOWN_APP, OTHER), "verdict": (*Verdict,), "reason": (*Reason,)}
        name, text = "sallyport_app_decisions_total", "Decisions, by the app that asked."
        closed = {label: tuple(str(value) for value in values) for label, values in labels.items()}
        self.row = Row(name, "counter", closed, text)
        self.before_read: Callable[[], None] | None = None
        self._most = most
        self._at_most = at_most
        self._names: frozenset[str] = frozenset({UNKNOWN_APP})
        self._counted: set[str] = set()  # apps that have a series
        self._values: dict[tuple[str, Verdict, Reason], int] = {}

    def use(self, names: Iterable[str]) -> None:
        """Know these apps of the rules from now on, and `unknown`."""
        self._names = frozenset({*names, UNKNOWN_APP})

    def add(self, app: str, verdict: Verdict, reason: Reason, n: int = 1) -> None:
        """Count `n` more decisions of `app`."""
        try:
            self._values[app, verdict, reason] += n
        except KeyError:
            key = (self._fitted(app), verdict, reason)
            self._values[key] = self._values.get(key, 0) + n

    def totals(self) -> dict[str, dict[Verdict, int]]:
        """Return how many decisions of each verdict there were, by app."""
        if self.before_read is not None:
            self.before_read()
        found: dict[str, dict[Verdict, int]] = {}
        for (app, verdict, _), value in self._values.items():
            of_app = found.setdefault(app, dict.fromkeys(Verdict, 0))
            of_app[verdict] += value
        return found

    def family(self) -> Metric:
        """Return the counter in the form that Prometheus renders."""
        if self.before_read is not None:
            self.before_read()
        family = CounterMetricFamily(self.row.name, self.row.help, labels=tuple(self.row.labels))
        for labels, value in sorted(self._values.items()):
            family.add_metric([str(label) for label in labels], value)
        return family

    def _fitted(self, app: str) -> str:
        if app not in self._names and app not in self._counted:
            return OTHER
        if app not in self._counted and len(self._counted) >= self._most:
            self._at_most()
            return OTHER
        self._counted.add(app)
        return app


class Gauge:
    """A number that goes up and down."""

    def __init__(self, name: str, text: str) -> None:
        self.row = Row(name, "gauge", {}, text)
        self.value = 0
        self._read: Callable[[], float] | None = None

    def add(self, n: int = 1) -> None:
        """Add `n`, which may be negative."""
        self.value += n

    def set(self, value: int) -> None:
        """Make `value` the present one."""
        self.value = value

    def read_by(self, read: Callable[[], float]) -> None:
        """Ask `read` for the value whenever somebody wants to know it."""
        self._read = read

    def family(self) -> Metric:
        """Return the gauge in the form that Prometheus renders."""
        value = self.value if self._read is None else self._read()
        return GaugeMetricFamily(self.row.name, self.row.help, value=value)


class Gauges:
    """A number for each value of one label, which is asked for when it is read."""

    def __init__(self, name: str, text: str, label: str, values: Iterable[str]) -> None:
        self.row = Row(name, "gauge", {label: tuple(values)}, text)
        self._label = label
        self._read: Callable[[], Mapping[str, float]] = dict

    def read_by(self, read: Callable[[], Mapping[str, float]]) -> None:
        """Ask `read` for the numbers by value whenever somebody wants to know them."""
        self._read = read

    def family(self) -> Metric:
        """Return the gauges in the form that Prometheus renders; what is not told is 0."""
        family = GaugeMetricFamily(self.row.name, self.row.help, labels=(self._label,))
        found = self._read()
        for value in self.row.labels[self._label]:
            family.add_metric([value], found.get(value, 0))
        return family


class Elsewhere:
    """A counter that others keep: each of `sources` is asked when it is read."""

    def __init__(self, name: str, text: str) -> None:
        self.row = Row(name, "counter", {}, text)
        self.sources: list[Callable[[], int]] = []

    @property
    def value(self) -> int:
        """The sum of what the sources say now."""
        return sum(read() for read in self.sources)

    def family(self) -> Metric:
        """Return the counter in the form that Prometheus renders."""
        return CounterMetricFamily(self.row.name, self.row.help, value=self.value)


class Histogram:
    """How durations spread, in seconds."""

    def __init__(self, name: str, text: str, bounds: tuple[float, ...] = _SECONDS) -> None:
        self.row = Row(name, "histogram", {}, text)
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, seconds: float) -> None:
        """Count one duration."""
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self._sum += seconds

    def family(self) -> Metric:
        """Return the histogram in the form that Prometheus renders: cumulative buckets."""
        buckets: list[tuple[str, float]] = []
        total = 0
        for bound, count in zip((*self._bounds, "+Inf"), self._counts, strict=True):
            total += count
            buckets.append((str(bound), total))
        return HistogramMetricFamily(
            self.row.name, self.row.help, buckets=buckets, sum_value=self._sum
        )


class Build:
    """What runs, as labels of a gauge that is always 1."""

    def __init__(self, name: str, text: str, version: str) -> None:
        self.row = Row(name, "gauge", {"version": (version,)}, text)

    def family(self) -> Metric:
        """Return the gauge in the form that Prometheus renders."""
        family = GaugeMetricFamily(self.row.name, self.row.help, labels=tuple(self.row.labels))
        family.add_metric([values[0] for values in self.row.labels.values()], 1)
        return family


type Kind = Count[*tuple[object, ...]] | AppCount | Elsewhere | Gauge | Gauges | Histogram | Build
"""Whatever stands on a page."""


class Page(Collector):
    """A page of metrics; `kinds` gives them in their order."""

    def __init__(self, kinds: Callable[[], Iterable[Kind]]) -> None:
        self._kinds = kinds
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    @override
    def collect(self) -> Iterator[Metric]:
        """Yield every metric, as `prometheus_client` asks for it."""
        for metric in self._kinds():
            yield metric.family()

    def render(self) -> bytes:
        """Return what a scraper reads, in the media type `CONTENT_TYPE`."""
        return generate_latest(self._registry)
