"""The one host parser: what is taken, and every other spelling refused."""

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import PeerError
from proxy.wire.host import format_authority, format_host, parse_authority, parse_host
from rules.decision import Reason
from rules.name import parse as parse_name

_LABEL = st.from_regex(r"[a-z_]([a-z0-9_-]{0,20}[a-z0-9_])?", fullmatch=True)


@pytest.mark.parametrize(
    ("text", "host"),
    [
        (b"example.com", "example.com"),
        (b"EXAMPLE.Com.", "example.com"),
        (b"_dmarc.example.com", "_dmarc.example.com"),
        (b"xn--bcher-kva.example", "xn--bcher-kva.example"),
        (b"localhost", "localhost"),
        (b"1.2.3.example", "1.2.3.example"),
        (b"0x7f.example", "0x7f.example"),
        (b"a.0xg", "a.0xg"),
        (b"192.0.2.7", IPv4Address("192.0.2.7")),
        (b"[2001:db8::7]", IPv6Address("2001:db8::7")),
        (b"[2001:DB8:0:0:0:0:0:7]", IPv6Address("2001:db8::7")),
        (b"[::ffff:192.0.2.7]", IPv6Address("::ffff:c000:207")),
    ],
)
def test_takes_names_and_addresses_in_one_form(text: bytes, host: object) -> None:
    assert parse_host(text) == host


@pytest.mark.parametrize(
    "text",
    [
        b"", b".", b"..", b"example.com..", b".example.com", b"a..b", b"-a.example", b"a-.example",
        b"attacker.example\x00.google.com", b"a\nb.example", b"a b.example", b"\x7f.example",
        b"example.com%2e", b"%65xample.com", b"user@example.com", b"good.example\\@evil.example",
        b"[example.com]", b"[192.0.2.7]", b"[]", b"[::1", b"::1]", b"::1", b"[::1].example",
        b"[[::1]]", b"[fe80::1%25eth0]", b"[fe80::1%eth0]", b"[v1.x]", b"[::1 ]", b"[::1/128]",
        "b\u00fccher.example".encode(), "example\u3002com".encode(), "\u212Aelvin".encode(),
        b"a/b", b"a?b", b"a#b", b"a:b", b"a*b",
        b"a" * 64 + b".example", b".".join([b"a" * 63] * 4),
    ],
)  # fmt: skip
def test_refuses_what_is_no_host(text: bytes) -> None:
    """One name, many spellings: NUL, control octets, userinfo, brackets, zone ids, full width."""
    with pytest.raises(PeerError) as refused:
        parse_host(text)
    assert refused.value.reason is Reason.NAME_MALFORMED


@pytest.mark.parametrize(
    "text",
    [
        b"0177.0.0.1", b"127.1", b"127.0.1", b"2130706433", b"0x7f000001", b"0x7f.0.0.1", b"0X7F.1",
        b"127.0.0.01", b"1.2.3.4.", b"1.2.3.4.5", b"256.0.0.1", b"1.2.3", b"0", b"0x", b"a.0x",
        b"example.1", b"example.0x1f", b"1.2.3.0x4", b"00.00.00.00", b"127.0.0.1..",
    ],
)  # fmt: skip
def test_refuses_every_other_spelling_of_ipv4(text: bytes) -> None:
    """IPv4 as octal, hex, decimal, two or three parts, with leading zeros (CVE-2021-29921)."""
    with pytest.raises(PeerError):
        parse_host(text)


def test_takes_the_default_port_where_none_is_written() -> None:
    assert parse_authority(b"example.com", 80) == ("example.com", 80)
    assert parse_authority(b"[::1]", 443) == (IPv6Address("::1"), 443)


def test_takes_the_port_that_is_written() -> None:
    assert parse_authority(b"example.com:8080", 80) == ("example.com", 8080)
    assert parse_authority(b"[::1]:1", None) == (IPv6Address("::1"), 1)
    assert parse_authority(b"192.0.2.7:65535", None) == (IPv4Address("192.0.2.7"), 65535)


@pytest.mark.parametrize("text", [b"example.com", b"[::1]", b""])
def test_refuses_an_authority_without_the_port_that_is_required(text: bytes) -> None:
    with pytest.raises(PeerError, match="write the port"):
        parse_authority(text, None)


@pytest.mark.parametrize(
    "port",
    [b"", b"0", b"00", b"65536", b"99999", b"100000", b"007", b"-12", b"+80", b" 80", b"80 ",
     b"8_0", b"0x50", b"80a", "\u0668\u0660".encode(), b"80\n"],
)  # fmt: skip
def test_refuses_what_is_no_port(port: bytes) -> None:
    """Port 0, 65536, `:007`, `:-12`."""
    with pytest.raises(PeerError, match="port") as refused:
        parse_authority(b"example.com:" + port, 80)
    assert refused.value.reason is Reason.NAME_MALFORMED


@pytest.mark.parametrize(
    "text", [b"user@example.com:80", b"user:pw@example.com:80", b"a:b:80", b"::1:80", b":80",
             b"[::1]]", b"[example.com]:80", b"[::1]x:80"],
)  # fmt: skip
def test_refuses_userinfo_and_stray_colons(text: bytes) -> None:
    """Userinfo in an authority."""
    with pytest.raises(PeerError):
        parse_authority(text, 80)


def test_formats_an_authority_so_that_it_reads_back() -> None:
    for host in (parse_name("example.com"), IPv4Address("192.0.2.7"), IPv6Address("2001:db8::7")):
        text = format_authority(host, 8443)
        assert parse_authority(text.encode(), None) == (host, 8443)
        assert parse_host(format_host(host).encode()) == host


def test_shows_what_was_sent_without_control_octets() -> None:
    with pytest.raises(PeerError) as refused:
        parse_host(b"\x1b[31m" + b"x" * 5000)
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 400


@given(st.lists(_LABEL, min_size=1, max_size=5), st.booleans(), st.integers(1, 65535))
def test_a_name_has_one_form(labels: list[str], dot: bool, port: int) -> None:
    text = ".".join(labels)
    written = f"{text.upper()}{'.' * dot}:{port}".encode()
    assert parse_authority(written, None) == (text, port)


@given(st.binary(max_size=40))
def test_any_octets_give_a_canonical_host_or_a_peer_error(text: bytes) -> None:
    try:
        host = parse_host(text)
    except PeerError:
        return
    assert parse_host(format_host(host).encode("ascii")) == host
