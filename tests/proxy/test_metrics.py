import re
import timeit

import pytest
from prometheus_client.parser import text_string_to_metric_families

from proxy.limits import Limits
from proxy.metrics import CONTENT_TYPE, Metrics
from rules.decision import Reason, Verdict


def samples(metrics: Metrics) -> dict[str, float]:
    """Return what a scraper reads, by the name and labels of each series."""
    page = metrics.render().decode()
    return {
        sample.name
        + "".join(f" {value}" for _, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def test_counts_what_is_added() -> None:
    metrics = Metrics()
    metrics.decisions.add("question", Verdict.DENY, Reason.HOST_NOT_LISTED)
    metrics.decisions.add("question", Verdict.DENY, Reason.HOST_NOT_LISTED)
    metrics.octets.add("up", n=1000)
    metrics.audit_octets.add(n=7)
    read = samples(metrics)
    assert read["sallyport_decisions_total question host-not-listed deny"] == 2
    assert read["sallyport_octets_total up"] == 1000
    assert read["sallyport_audit_octets_total"] == 7
    assert metrics.octets.value("up") == 1000
    assert metrics.decisions.value("connect", Verdict.ALLOW, Reason.RULE) == 0


def test_a_series_of_few_stands_at_zero_before_its_first_count() -> None:
    read = samples(Metrics())
    assert read["sallyport_dns_cache_total evicted"] == 0
    assert read["sallyport_upstream_queries_total mismatched dot"] == 0
    assert not [name for name in read if name.startswith("sallyport_decisions")]


def test_a_gauge_goes_up_and_down() -> None:
    metrics = Metrics()
    metrics.tunnels.add()
    metrics.tunnels.add(3)
    metrics.tunnels.add(n=-1)
    metrics.generation.set(4)
    read = samples(metrics)
    assert (read["sallyport_tunnels"], read["sallyport_generation"]) == (3, 4)


def test_a_histogram_is_cumulative_and_holds_what_is_beyond_its_last_bound() -> None:
    metrics = Metrics()
    for seconds in (0.001, 0.02, 60.0):
        metrics.upstream_s.observe(seconds)
    read = samples(metrics)
    assert read["sallyport_upstream_seconds_bucket 0.001"] == 1
    assert read["sallyport_upstream_seconds_bucket 0.025"] == 2
    assert read["sallyport_upstream_seconds_bucket 5.0"] == 2
    assert read["sallyport_upstream_seconds_bucket +Inf"] == 3
    assert read["sallyport_upstream_seconds_count"] == 3
    assert read["sallyport_upstream_seconds_sum"] == pytest.approx(60.021)


def test_the_version_is_a_label() -> None:
    assert samples(Metrics("1.2.3"))["sallyport_build_info 1.2.3"] == 1


def test_a_label_outside_its_set_warns_and_is_counted_as_other() -> None:
    metrics = Metrics()
    with pytest.warns(RuntimeWarning, match="outside the closed label sets"):
        metrics.bounds.add("no_such_limit")
    with pytest.warns(RuntimeWarning, match="sallyport_connections_total"):
        metrics.connections.add("do53", "lost")  # type: ignore[arg-type]  # the bug under test
    read = samples(metrics)
    assert read["sallyport_bounds_total other"] == 1
    assert read["sallyport_connections_total do53 other"] == 1


@pytest.mark.parametrize("labels", [(), ("hit", "more")])
def test_a_wrong_number_of_labels_does_not_break_the_page(labels: tuple[str, ...]) -> None:
    metrics = Metrics()
    with pytest.warns(RuntimeWarning, match="sallyport_dns_cache_total"):
        metrics.cache.add(*labels)  # type: ignore[arg-type]  # the bug under test
    assert sum(value for name, value in samples(metrics).items() if "_cache_" in name) == 1


def test_every_limit_has_a_bound_to_count() -> None:
    metrics = Metrics()
    for name in Limits.__struct_fields__:
        metrics.bounds.add(name)
    read = samples(metrics)
    assert all(read[f"sallyport_bounds_total {name}"] == 1 for name in Limits.__struct_fields__)


@pytest.mark.parametrize(
    "reason", ["sni-mismatch", "ech", "idle", "life", "half-closed", "shutdown"]
)
def test_a_cut_is_counted_by_its_reason(reason: str) -> None:
    metrics = Metrics()
    metrics.tunnel_cuts.add(reason)
    assert samples(metrics)[f"sallyport_tunnel_cuts_total {reason}"] == 1


def test_the_table_lists_what_the_page_holds() -> None:
    metrics = Metrics()
    page = metrics.render(apps=True).decode()
    named = re.findall(r"^# TYPE (\S+) (\S+)$", page, re.MULTILINE)
    assert [(row.name, row.kind) for row in metrics.table()] == named
    assert all(
        row.name.startswith("sallyport_") and row.help.endswith(".") for row in metrics.table()
    )


def test_no_label_names_an_app_unless_it_is_asked_for() -> None:
    """threats.md, "Identity": the agent reads metrics with labels of other apps."""
    metrics = Metrics()
    metrics.app_decisions.use(["coder"])
    metrics.app_decisions.add("coder", Verdict.ALLOW, Reason.RULE)
    series = 'sallyport_app_decisions_total{app="coder",reason="rule",verdict="allow"} 1.0'
    assert b"coder" not in metrics.render()
    assert b"sallyport_app_" not in metrics.render()
    assert series in metrics.render(apps=True).decode().replace("\n", " ")
    page = metrics.render(apps=True).decode()
    assert len(re.findall("^# TYPE", page, re.MULTILINE)) == len(metrics.table())


def test_apps_that_the_rules_do_not_name_are_other() -> None:
    metrics = Metrics()
    count = metrics.app_decisions
    count.use(["coder"])
    for app in ("coder", "unknown", "stranger", "coder"):
        count.add(app, Verdict.DENY, Reason.RULE, n=2)
    count.use([])  # the rules forget it: what it counted stays and grows
    count.add("coder", Verdict.ALLOW, Reason.LOCAL)
    totals = {app: dict(each) for app, each in count.totals().items()}
    assert totals["coder"] == {Verdict.ALLOW: 1, Verdict.DENY: 4, Verdict.FAIL: 0}
    assert totals["other"][Verdict.DENY] == totals["unknown"][Verdict.DENY] == 2
    count.add("coder", Verdict.FAIL, Reason.CAPACITY)
    assert count.totals()["coder"][Verdict.FAIL] == 1


def test_apps_beyond_the_bound_are_other_and_counted() -> None:
    metrics = Metrics(apps=2)
    metrics.app_decisions.use(["a", "b", "c"])
    for app in ("a", "b", "c", "a"):
        metrics.app_decisions.add(app, Verdict.DENY, Reason.RULE)
    assert sorted(metrics.app_decisions.totals()) == ["a", "b", "other"]
    assert metrics.bounds.value("apps_remembered") == 1


def test_what_is_counted_elsewhere_is_settled_before_apps_are_read() -> None:
    metrics = Metrics()
    metrics.settle_by(lambda: metrics.app_decisions.add("unknown", Verdict.DENY, Reason.RULE))
    assert metrics.app_decisions.totals()["unknown"][Verdict.DENY] == 1
    before = metrics.app_decisions.totals()["unknown"][Verdict.DENY]
    assert f'app="unknown",reason="rule",verdict="deny"}} {before}.0' not in str(
        metrics.render(apps=True)
    )


def test_the_page_is_in_the_format_that_its_media_type_says() -> None:
    assert CONTENT_TYPE.startswith("text/plain; version=0.0.4")
    assert Metrics().render().endswith(b"\n")


def test_reports_what_counting_costs(report: list[str]) -> None:
    metrics = Metrics()
    number = 20_000
    seconds = min(timeit.repeat(lambda: metrics.cache.add("hit"), number=number, repeat=3))
    report.append(f"metrics: one count costs {seconds / number * 1e6:.2f} us")
    assert metrics.cache.value("hit") == 3 * number


def test_a_gauge_may_be_read_from_its_source() -> None:
    metrics = Metrics()
    assert b"sallyport_audit_available 1.0" in metrics.render()
    metrics.audit_available.read_by(lambda: 0)
    assert b"sallyport_audit_available 0.0" in metrics.render()
