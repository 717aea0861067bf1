"""The manual says what the code does: generated tables, examples, links and named tests."""

import ast
import re
from functools import cache
from pathlib import Path

import msgspec
import pytest
import yaml

from proxy.config import Locations, read_config
from proxy.reload import files as reload
from rules.decision import Reason
from rules.syntax import load
from rules.text import SourceText
from scripts import make_reference
from scripts.reference import samples, tables

ROOT = Path(__file__).resolve().parent.parent
DOCS = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [*sorted(ROOT.glob("*.md")), *DOCS]
DECISIONS = sorted((ROOT / "docs" / "decisions").glob("[0-9]*.md"))
BLOCK = re.compile(r"<!-- (rules|configuration) -->\n```yaml\n(.*?)```", re.DOTALL)
LINK = re.compile(r"\]\((?!https?://)([^)#\s]+)")
NAMED_TEST = re.compile(r"`([\w/.]+\.py)::(\w+)`")
NAMED_FILE = re.compile(r"`((?:proxy|rules|certs|scripts|tests|docs)/[\w./-]+\.\w+)`")
PLACES = Locations("$CONFIG", "$STATE", "$RUNTIME")


def blocks(kind: str) -> list[object]:
    """Return each example of the manual that is marked as of this kind."""
    return [
        pytest.param(text, id=f"{page.name}-{number}")
        for page in PAGES
        for number, (found, text) in enumerate(BLOCK.findall(page.read_text()))
        if found == kind
    ]


@cache
def functions_in(file: str) -> frozenset[str]:
    path = ROOT / "tests" / file
    if not path.exists():
        return frozenset()
    found = ast.walk(ast.parse(path.read_text()))
    return frozenset(
        node.name for node in found if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )


def test_generated_tables_are_those_of_the_code(capsys: pytest.CaptureFixture[str]) -> None:
    stale = make_reference.main(["--check"])
    assert stale == 0, capsys.readouterr().out + "run scripts/make_reference.py"


def test_a_stale_page_is_named_left_alone_and_then_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(make_reference, "ROOT", tmp_path)
    page = tmp_path / "docs" / "packs.md"
    page.parent.mkdir()
    page.write_text("before\n<!-- generated: packs -->\nold\n<!-- end -->\nafter\n")
    assert make_reference.main(["--check"]) == 1
    assert "stale: docs/packs.md" in capsys.readouterr().out
    assert "old" in page.read_text()
    assert make_reference.main([]) == 0
    assert page.read_text().startswith("before\n<!-- generated: packs -->\n| pack |")
    assert page.read_text().endswith("\n<!-- end -->\nafter\n")
    assert make_reference.main(["--check"]) == 0


def test_a_stale_description_of_the_api_is_named_and_then_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(make_reference, "ROOT", tmp_path)
    (tmp_path / "docs").mkdir()
    written = tmp_path / "docs" / "openapi.json"
    for old in ("", "{}"):
        written.write_text(old)
        assert make_reference.main(["--check"]) == 1
        assert "stale: docs/openapi.json" in capsys.readouterr().out
        assert written.read_text() == old
    assert make_reference.main([]) == 0
    assert written.read_text() == (ROOT / "docs" / "openapi.json").read_text()


def test_agents_are_told_of_every_route_of_the_api() -> None:
    described = msgspec.json.decode((ROOT / "docs" / "openapi.json").read_bytes())
    told = {
        found
        for name in ("agent-api", "agents", "attestation", "capabilities")
        for found in re.findall(
            r"`(GET|POST) (/[\w./-]+)`", (ROOT / "docs" / f"{name}.md").read_text()
        )
    }
    there = {
        (method.upper(), path) for path, methods in described["paths"].items() for method in methods
    }
    assert there
    assert there - told == set()


def test_what_the_description_of_the_api_refers_to_is_in_it() -> None:
    described = msgspec.json.decode((ROOT / "docs" / "openapi.json").read_bytes())
    named = set(re.findall(r"#/components/schemas/(\w+)", str(described)))
    assert named == set(described["components"]["schemas"])


def test_every_generated_block_stands_in_the_manual() -> None:
    named = {found[1] for page in PAGES for found in make_reference.BLOCK.findall(page.read_text())}
    assert named == set(make_reference.BLOCKS)


def test_every_limit_has_a_precedent_and_is_enforced() -> None:
    rows = [line.split(" | ") for line in tables.limits().splitlines()[2:]]
    assert [row[0] for row in rows if not row[3].strip() or not row[4].strip()] == []


def test_every_reason_has_a_row() -> None:
    assert len(tables.reasons().splitlines()) == len(Reason) + 2


def test_samples_of_audit_lines_are_what_why_reads() -> None:
    shown = samples.command("why", "--last", "--json")
    assert shown.encode() == samples.lines()[-1]


def test_both_lines_of_a_tunnel_have_one_id() -> None:
    decided, ended, _ = map(msgspec.json.decode, samples.lines())
    assert decided["id"] == ended["id"]
    assert set(ended) - set(decided) == {"octets_up", "octets_down", "duration"}


@pytest.mark.parametrize("text", blocks("rules"))
def test_examples_of_rule_files_load_without_a_warning(text: str) -> None:
    loaded = load([SourceText("example.yaml", text)], reload.public_suffixes(), 1, reload._packs())
    assert [warning.render() for warning in loaded.warnings] == []
    assert loaded.ruleset.apps


def test_the_example_in_the_readme_loads() -> None:
    text = (ROOT / "README.md").read_text().partition("```yaml\n")[2].partition("```")[0]
    loaded = load([SourceText("README.md", text)], reload.public_suffixes(), 1, reload._packs())
    assert loaded.warnings == ()


@pytest.mark.parametrize("text", blocks("configuration"))
def test_the_example_of_the_configuration_is_the_defaults(text: str) -> None:
    settings, problems = read_config(SourceText("sallyport.yaml", text), PLACES)
    assert problems == []
    defaults, _ = read_config(None, PLACES)
    same = (
        *("upstreams", "upstream_ca", "identity", "attestation"),
        *("sinkhole", "rules", "state", "audit", "limits"),
    )
    assert all(getattr(settings, name) == getattr(defaults, name) for name in same)
    for kind in ("do53", "proxy", "proxy_tls", "metrics", "enroll", "pki", "control_tls"):
        assert getattr(settings.listen, kind) == getattr(defaults.listen, kind)
    assert set(yaml.safe_load(text)) == {
        *("listen", "resolver", "identity", "attestation", "sinkhole", "rules", "state"),
        *("audit", "limits"),
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_named_files_exist(page: Path) -> None:
    text = page.read_text()
    missing = [link for link in LINK.findall(text) if not (page.parent / link).exists()]
    missing += [name for name in NAMED_FILE.findall(text) if not (ROOT / name).exists()]
    assert missing == []


def test_every_test_that_the_manual_names_exists() -> None:
    named = [each for page in PAGES for each in NAMED_TEST.findall(page.read_text())]
    assert named
    assert [f"{file}::{name}" for file, name in named if name not in functions_in(file)] == []


def test_every_line_of_the_threats_is_closed_or_has_no_door() -> None:
    text = (ROOT / "docs" / "threats.md").read_text()
    rows = re.findall(r"^\| (?!---|attack)(.+?) \| (.+?) \|$", text, re.MULTILINE)
    assert rows
    open_lines = [
        attack for attack, test in rows if not NAMED_TEST.search(test) and "no door" not in test
    ]
    assert open_lines == []


@pytest.mark.parametrize("page", DECISIONS, ids=lambda page: page.stem)
def test_decisions_are_short_and_have_three_parts(page: Path) -> None:
    text = page.read_text()
    lines = [line for line in text.splitlines() if not line.startswith("|")]  # a table is no prose
    assert len(lines) <= 16
    for part in ("**Context.**", "**Decision.**", "**Consequences.**"):
        assert part in text


def test_decisions_are_numbered_without_gaps() -> None:
    numbers = [int(page.name[:4]) for page in DECISIONS]
    assert numbers == list(range(1, len(numbers) + 1))
