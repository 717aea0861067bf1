"""Nothing about a denied name leaves the host: what leaves is captured and read.

The upstream is plain Do53 here, so that a name on its way out can be seen in a packet.
"""

import socket
from collections.abc import Iterator

import pytest

from tests.internet import Capture, Internet
from tests.live.appliance import AGENT, Appliance, Folders, running

pytestmark = pytest.mark.live

PLAIN = 'resolver: {upstreams: ["udp://9.9.9.9:53"]}\n'
DENIED = "denied.example.net"
DENIED_WIRE = b"\x06denied\x07example\x03net\x00"
TYPES = (
    *("A", "AAAA", "TXT", "MX", "NS", "SOA", "SRV", "PTR", "CNAME", "DNAME", "NAPTR", "CAA"),
    *("HTTPS", "SVCB", "DS", "DNSKEY", "RRSIG", "NSEC", "NULL", "KEY", "LOC", "ANY", "AXFR"),
    *("TYPE65280", "TYPE1234"),
)


@pytest.fixture(scope="module")
def plain(internet: Internet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    folders = Folders(tmp_path_factory.mktemp("plain"))
    folders.configure(PLAIN)
    folders.rule(AGENT)
    with running(internet.agent, folders) as shared:
        yield shared


@pytest.fixture
def capture(internet: Internet, plain: Appliance) -> Iterator[Capture]:
    assert plain.process.poll() is None
    with internet.capture() as recording:
        yield recording


def query(name_wire: bytes, rtype: int, rclass: int = 1, extra: bytes = b"") -> bytes:
    header = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00" + (b"\x01" if extra else b"\x00")
    return header + name_wire + rtype.to_bytes(2) + rclass.to_bytes(2) + extra


def exchange(internet: Internet, messages: list[bytes], wanted: int) -> list[bytes]:
    """Send all at once from one socket; return the answers that come."""
    with internet.agent.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        asker.connect(("127.0.0.1", 5300))
        asker.settimeout(5)
        for message in messages:
            asker.send(message)
        return [asker.recv(4096) for _ in range(wanted)]


def test_an_allowed_name_is_seen_leaving(internet: Internet, capture: Capture) -> None:
    """Without this the zeros below would prove nothing."""
    shown = internet.run(["kdig", "@127.0.0.1", "-p", "5300", "api.example.com"])
    assert "93.184.215.14" in shown.stdout
    assert len(capture.carries(b"\x03api\x07example\x03com\x00")) == 1


@pytest.mark.parametrize("transport", ["+notcp", "+tcp"])
def test_no_packet_for_a_denied_name_of_any_type(
    internet: Internet, capture: Capture, transport: str
) -> None:
    """threats.md: Forwarding a denied name at all (OpenShell #1169, CVE-2025-55284)."""
    for rtype in TYPES:
        flags = [transport, "+retry=2", "+timeout=3"]
        if rtype == "AXFR" and transport == "+notcp":
            continue
        shown = internet.run(["kdig", "@127.0.0.1", "-p", "5300", *flags, DENIED, rtype])
        assert "status: NOERROR" not in shown.stdout, (rtype, shown.stdout)
    assert capture.packets() == []


def test_no_packet_for_other_classes_options_and_retries(
    internet: Internet, capture: Capture
) -> None:
    """threats.md: classes CH and HS; EDNS options, ECS, cookies, padding, search-list retries."""
    options = b"\x00\x08\x00\x07\x00\x01\x18\x00\xc6\x33\x64" + b"\x00\x0a\x00\x08abcdefgh"
    opt = b"\x00\x00\x29\x04\xd0\x00\x00\x00\x00" + len(options).to_bytes(2) + options
    messages = [query(DENIED_WIRE, 1, rclass) for rclass in (3, 4, 254)]
    messages += [query(DENIED_WIRE, rtype, 1, opt) for rtype in (1, 28, 16)]
    messages += [query(b"\x06dEnIeD\x07eXample\x03NET\x00", 1)] * 5
    assert len(exchange(internet, messages, len(messages))) == len(messages)
    kdig = ["kdig", "@127.0.0.1", "-p", "5300", "+cookie", "+padding", "+subnet=198.51.100.0/24"]
    for _ in range(3):
        assert "NXDOMAIN" in internet.run([*kdig, DENIED]).stdout
    assert capture.packets() == []


def test_no_packet_when_many_ask_at_once(internet: Internet, capture: Capture) -> None:
    """Coalescing joins queries of allowed names only."""
    answers = exchange(internet, [query(DENIED_WIRE, 1)] * 64, 64)
    assert {answer[3] & 15 for answer in answers} == {3}
    assert capture.packets() == []


def test_no_packet_for_the_denied_target_of_an_allowed_alias(
    internet: Internet, capture: Capture
) -> None:
    """threats.md: CNAME judged only when an address follows (FTL #1421)."""
    for _ in range(2):
        asked = ["kdig", "@127.0.0.1", "-p", "5300", "+edns", "alias-to-banned.example.com"]
        shown = internet.run(asked).stdout
        assert "ANSWER: 0" in shown
        assert "sallyport rule" in shown
        assert "23.215.0.136" not in shown
    assert len(capture.carries(b"\x0falias-to-banned\x07example\x03com\x00")) >= 1
    assert capture.carries(b"\x06banned") == []


def test_no_packet_for_a_refused_type_of_an_allowed_name(
    internet: Internet, capture: Capture
) -> None:
    """threats.md: TXT, NULL, KEY, private types."""
    for rtype in ("TXT", "NULL", "KEY", "TYPE65280"):
        shown = internet.run(["kdig", "@127.0.0.1", "-p", "5300", "example.com", rtype])
        assert "status: NOERROR" in shown.stdout
        assert "ANSWER: 0" in shown.stdout
    assert capture.packets() == []


def test_no_packet_for_a_denied_origin(internet: Internet, capture: Capture) -> None:
    """threats.md: look-up in the refusal path."""
    for url in (f"http://{DENIED}/", f"https://{DENIED}/", "http://198.18.0.1/", "https://[::1]/"):
        shown = internet.run(["curl", "-sS", "-v", "-x", "http://127.0.0.1:3128", url])
        assert "403 sallyport " in shown.stderr, shown.stderr
    assert capture.packets() == []


def test_no_packet_for_reverse_names(internet: Internet, capture: Capture) -> None:
    """threats.md: PTR and ip6.arpa nibbles."""
    nibbles = ".".join("deadbeefdeadbeefdeadbeefdeadbeef") + ".ip6.arpa"
    for name in ("1.2.0.192.in-addr.arpa", "14.215.184.93.in-addr.arpa", nibbles):
        internet.run(["kdig", "@127.0.0.1", "-p", "5300", name, "PTR"])
    assert capture.packets() == []


def test_no_packet_over_an_encrypted_upstream(internet: Internet, folders: Folders) -> None:
    """With DoT no octet leaves at all while only denied names are asked for."""
    listen = (
        '{do53: ["127.0.0.1:5301"], dot: [], doh: [], proxy: ["127.0.0.1:3139"],'
        ' metrics: ["127.0.0.1:9154"], control: "", proxy_tls: [], workload: ""}'
    )
    folders.configure(f"listen: {listen}\nresolver: {{upstream_ca: {internet.ca}}}\n")
    folders.rule(AGENT.replace(":5300", ":5301").replace(":3128", ":3139"))
    asked = ["kdig", "@127.0.0.1", "-p", "5301"]
    with running(internet.agent, folders):
        with internet.capture() as capture:
            assert "93.184.215.14" in internet.run([*asked, "example.com"]).stdout
        assert {packet.port for packet in capture.packets()} == {853}
        with internet.capture() as capture:
            assert "NXDOMAIN" in internet.run([*asked, DENIED]).stdout
            assert "NXDOMAIN" in internet.run([*asked, "+tcp", DENIED, "TXT"]).stdout
        assert capture.packets() == []
