"""Fast flux: a proxy net of machines everywhere trips, hosting of every common shape does not."""

from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules.address import Address
from rules.flux import Flux, FluxFinding, FluxSizes
from rules.name import DomainName, parse

APP = "agent"
NAME = parse("login.bank.example")
HOUR_S = 3600.0
DAY_S = 24 * HOUR_S
NOON_S = 1_800_000_000.0 // HOUR_S * HOUR_S

type Answer = tuple[Address, ...]


def _botnet(rounds: int, size: int = 5, seed: int = 1) -> Iterator[Answer]:
    """Answers of machines anywhere in the unicast space of IPv4."""
    random = Random(seed)  # noqa: S311 - a shape, no secret
    for _ in range(rounds):
        yield tuple(IPv4Address(random.randrange(1 << 24, 224 << 24)) for _ in range(size))


def _ask(flux: Flux, answers: Iterator[Answer], ttl_s: int = 180) -> list[FluxFinding]:
    found = (
        flux.answered(APP, NAME, answer, ttl_s, NOON_S + turn * ttl_s)
        for turn, answer in enumerate(answers)
    )
    return [one for one in found if one is not None]


def _within(blocks: Sequence[int], count: int, networks: int, seed: int = 1) -> list[Address]:
    """Addresses of one operator: in these /8, and in `networks` /16 of them altogether."""
    random = Random(seed)  # noqa: S311 - a shape, no secret
    nets = [random.choice(blocks) << 8 | random.randrange(256) for _ in range(networks)]
    return [
        IPv4Address(random.choice(nets) << 16 | random.randrange(1 << 16)) for _ in range(count)
    ]


def test_finds_a_net_of_machines_everywhere() -> None:
    """Five addresses an answer, three minutes each: found within the first quarter of an hour."""
    found = _ask(Flux(), _botnet(rounds=20))
    first = found[0]
    assert (first.app, first.name, first.is_first) == (APP, NAME, True)
    assert first.addresses <= 20
    assert first.networks / first.addresses > 0.9
    assert first.blocks >= 16
    assert len(first.samples) == 8
    assert [one.is_first for one in found[1:]] == [False] * (len(found) - 1)


def test_the_evidence_is_numbers() -> None:
    found = _ask(Flux(), _botnet(rounds=6))[-1]
    assert found.evidence == {
        "addresses": 30,
        "networks": found.networks,
        "blocks": found.blocks,
        "score": round(found.score, 2),
        "ttl_s": 180,
    }


def test_finds_it_in_ipv6_too() -> None:
    random = Random(2)  # noqa: S311 - a shape, no secret
    machines = tuple(IPv6Address(0x2A0 << 116 | random.randrange(1 << 116)) for _ in range(24))
    (found,) = _ask(Flux(), iter([machines]))  # of one registry: RIPE NCC has 2a00::/12
    assert (found.addresses, found.networks) == (24, 24)
    assert found.samples == tuple(map(str, machines[-8:]))


@pytest.mark.parametrize(
    ("addresses", "why"),
    [
        (_within([23, 104, 184], 400, 6), "a CDN: many addresses, few networks"),
        (_within([142, 172, 216, 74, 108], 60, 12), "a search engine's own network"),
        (_within([3, 13, 18, 34, 35, 44, 50, 52, 54, 100], 100, 70), "load balancers of a cloud"),
        (_within([52, 54, 3, 16], 300, 20), "buckets: eight of hundreds an answer"),
        (_within([*range(20, 32)], 12, 12), "round robin over a dozen hosts of a dozen networks"),
    ],
    ids=["cdn", "own-network", "cloud", "buckets", "round-robin"],
)
def test_ordinary_hosting_does_not_trip(addresses: list[Address], why: str) -> None:
    """Short TTLs and a new set at every answer, for a day: conditions two to four hold it back."""
    flux, random = Flux(), Random(3)  # noqa: S311 - a shape, no secret
    answers = iter([tuple(random.sample(addresses, 8)) for _ in range(480)])
    assert not _ask(flux, answers, ttl_s=60), why


def test_answers_that_live_long_are_not_counted() -> None:
    assert not _ask(Flux(), _botnet(rounds=20), ttl_s=1801)
    assert _ask(Flux(), _botnet(rounds=20), ttl_s=1800)


def test_the_pool_of_time_servers_is_no_flux() -> None:
    flux = Flux()
    for name in ("pool.ntp.org", "2.debian.pool.ntp.org"):
        for answer in _botnet(rounds=20):
            assert flux.answered(APP, parse(name), answer, 150, NOON_S) is None


def test_an_answer_without_addresses_takes_no_room() -> None:
    flux = Flux(FluxSizes(names=1))
    for answer in _botnet(rounds=4):
        flux.answered(APP, NAME, answer, 60, NOON_S)
        assert flux.answered(APP, parse("empty.example"), (), 60, NOON_S) is None
    assert not flux.bounds


def test_it_ends_when_the_addresses_have_left_the_window() -> None:
    flux = Flux()
    last, *_ = list(_botnet(rounds=1, seed=9))
    assert _ask(flux, _botnet(rounds=10))
    assert flux.answered(APP, NAME, last, 60, NOON_S + 23 * HOUR_S) is not None
    assert flux.answered(APP, NAME, last, 60, NOON_S + DAY_S + HOUR_S) is None
    again = [flux.answered(APP, NAME, one, 60, NOON_S + 2 * DAY_S) for one in _botnet(10)]
    assert next(one.is_first for one in again if one is not None)


def test_the_same_addresses_again_are_no_news_but_stand() -> None:
    flux = Flux()
    answers = list(_botnet(rounds=6))
    assert _ask(flux, iter(answers))
    again = flux.answered(APP, NAME, answers[0], 60, NOON_S + HOUR_S)
    assert again is not None
    assert (again.addresses, again.is_first) == (30, False)


def test_what_one_app_saw_is_no_others() -> None:
    flux = Flux()
    for answer in _botnet(rounds=3):
        for app in ("a", "b"):
            assert flux.answered(app, NAME, answer, 60, NOON_S) is None


def test_keeps_the_latest_addresses_of_a_name() -> None:
    flux = Flux(FluxSizes(addresses=20))
    found = _ask(flux, _botnet(rounds=10))[-1]
    assert found.addresses == 20
    assert flux.bounds["crowded"] == 30


def test_clear_forgets_a_name() -> None:
    flux = Flux()
    answers = list(_botnet(rounds=6))
    assert _ask(flux, iter(answers))
    assert flux.clear(APP, NAME)
    assert not flux.clear(APP, NAME)
    assert not flux.clear("nobody", NAME)
    assert flux.answered(APP, NAME, answers[0], 60, NOON_S) is None


def _spray(flux: Flux, app: str, count: int, now: float = NOON_S) -> None:
    for number in range(count):
        name = DomainName(f"n{number}.spray.example")
        flux.answered(app, name, (IPv4Address(16777216 + number),), 60, now)


def test_spraying_names_does_not_reset_a_name_that_grows() -> None:
    """A newcomer takes the place of a name of the least weight, and inherits that weight."""
    flux = Flux(FluxSizes(names=8))
    answers = list(_botnet(rounds=6))
    found = None
    for answer in answers:
        _spray(flux, APP, 20)
        found = flux.answered(APP, NAME, answer, 60, NOON_S)
    assert found is not None
    assert found.addresses == 30
    assert flux.bounds["evicted"] > 100


def test_what_is_inherited_never_makes_a_finding() -> None:
    flux = Flux(FluxSizes(names=4))
    _spray(flux, APP, 2000)
    assert flux.answered(APP, NAME, next(_botnet(1)), 60, NOON_S) is None


def test_a_name_that_was_not_asked_for_a_day_goes_first_and_leaves_nothing() -> None:
    flux = Flux(FluxSizes(names=2))
    _ask(flux, _botnet(rounds=6))  # the heaviest, and the oldest
    _spray(flux, APP, 3, NOON_S + 2 * DAY_S)
    assert not flux.clear(APP, NAME)


def test_at_the_bound_of_all_the_app_that_has_most_gives_way() -> None:
    flux = Flux(FluxSizes(names=10, all_names=12))
    answers = list(_botnet(rounds=6))
    for answer in answers[:3]:
        flux.answered("quiet", NAME, answer, 60, NOON_S)
    _spray(flux, "loud", 100)
    _spray(flux, "late", 2)
    found = [flux.answered("quiet", NAME, answer, 60, NOON_S) for answer in answers[3:]]
    assert found[-1] is not None
    assert found[-1].addresses == 30


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "b", "c"]),
            st.integers(0, 30),
            st.lists(st.integers(1 << 24, 40 << 24), max_size=6),
            st.integers(0, 40),
        ),
        max_size=60,
    )
)
def test_every_table_stays_within_its_bounds(
    events: list[tuple[str, int, list[int], int]],
) -> None:
    sizes = FluxSizes(names=4, all_names=8, addresses=4, blocks=2, score=1.0)
    flux, now, live = Flux(sizes), NOON_S, set()
    for app, number, addresses, later_h in events:
        now += later_h * HOUR_S
        name = DomainName(f"n{number}.example")
        found = flux.answered(app, name, [IPv4Address(one) for one in addresses], 60, now)
        live.add((app, name))
        if found is not None:
            assert sizes.blocks <= found.blocks <= found.networks <= found.addresses <= 4
    held = [pair for pair in sorted(live) if flux.clear(*pair)]
    assert len(held) <= sizes.all_names
    assert all(sum(one == app for one, _ in held) <= sizes.names for app in "abc")
