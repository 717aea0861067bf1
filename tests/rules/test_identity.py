"""Identity lines are read strictly, and no two of them may name two apps for one peer."""

import pytest

from rules.identity import read_cgroup, read_listener, read_spiffe
from rules.node import MistakeError
from rules.ruleset import IdentityLine
from tests.rules.files import app_of, errors_of, load_files, me, warnings_of

DIGEST = "0123456789abcdef" * 4
ID = "spiffe://a.ex/b"


def apps(**lines: str) -> str:
    """Return a file of apps, each with one identity line; app N stands on line 2N, column 24."""
    return "apps:\n" + "".join(f"  {app}:\n    identity: [{line}]\n" for app, line in lines.items())


def test_a_line_holds_every_key() -> None:
    body = f"""
        identity:
          - {{listener: "172.18.0.1:5300"}}
          - listener: "[2001:DB8::1]:53"
            process: {{uid: 0, cgroup: /a.slice, exe_sha256: "{DIGEST}"}}
    """
    assert app_of(me(body)).identity == (
        IdentityLine("a.yaml:4", listener="172.18.0.1:5300"),
        IdentityLine(
            "a.yaml:5", listener="[2001:db8::1]:53", uid=0, cgroup="/a.slice", exe_sha256=DIGEST
        ),
    )
    assert warnings_of(me(body)) == []


def test_evidence_that_nothing_grants_yet_is_kept_with_a_warning() -> None:
    body = 'identity: [{lease: a}, {spiffe: "spiffe://desk.example/a"}, {token: t-1}]'
    assert app_of(me(body)).identity == (
        IdentityLine("a.yaml:3", lease="a"),
        IdentityLine("a.yaml:3", spiffe="spiffe://desk.example/a"),
        IdentityLine("a.yaml:3", token="t-1"),  # noqa: S106 - the name of an app
    )
    assert warnings_of(me(body)) == [
        "a.yaml:3:17 no launcher grants a `lease` in this version: the line never matches",
    ]


@pytest.mark.parametrize("more", ["", ", token: t-1", ', spiffe: "spiffe://desk.example/a"'])
def test_what_no_connection_out_of_a_lease_has_is_warned_of(more: str) -> None:
    keys = 'lease: a, listener: "192.0.2.1:53", process: {uid: 1}'
    loaded = load_files(me(f"identity:\n  - {{{keys}{more}}}"))
    found = [each for each in loaded.warnings if "beside" in each.message]
    sandboxed, own = "the processes of a sandbox are in", "a network namespace of their own"
    assert [f"{each.place} {each.message}" for each in found] == [
        "a.yaml:4:20 `listener` beside `lease` never matches: a lease has listeners of its own",
        f"a.yaml:4:46 `process` beside `lease` never matches: {sandboxed} {own}",
    ]
    assert found[0].cure == "take `listener` out, or give it a line of its own"


@pytest.mark.parametrize("address", ["127.0.0.1:53", "[::1]:53", "0.0.0.0:53", "127.9.9.9:1"])
def test_a_listener_that_any_local_user_can_dial_is_warned_of(address: str) -> None:
    warnings = warnings_of(me(f'identity: [{{listener: "{address}"}}]'))
    assert warnings == [f"a.yaml:3:17 any local user can dial {address} and is then this app"]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{}", "a.yaml:3:16 an empty identity line"),
        ("{process: {}}", "a.yaml:3:26 an empty `process`"),
        (
            "{lease: A_B}",
            (
                "a.yaml:3:24 `lease` wants a word of lower-case letters, digits and "
                "hyphens, found text 'A_B'"
            ),
        ),
        ("{spiffe: desk.example}", "a.yaml:3:25 'desk.example' is no SPIFFE ID"),
        ("{listener: localhost}", "a.yaml:3:27 'localhost' is no listen address"),
        (
            "{process: {uid: -1}}",
            ("a.yaml:3:32 `uid` wants a whole number from 0 to 4294967294, found the number -1"),
        ),
        (
            "{process: {uid: root}}",
            ("a.yaml:3:32 `uid` wants a whole number from 0 to 4294967294, found text 'root'"),
        ),
        ("{process: {cgroup: a.slice}}", "a.yaml:3:35 'a.slice' is no cgroup"),
        (
            "{process: {exe_sha256: abc}}",
            ("a.yaml:3:39 `exe_sha256` wants 64 lower-case hex digits in quotes, found text 'abc'"),
        ),
    ],
)
def test_a_wrong_line_is_said_at_the_word(line: str, problem: str) -> None:
    assert errors_of(me(f"identity: [{line}]")) == [problem]


@pytest.mark.parametrize(
    "text",
    [
        "spiffe://desk.example",
        "spiffe://desk.example/",
        "spiffe://Desk.example/a",
        "SPIFFE://desk.example/a",
        "spiffe://desk.example/a/../b",
        "spiffe://desk.example/a?b",
        "spiffe://u@desk.example/a",
        "spiffe://desk.example:1/a",
        "spiffe://desk.example/a//b",
        "spiffe://desk.example/.",
        "spiffe://desk.example/" + "a" * 2048,
        "https://desk.example/a",
    ],
)
def test_a_spiffe_id_has_one_form(text: str) -> None:
    with pytest.raises(MistakeError, match="is no SPIFFE ID"):
        read_spiffe(text)


@pytest.mark.parametrize(
    "text",
    [
        "127.0.0.1",
        "127.0.0.1:",
        "127.0.0.1:0",
        "127.0.0.1:65536",
        "127.0.0.1:053",
        ":53",
        "localhost:53",
        "::1:53",
        "[127.0.0.1]:53",
        "[::1%lo]:53",
        "[::1:53",
        "127.1:53",
        "",
    ],
)
def test_a_listen_address_has_one_form(text: str) -> None:
    with pytest.raises(MistakeError, match="is no listen address"):
        read_listener(text)


@pytest.mark.parametrize("text", ["", "/", "a", "/a/", "/a//b", "/a/../b", "/" + "a" * 4096])
def test_a_cgroup_is_a_path_from_the_root(text: str) -> None:
    with pytest.raises(MistakeError, match="is no cgroup"):
        read_cgroup(text)


def test_two_apps_on_one_listener_is_an_error() -> None:
    text = apps(
        one='{listener: "[2001:db8::1]:53"}',
        two='{listener: "[2001:DB8:0::1]:53", process: {uid: 1}}',
    )
    assert errors_of(text) == [
        "a.yaml:5:17 the listener [2001:db8::1]:53 names one already, at a.yaml:3"
    ]


def test_one_app_may_name_its_listener_twice() -> None:
    line = '{listener: "192.0.2.1:53"}'
    assert errors_of(apps(one=f"{line}, {line}")) == []


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("{uid: 1}", "{uid: 1}"),
        ("{uid: 1}", "{cgroup: /a}"),
        ("{cgroup: /a}", f'{{exe_sha256: "{DIGEST}"}}'),
        ("{uid: 1, cgroup: /a}", "{uid: 1, cgroup: /a}"),
        ("{uid: 1, cgroup: /a}", f'{{uid: 1, exe_sha256: "{DIGEST}"}}'),
        ("{uid: 1, cgroup: /a}", f'{{cgroup: /a, exe_sha256: "{DIGEST}"}}'),
        (
            f'{{uid: 1, cgroup: /a, exe_sha256: "{DIGEST}"}}',
            f'{{uid: 1, cgroup: /a, exe_sha256: "{DIGEST}"}}',
        ),
    ],
)
def test_process_lines_of_two_apps_that_may_tie_are_an_error(one: str, two: str) -> None:
    text = apps(one=f"{{process: {one}}}", two=f"{{process: {two}}}")
    problem = "a.yaml:5:17 a process may match this line and that of one at a.yaml:3"
    assert errors_of(text) == [problem]


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("{uid: 1}", "{uid: 2}"),
        ("{uid: 1}", "{uid: 1, cgroup: /a}"),
        ("{uid: 1, cgroup: /a}", "{uid: 1, cgroup: /b}"),
        ("{uid: 1, cgroup: /a}", f'{{uid: 2, exe_sha256: "{DIGEST}"}}'),
    ],
)
def test_process_lines_that_conflict_or_differ_in_rank_may_stand(one: str, two: str) -> None:
    assert errors_of(apps(one=f"{{process: {one}}}", two=f"{{process: {two}}}")) == []


def test_lines_of_one_app_and_lines_of_other_evidence_do_not_tie() -> None:
    assert errors_of(apps(one="{process: {uid: 1}}, {process: {cgroup: /a}}")) == []
    line = "{lease: a, process: {uid: 1}}"
    assert errors_of(apps(one=line, two="{process: {uid: 1}}", three="{token: t}")) == []
    assert errors_of(apps(one="{token: t}, {token: t, process: {uid: 1}}")) == []
    assert errors_of(apps(one="{token: t, lease: a}", two="{token: t}")) == []


@pytest.mark.parametrize(
    ("one", "two", "column"),
    [
        ("{token: t}", "{token: t}", 17),
        ('{token: t, listener: "172.18.0.1:1"}', '{token: t, listener: "172.18.0.1:1"}', 17),
        ("{token: t, process: {uid: 1}}", "{token: t, process: {cgroup: /a}}", 27),
    ],
)
def test_a_token_that_may_name_two_apps_is_an_error(one: str, two: str, column: int) -> None:
    problem = f"a.yaml:5:{column} the token t may match this line and that of one at a.yaml:3"
    assert errors_of(apps(one=one, two=two)) == [problem]


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("{token: t}", "{token: u}"),
        ("{token: t, process: {uid: 1}}", "{token: t, process: {uid: 2}}"),
        ("{token: t}", "{token: t, process: {uid: 2}}"),
        ("{token: t}", '{token: t, listener: "172.18.0.1:1"}'),
        ('{token: t, listener: "172.18.0.1:1"}', '{token: t, listener: "172.18.0.1:2"}'),
        ('{token: t, listener: "172.18.0.1:1"}', '{token: u, listener: "172.18.0.1:1"}'),
        ('{token: t, listener: "172.18.0.1:1"}', '{listener: "172.18.0.1:1"}'),
        ("{token: t, process: {uid: 1}}", "{process: {uid: 1}}"),
    ],
)
def test_tokens_that_can_name_one_app_only_may_stand(one: str, two: str) -> None:
    assert errors_of(apps(one=one, two=two)) == []


@pytest.mark.parametrize("key", ["token: t", f"spiffe: {ID}"])
def test_who_may_dial_a_listener_is_not_warned_of_where_a_credential_is_needed_too(
    key: str,
) -> None:
    assert warnings_of(me(f'identity: [{{{key}, listener: "127.0.0.1:3128"}}]')) == []


def test_a_certificate_may_stand_with_listener_process_and_token() -> None:
    line = f"{{spiffe: {ID}, token: t, listener: '192.0.2.1:1', process: {{uid: 1}}}}"
    (read,) = app_of(me(f"identity: [{line}]")).identity
    assert (read.spiffe, read.token, read.listener, read.uid) == (ID, "t", "192.0.2.1:1", 1)
    assert warnings_of(me(f"identity: [{line}]")) == []


@pytest.mark.parametrize(
    ("one", "two", "column"),
    [
        ("", "", 17),
        (", listener: '172.18.0.1:1'", ", listener: '172.18.0.1:1'", 17),
        (", token: t", ", token: t", 17),
        (", process: {uid: 1}", ", process: {cgroup: /a}", 42),
        (", token: t, process: {uid: 1}", ", token: t, process: {uid: 1}", 52),
    ],
)
def test_a_certificate_that_may_name_two_apps_is_an_error(one: str, two: str, column: int) -> None:
    """Two apps whose lines may match one certificate tie as with tokens; the place is said."""
    problem = f"a.yaml:5:{column} a certificate of {ID} may match this line and that of one at"
    text = apps(one=f"{{spiffe: {ID}{one}}}", two=f"{{spiffe: {ID}{two}}}")
    assert errors_of(text) == [f"{problem} a.yaml:3"]


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("", ", token: t"),
        ("", ", listener: '172.18.0.1:1'"),
        ("", ", process: {uid: 1}"),
        (", process: {uid: 1}", ", process: {uid: 2}"),
        (", token: t", ", token: u"),
        (", listener: '172.18.0.1:1'", ", listener: '172.18.0.1:2'"),
    ],
)
def test_certificates_that_can_name_one_app_only_may_stand(one: str, two: str) -> None:
    assert errors_of(apps(one=f"{{spiffe: {ID}{one}}}", two=f"{{spiffe: {ID}{two}}}")) == []


def test_different_certificates_may_share_a_listener() -> None:
    lines = [f"{{spiffe: {ID}{more}, listener: '192.0.2.1:1'}}" for more in ("", "2")]
    assert errors_of(apps(one=lines[0], two=lines[1], three="{listener: '192.0.2.1:1'}")) == []
