"""Rule files become one rule set, or every error of every file at once."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules.errors import Problem, RuleSyntaxError, Severity
from rules.list_source import LISTS
from rules.ruleset import App
from rules.syntax import load
from rules.text import SourceText
from tests.rules.files import PACKS, SUFFIXES, errors_of, load_files, me, problems_of
from tests.rules.test_document import REFERENCE

ROOT = Path(__file__).resolve().parents[2]
VECTORS = sorted((ROOT / "tests" / "vectors" / "rules").glob("*.yaml"))
EXPECTED = re.compile(r"# (error|warning) (\d+):(\d+) (.+)\n")


def test_the_example_of_the_reference_loads() -> None:
    loaded = load_files(REFERENCE)
    assert loaded.ruleset.generation == 1
    coder = loaded.ruleset.apps["coder"]
    assert [rule.id for rule in coder.allows] == [
        "model-api",
        "a.yaml:24",
        "models/one",
        "models/two",
    ]
    assert [rule.id for rule in coder.denies] == ["a.yaml:29"]
    assert [source.place for source in loaded.ruleset.lists] == ["a.yaml:32"]
    assert {warning.severity for warning in loaded.warnings} == {Severity.WARNING}
    assert [warning.place.line for warning in loaded.warnings] == [5, 10, 21]


def test_no_files_are_no_apps() -> None:
    loaded = load([], SUFFIXES, 7, {})
    assert (loaded.ruleset.generation, loaded.ruleset.apps, loaded.warnings) == (7, {}, ())


def test_every_error_of_every_file_comes_at_once() -> None:
    problems = errors_of(
        "apps:\n  me:\n    allwo: []\n    allow: [{host: 5}]\n  Me: {}\n",
        "apps: [a",
        "aps: {}\n",
        me("allow: [{host: '*'}]\nrefuse: no"),
        "- a\n",
    )
    assert [problem.split(" ")[0] for problem in problems] == [
        "a.yaml:3:5",
        "a.yaml:4:20",
        "a.yaml:5:3",
        "b.yaml:1:7",
        "c.yaml:1:1",
        "d.yaml:3:20",
        "d.yaml:4:13",
        "e.yaml:1:1",
    ]


def test_the_error_shows_the_line_with_a_caret_and_the_cure() -> None:
    with pytest.raises(RuleSyntaxError) as caught:
        load_files("apps:\n  me:\n    alow: []\n")
    assert str(caught.value) == (
        "a.yaml:3:5: error: 'alow' is no key of `me`\n        alow: []\n        ^\n"
        "    cure: did you mean `allow`? "
        "Else write one of: allow, capabilities, deny, detect, identity, introspects, "
        "reference_values, refuse, require"
    )


@pytest.mark.parametrize("name", ["Me", "a_b", '""', "a.b", '"a b"', "é"])
def test_an_app_has_a_name_of_lower_case_letters_digits_and_hyphens(name: str) -> None:
    (problem,) = errors_of(f"apps: {{{name}: {{}}}}")
    assert problem.startswith("a.yaml:1:8 a key of `apps` wants a word of lower-case letters")


def test_lists_of_all_files_stand_in_their_order() -> None:
    some = "apps: {one: {}}\nlists:\n  - {file: a, apps: [one]}\n  - {file: b}\n"
    loaded = load_files(some, "lists: [{file: a}]")
    assert [(each.place, each.shown, each.apps) for each in loaded.ruleset.lists] == [
        ("a.yaml:3", "a", frozenset({"one"})),
        ("a.yaml:4", "b", None),
        ("b.yaml:1", "a", None),
    ]
    assert loaded.warnings == ()


def test_too_many_lists_are_said_at_the_first_of_them() -> None:
    entry = "  - {file: a}\n"
    assert errors_of("lists:\n" + LISTS * entry) == []
    assert errors_of("lists:\n" + (LISTS + 2) * entry) == [
        f"a.yaml:{LISTS + 2}:5 more than {LISTS} lists"
    ]


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ("{}", "a.yaml:1:27 an item of `lists` lacks the key `file`"),
        ("{file: 5}", "a.yaml:1:34 `file` wants text, found the number 5"),
        ("{file: a, format: []}", "a.yaml:1:45 `format` wants one of adblock, auto, hosts, plain"),
        ("{file: a, refuse: no}", "a.yaml:1:45 `refuse` wants one of nxdomain, nodata"),
        ("{file: ''}", "a.yaml:1:34 '' is no path"),
        ("{file: a, except: [a..b]}", "a.yaml:1:46 'a..b' is not a domain name"),
        ("{file: a, except: b}", "a.yaml:1:45 `except` wants a list"),
        ("{file: a, apps: []}", "a.yaml:1:43 `apps` wants a list of a word of lower-case letters"),
        ("{file: a, apps: [yuo]}", "a.yaml:1:44 there is no app 'yuo'"),
    ],
)
def test_what_is_wrong_with_a_list_is_said_at_its_place(entry: str, problem: str) -> None:
    (found,) = errors_of(f"{{apps: {{you: {{}}}}, lists: [{entry}]}}")
    assert found.startswith(problem)


def test_an_app_of_a_file_that_is_no_yaml_is_not_said_to_be_unknown() -> None:
    assert [
        problem.split(" ")[0] for problem in errors_of("lists: [{file: a, apps: [me]}]", "{a")
    ] == ["b.yaml:1:1"]


def test_conflicts_between_apps_are_found_over_files() -> None:
    line = 'identity: [{listener: "192.0.2.1:53"}]'
    assert errors_of(me(line), me(line).replace("  me:", "  you:")) == [
        "b.yaml:3:17 the listener 192.0.2.1:53 names me already, at a.yaml:3"
    ]


def test_a_file_of_errors_is_cut_short_and_counted() -> None:
    hosts = "".join(f"        - a..b{n}\n" for n in range(1005))
    problems = problems_of("apps:\n  me:\n    allow:\n      - host:\n" + hosts)
    assert len(problems) == 1001
    assert problems[-1].message == "5 more problems of this file are not shown"


@pytest.mark.parametrize("path", VECTORS, ids=lambda path: path.stem)
def test_each_vector_has_the_problems_that_it_says(path: Path) -> None:
    """A vector says on its first lines what is found in it, so that others can run it."""
    text = path.read_text()
    expected = [
        (kind, int(line), int(column), message)
        for kind, line, column, message in EXPECTED.findall(text)
    ]
    try:
        found = load([SourceText(path.name, text)], SUFFIXES, 1, PACKS).warnings
    except RuleSyntaxError as error:
        found = error.problems
    assert expected
    assert expected == [
        (each.severity.value, each.place.line, each.place.column, each.message) for each in found
    ]
    assert all(each.cure and each.excerpt for each in found)


def shipped() -> App:
    path = ROOT / "rules" / "packs" / "llm.yaml"
    packs = {"llm": SourceText("packs/llm.yaml", path.read_text())}
    loaded = load([SourceText("a.yaml", me("allow: [{pack: llm}]"))], SUFFIXES, 1, packs)
    assert loaded.warnings == ()
    return loaded.ruleset.apps["me"]


def test_the_shipped_pack_holds_exact_names_on_443_each_once() -> None:
    rules = shipped().allows
    hosts = [str(pattern) for rule in rules for pattern in rule.patterns]
    assert {"api.anthropic.com", "api.openai.com", "openrouter.ai"} <= {*hosts}
    assert len(hosts) == len({*hosts})
    assert len(rules) == len({rule.id for rule in rules})
    assert not any("*" in host for host in hosts)
    assert {rule.ports for rule in rules} == {frozenset({443})}


def test_the_shipped_pack_names_no_registry_of_packages() -> None:
    marks = ("pypi", "python" + "hosted", "npm", "crates", "rubygems", "maven", "debian", "golang")
    hosts = [str(pattern) for rule in shipped().allows for pattern in rule.patterns]
    assert not any(mark in host for host in hosts for mark in marks)


WORDS = st.sampled_from(
    [
        "apps",
        "me",
        "allow",
        "deny",
        "host",
        "ports",
        "a.example",
        "*",
        "443",
        "[",
        "]",
        "{",
        "}",
        ":",
        ": ",
        "\n",
        "\n  ",
        "\n    ",
        "- ",
        "lists",
        "identity",
        "process",
        "uid",
        "pack",
        "llm",
    ]
)


@given(st.lists(WORDS, max_size=30).map("".join))
def test_any_file_loads_or_says_why_not(text: str) -> None:
    problems: tuple[Problem, ...] = ()
    try:
        problems = load_files(text).warnings
    except RuleSyntaxError as error:
        problems = error.problems
        severities = {problem.severity for problem in problems}
        if severities != {Severity.ERROR}:
            raise
    assert all(problem.cure and problem.message for problem in problems)
