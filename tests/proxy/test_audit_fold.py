import os
from typing import Any

import pytest

from proxy.audit_fold import FOLD_S, SLOW_FOLD_S, Fold, Folds, Repeats, Width
from proxy.limits import Limits
from proxy.metrics import Metrics
from rules.decision import Reason
from tests.proxy.lines import Clock, line, refused


class Bench:
    """Folds with a clock that the test turns and a list of what spilled."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self.clock = Clock()
        self.metrics = Metrics()
        self.spilled: list[Fold] = []
        self.folds = Folds(self.limits, self.metrics, self.clock, os.urandom, self.spilled.extend)

    def rest(self) -> list[tuple[str, int, Width]]:
        return [(fold.line.target, fold.count, fold.width) for fold in self.folds.rest()]


def test_lines_that_say_the_same_share_an_id_and_a_fold() -> None:
    bench = Bench()
    ids = {bench.folds.add(line(flow=f"{number}"), None) for number in range(3)}
    assert len(ids) == 1
    assert bench.rest() == [("example.com A", 3, Width.PLAIN)]


@pytest.mark.parametrize(
    "changes",
    [
        {"app": "other"},
        {"plane": "http"},
        {"fact": "connect"},
        {"verdict": "deny"},
        {"reason": Reason.LOCAL},
        {"rule": "me.yaml:5"},
        {"target": "example.org A"},
        {"generation": 2},
    ],
)
def test_lines_that_differ_in_what_was_decided_do_not_fold(changes: dict[str, Any]) -> None:
    bench = Bench()
    assert bench.folds.add(line(), None) != bench.folds.add(line(**changes), None)


def test_a_fold_is_due_when_its_second_is_over() -> None:
    bench = Bench()
    bench.folds.add(line("a A"), None)
    bench.clock.now += 0.5
    bench.folds.add(line("b A"), None)
    assert bench.folds.due(bench.clock.now + 0.49, 10) == []
    assert [fold.line.target for fold in bench.folds.due(bench.clock.now + 0.5, 10)] == ["a A"]
    assert bench.rest() == [("b A", 1, Width.PLAIN)]


def test_a_repeat_after_its_fold_closed_gets_a_new_id() -> None:
    bench = Bench()
    first = bench.folds.add(line(), None)
    bench.folds.due(bench.clock.now + FOLD_S, 10)
    assert bench.folds.add(line(), None) != first


def test_no_more_are_taken_at_once_than_asked_for_and_the_oldest_first() -> None:
    bench = Bench()
    for number in range(5):
        bench.folds.add(line(f"{number} A"), None)
    due = bench.folds.due(bench.clock.now + FOLD_S, 3)
    assert [fold.line.target for fold in due] == ["0 A", "1 A", "2 A"]


def test_a_clock_that_was_set_back_keeps_no_fold_open() -> None:
    bench = Bench()
    bench.folds.add(line(), None)
    assert len(bench.folds.due(bench.clock.now - 3600, 10)) == 1


def test_the_end_of_a_flow_stands_under_the_id_of_its_beginning() -> None:
    bench = Bench()
    first = bench.folds.add(line(), None)
    again = bench.folds.add(line(detail={"octets_up": 1, "octets_down": 2, "duration": 0.5}), first)
    assert again == first
    assert [fold.count for fold in bench.folds.rest()] == [1, 1]


def test_octets_of_lines_that_fold_are_summed_and_the_longest_duration_stays() -> None:
    bench = Bench()
    for up, down, duration in ((1, 10, 0.5), (2, 20, 3), (4, 40, 1.0)):
        detail = {"octets_up": up, "octets_down": down, "duration": duration}
        bench.folds.add(line(detail=detail), None)
    (fold,) = bench.folds.rest()
    assert (fold.octets_up, fold.octets_down, fold.duration, fold.is_end) == (7, 70, 3, True)


@pytest.mark.parametrize("detail", [{"duration": "long"}, {"octets_up": 1, "duration": 2.0}])
def test_a_detail_that_is_no_end_of_a_flow_is_not_summed(detail: dict[str, object]) -> None:
    bench = Bench()
    bench.folds.add(line(detail=detail), None)
    (fold,) = bench.folds.rest()
    assert (fold.octets_up, fold.is_end) == (0, detail["duration"] == 2.0)


def test_a_flood_of_refusals_folds_by_reason_and_rule_with_samples() -> None:
    bench = Bench(Limits(refusals_a_second=3, refusal_samples=2))
    ids = [bench.folds.add(refused(f"{number}.example A"), None) for number in range(10)]
    ids.append(bench.folds.add(refused("list.example A", reason=Reason.LIST), None))
    assert len(set(ids)) == 5
    assert len(set(ids[3:10])) == 1
    widest = [fold for fold in bench.folds.rest() if fold.count == 7]
    assert [fold.samples for fold in widest] == [["3.example A", "4.example A"]]
    assert bench.metrics.bounds.value("refusals_a_second") == 8


def test_a_sample_stands_once() -> None:
    bench = Bench(Limits(refusals_a_second=0))
    for target in ("a A", "b A", "a A", "b A"):
        bench.folds.add(refused(target), None)
    assert [fold.samples for fold in bench.folds.rest()] == [["a A", "b A"]]


def test_a_flood_is_over_when_its_second_is() -> None:
    bench = Bench(Limits(refusals_a_second=1))
    for number in range(3):
        bench.folds.add(refused(f"{number} A"), None)
    bench.clock.now += 1
    bench.folds.add(refused("later A"), None)
    assert bench.rest()[-1] == ("later A", 1, Width.PLAIN)


def test_repeats_of_one_refusal_are_no_flood() -> None:
    bench = Bench(Limits(refusals_a_second=2))
    for _ in range(100):
        bench.folds.add(refused(), None)
    bench.folds.add(refused("another A"), None)
    assert bench.rest() == [
        *(("denied.example A", 100, Width.PLAIN), ("another A", 1, Width.PLAIN))
    ]


def test_a_flood_of_one_app_widens_no_fold_of_another() -> None:
    """threats.md, "Evidence as a weapon": one agent rolls the history out."""
    bench = Bench(Limits(refusals_a_second=2, audit_quota_octets=2000))
    for number in range(50):
        bench.folds.add(refused(f"{number} A", "loud"), None)
        bench.folds.add(line(f"{number} A", "loud"), None)
    bench.folds.add(refused("q A", "quiet"), None)
    assert bench.folds.is_over_quota("loud")
    assert not bench.folds.is_over_quota("quiet")
    assert bench.rest()[-1] == ("q A", 1, Width.PLAIN)


def test_an_app_over_its_quota_is_told_in_a_closed_set_of_lines() -> None:
    bench = Bench(Limits(audit_quota_octets=1))
    bench.folds.add(line("first A"), None)
    for number in range(100):
        bench.folds.add(line(f"{number} A", rule=f"me.yaml:{number}"), None)
        bench.folds.add(refused(f"{number} A", rule=f"me.yaml:{number}"), None)
    assert [(count, width) for _, count, width in bench.rest()] == [
        *((1, Width.PLAIN), (100, Width.OVER_QUOTA), (100, Width.OVER_QUOTA))
    ]


def test_ends_of_flows_over_the_quota_are_summed() -> None:
    bench = Bench(Limits(audit_quota_octets=1))
    bench.folds.add(line("first A"), None)
    for number in range(3):
        detail = {"octets_up": 5, "octets_down": 6, "duration": 1.0}
        bench.folds.add(line(f"{number}", detail=detail), f"{number}")
    fold = bench.folds.rest()[-1]
    assert (fold.id, fold.count, fold.octets_up, fold.octets_down) == ("0", 3, 15, 18)


def test_the_quota_flows_back_over_a_minute_and_no_further() -> None:
    bench = Bench(Limits(audit_quota_octets=600))
    for number in range(2):
        bench.folds.add(line(f"{number} A"), None)
    assert bench.folds.is_over_quota("coder")
    bench.folds.refill(bench.clock.now + 1)
    assert not bench.folds.is_over_quota("coder")
    assert bench.folds._apps["coder"].left_octets == pytest.approx(10)
    bench.folds.refill(bench.clock.now + 3600)
    assert bench.folds._apps["coder"].left_octets == 600


def test_a_clock_that_was_set_back_takes_no_quota_away() -> None:
    bench = Bench(Limits(audit_quota_octets=1000))
    bench.folds.add(line(), None)
    left = bench.folds._apps["coder"].left_octets
    bench.folds.refill(bench.clock.now - 3600)
    assert bench.folds._apps["coder"].left_octets == left


def test_too_many_folds_close_the_oldest_early() -> None:
    bench = Bench(Limits(audit_folds=100))
    for number in range(101):
        bench.folds.add(line(f"{number} A"), None)
    assert [fold.line.target for fold in bench.spilled] == [f"{number} A" for number in range(64)]
    assert len(bench.rest()) == 37
    assert bench.metrics.bounds.value("audit_folds") == 1


def test_a_stalled_disk_folds_as_much_as_can_be_folded() -> None:
    bench = Bench()
    bench.folds.is_stalled = True
    for number in range(100):
        bench.folds.add(line(f"{number} A"), None)
    assert bench.rest() == [("0 A", 100, Width.OVER_QUOTA)]


def test_apps_are_bounded() -> None:
    bench = Bench(Limits(apps_remembered=2))
    for app in ("a", "b", "c"):
        bench.folds.add(line(app=app), None)
    assert list(bench.folds._apps) == ["b", "c"]
    assert bench.metrics.bounds.value("apps_remembered") == 1


def test_ids_are_drawn_from_fresh_octets() -> None:
    drawn: list[int] = []

    def entropy(octets: int) -> bytes:
        drawn.append(octets)
        return os.urandom(octets)

    bench = Bench()
    folds = Folds(bench.limits, bench.metrics, bench.clock, entropy, bench.spilled.extend)
    ids = {folds.new_id(bench.clock.now) for _ in range(130)}
    assert len(ids) == 130
    assert len(drawn) == 3
    assert all(len(id) == 32 and id[12] == "7" for id in ids)  # noqa: A001 - the field's own name


def test_repeats_are_added_before_their_fold_is_told() -> None:
    """threats.md, Evidence as a weapon: folding keeps counters exact."""
    bench = Bench()
    repeats = Repeats()
    bench.folds.add(line(), None, repeats)
    assert repeats.left_s == FOLD_S
    repeats.count += 5
    assert bench.rest() == [("example.com A", 6, Width.PLAIN)]
    assert repeats.fold is None
    repeats.count += 1  # nobody may: it is counted for no line
    assert repeats.settle() == 1


def test_repeats_join_the_fold_that_is_open_and_leave_the_one_before() -> None:
    bench = Bench()
    repeats = Repeats()
    bench.folds.add(line(), None, repeats)
    bench.clock.now += 0.25
    bench.folds.add(line(), None, repeats)
    assert repeats.left_s == pytest.approx(FOLD_S - 0.25)
    repeats.count += 2
    bench.folds.add(line("b A"), None, repeats)
    repeats.count += 3
    assert repeats.settle() == 3
    assert bench.rest() == [("example.com A", 4, Width.PLAIN), ("b A", 4, Width.PLAIN)]


def test_repeats_of_a_fold_that_makes_room_are_told_with_it() -> None:
    bench = Bench(Limits(audit_folds=1))
    repeats = Repeats()
    bench.folds.add(line(), None, repeats)
    repeats.count += 9
    bench.folds.add(line("b A"), None)
    assert [(fold.line.target, fold.count) for fold in bench.spilled] == [("example.com A", 10)]
    assert repeats.fold is None


def test_repeats_of_a_flood_end_with_the_second_of_its_app() -> None:
    bench = Bench(Limits(refusals_a_second=1))
    bench.folds.add(refused("a A"), None)
    bench.clock.now += 0.75
    repeats = Repeats()
    bench.folds.add(refused("b A"), None, repeats)
    assert repeats.left_s == pytest.approx(0.25)
    assert repeats.fold is not None
    assert repeats.fold.width is Width.FLOODING


def test_a_clock_that_is_set_back_does_not_make_a_second_longer() -> None:
    """Faults: clock jumps."""
    bench = Bench()
    repeats = Repeats()
    bench.folds.add(line(), None)
    bench.clock.now -= 3600
    bench.folds.add(line(), None, repeats)
    assert repeats.left_s == FOLD_S
    bench.clock.now += 7200
    bench.folds.add(line(), None, repeats)
    assert repeats.left_s == 0


def hot(bench: Bench, names: int, seconds: int) -> list[Fold]:
    """Ask for each of the cached `names` twice a second; return what is told of it."""
    told: list[Fold] = []
    for _ in range(seconds):
        for number in range(names):
            assert not bench.folds.is_over_quota("coder")
            repeats = Repeats()
            bench.folds.add(line(f"{number} A", detail={"cached": True}), None, repeats)
            repeats.count += 1
        bench.clock.now += FOLD_S
        bench.folds.refill(bench.clock.now)
        told += bench.folds.due(bench.clock.now, 10_000)
    return told + bench.folds.rest()


def test_heavy_use_of_cached_names_never_meets_the_quota_and_every_answer_is_counted() -> None:
    """threats.md, Evidence as a weapon: folding keeps counters exact."""
    bench = Bench()
    told = hot(bench, bench.limits.cache_entries, 130)
    assert sum(fold.count for fold in told) == 2 * 130 * bench.limits.cache_entries
    assert {fold.span_s for fold in told} == {FOLD_S, SLOW_FOLD_S}
    assert bench.metrics.bounds.value("audit_folds") == 0


def test_an_app_with_room_is_told_of_each_second() -> None:
    told = hot(Bench(), 10, 90)
    assert len(told) == 900
    assert {fold.span_s for fold in told} == {FOLD_S}


def test_what_is_not_from_the_cache_is_told_within_the_second_however_little_is_left() -> None:
    bench = Bench(Limits(audit_quota_octets=2000))
    for number in range(3):
        bench.folds.add(line(f"{number} A"), None)
    bench.folds.add(line("hot A", detail={"cached": True}), None)
    bench.folds.add(line("new A"), None)
    bench.folds.add(refused("no A"), None)
    due = bench.folds.due(bench.clock.now + FOLD_S, 10)
    assert [fold.line.target for fold in due] == ["0 A", "1 A", "2 A", "new A", "no A"]
    assert bench.folds.due(bench.clock.now + SLOW_FOLD_S - 1, 10) == []
    due = bench.folds.due(bench.clock.now + SLOW_FOLD_S, 10)
    assert [fold.line.target for fold in due] == ["hot A"]


def test_repeats_of_a_slow_fold_are_renewed_each_second() -> None:
    bench = Bench(Limits(audit_quota_octets=500))
    bench.folds.add(line("first A"), None)
    repeats = Repeats()
    for now in (0.0, 30.0, 59.5):
        began = bench.clock.now
        bench.clock.now += now
        bench.folds.add(line(detail={"cached": True}), None, repeats)
        assert repeats.left_s == pytest.approx(min(FOLD_S, SLOW_FOLD_S - now))
        bench.clock.now = began
    assert bench.rest()[-1] == ("example.com A", 3, Width.PLAIN)
