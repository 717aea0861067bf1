"""The configuration: defaults, every problem at once with its place, nothing half understood."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config import (
    DO53,
    DOH,
    DOT,
    PROXY,
    PROXY_TLS,
    UPSTREAMS,
    Listen,
    Locations,
    default_listen,
    name_like,
    read_config,
    read_socket,
    write_socket,
)
from proxy.limits import Limits
from rules.errors import Problem
from rules.text import SourceText

WHERE = Locations("/c", "/s")


def problems(text: str) -> list[Problem]:
    return read_config(SourceText("sallyport.yaml", text), WHERE)[1]


def test_without_a_file_the_defaults_of_the_reference_hold() -> None:
    settings, found = read_config(None, WHERE)
    assert found == []
    assert settings.listen == default_listen(WHERE)
    assert (settings.listen.dot, settings.listen.doh) == (DOT, DOH)
    assert (settings.upstreams, settings.upstream_ca) == (UPSTREAMS, None)
    assert (settings.state, settings.rules) == ("/s", ("/c/rules",))
    assert settings.audit.file == "/s/audit.jsonl"
    assert (settings.audit.rotate, settings.audit.keep) == (64 << 20, 16)
    assert settings.audit.on_failure == "deny"
    assert settings.first_run
    assert settings.enforcement == "advisory"


def test_an_empty_file_is_the_defaults() -> None:
    assert problems("") == []


def test_reads_every_key_of_this_version() -> None:
    settings, found = read_config(
        SourceText(
            "f",
            """
listen: {do53: ["127.0.0.1:53"], dot: [], doh: [], proxy: ["[::1]:3128"], proxy_tls: [],
         metrics: []}
resolver: {upstreams: ["udp://192.0.2.1"], upstream_ca: ca.pem}
rules: [one, two]
state: here
audit: {file: log, rotate: 1 MiB, keep: 2, on_failure: allow}
limits: {cache_entries: 10, head_s: 500ms, head_octets: 8 KiB}
""",
        ),
        WHERE,
    )
    assert found == []
    assert settings.listen.do53 == ("127.0.0.1:53",)
    assert settings.listen.skippable == frozenset()
    assert settings.rules == ("one", "two")
    assert (settings.audit.file, settings.audit.rotate) == ("log", 1 << 20)
    assert settings.audit.on_failure == "allow"
    assert settings.limits.cache_entries == 10
    assert (settings.limits.head_s, settings.limits.head_octets) == (0.5, 8192)
    assert not settings.first_run


def test_default_listeners_may_be_skipped_and_configured_ones_not() -> None:
    settings, _ = read_config(SourceText("f", 'listen: {do53: ["[::1]:53"]}'), WHERE)
    assert settings.listen.skippable == {*DOT, *DOH, *PROXY, *PROXY_TLS, "127.0.0.1:9153"}
    assert "[::1]:53" not in settings.listen.skippable
    assert set(DO53) <= Listen().skippable


def test_listeners_of_identity_stand_where_they_are_put() -> None:
    text = """
listen:
  proxy_tls: ["127.0.0.1:1"]
  control_tls: ["127.0.0.1:2"]
  enroll: ["127.0.0.1:3"]
  pki: ["[::1]:4"]
  workload: w.sock
  ext_authz: $RUNTIME/authz.sock
"""
    settings, found = read_config(SourceText("f", text), Locations("/c", "/s", "/r"))
    assert found == []
    listen = settings.listen
    assert (listen.proxy_tls, listen.control_tls) == (("127.0.0.1:1",), ("127.0.0.1:2",))
    assert (listen.enroll, listen.pki) == (("127.0.0.1:3",), ("[::1]:4",))
    assert (listen.workload, listen.ext_authz) == ("w.sock", "$RUNTIME/authz.sock")
    assert set(listen.tls) >= {"127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"}
    assert "[::1]:4" not in listen.tls


def test_only_the_workload_api_and_the_mtls_proxy_listen_unasked() -> None:
    listen = read_config(None, Locations("/c", "/s", "/r"))[0].listen
    assert (listen.workload, listen.ext_authz) == ("/r/workload.sock", "")
    assert listen.proxy_tls == PROXY_TLS
    assert (listen.control_tls, listen.enroll, listen.pki) == ((), (), ())


def test_under_system_the_ports_are_the_standards() -> None:
    settings, found = read_config(None, Locations("/c", "/s", "/r", system=True))
    assert found == []
    assert settings.listen.do53 == ("127.0.0.1:53", "[::1]:53")
    assert settings.listen.dot == ("127.0.0.1:853", "[::1]:853")
    assert settings.listen.doh == ("127.0.0.1:443", "[::1]:443")
    assert settings.listen.proxy == PROXY
    assert settings.listen.skippable >= {"[::1]:53", "[::1]:443", *PROXY}
    assert settings.listen.control == "/r/control.sock"
    assert (settings.enforcement, settings.first_run) == ("system", False)


def test_the_control_socket_can_be_moved_or_turned_off() -> None:
    where = Locations("/c", "/s", "/r")
    default, _ = read_config(None, where)
    moved, _ = read_config(SourceText("f", "listen: {control: /x, control_group: staff}"), where)
    off, _ = read_config(SourceText("f", "listen: {control: ''}"), where)
    assert default.listen.control == "/r/control.sock"
    assert (moved.listen.control, moved.listen.control_group) == ("/x", "staff")
    assert off.listen.control == ""


def test_datagrams_that_would_be_fragmented_are_a_problem() -> None:
    (problem,) = problems("limits: {dns_udp_octets: 64 KiB}")
    assert "4096" in problem.cure


def test_null_is_as_good_as_absent() -> None:
    assert problems("egress: {upstream_ca: null, upstream_proxy: null}") == []


def test_every_problem_is_told_at_once_with_its_place() -> None:
    found = problems(
        'listen:\n  do53: ["127.0.0.1:5300", "localhost:53"]\n'
        "audit:\n  rotate: 5 kB\n  keep: 0\n  on_failure: ignore\n"
        "limits:\n  cache_entires: 5\n  pins: 0\n  head_s: soon\n  pin_s: 1.5\n"
    )
    places = {(problem.place.line, problem.place.column) for problem in found}
    assert len(found) == 7
    assert (2, 28) in places
    assert all(problem.excerpt for problem in found)
    assert any("cache_entries" in problem.cure for problem in found)


def test_an_unknown_key_comes_with_a_suggestion() -> None:
    (problem,) = problems("resolver: {upstream: []}")
    assert "upstreams" in problem.render()
    assert problem.place.line == 1


@pytest.mark.parametrize("upstream", ["https://dns.example/dns-query", "dns.quad9.net"])
def test_an_upstream_that_cannot_be_used_is_a_problem(upstream: str) -> None:
    (problem,) = problems(f'resolver: {{upstreams: ["{upstream}"]}}')
    assert problem.place.column == 24


def test_what_is_no_yaml_is_a_problem() -> None:
    assert len(problems("listen: [")) == 1


@given(st.text(max_size=200))
def test_no_text_raises(text: str) -> None:
    settings, _ = read_config(SourceText("f", text), WHERE)
    assert isinstance(settings.limits, Limits)


@pytest.mark.parametrize("text", ["127.0.0.1:53", "[::1]:0", "0.0.0.0:65535"])
def test_a_socket_is_written_as_it_was_read(text: str) -> None:
    assert write_socket(*read_socket(text)) == text


@pytest.mark.parametrize(
    "text",
    ["127.0.0.1", "::1:53", "[127.0.0.1]:53", "127.0.0.1:65536", "localhost:53", "127.0.0.1:x", "",
     "127.0.0.01:53", "127.0.0.1:\u0665"],
)  # fmt: skip
def test_what_is_no_socket_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the texts differ by what is wrong
        read_socket(text)


def test_a_name_like_none_is_no_suggestion() -> None:
    assert name_like("zzzz", ["abcd"]) == "another"


def test_no_password_stands_in_an_excerpt() -> None:
    (problem,) = problems("egress: {upstream_proxy: 'http://me:hunter2@192.0.2.1:1', odd: 1}")
    assert "hunter2" not in problem.render()
    assert "@192.0.2.1" in problem.excerpt


def test_a_zone_that_is_named_twice_is_a_problem() -> None:
    zones = '{corp.example: ["udp://192.0.2.1"], CORP.example.: ["udp://192.0.2.2"]}'
    (problem,) = problems(f"resolver: {{zones: {zones}}}")
    assert "named twice" in problem.message


@pytest.mark.parametrize("kind", ["enroll", "pki"])
def test_what_only_our_own_issuer_serves_is_an_error_where_another_issues(kind: str) -> None:
    """Better said by `check` than by a listener that answers nobody."""
    spire = "identity: {workload_api: /run/spire/agent.sock}\n"
    listen = f'listen:\n  {kind}: ["127.0.0.1:3"]\n'
    (problem,) = problems(spire + listen)
    assert (problem.place.line, problem.message.partition(":")[0]) == (3, f"listen.{kind}")
    assert problem.cure == "take it away, or identity.workload_api"
    assert problems(spire) == problems(listen) == []
