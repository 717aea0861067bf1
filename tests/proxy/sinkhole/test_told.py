"""Which names were answered with our address: found by app, else by name, for a while, bounded."""

import pytest

from proxy.limits import Limits
from proxy.metrics import Metrics
from proxy.sinkhole.told import Names, Told
from rules.name import parse
from tests.proxy.sinkhole.stand import ID, LISTED

BAD, WORSE = parse("bad.example.com"), parse("worse.example.com")


def told(name: str = BAD, app: str = "coder", at: float = 100.0, unique: str = ID) -> Told:
    return Told(app, parse(name), unique, LISTED, at)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


def test_finds_what_an_app_was_told(metrics: Metrics) -> None:
    names = Names(Limits(), metrics)
    names.add(told())
    assert names.find("coder", BAD, 101.0) == told()
    assert names.find("coder", WORSE, 101.0) is None


def test_no_app_finds_what_another_was_told(metrics: Metrics) -> None:
    """threats.md, "Identity": what one app asks for is not told to another."""
    names = Names(Limits(), metrics)
    names.add(told())
    assert names.find("other", BAD, 101.0) is None


def test_whom_nothing_names_finds_what_was_told_last(metrics: Metrics) -> None:
    names = Names(Limits(), metrics)
    names.add(told(app="a", at=102.0))
    names.add(told(app="b", at=101.0))
    found = names.find(None, BAD, 103.0)
    assert found is not None
    assert found.app == "a"
    assert names.find(None, WORSE, 103.0) is None


def test_the_last_refusal_of_a_name_counts(metrics: Metrics) -> None:
    names = Names(Limits(), metrics)
    names.add(told(unique="0" * 32))
    names.add(told(unique="1" * 32))
    found = names.find("coder", BAD, 101.0)
    assert found is not None
    assert found.id == "1" * 32


def test_forgets_after_a_minute(metrics: Metrics) -> None:
    names = Names(Limits(sinkhole_told_s=60.0), metrics)
    names.add(told(at=100.0))
    assert names.find("coder", BAD, 160.0) is not None
    assert names.find("coder", BAD, 160.1) is None


def test_the_name_told_longest_ago_makes_room_and_is_counted(metrics: Metrics) -> None:
    names = Names(Limits(sinkhole_names=2), metrics)
    for name in ("a.example", "b.example", "a.example", "c.example"):
        names.add(told(name))
    known = [names.find("coder", parse(f"{each}.example"), 100.0) for each in "abc"]
    assert [each is not None for each in known] == [True, False, True]
    assert metrics.bounds.value("sinkhole_names") == 1


def test_an_app_that_asks_for_very_many_names_pushes_out_its_own_only(metrics: Metrics) -> None:
    names = Names(Limits(sinkhole_names=2), metrics)
    names.add(told(app="quiet"))
    for each in range(10):
        names.add(told(f"n{each}.example", app="loud"))
    assert names.find("quiet", BAD, 100.0) is not None


def test_the_app_told_longest_ago_makes_room_and_is_counted(metrics: Metrics) -> None:
    names = Names(Limits(apps_remembered=1), metrics)
    names.add(told(app="a"))
    names.add(told(app="b"))
    assert names.find("a", BAD, 100.0) is None
    assert names.find("b", BAD, 100.0) is not None
    assert metrics.bounds.value("apps_remembered") == 1
