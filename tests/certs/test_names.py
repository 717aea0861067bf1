"""Names of the server, and what a root is held to."""

from ipaddress import ip_network

import pytest

from certs.names import DNS_NAMES, LOOPBACK, outside, permitted, server_names


@pytest.mark.parametrize(
    ("listeners", "addresses"),
    [
        pytest.param([], [], id="none"),
        pytest.param(["127.0.0.1", "::1"], ["127.0.0.1", "::1"], id="loopback"),
        pytest.param(["::1", "127.0.0.2", "::1"], ["127.0.0.2", "::1"], id="ordered and once"),
        pytest.param(["0.0.0.0"], ["127.0.0.1"], id="every IPv4 address"),
        pytest.param(["::"], ["::1"], id="every IPv6 address"),
        pytest.param(["0:0:0:0:0:0:0:1"], ["::1"], id="long spelling"),
        pytest.param(["::ffff:192.0.2.7"], ["192.0.2.7"], id="IPv4-mapped"),
        pytest.param(["::ffff:0.0.0.0"], ["127.0.0.1"], id="IPv4-mapped wildcard"),
        pytest.param(["192.0.2.7", "2001:db8::1"], ["192.0.2.7", "2001:db8::1"], id="others"),
    ],
)
def test_a_server_is_known_by_our_two_names_and_where_it_listens(
    listeners: list[str], addresses: list[str]
) -> None:
    assert server_names(listeners) == (*DNS_NAMES, *addresses)


def test_a_listener_is_an_address() -> None:
    with pytest.raises(ValueError, match="name"):
        server_names(["a name"])


def test_a_root_is_held_to_loopback_whatever_listens() -> None:
    assert permitted(server_names([])) == (DNS_NAMES, LOOPBACK)
    assert permitted(server_names(["127.0.0.5", "::1"])) == (DNS_NAMES, LOOPBACK)


def test_an_address_beyond_loopback_is_permitted_alone() -> None:
    _, networks = permitted(server_names(["192.0.2.7", "2001:db8::1"]))
    others = (ip_network("192.0.2.7/32"), ip_network("2001:db8::1/128"))
    assert networks == (*LOOPBACK, *others)


def test_a_dns_name_beyond_ours_is_permitted() -> None:
    assert permitted((*DNS_NAMES, "proxy.example"))[0] == (*DNS_NAMES, "proxy.example")


@pytest.mark.parametrize(
    ("name", "is_outside"),
    [
        ("localhost", False),
        ("app.localhost", False),
        ("notlocalhost", True),
        ("sallyport.internal", False),
        ("other.internal", True),
        ("example.com", True),
        ("127.255.0.9", False),
        ("::1", False),
        ("::2", True),
        ("128.0.0.1", True),
        ("192.0.2.7", True),
    ],
)
def test_what_a_root_for_loopback_does_not_permit(name: str, is_outside: bool) -> None:
    assert (outside([name], *permitted(DNS_NAMES)) == (name,)) is is_outside
