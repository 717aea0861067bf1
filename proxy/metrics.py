"""Every metric of the appliance: name, help, labels and their closed value sets.

The planes count through the `Metrics` object that they are given and do not know Prometheus:
this is the only file that imports it (import-linter holds that).  Counting is one dict
increment without a lock, so that it may stand on a hot path; call it from the loop's thread
only.  No label names an app but those of `AppCount`, which a scraper's token opens: whoever can
reach the listener may read the rest.

A label value outside its closed set is a bug of ours.  It is counted as `other`, and a warning
is raised, which the tests turn into an error (filterwarnings) and production prints once.
"""

import warnings
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import product
from math import prod
from typing import Literal, override

from msgspec import Struct
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from proxy.limits import Limits
from rules.decision import Reason, Verdict
from rules.facts import UNKNOWN_APP

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""The media type of `Metrics.render`: the Prometheus text format, which every scraper reads."""

OTHER = "other"

type DnsTransport = Literal["udp", "tcp", "dot", "doh"]
type DnsOutcome = Literal["answered", "refused", "failed", "truncated", "malformed", "dropped"]
type CacheOutcome = Literal["hit", "miss", "evicted", "renewed"]
type UpstreamTransport = Literal["udp", "tcp", "dot", "doh"]
type UpstreamOutcome = Literal[
    "answered",
    "timeout",
    "unreachable",
    "tls",
    "malformed",
    "mismatched",
    "servfail",
    "hedged",
    "retried",
]
type UpstreamState = Literal["closed", "open", "half-open"]
type RequestKind = Literal["connect", "forward", "internal"]
type RequestOutcome = Literal["allowed", "refused", "failed"]
type Direction = Literal["up", "down"]
type ListenerKind = Literal["do53", "dot", "doh", "proxy", "proxy_tls", "metrics", "control"]
type ConnectionOutcome = Literal["accepted", "refused"]
type PinOutcome = Literal["pinned", "evicted", "renewed"]
type ReloadOutcome = Literal["changed", "unchanged", "failed"]
type AuditOutcome = Literal["written", "folded", "dropped"]

_SERIES_FROM_THE_START = 40
_CUTS = (*Reason, "idle", "life", "half-closed", "shutdown")
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


class AppCount(Collector):
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

    @override
    def collect(self) -> Iterator[Metric]:
        """Yield the counter in the form that Prometheus renders."""
        if self.before_read is not None:
            self.before_read()
        family = CounterMetricFamily(self.row.name, self.row.help, labels=tuple(self.row.labels))
        for labels, value in sorted(self._values.items()):
            family.add_metric([str(label) for label in labels], value)
        yield family

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
        self._read: Callable[[], int] | None = None

    def add(self, n: int = 1) -> None:
        """Add `n`, which may be negative."""
        self.value += n

    def set(self, value: int) -> None:
        """Make `value` the present one."""
        self.value = value

    def read_by(self, read: Callable[[], int]) -> None:
        """Ask `read` for the value whenever somebody wants to know it."""
        self._read = read

    def family(self) -> Metric:
        """Return the gauge in the form that Prometheus renders."""
        value = self.value if self._read is None else self._read()
        return GaugeMetricFamily(self.row.name, self.row.help, value=value)


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


class Metrics(Collector):
    """All metrics; one object for the appliance's life, handed to whoever counts."""

    def __init__(self, version: str = "unknown", apps: int = Limits().apps_remembered) -> None:
        """`apps` is how many apps have series of their own."""
        self.decisions: Count[str, Verdict, Reason] = Count(
            "sallyport_decisions_total",
            "Decisions, by what was asked, the verdict and its reason.",
            fact=("question", "connect", "endpoint", "request"),
            verdict=Verdict,
            reason=Reason,
        )
        self._count_resolver()
        self._count_egress()
        self._count_evidence()
        self.connections: Count[ListenerKind, ConnectionOutcome] = Count(
            "sallyport_connections_total",
            "Stream connections to our listeners.",
            listener=("do53", "dot", "doh", "proxy", "proxy_tls", "metrics", "control"),
            outcome=("accepted", "refused"),
        )
        self.bounds: Count[str] = Count(
            "sallyport_bounds_total",
            "Times that a limit was met; the label is its name under `limits:`.",
            limit=Limits.__struct_fields__,
        )
        self.generation = Gauge("sallyport_generation", "Generation of the rules in force.")
        self.reloads: Count[ReloadOutcome] = Count(
            "sallyport_reloads_total",
            "Times that rule files were read again, by what came of it.",
            outcome=("changed", "unchanged", "failed"),
        )
        self.rule_problems = Gauge(
            "sallyport_rule_problems",
            "Errors in the rule files; while there are any, the last good rules are in force.",
        )
        self.build = Build("sallyport_build_info", "Always 1; the version is a label.", version)
        self.app_decisions = AppCount(apps, lambda: self.bounds.add("apps_remembered"))
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        self._of_apps = CollectorRegistry(auto_describe=False)
        self._of_apps.register(self.app_decisions)

    def _count_resolver(self) -> None:
        self.dns_queries: Count[DnsTransport, DnsOutcome] = Count(
            "sallyport_dns_queries_total",
            "Queries from agents, by how they ended.",
            transport=("udp", "tcp", "dot", "doh"),
            outcome=("answered", "refused", "failed", "truncated", "malformed", "dropped"),
        )
        self.cache: Count[CacheOutcome] = Count(
            "sallyport_dns_cache_total",
            "Look-ups in the caches of answers, entries evicted, and entries kept over a reload.",
            outcome=("hit", "miss", "evicted", "renewed"),
        )
        self.upstream: Count[UpstreamTransport, UpstreamOutcome] = Count(
            "sallyport_upstream_queries_total",
            "Queries to upstream resolvers, by how they ended.",
            transport=("udp", "tcp", "dot", "doh"),
            outcome=(
                *("answered", "timeout", "unreachable", "tls", "malformed"),
                *("mismatched", "servfail", "hedged", "retried"),
            ),
        )
        self.upstream_s = Histogram(
            "sallyport_upstream_seconds", "Time that upstream resolvers took to answer."
        )
        self.upstreams_open = Gauge(
            "sallyport_upstreams_open",
            "Upstream resolvers that are passed over, or tried again, after failures in a row.",
        )
        self.upstream_states: Count[UpstreamTransport, UpstreamState] = Count(
            "sallyport_upstream_states_total",
            "Times that an upstream resolver came into a state.",
            transport=("udp", "tcp", "dot", "doh"),
            state=("closed", "open", "half-open"),
        )
        self.pins: Count[PinOutcome] = Count(
            "sallyport_pins_total",
            "Addresses pinned to a name for an app, pins evicted, and pins kept over a reload.",
            outcome=("pinned", "evicted", "renewed"),
        )

    def _count_egress(self) -> None:
        self.proxy_requests: Count[RequestKind, RequestOutcome] = Count(
            "sallyport_proxy_requests_total",
            "HTTP requests to the proxy: tunnels, plain requests, and those to ourselves.",
            kind=("connect", "forward", "internal"),
            outcome=("allowed", "refused", "failed"),
        )
        self.tunnels = Gauge("sallyport_tunnels", "Tunnels that are open.")
        self.tunnel_cuts: Count[str] = Count(
            "sallyport_tunnel_cuts_total",
            "Tunnels that were cut by us, by reason or by the limit that ended them.",
            reason=_CUTS,
        )
        self.octets: Count[Direction] = Count(
            "sallyport_octets_total",
            "Octets of payload relayed, from agents (up) and to them (down).",
            direction=("up", "down"),
        )

    def _count_evidence(self) -> None:
        self.audit_lines: Count[AuditOutcome] = Count(
            "sallyport_audit_lines_total",
            "Audit lines written, repeats folded into a line, and lines lost.",
            outcome=("written", "folded", "dropped"),
        )
        self.audit_octets: Count[()] = Count(
            "sallyport_audit_octets_total", "Octets written to the audit file."
        )
        self.audit_available = Gauge(
            "sallyport_audit_available", "1 while audit lines can be written, else 0."
        )
        self.audit_available.set(1)
        self.certificate_not_after = Gauge(
            "sallyport_certificate_not_after_seconds",
            "When the certificate of our TLS listeners ends, in seconds since 1970; 0 without one.",
        )

    @override
    def collect(self) -> Iterator[Metric]:
        """Yield every metric, as `prometheus_client` asks for it."""
        for metric in self._all():
            yield metric.family()

    def render(self, *, apps: bool = False) -> bytes:
        """Return the page that a scraper reads, in the media type `CONTENT_TYPE`.

        With `apps` it names apps: that is for who showed a token for it.
        """
        page = generate_latest(self._registry)
        return page + generate_latest(self._of_apps) if apps else page

    def settle_by(self, settle: Callable[[], None]) -> None:
        """Call `settle` before a counter is read: it adds what was counted elsewhere meanwhile.

        The hottest paths count on values of their own, and exactly: nobody can read the difference.
        """
        for metric in vars(self).values():
            if isinstance(metric, Count | AppCount):
                metric.before_read = settle

    def table(self) -> tuple[Row, ...]:
        """Return what the manual lists: every metric, in the order of the page."""
        return (*(metric.row for metric in self._all()), self.app_decisions.row)

    def _all(self) -> Iterator[Count[*tuple[object, ...]] | Gauge | Histogram | Build]:
        for metric in vars(self).values():
            if isinstance(metric, Count | Gauge | Histogram | Build):
                yield metric
