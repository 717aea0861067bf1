"""Entries of allow and deny become rules with the defaults of the reference, or say why not."""

from ipaddress import IPv4Network

import pytest

from rules.document import Allow
from rules.entry import EntryReader
from rules.errors import RuleSyntaxError
from rules.facts import Level
from rules.hosts import HostReader
from rules.node import MappingNode, Report
from rules.path import parse_glob
from rules.ruleset import AllowRule, DenyRule, Requirements
from rules.syntax import load
from rules.text import SourceText
from rules.watch import Detect, Mode
from tests.rules.files import PACKS, SUFFIXES, app_of, errors_of, me, warnings_of

WEB_TYPES = frozenset({1, 28, 5, 65})


def allows(entry: str) -> tuple[AllowRule, ...]:
    return app_of(me(f"allow:\n  - {entry}")).allows


def allow(entry: str) -> AllowRule:
    (rule,) = allows(entry)
    return rule


def deny(entry: str) -> DenyRule:
    (rule,) = app_of(me(f"deny:\n  - {entry}")).denies
    return rule


def allow_errors(entry: str) -> list[str]:
    """Return the errors of an entry that begins in line 4, column 9."""
    return errors_of(me(f"allow:\n  - {entry}"))


def test_an_allow_has_the_defaults_of_the_reference() -> None:
    rule = allow("host: example.com")
    assert rule == AllowRule("a.yaml:4", rule.patterns, frozenset({443}), WEB_TYPES)
    assert [str(pattern) for pattern in rule.patterns] == ["example.com"]
    assert rule.tls
    assert not rule.accept_ech


def test_an_allow_holds_what_is_written() -> None:
    rule = allow(
        "{name: api, host: ['*.example.com', a.example.net], ports: [80, 80], types: [txt], "
        "tls: false, ech: accept, addresses: [10.0.0.0/8], methods: [GET], paths: [/a/**]}"
    )
    assert rule.id == "api"
    assert [str(pattern) for pattern in rule.patterns] == ["*.example.com", "a.example.net"]
    assert (rule.ports, rule.types) == (frozenset({80}), frozenset({16}))
    assert (rule.tls, rule.accept_ech) == (False, True)
    assert rule.addresses == (IPv4Network("10.0.0.0/8"),)
    assert (rule.methods, rule.paths) == (frozenset({"GET"}), (parse_glob("/a/**"),))
    assert not rule.from_pack


def test_a_wildcard_over_tenants_is_accepted_by_its_rule_only() -> None:
    assert allow("{host: '*.github.io.example', multi_tenant: accepted}").patterns
    assert "many tenants" in allow_errors("host: '*.github.io.example'")[0]


def test_literals_need_ports_and_allow_no_name() -> None:
    rule = allow("{addresses: [192.0.2.7], ports: [22]}")
    assert rule.patterns == ()
    assert rule.addresses == (IPv4Network("192.0.2.7/32"),)
    assert allow_errors("addresses: [192.0.2.7]") == [
        "a.yaml:4:9 `addresses` without `host` needs `ports`"
    ]


def test_a_name_for_loopback_needs_ports() -> None:
    assert allow_errors("{host: a.example, addresses: [127.0.0.1]}") == [
        "a.yaml:4:27 `addresses` that hold loopback need `ports`: every local service listens there"
    ]
    assert allow("{host: a.example, addresses: [127.0.0.1], ports: [8080]}").addresses
    assert allow("{host: a.example, addresses: [10.0.0.1]}").addresses


@pytest.mark.parametrize("entry", ["{}", "{name: x}", "{ports: [443]}"])
def test_an_allow_of_nothing_is_an_error(entry: str) -> None:
    """threats.md: an empty or absent allow list taken as "open"."""
    assert allow_errors(entry) == ["a.yaml:4:9 an allow of nothing"]


@pytest.mark.parametrize(
    "key", ["host", "ports", "types", "addresses", "methods", "paths", "require"]
)
@pytest.mark.parametrize("value", ["[]", ""])
def test_an_empty_or_null_list_is_an_error(key: str, value: str) -> None:
    (problem,) = errors_of(
        me(
            f"allow:\n  - name: x\n    {key}: {value}\n    host: a.example"
            if key != "host"
            else f"allow:\n  - {key}: {value}"
        )
    )
    assert f"`{key}` wants" in problem
    assert "found an empty list" in problem or "found nothing" in problem


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ("{host: a.example, ports: [0]}", "a.yaml:4:35 an item of `ports` wants"),
        ("{host: a.example, types: [WRONG]}", "a.yaml:4:35 'WRONG' is no DNS record type"),
        ("{host: a.example, methods: [get]}", "a.yaml:4:37 the HTTP method 'get' is in lower case"),
        ("{host: a.example, paths: [a]}", "a.yaml:4:35 "),
        ("{host: a.example, addresses: [x]}", "a.yaml:4:39 'x' is not an address"),
        ("{host: [a.example, 10.0.0.1]}", "a.yaml:4:28 '10.0.0.1' is an address, not a name"),
        ("{host: a.example, reason: no}", "a.yaml:4:27 'reason' is no key of an item of `allow`"),
        ("{host: a.example, ech: yes}", "a.yaml:4:32 `ech` wants one of accept, cut"),
        ("{host: a.example, multi_tenant: true}", "a.yaml:4:41 `multi_tenant` wants accepted"),
        ("{hosts: a.example}", "a.yaml:4:10 'hosts' is no key of an item of `allow`"),
        ("{host: 5}", "a.yaml:4:16 `host` wants text or a list"),
        ("{host: a.example, name: 'a/b'}", "a.yaml:4:33 `name` wants a name of up to 64"),
        ("host", "a.yaml:4:9 an item of `allow` wants a mapping"),
    ],
)
def test_a_mistake_stands_at_its_word(entry: str, problem: str) -> None:
    (found,) = allow_errors(entry)
    assert found.startswith(problem)


def test_every_mistake_of_an_entry_is_found() -> None:
    problems = allow_errors("{hots: x, ports: [0, 5, x], types: [B], host: [a..b, 5]}")
    assert [problem.split(" ")[0].rpartition(":")[2] for problem in problems] == [
        "10",
        "27",
        "33",
        "45",
        "56",
        "62",
    ]


@pytest.mark.parametrize(
    ("entry", "key"),
    [
        ("{host: a.example, methods: [GET]}", "methods"),
        ("{host: a.example, paths: [/a], ports: [80, 443]}", "paths"),
        ("{host: a.example, methods: [GET], paths: [/a], ports: [8080]}", "methods"),
    ],
)
def test_method_and_path_rules_beyond_port_80_are_warned_of(entry: str, key: str) -> None:
    (warning,) = warnings_of(me(f"allow:\n  - {entry}"))
    assert warning.startswith(f"a.yaml:4:27 `{key}` on ports other than 80: TLS cannot be read")


def test_method_rules_on_port_80_are_fine() -> None:
    entry = "{host: a.example, methods: [GET], paths: [/a], ports: [80]}"
    assert warnings_of(me(f"allow:\n  - {entry}\ndeny:\n  - {entry}")) == []


def test_an_allow_says_what_must_be_proven() -> None:
    rule = allow("{host: a.example, require: [mtls, attested]}")
    assert rule.require == Requirements(mtls=True, attested=Level.SOFTWARE, max_age_s=300)


def test_in_a_deny_an_absent_key_matches_everything() -> None:
    assert deny("host: a.example") == DenyRule("a.yaml:4", deny("host: a.example").patterns)
    assert deny("{reason: closed}") == DenyRule("a.yaml:4", None, text="closed")


def test_a_deny_holds_what_is_written() -> None:
    rule = deny(
        "{name: no, host: ['*', '**.com'], ports: [25], addresses: [10.0.0.0/8, 10.0.0.0/8], "
        "methods: [PUT], paths: [/a], reason: closed}"
    )
    assert rule.patterns is not None
    assert [str(pattern) for pattern in rule.patterns] == ["*", "**.com"]
    assert rule == DenyRule(
        "no",
        rule.patterns,
        ports=frozenset({25}),
        addresses=(IPv4Network("10.0.0.0/8"),),
        methods=frozenset({"PUT"}),
        paths=(parse_glob("/a"),),
        text="closed",
    )
    assert deny("{types: [TXT], host: a.example}").types == frozenset({16})


def test_a_deny_of_nothing_and_a_wrong_deny_are_errors() -> None:
    assert errors_of(me("deny:\n  - {}")) == ["a.yaml:4:9 an empty deny"]
    problems = errors_of(me("deny:\n  - {host: [10.0.0.1], tls: true}\n  - {host: b..c}"))
    assert [problem.split(" ")[0] for problem in problems] == [
        "a.yaml:4:17",
        "a.yaml:4:28",
        "a.yaml:5:16",
    ]


def test_a_deny_that_matches_nothing_is_warned_of() -> None:
    text = me("deny:\n  - {host: a.example, types: [A], ports: [443]}")
    assert warnings_of(text) == ["a.yaml:4:27 a deny with `types` and `ports` matches nothing"]


def test_a_deny_by_method_on_every_port_is_warned_of() -> None:
    (warning,) = warnings_of(me("deny:\n  - {host: a.example, methods: [PUT]}"))
    assert "tunnels to this host there are refused (inspection-unavailable)" in warning


def test_an_allow_may_say_how_it_is_watched() -> None:
    rule = allow("{host: a.example, detect: {mode: observe, cloaking: block}}")
    assert rule.detect == Detect(Mode.OBSERVE, cloaking=Mode.BLOCK)
    assert allow_errors("{pack: llm, detect: {mode: off}}") == [
        "a.yaml:4:21 `detect` stands beside `pack`"
    ]


def test_a_pack_is_its_allows_under_its_name() -> None:
    one, two = allows("{pack: llm, name: models}")
    assert (one.id, two.id) == ("models/one", "models/two")
    assert (str(one.patterns[0]), one.ports) == ("api.one.example", frozenset({443}))
    assert two.ports == frozenset({8443})
    assert (one.require, two.require) == (Requirements(), Requirements(mtls=True))
    assert one.from_pack
    assert two.from_pack


def test_a_pack_without_a_name_is_named_by_its_line_and_guarded_by_its_entry() -> None:
    one, two = allows("{pack: llm, require: [attested]}")
    assert (one.id, two.id) == ("a.yaml:4/one", "a.yaml:4/two")
    assert one.require == Requirements(attested=Level.SOFTWARE, max_age_s=300)
    assert two.require == Requirements(mtls=True, attested=Level.SOFTWARE, max_age_s=300)


def test_a_pack_is_read_once() -> None:
    reader = EntryReader(HostReader(SUFFIXES), PACKS)
    report = Report("f", "")
    first, second = (reader.allow(Allow(pack="llm"), MappingNode(n, 1, {}), report) for n in (1, 2))
    assert [rule.id for rule in first] == ["f:1/one", "f:1/two"]
    assert first[0].patterns is second[0].patterns
    assert len(reader.reports) == 1


def test_an_unknown_pack_names_the_known_ones() -> None:
    with pytest.raises(RuleSyntaxError) as caught:
        app_of(me("allow:\n  - {pack: lmm}"))
    (problem,) = caught.value.problems
    assert str(problem.place) == "a.yaml:4:16"
    assert problem.message == "'lmm' is no pack of this version"
    assert problem.cure == "did you mean `llm`? Else write one of: llm"


def test_nothing_else_stands_beside_a_pack() -> None:
    assert sorted(allow_errors("{pack: llm, host: a.example, ports: [80]}")) == [
        "a.yaml:4:21 `host` stands beside `pack`",
        "a.yaml:4:38 `ports` stands beside `pack`",
    ]


@pytest.mark.parametrize(
    ("pack", "problem"),
    [
        ("allow: [{host: a.example}]", "p.yaml:1:9 an entry of a pack has a name and is no pack"),
        ("allow: [{name: a, pack: llm}]", "p.yaml:1:9 an entry of a pack has a name"),
        (
            "allow: [{name: a, host: a.example, ports: [80], https_upgrade: false}]",
            "p.yaml:1:9 an entry of a pack has no https_upgrade",
        ),
        (
            "allow: [{name: a, host: a.example, detect: {mode: off}}]",
            "p.yaml:1:9 an entry of a pack has no detect",
        ),
        ("allow: [{name: a, host: '*'}]", "p.yaml:1:25 `*` would allow every name"),
        ("allow: []", "p.yaml:1:8 `allow` wants"),
        ("", "p.yaml:1:1 the file lacks the key `allow`"),
        ("allow: [a", "p.yaml:1:8 while parsing"),
    ],
)
def test_a_broken_pack_is_said_of_its_own_file(pack: str, problem: str) -> None:
    files = [SourceText("a.yaml", me("allow:\n  - {pack: p}\n  - {pack: p}"))]
    with pytest.raises(RuleSyntaxError) as caught:
        load(files, SUFFIXES, 1, {"p": SourceText("p.yaml", pack)})
    (found,) = caught.value.problems
    assert f"{found.place} {found.message}".startswith(problem)
