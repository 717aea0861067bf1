"""The test internet is what it says, before anything of ours runs in it."""

from tests.internet import Internet
from tests.outside import BIG_OCTETS, COM, QUAD9


def test_resolves_over_tls_with_a_verified_name(internet: Internet) -> None:
    for server in QUAD9:
        tls = ["+tls", f"+tls-ca={internet.ca}", "+tls-host=dns.quad9.net"]
        asked = internet.run(["kdig", f"@{server}", *tls, "+short", "example.com", "A"])
        assert asked.stdout.strip() == COM, asked


def test_resolves_over_udp_and_tcp(internet: Internet) -> None:
    for extra in ("+notcp", "+tcp"):
        asked = internet.run(["kdig", "@9.9.9.9", extra, "+short", "no.example.net", "TXT"])
        assert asked.stdout.strip() == '"any"', asked
    asked = internet.run(["kdig", "@9.9.9.9", "nowhere.test"])
    assert "NXDOMAIN" in asked.stdout


def test_serves_pages_and_files_over_http_and_https(internet: Internet) -> None:
    resolve = ["--resolve", f"example.com:80:{COM}", "--resolve", f"example.com:443:{COM}"]
    bundle = {"CURL_CA_BUNDLE": str(internet.ca)}
    for scheme in ("http", "https"):
        got = internet.run(["curl", "-sS", *resolve, f"{scheme}://example.com/echo"], env=bundle)
        assert got.stdout == "GET example.com /echo\n", got
        size = ["-o", "/dev/null", "-w", "%{size_download}"]
        got = internet.run(
            ["curl", "-sS", *resolve, *size, f"{scheme}://example.com/big"], env=bundle
        )
        assert got.stdout == str(BIG_OCTETS), got


def test_captures_what_leaves_and_only_that(internet: Internet) -> None:
    with internet.capture() as capture:
        internet.run(["kdig", "@9.9.9.9", "+notcp", "leaves.example.net"])
        internet.run(
            ["kdig", "@127.0.0.1", "+notcp", "+retry=0", "+timeout=1", "stays.example.net"]
        )
    assert [packet.port for packet in capture.carries(b"\x06leaves\x07example\x03net")] == [53]
    assert capture.carries(b"stays") == []


def test_has_no_way_out(internet: Internet) -> None:
    asked = internet.run(["kdig", "@8.8.8.8", "+retry=0", "+timeout=1", "example.com"])
    assert "status:" not in asked.stdout
