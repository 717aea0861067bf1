"""An app is spread over files: lists add up, and what contradicts names both places."""

import pytest

from rules.decision import Refuse
from rules.facts import Level
from rules.ruleset import Requirements
from rules.spread import gather
from rules.watch import Detect, Mode
from tests.rules.files import app_of, errors_of, load_files, me, warnings_of


def test_lists_add_up_over_files_in_their_order() -> None:
    app = app_of(
        me("identity: [{process: {uid: 1}}]\nallow: [{host: a.example}]\nrequire: [mtls]"),
        me(
            "identity: [{process: {uid: 2}}]\nallow: [{host: b.example}]\ndeny: [{host: c.example}]"
        ),
        me("deny: [{host: d.example}]\nrequire: [attested]\nrefuse: nodata"),
    )
    assert [line.id for line in app.identity] == ["a.yaml:3", "b.yaml:3"]
    assert [rule.id for rule in app.allows] == ["a.yaml:4", "b.yaml:4"]
    assert [rule.id for rule in app.denies] == ["b.yaml:5", "c.yaml:3"]
    assert app.require == Requirements(mtls=True, attested=Level.SOFTWARE, max_age_s=300)
    assert app.refuse is Refuse.NODATA


def test_what_evidence_is_held_against_and_tokens_add_up_too() -> None:
    values = 'identity: [{spiffe: "spiffe://a.example/b"}]\nreference_values: {keys: ["%s"]}'
    entry = "capabilities: [{audience: 'urn:x:y', scopes: [%s]}]"
    one, two = values % ("a" * 64), values.partition("\n")[2] % ("b" * 64)
    app = app_of(me(f"{one}\n{entry % 'read'}"), me(f"{two}\n{entry % 'write'}"))
    assert app.reference_values.keys == frozenset({"a" * 64, "b" * 64})
    assert [(each.id, *each.scopes) for each in app.capabilities] == [
        ("a.yaml:5", "read"),
        ("b.yaml:4", "write"),
    ]
    assert app.max_ages_s == (300,)


def test_a_wrong_capability_is_left_out_of_what_is_compared() -> None:
    wrong = "{audience: 'urn:x:y', scopes: [read], ttl: 2h}"
    right = "{audience: 'urn:x:y', scopes: [read]}"
    (problem,) = errors_of(me(f"capabilities: [{wrong}, {right}]"))
    assert "a token for 7200 s" in problem


def test_an_app_that_says_nothing_allows_nothing() -> None:
    """threats.md: an empty or absent allow list taken as "open"."""
    for text in (me("allow: []\ndeny: []"), "apps: {me: {}}"):
        app = app_of(text)
        assert (app.allows, app.denies, app.identity) == ((), (), ())
        assert (app.refuse, app.require) == (Refuse.NXDOMAIN, Requirements())


def test_a_scalar_key_set_twice_names_both_places() -> None:
    one = me("refuse: nodata\ndetect: {mode: off}")
    problems = errors_of(one, me("refuse: nodata"), me("detect: {mode: off}\nrefuse: refused"))
    assert problems == [
        "b.yaml:3:5 `refuse` of me is set twice, first at a.yaml:3:5",
        "c.yaml:3:5 `detect` of me is set twice, first at a.yaml:4:5",
        "c.yaml:4:5 `refuse` of me is set twice, first at a.yaml:3:5",
    ]


def test_names_of_rules_are_unique_within_an_app() -> None:
    first = me("allow: [{name: x, host: a.example}]\ndeny: [{name: y, host: b.example}]")
    second = me(
        "allow: [{name: y, host: c.example}, {host: e.example}]\n"
        "deny: [{name: x, host: d.example}, {host: e.example}]"
    )
    assert errors_of(first, second) == [
        "b.yaml:3:20 the name 'y' of me is taken, at a.yaml:4:19",
        "b.yaml:4:19 the name 'x' of me is taken, at a.yaml:3:20",
    ]
    assert errors_of(first, first.replace("  me:", "  you:")) == []


def test_a_sinkhole_is_a_way_to_refuse() -> None:
    assert warnings_of(me("refuse: sinkhole")) == []
    assert app_of(me("refuse: sinkhole")).refuse is Refuse.SINKHOLE


def test_an_app_is_watched_as_its_one_file_says_and_else_as_shipped() -> None:
    assert app_of(me("refuse: nodata")).detect == Detect(Mode.BLOCK, Mode.OBSERVE, Mode.OBSERVE)
    assert app_of(me("refuse: nodata"), me("detect: {mode: off}")).detect == Detect(Mode.OFF)


def test_an_allow_is_watched_as_the_app_unless_it_says_otherwise() -> None:
    rules = "allow: [{host: a.example, detect: {mode: alert}}, {host: b.example}]"
    app = app_of(me(rules), me("detect: {mode: off, flux: block}"))
    assert [rule.detect for rule in app.allows] == [Detect(Mode.ALERT, Mode.BLOCK), None]


@pytest.mark.parametrize(
    "entries",
    [
        "[{host: a.example}, {host: a.example, addresses: [10.0.0.0/8]}]",
        "[{host: [b.example, a.example], addresses: [10.0.0.0/8]}, {host: a.example}]",
        (
            "[{host: '*.a.example', addresses: [10.0.0.0/8], ports: [80, 443]}, "
            "{host: '*.a.example', addresses: [10.0.0.0/9]}]"
        ),
        "[{host: a.example, methods: [GET]}, {host: a.example, addresses: [10.0.0.0/8]}]",
    ],
)
def test_equal_allows_with_unequal_addresses_are_an_error(entries: str) -> None:
    (problem,) = errors_of(me(f"allow: {entries}"))
    assert "has other `addresses` in a.yaml:3, on the same port" in problem


@pytest.mark.parametrize(
    "entries",
    [
        "[{host: a.example, ports: [80]}, {host: a.example, addresses: [10.0.0.0/8]}]",
        "[{host: a.example}, {host: '*.a.example', addresses: [10.0.0.0/8]}]",
        (
            "[{host: a.example, addresses: [10.0.0.0/8, 10.1.0.0/16]}, "
            "{host: a.example, addresses: [10.1.0.0/16, 10.0.0.0/8]}]"
        ),
        "[{host: a.example, types: [TXT]}, {host: a.example, addresses: [10.0.0.0/8]}]",
        "[{host: api.one.example, addresses: [10.0.0.0/8]}, {pack: llm}]",
        "[{addresses: [10.0.0.0/8], ports: [22]}, {addresses: [10.0.0.0/9], ports: [22]}]",
        (
            "[{host: a.example, ports: [80], addresses: [10.0.0.0/8]}, "
            "{host: a.example, ports: [22]}, "
            "{host: a.example, ports: [22]}]"
        ),
    ],
)
def test_allows_that_are_not_equal_may_differ(entries: str) -> None:
    assert errors_of(me(f"allow: {entries}")) == []


def test_a_wrong_rule_or_line_is_left_out_of_what_is_compared() -> None:
    problems = errors_of(
        me(
            "identity: [{process: {uid: x, cgroup: /a}}]\n"
            "allow: [{host: a.example}, {host: a.example, addresses: [x]}]\ndeny: [{host: a..b}]"
        ),
        "apps: {you: {identity: [{process: {cgroup: /a}}]}}",
    )
    assert [problem.split(" ")[0] for problem in problems] == [
        "a.yaml:3:32",
        "a.yaml:4:62",
        "a.yaml:5:19",
    ]


def test_files_without_apps_say_nothing() -> None:
    assert load_files("", "lists: [{file: a}]").ruleset.apps == {}
    assert gather([]) == {}
