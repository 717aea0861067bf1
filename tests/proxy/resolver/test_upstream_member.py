"""A member of a group: what it is made of, how it fares, what is counted."""

import pytest

from proxy.errors import UpstreamError
from proxy.limits import Limits
from proxy.metrics import Metrics
from proxy.resolver.breaker import BreakerState
from proxy.resolver.upstream_member import Member, MemberMaker, UpstreamStatus, needs_https
from proxy.resolver.upstream_stream import StreamUpstream
from proxy.resolver.upstream_udp import UdpUpstream
from proxy.resolver.upstream_url import parse_groups, parse_upstream
from rules.decision import Reason
from tests.proxy.resolver.asking import system_context

LIMITS = Limits(upstream_failures=2)


def maker(metrics: Metrics) -> MemberMaker:
    return MemberMaker(LIMITS, metrics, bytes, system_context(), system_context())


def member(url: str = "udp://192.0.2.1", metrics: Metrics | None = None) -> Member:
    return maker(metrics or Metrics()).make(parse_upstream(url))


@pytest.mark.parametrize(
    ("url", "label", "kind", "is_tls"),
    [
        ("udp://192.0.2.1", "udp", UdpUpstream, False),
        ("tcp://192.0.2.1", "tcp", StreamUpstream, False),
        ("tls://192.0.2.1", "dot", StreamUpstream, True),
        ("https://192.0.2.1/dns-query", "doh", StreamUpstream, True),
    ],
)
def test_speaks_what_its_url_says(url: str, label: str, kind: type, *, is_tls: bool) -> None:
    made = member(url)
    assert made.label == label
    assert isinstance(made.upstream, kind)
    assert isinstance(made.upstream, StreamUpstream) is (label != "udp")
    if isinstance(made.upstream, StreamUpstream):
        assert made.upstream.label == label
        assert (made.upstream.ssl_context is not None) is is_tls


def test_times_are_smoothed() -> None:
    """RFC 6298, section 2: an eighth of the new one."""
    one = member()
    one.answered(0.8, "answered")
    assert one.rtt_s == pytest.approx(0.8)
    one.answered(1.6, "answered")
    assert one.rtt_s == pytest.approx(0.9)


def test_an_answer_of_any_rcode_says_that_it_is_there() -> None:
    metrics = Metrics()
    one = member(metrics=metrics)
    for _ in range(5):
        one.failed(UpstreamError(Reason.UPSTREAM_TIMEOUT, "late"), 0.0)
        one.answered(0.1, "servfail")
    assert one.breaker.is_closed
    assert metrics.upstream.value("udp", "servfail") == 5
    assert metrics.upstream.value("udp", "timeout") == 5


@pytest.mark.parametrize(
    ("reason", "outcome"),
    [
        (Reason.UPSTREAM_TIMEOUT, "timeout"),
        (Reason.UPSTREAM_UNREACHABLE, "unreachable"),
        (Reason.UPSTREAM_TLS, "tls"),
        (Reason.UPSTREAM_MALFORMED, "malformed"),
    ],
)
def test_failures_of_every_kind_open_it_and_are_counted(reason: Reason, outcome: str) -> None:
    metrics = Metrics()
    one = member("tls://192.0.2.1", metrics)
    for _ in range(LIMITS.upstream_failures):
        one.failed(UpstreamError(reason, f"{outcome} it is"), 0.0)
    assert one.breaker.state is BreakerState.OPEN
    assert one.status("corp.example", 2) == UpstreamStatus(
        "tls://192.0.2.1:853#192.0.2.1",
        "corp.example",
        2,
        BreakerState.OPEN,
        f"{outcome} it is",
        None,
    )
    page = metrics.render().decode()
    assert f'outcome="{outcome}",transport="dot"}} 2.0' in page
    assert "sallyport_upstreams_open 1.0" in page
    assert 'sallyport_upstream_states_total{state="open",transport="dot"} 1.0' in page


def test_the_gauge_counts_an_upstream_until_it_is_closed_again() -> None:
    metrics = Metrics()
    one = member(metrics=metrics)
    for _ in range(LIMITS.upstream_failures):
        one.failed(UpstreamError(Reason.UPSTREAM_TIMEOUT, "late"), 0.0)
    one.breaker.begin_trial()
    assert metrics.upstreams_open.value == 1
    one.answered(0.1, "answered")
    assert metrics.upstreams_open.value == 0
    assert metrics.upstream_states.value("udp", "closed") == 1


def test_knows_groups_that_speak_https() -> None:
    assert needs_https(parse_groups([["udp://192.0.2.1"], ["https://192.0.2.2/dns-query"]]))
    assert not needs_https(parse_groups(["udp://192.0.2.1", "tls://192.0.2.2", "system"]))
