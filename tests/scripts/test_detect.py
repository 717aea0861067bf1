"""`scripts/bench detect` on a small sample: its shapes, and its arithmetic."""

import math
from itertools import pairwise

import pytest

from proxy.limits import Limits
from rules.detector import Outcome
from rules.errors import MalformedNameError
from rules.name import DomainName, parse
from rules.rtype import AAAA, A
from rules.watch import Mode
from scripts.benches import benign, detect
from scripts.benches.benign import Cache
from scripts.benches.benign_apps import CONNECTS, Query
from scripts.benches.benign_names import HOLD_OUT, TRAIN, World
from scripts.benches.compared import RULES, AnomalousDns, Domains, Entropy, Rita, entropy
from scripts.benches.detect_benign import Half
from scripts.benches.detect_cost import ask_us, fill
from scripts.benches.detect_ground import Ground
from scripts.benches.detect_others import first_alarm, ours
from scripts.benches.detect_tables import benign_table, compared_table, tunnel_table
from scripts.benches.detect_tunnels import APP, NOW, Unit, parsed, run, worst_of
from scripts.benches.exfil_shapes import SHAPES, UNCAUGHT, slow_over_fifty
from scripts.benches.exfil_tools import PAYLOAD_OCTETS, TOOLS, Tunnel, dns2tcp, iodine
from scripts.benches.intervals import upper, wilson
from scripts.benches.words import WORDS

ALL = (*TOOLS, *SHAPES, *UNCAUGHT)


@pytest.fixture(scope="module")
def ground() -> Ground:
    return Ground()


def named(tunnel: Tunnel) -> str:
    return tunnel.name


@pytest.mark.parametrize("tunnel", ALL, ids=named)
def test_makes_the_same_queries_of_one_seed_and_others_of_another(tunnel: Tunnel) -> None:
    first = list(tunnel.queries(1))
    assert first == list(tunnel.queries(1))
    assert first != list(tunnel.queries(2))
    assert all(one.at_s <= two.at_s for one, two in pairwise(first))


@pytest.mark.parametrize("tunnel", TOOLS, ids=named)
def test_carries_the_payload_in_names_that_fit(tunnel: Tunnel) -> None:
    sent = list(tunnel.queries(1))
    assert sum(each.payload_bits for each in sent) / 8 >= PAYLOAD_OCTETS
    for each in sent:
        assert len(each.name) <= 255
        assert all(len(label) <= 63 for label in each.name.split("."))


def test_writes_nothing_that_our_listeners_would_refuse_for_dns2tcp() -> None:
    assert all(parse(sent.name) for sent in dns2tcp(1))


def test_has_a_word_for_each_of_seven_bits() -> None:
    assert len(set(WORDS)) == len(WORDS) == 128


def test_counts_a_name_by_what_follows_the_longest_known_beginning() -> None:
    unit = Unit()
    assert unit.cost(parse("one.shared.zone.net")) == len("sharedone") + 1
    assert unit.cost(parse("only.shared.zone.net")) == len("ly") + 1
    assert unit.cost(parse("only.shared.zone.net")) == 0
    assert unit.cost(parse("zone.net")) == 0


@pytest.mark.parametrize("tunnel", [TOOLS[0], SHAPES[0], SHAPES[2]], ids=named)
def test_agrees_with_the_detector_about_the_unit(ground: Ground, tunnel: Tunnel) -> None:
    detector, unit, octets = ground.detector(), Unit(), 0
    for sent in list(tunnel.queries(5))[:20]:
        name = parse(sent.name)
        octets += unit.cost(name)
        asked = (APP, name, sent.rtype)
        detector.ask(*asked, is_named=False, mode=Mode.OBSERVE, now=NOW + sent.at_s)
    (state,) = (each for each in detector.states(NOW + 1) if each.suffix != ".")
    # What starts inside a label known so far may begin a label or go on in one: an octet a name.
    assert abs(state.octets["24h"] - octets) <= 20


@pytest.mark.parametrize("tunnel", TOOLS, ids=named)
def test_stops_every_published_tool_within_512_octets(ground: Ground, tunnel: Tunnel) -> None:
    found = run(ground.detector(), tunnel, 7)
    assert found.outcome is Outcome.BLOCK
    assert found.before.octets <= 512
    assert found.is_caught


def test_keeps_any_window_of_a_tunnel_over_many_domains_within_the_budget(ground: Ground) -> None:
    found = run(ground.detector(), Tunnel("", "", slow_over_fifty, is_slow=True), 1)
    assert found.is_stopped
    assert found.worst[0] <= found.worst[1] <= found.worst[2] <= found.whole.octets


def test_takes_the_run_that_leaked_most(ground: Ground) -> None:
    runs = [run(ground.detector(), SHAPES[0], seed) for seed in range(3)]
    assert worst_of(runs).figure == max(each.figure for each in runs)


def test_refuses_what_is_no_name() -> None:
    assert parsed("-a.net") is None
    assert parsed("a.net") == "a.net"
    with pytest.raises(MalformedNameError):
        parse("-a.net")


def test_gives_each_half_domains_of_its_own(ground: Ground) -> None:
    """The hold-out half: nothing of it is seen while numbers are chosen."""
    worlds = [World(half, ground.suffixes) for half in (TRAIN, HOLD_OUT)]
    seen: list[set[DomainName]] = []
    for world in worlds:
        domains = Domains(ground.suffixes)
        queries = [query for hour in benign.hours(world, 2) for query in hour]
        assert all(parse(query[2]) == query[2] for query in queries)
        seen.append({domains.of(query[2]) for query in queries})
    assert len(seen[0]) > 300
    assert not seen[0] & seen[1]


def test_replays_the_same_day_twice(ground: Ground) -> None:
    world = World(TRAIN, ground.suffixes)

    def first_hour() -> list[Query]:
        return next(iter(benign.hours(world, 1)))

    assert first_hour() == first_hour()


def test_answers_from_the_cache_until_the_time_to_live_is_over() -> None:
    cache, name = Cache(Limits(cache_entries=2)), DomainName("a.net")

    def asked(at_s: float, rtype: int = A, name: DomainName = name) -> bool:
        return cache.has((at_s, 0, name, rtype, 60, CONNECTS))

    assert [asked(0), asked(59), asked(60), asked(61, AAAA)] == [False, True, False, False]
    assert not asked(62, A, DomainName("b.net"))  # full: the oldest, of 60, goes
    assert not asked(63)


def test_reports_both_halves_and_the_rules_of_others(
    ground: Ground, capsys: pytest.CaptureFixture[str]
) -> None:
    half = Half("hold-out", World(HOLD_OUT, ground.suffixes), ground.detector(), is_compared=True)
    half.replay(1)
    assert half.counts.queries >= half.counts.misses > 1000
    assert half.refusals == sum(n for each, n in half.found.items() if each > Outcome.ALERT) == 0
    assert set(half.alarmed) == set(RULES)
    assert "hold-out" in benign_table([half])
    detect.explain(half)
    assert not capsys.readouterr().out  # what was found in the hold-out half is not for looking at


def test_tells_of_no_tunnel_what_it_did_not_find(ground: Ground) -> None:
    found = run(ground.detector(), UNCAUGHT[0], 0)
    assert not found.is_caught
    assert "missed" in tunnel_table([found])
    score = ours([found], 0, 10)
    assert (score.recall, score.precision) == (0.0, 0.0)
    assert "never" in compared_table([score])


def test_has_the_published_limits_of_others(ground: Ground) -> None:
    domains = Domains(ground.suffixes)
    assert entropy("abcd") == 2.0
    name, domain = DomainName("abcdefghijklmnop0.zone.net"), DomainName("zone.net")
    assert Entropy(4.0).alarms(APP, name, domain, A, 0)
    assert not Entropy(4.5).alarms(APP, name, domain, A, 0)
    zeek, rita = AnomalousDns(), Rita(100)
    names = [DomainName(f"{number}.zone.net") for number in range(100)]
    assert [zeek.alarms(APP, name, domain, A, 0) for name in names[:9]] == [False] * 8 + [True]
    assert not zeek.alarms(APP, names[10], domain, A, 3600)
    assert zeek.alarms(APP, names[0], DomainName("other.net"), 10, 0)
    assert [rita.alarms(APP, name, domain, A, 0) for name in names] == [False] * 99 + [True]
    assert not rita.alarms(APP, names[0], domain, A, 86400)
    alarm = first_alarm(AnomalousDns(), domains, Tunnel("", "", iodine), 1)
    assert alarm is not None
    assert alarm.queries == 1


def test_times_each_question_by_the_least_of_three_passes(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scripts.benches.detect_cost.ASKED_HOURS", 1)
    p50_us, p99_us = ask_us(ground)
    assert 0 < p50_us <= p99_us


def test_fills_a_table_for_its_memory(ground: Ground) -> None:
    detector = ground.detector()
    fill(detector, 40)
    assert sum(1 for state in detector.states(NOW + 40) if state.suffix != ".") == 40


@pytest.mark.parametrize(("found", "of"), [(0, 10), (3, 10), (10, 10), (0, 3_000_000)])
def test_bounds_hold_the_share(found: int, of: int) -> None:
    low, high = wilson(found, of)
    assert 0 <= low <= found / of <= high <= 1
    assert upper(found, of) >= found / of


def test_bounds_of_nothing_found_are_the_rule_of_three() -> None:
    assert upper(0, 3_000_000) == pytest.approx(3 / 3_000_000, rel=0.01)
    assert upper(0, 0) == 1.0
    assert wilson(0, 0) == (0.0, 1.0)
    assert math.isclose(wilson(5, 10)[0] + wilson(5, 10)[1], 1.0)
