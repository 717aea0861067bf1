"""Addresses that were allowed, for as long as nothing changed."""

import pytest

from proxy.egress import allowed
from proxy.egress.allowed import AllowedAddresses
from proxy.egress.origin import OriginKey
from proxy.transport.own import OwnSockets
from rules.address import parse_address
from rules.facts import Evidence, Principal
from rules.name import parse

ADDRESS = parse_address("192.0.2.1")
KEY = OriginKey(Principal("me", (Evidence.LISTENER,)), parse("example.com"), 443)


def remembering() -> tuple[AllowedAddresses, OwnSockets]:
    own = OwnSockets(set(), set())
    known = AllowedAddresses(own)
    assert known.find(KEY, ADDRESS, 1) is None
    assert known.add(KEY, ADDRESS) == "192.0.2.1"
    return known, own


def test_remembers_what_was_allowed() -> None:
    known, _ = remembering()
    assert known.find(KEY, ADDRESS, 1) == "192.0.2.1"


@pytest.mark.parametrize(
    "key",
    [
        OriginKey(Principal("other", (Evidence.LISTENER,)), parse("example.com"), 443),
        OriginKey(Principal("me", (Evidence.PROCESS,)), parse("example.com"), 443),
        OriginKey(Principal("me", (Evidence.LISTENER,)), parse("example.org"), 443),
        OriginKey(Principal("me", (Evidence.LISTENER,)), parse("example.com"), 80),
    ],
)
def test_an_allow_is_for_one_principal_host_and_port(key: OriginKey) -> None:
    """threats.md, "Order of checks": "Another app's cached grant"."""
    known, _ = remembering()
    assert known.find(key, ADDRESS, 1) is None
    assert known.find(KEY, parse_address("192.0.2.2"), 1) is None


def test_other_rules_are_other_grounds() -> None:
    known, _ = remembering()
    assert known.find(KEY, ADDRESS, 2) is None
    assert len(known) == 0


def test_other_sockets_or_interfaces_are_other_grounds() -> None:
    known, own = remembering()
    own.listeners = set()
    assert known.find(KEY, ADDRESS, 1) is None
    known.add(KEY, ADDRESS)
    own.interfaces = set()
    assert known.find(KEY, ADDRESS, 1) is None


def test_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allowed, "_MOST", 2)
    known, _ = remembering()
    for last in range(2, 5):
        known.add(KEY, parse_address(f"192.0.2.{last}"))
        assert len(known) <= 2
