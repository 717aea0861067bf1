import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import ConfigError
from proxy.resolver.upstream_url import Transport, parse_upstream


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("udp://192.0.2.53", "udp://192.0.2.53:53"),
        ("udp://192.0.2.53:5353", "udp://192.0.2.53:5353"),
        ("tcp://[2001:db8::53]", "tcp://[2001:db8::53]:53"),
        ("tls://[2001:DB8:0::53]:8853#ns.example", "tls://[2001:db8::53]:8853#ns.example"),
        ("tls://9.9.9.9#dns.quad9.net", "tls://9.9.9.9:853#dns.quad9.net"),
        ("tls://9.9.9.9#DNS.Quad9.net.", "tls://9.9.9.9:853#dns.quad9.net"),
    ],
)
def test_reads_an_address_and_fills_in_the_port(text: str, full: str) -> None:
    upstream = parse_upstream(text)
    assert str(upstream) == full
    assert parse_upstream(full) == upstream


def test_a_certificate_without_a_name_must_be_for_the_address() -> None:
    assert parse_upstream("tls://9.9.9.9").server_name == "9.9.9.9"
    assert parse_upstream("tls://[2620:FE::9]").server_name == "2620:fe::9"


def test_only_dot_has_a_name_to_verify() -> None:
    assert parse_upstream("udp://9.9.9.9").server_name == ""
    assert parse_upstream("tls://9.9.9.9").transport is Transport.DOT


def test_says_what_a_socket_needs() -> None:
    six = parse_upstream("tcp://[::1]:5353")
    assert (six.sockaddr, six.family) == (("::1", 5353), socket.AF_INET6)
    assert parse_upstream("tcp://127.0.0.1").family is socket.AF_INET


@pytest.mark.parametrize("text", ["system", "https://9.9.9.9/dns-query", "https://x/dns-query#y"])
def test_what_is_to_come_is_not_in_this_version(text: str) -> None:
    with pytest.raises(ConfigError, match="not in this version"):
        parse_upstream(text)


@pytest.mark.parametrize(
    ("text", "cure"),
    [
        ("tls://dns.quad9.net", "an upstream is an address, never a name"),
        ("9.9.9.9", "write udp://"),
        ("quic://9.9.9.9", "write udp://"),
        ("UDP://9.9.9.9", "write udp://"),
        ("udp://", "an upstream is an address"),
        ("udp://9.9.9.9/", "write udp://"),
        ("udp://user@9.9.9.9", "write udp://"),
        ("udp://9.9.9.9?x", "write udp://"),
        ("udp://9.9.9.9 ", "an upstream is an address"),
        ("udp://9.9.9.9\n", "an upstream is an address"),
        ("udp://9.9.9.9:", "write udp://"),
        ("udp://9.9.9.9:0", "a port is 1 to 65535"),
        ("udp://9.9.9.9:053", "a port is 1 to 65535"),
        ("udp://9.9.9.9:65536", "a port is 1 to 65535"),
        ("udp://9.9.9.9:\u0661", "write udp://"),
        ("udp://009.9.9.9", "canonical spelling"),
        ("udp://134744072", "canonical spelling"),
        ("udp://2620:fe::fe", "write udp://"),
        ("udp://[9.9.9.9]", "brackets are for IPv6"),
        ("udp://[fe80::1%eth0]", "canonical spelling"),
        ("udp://0.0.0.0", "no resolver can be reached"),
        ("udp://[::]", "no resolver can be reached"),
        ("udp://224.0.0.251", "no resolver can be reached"),
        ("udp://9.9.9.9#dns.quad9.net", "only tls://"),
        ("tcp://9.9.9.9#", "only tls://"),
        ("tls://9.9.9.9#", "an empty label"),
        ("tls://9.9.9.9#dns..net", "an empty label"),
        ("tls://9.9.9.9#dns.net\x00.evil", "is not a domain name"),
    ],
)
def test_anything_else_is_an_error_with_its_cure(text: str, cure: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_upstream(text)
    assert cure in str(caught.value)


@given(st.text(st.sampled_from("udptcls:/[]#.0159af%@\n"), max_size=40))
def test_every_text_is_an_upstream_or_a_config_error(text: str) -> None:
    try:
        upstream = parse_upstream(text)
    except ConfigError:
        return
    assert parse_upstream(str(upstream)) == upstream
