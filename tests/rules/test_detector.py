"""What leaks through allowed look-ups is counted, and stopped before it passes a limit."""

import base64
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from rules import rtype
from rules.budget import Limits
from rules.detector import Detector, Finding, Outcome, Sizes, State
from rules.name import DomainName
from rules.suffix import read_suffixes
from rules.tiers import read_tiers
from rules.watch import Mode

SUFFIXES = read_suffixes(
    ["com", "net", "// ===BEGIN PRIVATE DOMAINS===", "github.io", "s3.cloud.com"]
)
TIERS = read_tiers({"cdn": "wide.net"})
START = 1_700_000_000.0
DAY = 86400
SMALL = Sizes(
    alert=Limits(20, 30, 60), block=Limits(40, 60, 120), app=Limits(500, 5000, 5000),
    app_suffixes=4, all_suffixes=8, floor_suffixes=2,
)  # fmt: skip


def detector(sizes: Sizes | None = None) -> Detector:
    """Return one that knows nothing yet."""
    return Detector(SUFFIXES, TIERS, sizes or Sizes())


def ask(
    of: Detector, name: str, now: float = START, *, app: str = "app", mode: Mode = Mode.BLOCK,
    kind: int = rtype.A, is_named: bool = False,
) -> Finding | None:  # fmt: skip
    """Ask as `app`."""
    return of.ask(app, DomainName(name), kind, is_named=is_named, mode=mode, now=now)


def payload(number: int, octets: int = 20) -> str:
    """Return a label that carries `octets`, another for each `number`."""
    carried = random.Random(number).randbytes(octets)  # noqa: S311 - a fixed example, no secret
    return base64.b32encode(carried).decode().lower().rstrip("=")


def send(
    of: Detector,
    suffix: str,
    now: float,
    count: int,
    step_s: float,
    *,
    app: str = "app",
    mode: Mode = Mode.BLOCK,
) -> list[Finding]:
    """Send payloads; return the findings."""
    found = [
        ask(of, f"{payload(n)}.{suffix}", now + n * step_s, app=app, mode=mode)
        for n in range(count)
    ]
    return [finding for finding in found if finding is not None]


def test_nothing_is_counted_of_what_is_not_watched() -> None:
    of = detector()
    assert send(of, "evil.com", START, 200, 0.1, mode=Mode.OFF) == []
    answer = of.answered(
        "app", DomainName("a.com"), rtype.TXT, rdata=[b"x" * 9000], is_nxdomain=False,
        mode=Mode.OFF, now=START,
    )  # fmt: skip
    assert answer is None
    assert list(of.states(START)) == []


def test_a_fast_tunnel_is_blocked_within_512_octets() -> None:
    of = detector()
    found = send(of, "t.evil.com", START, 40, 0.5)
    blocks = [finding for finding in found if finding.outcome is Outcome.BLOCK]
    first = blocks[0]
    assert (first.suffix, first.direction, first.window, first.limit) == (
        "evil.com", "names", "2m", 512,
    )  # fmt: skip
    assert first.octets > 512
    assert first.is_first
    assert not blocks[1].is_first
    assert first.samples[0].endswith(".t.evil.com")
    assert len(first.samples) == 5
    assert first.evidence["base32_share"] > 0.4
    state = next(each for each in of.states(START + 20) if each.suffix == "evil.com")
    assert state.octets["2m"] <= 512
    assert state.alerting


def test_a_slow_tunnel_is_blocked_within_a_kibioctet_an_hour() -> None:
    of = detector()
    found = send(of, "evil.com", START + 2 * DAY, 60, 60)
    blocks = [finding for finding in found if finding.outcome is Outcome.BLOCK]
    assert blocks[0].window == "1h"
    assert blocks[0].limit == 1024


def test_a_very_slow_tunnel_is_blocked_within_three_kibioctets_a_day() -> None:
    of = detector()
    found = send(of, "evil.com", START, 280, 300)
    blocks = [finding for finding in found if finding.outcome is Outcome.BLOCK]
    assert {finding.window for finding in blocks} == {"24h"}


def test_an_app_is_told_of_once_until_it_is_calm_again() -> None:
    of = detector()
    ask(of, "www.good.com")
    later = START + 2 * DAY
    found = send(of, "evil.com", later, 11, 1, mode=Mode.ALERT)
    assert [finding.outcome for finding in found] == [Outcome.ALERT]
    found = send(of, "other.com", later, 60, 1, mode=Mode.ALERT)
    told = [(each.suffix, each.limit) for each in found]
    assert ("other.com", 256) in told
    assert ("other.com", 512) in told
    assert len(told) == len(set(told))
    again = send(of, "t.evil.com", later + 2 * DAY, 9, 1, mode=Mode.ALERT)
    assert [finding.limit for finding in again] == [256]


def test_the_first_day_of_an_app_gives_no_alert_but_lists_it() -> None:
    of = detector()
    assert send(of, "evil.com", START, 10, 1) == []
    state = next(each for each in of.states(START + 10) if each.suffix == "evil.com")
    assert state.alerting


def test_observing_refuses_nothing_and_tells_nothing() -> None:
    of = detector()
    assert send(of, "evil.com", START, 100, 1, mode=Mode.OBSERVE) == []
    state = next(each for each in of.states(START + 100) if each.suffix == "evil.com")
    assert state.octets["24h"] > 3000
    assert state.alerting
    assert state.queries == 100


def test_a_known_name_costs_no_octets() -> None:
    of = detector()
    for number in range(100):
        assert ask(of, "api.good.com", START + number) is None
    state = next(each for each in of.states(START + 100) if each.suffix == "good.com")
    assert state.octets["24h"] == 4
    assert state.choice["24h"] > 0


def test_a_shared_beginning_is_paid_once() -> None:
    of = detector()
    ask(of, "one.eu.api.good.com")
    ask(of, "two.eu.api.good.com")
    state = next(each for each in of.states(START) if each.suffix == "good.com")
    assert state.octets["2m"] == (8 + 1) + (3 + 1)


def test_what_an_admin_named_costs_only_the_choice() -> None:
    of = detector()
    for number in range(100):
        assert ask(of, f"{payload(number)}.evil.com", START + number, is_named=True) is None
    state = next(each for each in of.states(START + 100) if each.suffix == "evil.com")
    assert state.octets["24h"] == 0
    assert state.choice["24h"] > 60


def test_choosing_among_known_names_too_often_is_refused_until_the_window_moves_on() -> None:
    of = detector()
    names = [f"n{number}.evil.com" for number in range(40)]
    for number, name in enumerate(names):
        ask(of, name, START + number)
    now, found = START + 100.0, ask(of, names[0], START + 100)
    while found is None:
        now += 0.1
        found = ask(of, names[int(now * 10) % 40], now)
    assert (found.outcome, found.direction) == (Outcome.RATE, "choice")
    assert found.octets >= found.limit
    assert ask(of, names[1], now + 130) is None


def test_one_payload_over_many_domains_meets_the_budget_of_the_app() -> None:
    of = detector()
    found = [ask(of, f"{payload(n)}.d{n % 50}.com", START + n) for n in range(60)]
    budgets = [each for each in found if each is not None and each.outcome is Outcome.BUDGET]
    assert budgets[0].suffix == "."
    assert budgets[0].limit == 512
    assert budgets[0].is_first
    assert budgets[0].evidence
    assert not budgets[-1].is_first
    assert not budgets[-1].evidence
    assert ask(of, f"{payload(0)}.d0.com", START + 60) is None
    assert ask(of, f"{payload(99)}.d0.com", START + 400) is None
    state = next(iter(of.states(START + 400)))
    assert (state.app, state.suffix) == ("app", ".")


def test_what_an_app_connects_to_costs_its_sum_nothing_and_its_suffix_all_the_same() -> None:
    """Whoever may connect there needs no names to carry anything out."""
    of = detector()
    for number in range(200):
        name = f"{payload(number, 6)}.d{number}.com"
        assert ask(of, name, START + number) is None
        of.connected("app", DomainName(name), START + number + 15)
    whole, *others = of.states(START + 200)
    assert (whole.suffix, whole.octets["24h"]) == (".", 0)
    assert all(each.octets["24h"] >= 10 for each in others)


def test_what_a_newcomer_inherits_keeps_nothing_from_being_given_back() -> None:
    """A table that is full for days must not make an honest app look worse and worse."""
    of = detector(Sizes(app_suffixes=4, all_suffixes=8, floor_suffixes=2))
    for hour in range(200):
        for host in ("cdn-one", "www"):
            name, now = f"{host}.d{hour}.com", START + hour * 3600
            assert ask(of, name, now) is None
            of.connected("app", DomainName(name), now + 5)
    whole, *others = of.states(START + 200 * 3600)
    assert (whole.suffix, whole.octets["24h"]) == (".", 0)
    assert any(each.octets["24h"] > 64 for each in others)


def test_connecting_to_what_leaks_gives_little_back() -> None:
    """Who tunnels owns the zones, and can have them lead somewhere."""
    of = detector()
    gone = 0
    for number in range(400):
        name = f"{payload(number, 6)}.d{number % 50}.com"
        if ask(of, name, START) is None:
            gone += 10
            of.connected("app", DomainName(name), START)
    assert gone <= 512 + 50 * Sizes().given_back


def test_a_sum_that_was_cleared_gets_nothing_back() -> None:
    of = detector()
    ask(of, "x.a.com", START)
    assert of.clear("app", DomainName("."), START)
    ask(of, "y.b.com", START)
    before = next(iter(of.states(START))).octets["2m"]
    of.connected("app", DomainName("x.a.com"), START)
    assert next(iter(of.states(START))).octets["2m"] == before > 0


def test_a_suffix_of_the_second_tier_has_wider_limits_and_is_not_in_the_sum() -> None:
    of = detector()
    assert send(of, "wide.net", START, 100, 1) == []
    whole, wide = of.states(START + 100)
    assert wide.tier == "cdn"
    assert wide.octets["24h"] > 3000
    assert whole.octets["24h"] == 0
    found = send(of, "x.wide.net", START, 600, 0.1)
    assert any(finding.outcome is Outcome.BLOCK for finding in found)


def test_what_two_apps_ask_for_a_week_has_wider_limits() -> None:
    of = detector()
    for day in range(7):
        for app in ("one", "other"):
            ask(of, "www.much.com", START + day * DAY, app=app)
    now = START + 7 * DAY
    assert send(of, "much.com", now, 40, 1, app="one") == []
    state = next(each for each in of.states(now) if (each.app, each.suffix) == ("one", "much.com"))
    assert state.tier == "popular"


def test_both_levels_of_a_tenant_have_a_budget() -> None:
    of = detector(Sizes(app=Limits(9999, 9999, 9999)))
    ask(of, "x.me.github.io")
    found = [ask(of, f"{payload(n)}.github.io", START + n) for n in range(40)]
    assert {each.suffix for each in found if each is not None} == {"github.io"}
    suffixes = [each.suffix for each in of.states(START)]
    assert suffixes[:3] == [".", "github.io", "me.github.io"]


def answer(
    of: Detector, octets: int, number: int, mode: Mode = Mode.BLOCK, now: float = START
) -> Finding | None:
    """Answer a TXT question with one record."""
    return of.answered(
        "app", DomainName("a.evil.com"), rtype.TXT, rdata=[bytes([number]) * octets],
        is_nxdomain=False, mode=mode, now=now,
    )  # fmt: skip


def test_answers_have_a_budget_of_distinct_octets() -> None:
    of = detector()
    for _ in range(100):
        assert answer(of, 250, 1) is None
    found = [answer(of, 250, number) for number in range(2, 40)]
    blocks = [each for each in found if each is not None]
    assert (blocks[0].outcome, blocks[0].direction) == (Outcome.BLOCK, "answers")
    assert blocks[0].limit == 512 * 16
    assert not blocks[1].is_first
    state = next(each for each in of.states(START) if each.suffix == "evil.com")
    assert state.answers["2m"] <= 512 * 16


def test_an_alert_of_answers_comes_first_after_the_first_day() -> None:
    of = detector()
    answer(of, 1, 0)
    now = START + DAY
    found = [answer(of, 250, number, now=now) for number in range(1, 33)]
    assert [(each.outcome, each.limit) for each in found if each] == [(Outcome.ALERT, 256 * 16)]


def test_evidence_says_what_came_of_the_look_ups() -> None:
    of = detector()
    for number in range(4):
        name = DomainName(f"{payload(number)}.evil.com")
        ask(of, name, kind=rtype.TXT if number else rtype.A)
        of.answered(
            "app", name, rtype.A, rdata=[], is_nxdomain=number > 1, mode=Mode.BLOCK, now=START
        )
    of.connected("app", DomainName(f"{payload(0)}.evil.com"), START)
    of.connected("app", DomainName(f"{payload(0)}.evil.com"), START)
    of.connected("app", DomainName("www.never-asked.com"), START)
    of.connected("stranger", DomainName("www.evil.com"), START)
    evidence = next(each for each in of.states(START) if each.suffix == "evil.com").evidence
    assert evidence["nxdomain_share"] == 0.5
    assert evidence["other_types_share"] == 0.75
    assert evidence["never_connected_share"] == 0.75
    assert evidence["names"] == 4


def test_an_admin_clears_a_suffix_and_an_app() -> None:
    of = detector()
    send(of, "evil.com", START, 40, 1)
    assert of.clear("app", DomainName("evil.com"), START + 40)
    assert not of.clear("app", DomainName("other.com"), START + 40)
    assert not of.clear("stranger", DomainName("evil.com"), START + 40)
    assert of.clear("app", DomainName("."), START + 40)
    whole, evil = of.states(START + 40)
    assert (whole.octets["24h"], evil.octets["24h"], evil.alerting) == (0, 0, False)
    assert ask(of, f"{payload(999)}.evil.com", START + 41) is None


def test_bounds_are_counted() -> None:
    of = detector(SMALL)
    for number in range(20):
        ask(of, f"www.d{number}.com")
    assert of.bounds["suffixes_evicted"] == 16
    assert len(list(of.states(START))) == 5


# --- properties -------------------------------------------------------------------------------

type Steps = list[tuple[float, str, str]]

STEPS = st.lists(
    st.tuples(
        st.sampled_from([0.0, 1.0, 30.0, 200.0, 4000.0]),
        st.text("ab.", min_size=1, max_size=14).map(
            lambda text: ".".join(label for label in text.split(".") if label) or "a"
        ),
        st.sampled_from(["evil.com", "two.com", "three.net", "four.net", "five.net", "six.net"]),
    ),
    max_size=60,
)


def cost(sub: str, sent: set[str]) -> int:
    """Return the least that a name can tell, by a loop: the octets behind what was ever sent."""
    name = ".".join(reversed(sub.split(".")))
    if name in sent:
        return 0
    beginnings = {one[:end] for one in sent for end in range(len(one) + 1)} | {""}
    reach = max(end for end in range(len(name) + 1) if name[:end] in beginnings)
    sent.add(name)
    return len(name[reach:].replace(".", "")) + 1


@settings(max_examples=50, deadline=None)
@given(STEPS)
def test_what_leaks_before_a_block_is_within_every_window_whatever_is_asked(steps: Steps) -> None:
    of, now = detector(SMALL), START
    sent: dict[str, set[str]] = {}
    told: dict[str, list[tuple[float, int]]] = {}
    for step_s, sub, suffix in steps:
        now += step_s
        finding = ask(of, f"{sub}.{suffix}", now)
        if finding is None or finding.outcome <= Outcome.ALERT:
            octets = cost(sub, sent.setdefault(suffix, set()))
            told.setdefault(suffix, []).append((now, octets))
        for window_s, limit in ((120, 40), (3600, 60), (86400, 120)):
            for each in told.values():
                assert sum(octets for at, octets in each if at > now - window_s) <= limit


@settings(max_examples=50, deadline=None)
@given(STEPS)
def test_counts_are_never_less_than_the_truth(steps: Steps) -> None:
    of, now = detector(SMALL), START
    sent: dict[str, set[str]] = {}
    told: dict[str, list[tuple[float, int]]] = {}
    for step_s, sub, suffix in steps:
        now += step_s
        ask(of, f"{sub}.{suffix}", now, mode=Mode.OBSERVE)
        told.setdefault(suffix, []).append((now, cost(sub, sent.setdefault(suffix, set()))))
    for state in of.states(now):
        each = told.get(state.suffix, [])
        for window, window_s in (("2m", 120), ("1h", 3600), ("24h", 86400)):
            held = sum(octets for at, octets in each if at > now - window_s)
            assert state.octets[window] >= held


@settings(max_examples=20, deadline=None)
@given(st.integers(5, 200), st.integers(2, 30))
def test_a_spray_of_names_never_resets_a_slow_tunnel(spray: int, chunks: int) -> None:
    """threats.md: state exhaustion of the detector by names that nobody asked before."""
    of, now, leaked = detector(SMALL), START, 0
    for chunk in range(chunks):
        finding = ask(of, f"{payload(chunk, 5)}.evil.com", now)
        if finding is None or finding.outcome <= Outcome.ALERT:
            leaked += 8
        for number in range(spray // chunks + 5):
            now += 1
            ask(of, f"www.s{chunk}x{number}.com", now)
    assert leaked <= 120


@settings(max_examples=20, deadline=None)
@given(STEPS)
def test_no_app_touches_another(steps: Steps) -> None:
    alone, beside, now = detector(SMALL), detector(SMALL), START
    for step_s, sub, suffix in steps:
        now += step_s
        for number in range(5):
            ask(beside, f"{payload(number, 3)}{sub}.x{number}{suffix}", now, app="loud")
        # Popularity needs two apps on seven days, and the floor of each app is its own.
        assert ask(alone, f"{sub}.{suffix}", now) == ask(beside, f"{sub}.{suffix}", now)
    assert list(alone.states(now)) == [each for each in beside.states(now) if each.app == "app"]


@settings(max_examples=30, deadline=None)
@given(STEPS, STEPS)
def test_what_was_written_comes_back_as_it_was(before: Steps, after: Steps) -> None:
    of, now = detector(SMALL), START
    rows: dict[tuple[str, str], bytes] = {}
    for step_s, sub, suffix in before:
        now += step_s
        ask(of, f"{sub}.{suffix}", now, mode=Mode.ALERT)
        of.answered(
            "app", DomainName(suffix), rtype.TXT, rdata=[sub.encode()], is_nxdomain=False,
            mode=Mode.ALERT, now=now,
        )  # fmt: skip
        of.connected("app", DomainName(f"{sub}.{suffix}"), now)
        for app, name, row in of.changed():
            rows[app, name] = row
    again = detector(SMALL)
    again.restore(((*key, row) for key, row in rows.items() if row), now)

    def states(one: Detector, at: float) -> list[State]:
        return sorted(one.states(at), key=lambda state: state.suffix)

    assert states(again, now) == states(of, now)
    for step_s, sub, _ in after[:3]:
        now += step_s
        assert ask(again, f"{sub}.wide.net", now) == ask(of, f"{sub}.wide.net", now)


def test_what_went_is_counted_by_direction() -> None:
    of = detector()
    assert of.counted == {"names": 0, "answers": 0, "choice": 0}
    for _ in range(9):
        ask(of, "api.good.com")
    ask(of, "api.me.github.io")
    answer(of, 250, 1)
    assert of.counted == {"names": (3 + 1) + (5 + 1), "answers": 250, "choice": 8 // 8}


def test_one_state_is_told_without_the_others() -> None:
    of = detector()
    ask(of, "api.good.com")
    assert [of.state("app", DomainName(name), START) for name in (".", "good.com")] == list(
        of.states(START)
    )
    assert of.state("app", DomainName("other.com"), START) is None
    assert of.state("stranger", DomainName("."), START) is None


def test_nothing_is_written_of_names_that_an_admin_wrote() -> None:
    of = detector()
    for number in range(9):
        ask(of, f"n{number}.good.com", START + number, is_named=True)
        of.answered(
            "app", DomainName(f"n{number}.good.com"), rtype.A, rdata=[], is_nxdomain=False,
            mode=Mode.BLOCK, now=START + number,
        )  # fmt: skip
        of.connected("app", DomainName(f"n{number}.good.com"), START + number)
    assert list(of.changed()) == []
    ask(of, "other.good.com", START + 9)
    assert {row[1] for row in of.changed()} == {"good.com", "."}
    of.connected("app", DomainName("other.good.com"), START + 9)
    assert {row[1] for row in of.changed()} == {"good.com", "."}


def test_a_new_tenant_takes_the_place_of_another_suffix_than_its_own() -> None:
    """threats.md: state exhaustion of the detector by names that nobody asked before."""
    wide = Limits(10**6, 10**6, 10**6)
    of = detector(Sizes(app=wide, app_choice=wide, app_suffixes=4, floor_suffixes=2))
    for number in range(3):
        assert send(of, f"big{number}.net", START, 14, 0.0) == []
    ask(of, "a.small.net")
    leaked = 0
    for number in range(100):
        if ask(of, f"{payload(number, 15)}.github.io", START + number / 10) is None:
            leaked += 23
    assert leaked <= 512
