"""A name may be dialled at the addresses that it was answered with, and for how long."""

from proxy.limits import Limits
from proxy.metrics import Metrics
from proxy.resolver.answer import Answer, Rcode, Record
from proxy.resolver.cache import Key
from proxy.resolver.pins import Pin, Pins
from rules.address import Address, parse_address
from rules.name import parse

NAME = parse("www.example.com")
KEY: Key = ("coder", NAME, 1)
FLOW = "0192f3"


def found(*texts: str, ttl: int = 300) -> Answer:
    addresses: tuple[Address, ...] = tuple(map(parse_address, texts))
    records = tuple(Record(NAME, 1, ttl, address.packed) for address in addresses)
    return Answer(Rcode.NOERROR, records, ttl=ttl, addresses=addresses)


def pinned(pins: Pins, key: Key = KEY, now: float = 1.0, generation: int = 1) -> list[str] | None:
    pin = pins.get(key, now, generation)
    return None if pin is None else [str(address) for address in pin.addresses]


def test_pins_what_was_answered() -> None:
    pins = Pins(Limits(), metrics := Metrics())
    pins.pin(KEY, found("1.0.0.1", "1.1.1.1"), 0.0, 1, FLOW)
    addresses = found("1.0.0.1", "1.1.1.1").addresses
    assert pins.get(KEY, 1.0, 1) == Pin(addresses, 300.0, 1, FLOW)
    assert metrics.pins.value("pinned") == 1


def test_holds_for_the_ttl_but_not_less_than_the_minimum() -> None:
    """Closes `TTL 0` of rebinding: the pin outlives it, and no second answer is asked for."""
    pins = Pins(Limits(pin_s=60), Metrics())
    pins.pin(KEY, found("1.1.1.1", ttl=0), 100.0, 1, FLOW)
    assert pinned(pins, now=159.9) == ["1.1.1.1"]
    assert pinned(pins, now=160.0) is None
    pins.pin(KEY, found("1.1.1.1", ttl=90), 100.0, 1, FLOW)
    assert pinned(pins, now=189.9) == ["1.1.1.1"]
    assert pinned(pins, now=190.0) is None


def test_replaces_a_pin_by_the_next_answer() -> None:
    pins = Pins(Limits(), Metrics())
    pins.pin(KEY, found("1.1.1.1"), 0.0, 1, FLOW)
    pins.pin(KEY, found("1.0.0.1"), 1.0, 1, FLOW)
    assert pinned(pins) == ["1.0.0.1"]


def test_keeps_the_pin_of_one_type_when_another_is_answered() -> None:
    pins = Pins(Limits(), Metrics())
    ipv6: Key = ("coder", NAME, 28)
    pins.pin(KEY, found("1.1.1.1"), 0.0, 1, FLOW)
    pins.pin(ipv6, found("2606:4700::1111"), 0.0, 1, FLOW)
    assert (pinned(pins), pinned(pins, ipv6)) == (["1.1.1.1"], ["2606:4700::1111"])


def test_pins_nothing_without_addresses() -> None:
    pins = Pins(Limits(), metrics := Metrics())
    pins.pin(KEY, found(), 0.0, 1, FLOW)
    assert pinned(pins) is None
    assert metrics.pins.value("pinned") == 0


def test_holds_for_the_app_that_asked_only() -> None:
    pins = Pins(Limits(), Metrics())
    pins.pin(KEY, found("1.1.1.1"), 0.0, 1, FLOW)
    assert pinned(pins, ("other", NAME, 1)) is None
    assert pinned(pins, ("coder", parse("example.com"), 1)) is None


def test_does_not_hold_under_other_rules() -> None:
    """Closes `A flow decided under generation N that registers after the sweep of N+1`."""
    pins = Pins(Limits(), Metrics())
    pins.pin(KEY, found("1.1.1.1"), 0.0, 1, FLOW)
    assert pinned(pins, generation=2) is None


def test_a_pin_of_older_rules_is_taken_out_and_put_back_when_decided_alike() -> None:
    pins = Pins(Limits(), metrics := Metrics())
    pins.pin(KEY, found("1.1.1.1"), 0.0, 1, FLOW, is_whole=True)
    pin = pins.take(KEY, 1.0)
    assert pin is not None
    assert pinned(pins) is None
    assert pins.renew(KEY, pin, 2).generation == 2
    assert pinned(pins, generation=2) == ["1.1.1.1"]
    assert metrics.pins.value("renewed") == 1


def test_a_pin_that_was_cut_or_has_expired_is_not_decided_again() -> None:
    pins = Pins(Limits(), Metrics())
    pins.pin(KEY, found("1.1.1.1"), 0.0, 1, FLOW)
    assert pins.take(KEY, 1.0) is None
    pins.pin(KEY, found("1.1.1.1"), 0.0, 1, FLOW, is_whole=True)
    assert pins.take(KEY, 300.0) is None
    assert pins.take(KEY, 1.0) is None


def test_makes_room_with_the_oldest_and_counts_it() -> None:
    pins = Pins(Limits(pins=2), metrics := Metrics())
    first, second, third = (("coder", parse(f"{n}.example"), 1) for n in "abc")
    for key in (first, second, first, third):
        pins.pin(key, found("1.1.1.1"), 0.0, 1, FLOW)
    assert [pinned(pins, key) is not None for key in (first, second, third)] == [True, False, True]
    assert metrics.bounds.value("pins") == 1
    assert metrics.pins.value("evicted") == 1


def test_remembers_so_many_apps_and_counts_the_rest() -> None:
    pins = Pins(Limits(apps_remembered=2), metrics := Metrics())
    for app in ("a", "b", "a", "c"):
        pins.pin((app, NAME, 1), found("1.1.1.1"), 0.0, 1, FLOW)
    assert [pinned(pins, (app, NAME, 1)) is not None for app in "abc"] == [True, False, True]
    assert metrics.bounds.value("apps_remembered") == 1
