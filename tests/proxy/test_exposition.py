"""Counting with closed label sets, and the page that Prometheus reads."""

import pytest

from proxy.exposition import (
    OTHER,
    AppCount,
    Build,
    Count,
    Elsewhere,
    Gauge,
    Gauges,
    Histogram,
    Kind,
    Page,
)
from rules.decision import Reason, Verdict


def shown(*kinds: Kind) -> str:
    return Page(lambda: kinds).render().decode()


def test_a_count_of_few_series_stands_at_zero() -> None:
    count: Count[str] = Count("a_total", "A.", way=("up", "down"))
    count.add("up", n=3)
    assert count.value("up") == 3
    page = shown(count)
    assert 'a_total{way="up"} 3.0' in page
    assert 'a_total{way="down"} 0.0' in page


def test_a_value_outside_its_set_is_other_and_a_bug_of_ours() -> None:
    count: Count[str] = Count("a_total", "A.", way=("up", "down"))
    with pytest.warns(RuntimeWarning, match="outside the closed label sets"):
        count.add("sideways")
    assert count.value(OTHER) == 1


def test_what_is_counted_elsewhere_is_asked_for_when_it_is_read() -> None:
    count = Elsewhere("a_total", "A.")
    assert count.value == 0
    count.sources += [lambda: 2, lambda: 3]
    assert count.value == 5
    assert "a_total 5.0" in shown(count)


def test_a_count_is_settled_before_it_is_read() -> None:
    count: Count[()] = Count("a_total", "A.")
    count.before_read = lambda: count.add(n=2)
    assert count.value() == 2
    assert "a_total 4.0" in shown(count)


def test_a_gauge_goes_both_ways_or_is_read() -> None:
    gauge = Gauge("a", "A.")
    gauge.set(5)
    gauge.add(-2)
    assert "a 3.0" in shown(gauge)
    gauge.read_by(lambda: 7)
    assert "a 7.0" in shown(gauge)


def test_gauges_are_read_for_each_value_of_their_label() -> None:
    gauges = Gauges("a", "A.", "way", ("up", "down"))
    assert 'a{way="up"} 0.0' in shown(gauges)
    gauges.read_by(lambda: {"up": 0.5, "sideways": 3})
    page = shown(gauges)
    assert 'a{way="up"} 0.5' in page
    assert 'a{way="down"} 0.0' in page
    assert "sideways" not in page


def test_a_histogram_has_cumulative_buckets() -> None:
    histogram = Histogram("a_seconds", "A.", (0.1, 1.0))
    for seconds in (0.05, 0.5, 5.0):
        histogram.observe(seconds)
    page = shown(histogram)
    assert 'a_seconds_bucket{le="0.1"} 1.0' in page
    assert 'a_seconds_bucket{le="1.0"} 2.0' in page
    assert 'a_seconds_bucket{le="+Inf"} 3.0' in page
    assert "a_seconds_sum 5.55" in page


def test_the_build_is_a_label() -> None:
    assert 'a{version="1.2.3"} 1.0' in shown(Build("a", "A.", "1.2.3"))


def test_apps_are_those_of_the_rules_or_other() -> None:
    met: list[str] = []
    count = AppCount(1, lambda: met.append("bound"))
    count.use(["coder", "builder"])
    for app in ("coder", "coder", "nobody", "builder"):
        count.add(app, Verdict.ALLOW, Reason.RULE)
    assert count.totals()["coder"][Verdict.ALLOW] == 2
    assert count.totals()[OTHER][Verdict.ALLOW] == 2
    assert met == ["bound"]
    assert 'app="coder",reason="rule",verdict="allow"} 2.0' in shown(count)
