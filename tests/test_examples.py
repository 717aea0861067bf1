"""docs/examples: every file is what its program takes, and speaks of metrics that exist."""

import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from proxy.locations import read_settings
from proxy.metrics import AppCount, Metrics, Row
from tests.internet import need
from tests.live.appliance import ROOT

EXAMPLES = ROOT / "docs" / "examples"
RULES = EXAMPLES / "prometheus-rules.yml"
OF_PROMETHEUS = frozenset({"job", "instance", "le"})
SUFFIXES = ("_bucket", "_sum", "_count")


@cache
def rows() -> dict[str, Row]:
    apps = AppCount(1, lambda: None)
    return {row.name: row for row in (*Metrics().table(), apps.row)}


def panels() -> list[dict[str, Any]]:
    dashboard = msgspec.json.decode((EXAMPLES / "grafana.json").read_bytes())
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def dashboard_expressions() -> list[str]:
    return [target["expr"] for panel in panels() for target in panel["targets"]]


def rule_expressions() -> list[str]:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule["expr"] for group in groups for rule in group["rules"]]


def expressions() -> list[str]:
    return [*dashboard_expressions(), *rule_expressions()]


def selectors(expression: str) -> Iterator[tuple[Row, str]]:
    """Yield each metric that an expression reads, and what stands in its braces."""
    for found in re.finditer(r"(?<![:\w])(sallyport_\w+)(?:\{([^}]*)\})?", expression):
        name = found[1]
        row = rows().get(name)
        if row is None:
            plain = next((name.removesuffix(end) for end in SUFFIXES if name.endswith(end)), name)
            row = rows().get(plain)
            assert row is not None, f"{name} is no metric of ours: {expression}"
            assert row.kind == "histogram", name
        yield row, found[2] or ""


def matchers(braces: str) -> Iterator[tuple[str, str, str]]:
    for found in re.finditer(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"', braces):
        yield found[1], found[2], found[3]


@pytest.mark.parametrize("expression", expressions())
def test_every_metric_label_and_value_is_one_of_ours(expression: str) -> None:
    for row, braces in selectors(expression):
        for label, operator, value in matchers(braces):
            if label in OF_PROMETHEUS:
                continue
            assert label in row.labels, f"{row.name} has no label {label}"
            values = value.split("|") if "~" in operator else [value]
            if label != "app" and "$" not in value:
                assert set(values) <= set(row.labels[label]), f"{row.name}: {label}={value}"


@pytest.mark.parametrize("expression", expressions())
def test_what_is_grouped_by_is_a_label(expression: str) -> None:
    known = {label for row, _ in selectors(expression) for label in row.labels} | OF_PROMETHEUS
    for found in re.finditer(r"\bby \(([^)]*)\)", expression):
        grouped = {label.strip() for label in found[1].split(",")}
        recorded = "job:sallyport" in expression and grouped <= OF_PROMETHEUS
        assert grouped <= known or recorded, expression


def test_counters_are_read_as_rates() -> None:
    """A counter's own value says nothing: it begins at 0 with each start."""
    for expression in expressions():
        for row, _ in selectors(expression):
            if row.kind == "counter":
                pattern = rf"(rate|increase)\({row.name}\b"
                assert re.search(pattern, expression), expression


def test_every_metric_has_a_panel() -> None:
    shown = {row.name for expression in dashboard_expressions() for row, _ in selectors(expression)}
    assert set(rows()) - shown == set()


def test_panels_do_not_overlap_and_ids_are_unique() -> None:
    ids = [panel["id"] for panel in panels()]
    assert len(set(ids)) == len(ids)
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24, panel["title"]
        assert not cells & taken, panel["title"]
        taken |= cells


def promtool(*arguments: str | Path) -> str:
    ended = subprocess.run(
        [need("promtool"), *arguments], capture_output=True, text=True, check=False, timeout=60
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def test_promtool_takes_the_rules() -> None:
    assert "SUCCESS: 25 rules found" in promtool("check", "rules", RULES)


def test_alerts_fire_when_they_should_and_not_before() -> None:
    promtool("test", "rules", EXAMPLES / "prometheus-rules-test.yml")


def test_promtool_takes_the_configuration(tmp_path: Path) -> None:
    text = (EXAMPLES / "prometheus.yml").read_text()
    token = tmp_path / "token"
    token.write_text("spt_x\n")
    (tmp_path / RULES.name).write_text(RULES.read_text())
    (tmp_path / "prometheus.yml").write_text(
        text.replace("/etc/prometheus/sallyport.token", str(token))
    )
    promtool("check", "config", tmp_path / "prometheus.yml")


def test_promtool_takes_every_expression_of_the_dashboard(tmp_path: Path) -> None:
    """Grafana's variables are filled in as Grafana would, and the rest is checked as rules."""
    texts = [
        expression.replace("$__rate_interval", "5m").replace("$", "x")
        for expression in dashboard_expressions()
    ]
    rules = [{"record": f"panel:{number}", "expr": text} for number, text in enumerate(texts)]
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    promtool("check", "rules", file)


def test_the_configuration_of_the_image_is_one(tmp_path: Path) -> None:
    file = EXAMPLES / "container" / "sallyport.yaml"
    settings, problems = read_settings({}, file, None, tmp_path, system=True)
    assert problems == []
    assert settings.listen.do53 == settings.listen.dot == ()
    assert settings.listen.control == f"{tmp_path}/control.sock"
