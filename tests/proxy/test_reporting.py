"""What the parts say of themselves becomes what `status` shows."""

from certs.leaf import Leaf
from proxy.reload.reloader import ReloadStatus
from proxy.reporting import certificate, reloaded, upstream_state
from proxy.resolver.breaker import BreakerState
from proxy.resolver.upstream_member import UpstreamStatus
from rules.errors import Place, Problem

NOW = 1_763_000_000.0


def test_a_reload_is_told_with_every_problem() -> None:
    problem = Problem(Place("a.yaml", 3, 9), "no such key", "remove it")
    status = ReloadStatus(7, "failed", "files", NOW, 0.5, ("a.yaml",), (problem,))
    told = reloaded(status)
    assert (told.generation, told.outcome, told.time) == (7, "failed", NOW)
    assert len(told.problems) == 1
    assert "a.yaml:3:9" in told.problems[0]


def test_an_upstream_is_told_with_its_time_and_its_last_error() -> None:
    status = UpstreamStatus(
        "tls://192.0.2.1", "corp.example", 1, BreakerState.OPEN, "reset", 0.0123
    )
    told = upstream_state(status)
    assert (told.name, told.state, told.zone) == ("tls://192.0.2.1", "open", "corp.example")
    assert told.text == "12.3 ms, reset"


def test_an_upstream_that_was_never_asked_has_nothing_to_tell() -> None:
    told = upstream_state(UpstreamStatus("udp://192.0.2.1", "", 1, BreakerState.CLOSED, "", None))
    assert (told.zone, told.text) == (None, "")


def test_a_certificate_is_told_where_there_is_one() -> None:
    leaf = Leaf(not_before=1, not_after=2, names=("localhost",), sha256="ab")
    told = certificate(leaf)
    assert told is not None
    assert (told.names, told.not_after) == (("localhost",), 2)
    assert certificate(None) is None
