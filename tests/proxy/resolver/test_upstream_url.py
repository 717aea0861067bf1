import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import ConfigError
from proxy.resolver.upstream_url import (
    SYSTEM,
    Texts,
    Transport,
    parse_groups,
    parse_upstream,
    parse_zones,
)


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


def test_system_is_an_upstream_without_an_address() -> None:
    assert parse_upstream("system") is SYSTEM
    assert str(SYSTEM) == "system"


@pytest.mark.parametrize(
    ("text", "authority", "path"),
    [
        ("https://9.9.9.9/dns-query#dns.quad9.net", "dns.quad9.net", "/dns-query"),
        ("https://9.9.9.9:8443/#dns.quad9.net", "dns.quad9.net:8443", "/"),
        ("https://9.9.9.9/a/b%20c", "9.9.9.9", "/a/b%20c"),
        ("https://[2620:fe::9]:444/q", "[2620:fe::9]:444", "/q"),
    ],
)
def test_doh_has_an_authority_and_a_path(text: str, authority: str, path: str) -> None:
    upstream = parse_upstream(text)
    assert (upstream.authority, upstream.path) == (authority, path)
    assert upstream.transport is Transport.DOH


ONE, TWO, THREE = (parse_upstream(f"udp://192.0.2.{n}") for n in (1, 2, 3))


def test_a_list_is_one_group_and_a_list_of_lists_is_several() -> None:
    assert parse_groups(["udp://192.0.2.1", "udp://192.0.2.2"]) == ((ONE, TWO),)
    assert parse_groups([["udp://192.0.2.1", "udp://192.0.2.2"], ["udp://192.0.2.3"]]) == (
        (ONE, TWO),
        (THREE,),
    )


@pytest.mark.parametrize(
    ("texts", "cure"),
    [
        ([], "asks nobody"),
        ([[]], "asks nobody"),
        ([["udp://192.0.2.1"], []], "asks nobody"),
        (["udp://192.0.2.1", ["udp://192.0.2.2"]], "write every group as a list"),
        (["udp://192.0.2.1", "udp://192.0.2.1:53"], "named twice"),
        ([["system"], ["system"]], "named twice"),
        ([["dns.example"]], "write udp://"),
    ],
)
def test_lists_that_make_no_groups_are_errors(texts: Texts, cure: str) -> None:
    with pytest.raises(ConfigError, match=cure):
        parse_groups(texts)


def test_a_zone_has_groups_of_its_own() -> None:
    zones = parse_zones({"Corp.Example.": ["udp://192.0.2.1"], "10.in-addr.arpa": [["system"]]})
    assert zones == {"corp.example": ((ONE,),), "10.in-addr.arpa": ((SYSTEM,),)}


@pytest.mark.parametrize(
    ("suffix", "cure"),
    [
        ("", "is not a domain name"),
        (".", "is not a domain name"),
        ("*.corp.example", "write corp.example, which covers all below"),
        ("corp..example", "an empty label"),
        ("localhost", "the appliance answers it itself"),
        ("x.sallyport.internal", "the appliance answers it itself"),
        ("resolver.arpa", "the appliance answers it itself"),
        ("use-application-dns.net", "the appliance answers it itself"),
    ],
)
def test_suffixes_that_are_no_zone_are_errors(suffix: str, cure: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_zones({suffix: ["udp://192.0.2.1"]})
    assert cure in str(caught.value)


def test_an_error_of_a_zone_names_it() -> None:
    with pytest.raises(ConfigError, match=r"zone 'corp\.example': a list without"):
        parse_zones({"corp.example": []})
    with pytest.raises(ConfigError, match="named twice"):
        parse_zones({"corp.example": ["udp://192.0.2.1"], "CORP.example.": ["udp://192.0.2.1"]})


@pytest.mark.parametrize(
    ("text", "cure"),
    [
        ("tls://dns.quad9.net", "an upstream is an address, never a name"),
        ("9.9.9.9", "write udp://"),
        ("quic://9.9.9.9", "write udp://"),
        ("UDP://9.9.9.9", "write udp://"),
        ("udp://", "an upstream is an address"),
        ("udp://9.9.9.9/", "only https:// has a path"),
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
        ("udp://9.9.9.9#dns.quad9.net", "only tls:// and https://"),
        ("tcp://9.9.9.9#", "only tls://"),
        ("System", "write udp://"),
        ("system://", "write udp://"),
        ("tls://9.9.9.9/dns-query#x", "only https:// has a path"),
        ("https://9.9.9.9", "name the path too"),
        ("https://9.9.9.9#dns.quad9.net", "name the path too"),
        ("https://9.9.9.9/dns-query?dns#x", "write udp://"),
        ("https://9.9.9.9/dns-query{?dns}#x", "write udp://"),
        ("https://9.9.9.9/dns-query{dns}#x", "no path of a URL"),
        ("https://9.9.9.9/dns query#x", "no path of a URL"),
        ("https://9.9.9.9/%zz#x", "no path of a URL"),
        ("https://9.9.9.9/dns-query\r\nx: y#x", "no path of a URL"),
        ("https://9.9.9.9/" + "a" * 1024, "no path of a URL"),
        ("https://dns.quad9.net/dns-query", "an upstream is an address, never a name"),
        ("tls://9.9.9.9#", "an empty label"),
        ("tls://9.9.9.9#dns..net", "an empty label"),
        ("tls://9.9.9.9#dns.net\x00.evil", "is not a domain name"),
    ],
)
def test_anything_else_is_an_error_with_its_cure(text: str, cure: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_upstream(text)
    assert cure in str(caught.value)


@given(st.text(st.sampled_from("udphtcls:/[]#.0159af%@\n"), max_size=40))
def test_every_text_is_an_upstream_or_a_config_error(text: str) -> None:
    try:
        upstream = parse_upstream(text)
    except ConfigError:
        return
    assert parse_upstream(str(upstream)) == upstream
