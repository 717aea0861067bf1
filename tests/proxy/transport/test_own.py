"""Our own sockets and addresses, in every spelling."""

import pytest

from proxy.transport.own import OwnSockets
from rules.address import parse_address

OWN = OwnSockets(
    {(parse_address("127.0.0.1"), 3128), (parse_address("192.0.2.2"), 5300)},
    {parse_address("127.0.0.1"), parse_address("192.0.2.2"), parse_address("::1")},
)


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "127.0.0.5", "::1", "0.0.0.0", "::", "192.0.2.2", "::ffff:127.0.0.1",
     "::ffff:192.0.2.2", "64:ff9b::192.0.2.2", "::127.0.0.1", "2002:c000:202::1"],
)  # fmt: skip
def test_a_port_of_ours_is_ours_at_every_address_that_reaches_this_host(address: str) -> None:
    """threats.md, Between name and address: 0.0.0.0 and ::; own listeners."""
    assert OWN.is_listener(parse_address(address), 3128)


def test_a_port_of_ours_elsewhere_is_not_ours() -> None:
    assert not OWN.is_listener(parse_address("198.51.100.7"), 3128)


def test_another_port_of_this_host_is_not_ours() -> None:
    assert not OWN.is_listener(parse_address("127.0.0.1"), 443)


def test_without_a_port_nothing_is_a_listener() -> None:
    assert not OWN.is_listener(parse_address("127.0.0.1"), None)


def test_an_interface_address_is_known_in_every_spelling() -> None:
    assert OWN.is_interface(parse_address("192.0.2.2"))
    assert OWN.is_interface(parse_address("::ffff:192.0.2.2"))
    assert not OWN.is_interface(parse_address("192.0.2.3"))


@pytest.mark.parametrize("address", ["127.53.53.53", "::ffff:127.53.53.53", "fd53::53"])
def test_the_sinkhole_is_ours_on_every_port_and_its_ports_are_no_other_addresses(
    address: str,
) -> None:
    own = OwnSockets(set(), set())
    own.sinkholes = frozenset(map(parse_address, ("127.53.53.53", "fd53::53")))
    assert own.is_listener(parse_address(address), 80)
    assert own.is_listener(parse_address(address), 2222)
    assert own.is_interface(parse_address(address))
    assert not own.is_listener(parse_address("127.0.0.1"), 80)
    assert not own.is_interface(parse_address("127.0.0.1"))
