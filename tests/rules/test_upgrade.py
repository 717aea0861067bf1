"""`https_upgrade` says what goes on over TLS, and exactly one certificate is shown there."""

from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules.decision import FileCertificate, SvidCertificate, UpgradeTls
from rules.errors import RuleSyntaxError
from rules.path import PathGlob, parse_glob
from rules.ruleset import AllowRule
from rules.syntax import load
from rules.text import SourceText
from rules.upgrade import _Stance
from tests.rules.files import PACKS, SUFFIXES, app_of, errors_of, load_files, me, warnings_of

ID, OTHER = "spiffe://a.example/b", "spiffe://a.example/c"
PLAIN = "host: a.example, ports: [80]"


def only(entry: str, identity: str = f"{{spiffe: {ID}}}") -> AllowRule:
    """Return the one rule of the app `me`, whose entry is this."""
    return app_of(written(entry, identity)).allows[0]


def written(entry: str, identity: str = f"{{spiffe: {ID}}}") -> str:
    """Return a file in which the entry's braces stand on line 5, from column 9 on."""
    return me(f"identity: [{identity}]\nallow:\n  - {{{entry}}}")


@pytest.mark.parametrize("entry", [PLAIN, f"{PLAIN}, https_upgrade: false"])
def test_nothing_is_upgraded_that_does_not_say_so(entry: str) -> None:
    assert only(entry).upgrade is None


def test_an_upgrade_presents_nothing_unless_told() -> None:
    assert only(f"{PLAIN}, https_upgrade: true").upgrade == UpgradeTls()


def test_svid_is_the_one_that_the_app_has() -> None:
    rule = only(f"{PLAIN}, https_upgrade: true, client_certificate: svid")
    assert rule.upgrade == UpgradeTls(SvidCertificate(ID))


def test_svid_is_found_in_whatever_file_the_identity_stands() -> None:
    rules = me(f"allow:\n  - {{{PLAIN}, https_upgrade: true, client_certificate: svid}}")
    app = app_of(rules, me(f"identity: [{{spiffe: {ID}, token: t}}, {{token: t}}]"))
    assert app.allows[0].upgrade == UpgradeTls(SvidCertificate(ID))


def test_one_id_on_two_lines_is_one() -> None:
    lines = f"{{spiffe: {ID}}}, {{spiffe: {ID}, token: t}}"
    rule = only(f"{PLAIN}, https_upgrade: true, client_certificate: svid", lines)
    assert rule.upgrade == UpgradeTls(SvidCertificate(ID))


def test_of_several_ids_one_is_named() -> None:
    lines = f"{{spiffe: {ID}}}, {{spiffe: {OTHER}}}"
    rule = only(f"{PLAIN}, https_upgrade: true, client_certificate: {{svid: {OTHER}}}", lines)
    assert rule.upgrade == UpgradeTls(SvidCertificate(OTHER))
    errors = errors_of(written(f"{PLAIN}, https_upgrade: true, client_certificate: svid", lines))
    assert errors == ["a.yaml:5:81 the app has several SPIFFE IDs: `svid` does not say which"]


def test_an_id_of_another_app_is_never_presented() -> None:
    """threats.md: an app that acts in another's name."""
    entry = f"{PLAIN}, https_upgrade: true, client_certificate: {{svid: {OTHER}}}"
    other = f"apps:\n  other:\n    identity: [{{spiffe: {OTHER}}}]\n"
    assert errors_of(written(entry), other) == [
        f"a.yaml:5:81 {OTHER!r} is no SPIFFE ID of this app"
    ]


def test_an_app_without_an_id_has_none_to_present() -> None:
    entry = f"{PLAIN}, https_upgrade: true, client_certificate: svid"
    errors = errors_of(written(entry, "{token: t}"))
    assert errors == ["a.yaml:5:81 the app has no SPIFFE ID to present"]


def test_files_are_relative_to_the_rule_file() -> None:
    entry = "{cert: tls/a.pem, key: /run/a.key}"
    text = written(f"{PLAIN}, https_upgrade: true, client_certificate: {entry}")
    loaded = load([SourceText("/etc/rules/a.yaml", text)], SUFFIXES, 1, PACKS)
    (rule,) = loaded.ruleset.apps["me"].allows
    assert rule.upgrade == UpgradeTls(FileCertificate("/etc/rules/tls/a.pem", "/run/a.key"))
    assert [(each.path, str(each.place)) for each in loaded.needed] == [
        ("/etc/rules/tls/a.pem", "/etc/rules/a.yaml:5:88"),
        ("/run/a.key", "/etc/rules/a.yaml:5:104"),
    ]
    assert loaded.needed[0].excerpt == text.splitlines()[4]


def test_the_files_of_one_report_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rules.node.PROBLEMS", 1)
    entry = "{cert: a, key: b}"
    text = written(f"{PLAIN}, https_upgrade: true, client_certificate: {entry}")
    assert [each.path for each in load_files(text).needed] == ["a"]


@pytest.mark.parametrize("said", ["{}", "{cert: a}", "{key: a}", "{svid: 'x', cert: a, key: b}"])
def test_a_certificate_is_an_svid_or_two_files(said: str) -> None:
    entry = f"{PLAIN}, https_upgrade: true, client_certificate: {said}"
    problem = "`client_certificate` is `svid`, {svid: ...}, or {cert: ..., key: ...}"
    assert errors_of(written(entry)) == [f"a.yaml:5:81 {problem}"]


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ("{svid: a.example}", "'a.example' is no SPIFFE ID"),
        ('{cert: "", key: b}', "'' is no path"),
        ('{cert: a, key: "b\\0"}', r"'b\x00' is no path"),
    ],
)
def test_what_a_certificate_names_is_checked(said: str, problem: str) -> None:
    entry = f"{PLAIN}, https_upgrade: true, client_certificate: {said}"
    assert errors_of(written(entry)) == [f"a.yaml:5:81 {problem}"]


@pytest.mark.parametrize("said", ["true", "files", "{cart: a, key: b}", "{cert: 5, key: b}"])
def test_a_certificate_that_cannot_be_read_is_one_error(said: str) -> None:
    entry = f"{PLAIN}, https_upgrade: true, client_certificate: {said}"
    assert len(errors_of(written(entry))) == 1


@pytest.mark.parametrize("entry", [PLAIN, f"{PLAIN}, https_upgrade: false"])
def test_a_certificate_without_an_upgrade_is_an_error(entry: str) -> None:
    (error,) = errors_of(written(f"{entry}, client_certificate: svid"))
    assert error.endswith("`client_certificate` is for origins that we dial with TLS ourselves")


def test_an_upgrade_that_reads_no_tls_is_an_error() -> None:
    (error,) = errors_of(written(f"{PLAIN}, https_upgrade: true, tls: false"))
    assert error.endswith(
        "`https_upgrade` with `tls: false`: the one asks for TLS, the other for none"
    )
    assert only(f"{PLAIN}, https_upgrade: true, tls: true").upgrade


@pytest.mark.parametrize(
    ("ports", "warns"),
    [("", True), (", ports: [443]", True), (", ports: [80, 443]", False), (", ports: [81]", False)],
)
def test_an_upgrade_of_nothing_is_warned_of(ports: str, *, warns: bool) -> None:
    found = warnings_of(written(f"host: a.example, https_upgrade: true{ports}"))
    problem = "`https_upgrade` has nothing to upgrade: http:// goes to port 80, not listed here"
    assert found == ([f"a.yaml:5:27 {problem}"] if warns else [])


def test_a_pack_upgrades_nothing() -> None:
    rules = "allow:\n  - {name: one, host: a.example, ports: [80], https_upgrade: true}\n"
    packs = {"bad": SourceText("packs/bad.yaml", rules)}
    with pytest.raises(RuleSyntaxError) as raised:
        load([SourceText("a.yaml", me("allow: [{pack: bad}]"))], SUFFIXES, 1, packs)
    (problem,) = raised.value.problems
    assert str(problem.place) == "packs/bad.yaml:2:5"
    assert problem.message == "an entry of a pack has no https_upgrade"


@pytest.mark.parametrize("key", ["https_upgrade: true", "client_certificate: svid"])
def test_neither_key_stands_in_a_deny_or_beside_a_pack(key: str) -> None:
    (error,) = errors_of(me(f"deny: [{{host: a.example, {key}}}]"))
    assert "is no key of an item of `deny`" in error
    (error, *_) = errors_of(me(f"allow: [{{pack: llm, {key}}}]"))
    assert "stands beside `pack`" in error


# What may decide one request together

A = "{cert: a, key: a}"
B = "{cert: b, key: b}"


def pair(one: str, other: str, first: str = A, second: str = B) -> list[str]:
    """Return the errors of two allows of a.example that present `first` and `second`."""
    entries = [
        f"  - {{{keys}, https_upgrade: true, client_certificate: {certificate}}}"
        for keys, certificate in ((one, first), (other, second))
    ]
    return errors_of(me("\n".join(["allow:", *entries])))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (PLAIN, PLAIN),
        (PLAIN, "host: [b.example, a.example], ports: [81, 80]"),
        ("addresses: [192.0.2.0/24], ports: [80]", "addresses: [192.0.2.0/24], ports: [80]"),
        (f"{PLAIN}, methods: [GET, PUT]", f"{PLAIN}, methods: [PUT]"),
        (f"{PLAIN}, paths: [/a]", f"{PLAIN}, paths: [/b, /a]"),
        (f"{PLAIN}, paths: ['/a/*x']", f"{PLAIN}, paths: ['/a/*y']"),
        (f"{PLAIN}, paths: ['/a'], methods: [GET]", f"{PLAIN}, paths: ['/a'], methods: [GET]"),
    ],
)
def test_equal_allows_that_present_different_certificates_are_an_error(
    one: str, other: str
) -> None:
    (error,) = pair(one, other)
    assert error.startswith("a.yaml:5:9 `")
    assert error.endswith("has another `client_certificate` in a.yaml:4")


def test_an_upgrade_with_a_certificate_and_one_without_are_an_error() -> None:
    upgrade = f"{{{PLAIN}, https_upgrade: true}}"
    shown = f"{{{PLAIN}, https_upgrade: true, client_certificate: {A}}}"
    assert len(errors_of(me(f"allow: [{upgrade}, {shown}]"))) == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (PLAIN, "host: b.example, ports: [80]"),
        (PLAIN, "host: a.example, ports: [81]"),
        (PLAIN, 'host: "*.a.example", ports: [80]'),
        (PLAIN, "addresses: [192.0.2.0/24], ports: [80]"),
        (PLAIN, f"{PLAIN}, methods: [GET]"),
        (f"{PLAIN}, methods: [GET]", f"{PLAIN}, methods: [PUT]"),
        (PLAIN, f"{PLAIN}, paths: [/a]"),
        (f"{PLAIN}, paths: [/a]", f"{PLAIN}, paths: [/b]"),
        (f"{PLAIN}, paths: ['/a/**']", f"{PLAIN}, paths: ['/b/**']"),
        (f"{PLAIN}, paths: ['/a/**']", f"{PLAIN}, paths: ['/a/b/**']"),
    ],
)
def test_allows_that_never_decide_together_may_differ(one: str, other: str) -> None:
    assert pair(one, other) == []


def test_equal_certificates_may_stand_and_plain_rules_say_nothing_of_them() -> None:
    assert pair(PLAIN, PLAIN, A, A) == []
    upgrade = f"{{{PLAIN}, https_upgrade: true, client_certificate: {A}}}"
    assert errors_of(me(f"allow: [{{{PLAIN}}}, {upgrade}, {{{PLAIN}, methods: [GET]}}]")) == []


def test_a_third_rule_is_compared_with_each() -> None:
    entries = [
        f"  - {{{PLAIN}, methods: [{method}], https_upgrade: true, client_certificate: {which}}}"
        for method, which in (("GET", A), ("PUT", B), ("PUT", A), ("GET", A))
    ]
    errors = errors_of(me("\n".join(["allow:", *entries])))
    assert errors == ["a.yaml:6:9 `a.example` has another `client_certificate` in a.yaml:5"]


segments = st.sampled_from(["a", "b", "ab", "*", "a*", "*b", "**"])
globs = st.lists(segments, min_size=1, max_size=4).map(
    lambda parts: parse_glob("/" + "/".join(parts))
)
ATOMS = ["a", "b", "ab", "aab", "abb", "x"]
PATHS = [
    "/" + "/".join(parts) for count in (1, 2, 3) for parts in combinations([*ATOMS, *ATOMS], count)
]


@given(globs, globs)
def test_no_path_has_two_certificates_unless_the_rules_are_an_error(
    one: PathGlob, other: PathGlob
) -> None:
    """What may fit a path equally well contradicts; so that a merge never has to choose."""
    ports = frozenset({80})
    stances = [
        _Stance(UpgradeTls(FileCertificate(name, name)), ports, None, (glob,))
        for name, glob in (("a", one), ("b", other))
    ]
    together = any(one.matches(path) and other.matches(path) for path in PATHS)
    if together and one.rank == other.rank:
        assert stances[0].contradicts(stances[1])
        assert stances[1].contradicts(stances[0])


def test_the_example_of_the_documentation_loads_without_a_warning() -> None:
    example = Path(__file__).parent.parent.parent / "docs/examples/rules/https-upgrade.yaml"
    loaded = load([SourceText("a.yaml", example.read_text())], SUFFIXES, 1, {})
    assert loaded.warnings == ()
    assert [rule.upgrade for rule in loaded.ruleset.apps["coder"].allows] == [
        UpgradeTls(SvidCertificate("spiffe://desk.example/agent/coder")),
        UpgradeTls(),
    ]
