import pytest

from proxy.flow import Plane
from proxy.limits import Limits
from proxy.metrics import Metrics
from proxy.refusals import Refusal, Refusals, host_of
from rules.decision import Reason


def refusal(id: str, target: str = "denied.example A", app: str = "coder") -> Refusal:  # noqa: A002 - as in Refusal
    return Refusal(
        id=id,
        app=app,
        plane=Plane.DNS,
        reason=Reason.HOST_NOT_LISTED,
        target=target,
        how="ask",
        rule=None,
        time=1.0,
    )


def test_an_app_finds_its_refusal_by_id_and_by_name() -> None:
    refusals = Refusals(Limits())
    refusals.remember("coder", "1", refusal("1"))
    assert refusals.get("coder", "1") == refusal("1")
    assert refusals.last("coder", "denied.example") == refusal("1")
    assert refusals.last("coder", "Denied.Example.") == refusal("1")


def test_an_app_never_finds_what_another_was_refused() -> None:
    """threats.md, "Identity": the agent reaches the admin side."""
    refusals = Refusals(Limits())
    refusals.remember("coder", "1", refusal("1"))
    refusals.remember("other", "2", refusal("2", "other.example A", "other"))
    assert refusals.get("other", "1") is None
    assert refusals.last("other", "denied.example") is None
    assert refusals.get("nobody", "1") is None
    assert refusals.last("nobody", "denied.example") is None


def test_the_last_refusal_of_a_name_is_found() -> None:
    refusals = Refusals(Limits())
    refusals.remember("coder", "1", refusal("1", "denied.example A"))
    refusals.remember("coder", "2", refusal("2", "denied.example:443"))
    found = refusals.last("coder", "denied.example")
    assert found is not None
    assert found.id == "2"


def test_refusals_that_folded_are_each_found_by_name() -> None:
    refusals = Refusals(Limits())
    refusals.remember("coder", "1", refusal("1", "a.example A"))
    refusals.remember("coder", "1", refusal("1", "b.example A"))
    first, second = refusals.last("coder", "a.example"), refusals.get("coder", "1")
    assert first is not None
    assert second is not None
    assert (first.target, second.target) == ("a.example A", "b.example A")


def test_the_oldest_refusals_of_an_app_make_room_and_are_counted() -> None:
    metrics = Metrics()
    refusals = Refusals(Limits(refusals_per_app=2), metrics)
    for number in "1213":
        refusals.remember("coder", number, refusal(number, f"{number}.example A"))
    by_id = [refusals.get("coder", number) for number in "123"]
    by_name = [refusals.last("coder", f"{number}.example") for number in "123"]
    assert [found is not None for found in by_id] == [True, False, True]
    assert [found is not None for found in by_name] == [True, False, True]
    assert metrics.bounds.value("refusals_per_app") == 2


def test_a_flood_of_one_app_pushes_nothing_of_another_out() -> None:
    """threats.md, "Evidence as a weapon": one agent rolls the history out."""
    refusals = Refusals(Limits(refusals_per_app=4))
    refusals.remember("quiet", "q", refusal("q", "q.example A", "quiet"))
    for number in range(100):
        refusals.remember("loud", f"{number}", refusal(f"{number}", f"{number}.example A", "loud"))
    assert refusals.get("quiet", "q") is not None


def test_the_app_that_was_refused_longest_ago_makes_room() -> None:
    metrics = Metrics()
    refusals = Refusals(Limits(apps_remembered=2), metrics)
    for app in ("a", "b", "a", "c"):
        refusals.remember(app, app, refusal(app, "x.example A", app))
    assert [refusals.get(app, app) is not None for app in "abc"] == [True, False, True]
    assert metrics.bounds.value("apps_remembered") == 1


def test_bounds_hold_without_a_counter() -> None:
    refusals = Refusals(Limits(refusals_per_app=1))
    refusals.remember("coder", "1", refusal("1", "a.example A"))
    refusals.remember("coder", "2", refusal("2", "b.example A"))
    assert refusals.get("coder", "1") is None


def test_a_long_target_is_kept_in_part() -> None:
    refusals = Refusals(Limits(audit_target_characters=20))
    refusals.remember("coder", "1", refusal("1", "GET http://a.example:80/" + "x" * 9000))
    found = refusals.get("coder", "1")
    assert found is not None
    assert len(found.target) == 20


@pytest.mark.parametrize(
    ("target", "host"),
    [
        ("a.example A", "a.example"),
        ("a.example", "a.example"),
        ("A.Example.", "a.example"),
        ("a.example:443", "a.example"),
        ("192.0.2.1:443", "192.0.2.1"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("a.example 192.0.2.1", "a.example"),
        ("a.example 2001:db8::1", "a.example"),
        ("literal 2001:db8::1", "2001:db8::1"),
        ("literal 192.0.2.1", "192.0.2.1"),
        ("GET http://a.example:80/b/c:d", "a.example"),
        ("GET http://[2001:db8::1]:80/", "2001:db8::1"),
        ("GET http://a.example", "a.example"),
        (". NS", ""),
        ("", ""),
    ],
)
def test_the_host_is_found_in_every_wording_of_a_target(target: str, host: str) -> None:
    assert host_of(target) == host
