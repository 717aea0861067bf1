"""Browsers: what they send over DoH, octet by octet, and what Chromium does with our answers."""

import shutil
import socket
import ssl
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from pathlib import Path

import dns.message
import dns.rcode
import h2.config
import h2.connection
import h2.events
import pytest
from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from msgspec import Struct

from tests.internet import PATH, Internet
from tests.live.appliance import Folders, running
from tests.live.token_stand import sallyport

pytestmark = pytest.mark.live

RULES = """
apps:
  browser:
    identity: [{listener: "127.0.0.1:3128"}, {listener: "127.0.0.1:8443"}]
    allow:
      - {host: [example.com], ports: [80, 443], ech: accept}
"""
COM = "93.184.215.14"
REFUSAL = "sallyport host-not-listed"
URL = "https://127.0.0.1:8443/dns-query"

# Chromium 156, recorded: the preface, SETTINGS and WINDOW_UPDATE, the acknowledgement of ours.
OPENING = bytes.fromhex(
    "505249202a20485454502f322e300d0a0d0a534d0d0a0d0a"
    "000018040000000000000100010000000200000000000400600000000600040000"
    "000004080000000000" + "00ef0001"
)
ACKNOWLEDGED = bytes.fromhex("000000040100000000")
PRIORITY = bytes.fromhex("800000006d")
AUTHORITY = bytes.fromhex("418aa0e41d139d09b8f34d33")  # localhost:8443
ACCEPT = bytes.fromhex("53901d75d0620d263d4c495216a4a840e62f")  # application/dns-message
AGENT = bytes.fromhex("51012a7a85bd3d87a4bf50863485a9264faf")  # a language, Chrome, identity
TYPE = bytes.fromhex("5f901d75d0620d263d4c495216a4a840e62f")
URGENCY = bytes.fromhex("4086aec31ec327d785b606be9437")  # priority: u=4, i
POST = bytes.fromhex("83") + AUTHORITY + bytes.fromhex("870488624a90b76b4b67af5c82089e")


def asked(name: str) -> bytes:
    """Return the header of a query that one OPT record follows, and a question for addresses."""
    header = bytes(2) + bytes.fromhex("01000001000000000001")  # RFC 8484, section 4.1: id 0
    labels = b"".join(bytes([len(each)]) + each.encode() for each in name.split("."))
    return header + labels + bytes.fromhex("0000010001")


def chromium_query(name: str) -> bytes:
    """Return the query as Chromium pads it: id 0, 4096 octets, to a multiple of 128."""
    labels = b"".join(bytes([len(each)]) + each.encode() for each in name.split("."))
    question = (
        bytes(2) + bytes.fromhex("01000001000000000001") + labels + bytes.fromhex("0000010001")
    )
    room = 128 - len(question) - 15
    option = bytes.fromhex("000c") + room.to_bytes(2) + bytes(room)
    opt = bytes.fromhex("0000291000") + bytes(4) + len(option).to_bytes(2) + option
    return question + opt


def chromium_post(query: bytes) -> bytes:
    """Return HEADERS and DATA of a POST, as the first of a connection."""
    block = PRIORITY + POST + ACCEPT + AGENT + TYPE + URGENCY
    return frame(1, 0x24, block) + frame(0, 1, query)


def chromium_get(query: bytes) -> bytes:
    """Return HEADERS of a GET, as the first of a connection."""
    target = b"/dns-query?dns=" + urlsafe_b64encode(query).rstrip(b"=")
    coded = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH).encode(target)
    path = bytes.fromhex("04ff") + prefixed(len(coded) - 127) + coded  # RFC 7541, section 5.1
    block = bytes.fromhex("82") + AUTHORITY + bytes.fromhex("87") + path
    return frame(1, 0x25, PRIORITY + block + ACCEPT + AGENT + URGENCY)


def prefixed(rest: int) -> bytes:
    return bytes([rest]) if rest < 128 else bytes([rest & 127 | 128, rest >> 7])


def frame(kind: int, flags: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3) + bytes([kind, flags]) + (1).to_bytes(4) + payload


def firefox_query(name: str) -> bytes:
    """Return the query as Firefox makes it: no client subnet is to be sent, and it is padded."""
    labels = b"".join(bytes([len(each)]) + each.encode() for each in name.split("."))
    question = (
        bytes(2) + bytes.fromhex("01000001000000000001") + labels + bytes.fromhex("0000010001")
    )
    subnet = bytes.fromhex("0008000400010000")
    room = 128 - len(question) - 11 - len(subnet) - 4
    options = subnet + bytes.fromhex("000c") + room.to_bytes(2) + bytes(room)
    return question + bytes.fromhex("0000291000") + bytes(4) + len(options).to_bytes(2) + options


class Answer(Struct):
    """A response over HTTP/2."""

    fields: dict[bytes, bytes]
    content: bytes = b""


class Browser(Struct, frozen=True):
    """Where the appliance is, for connections of the test's own and for Chromium."""

    internet: Internet
    root: Path

    def connected(self) -> ssl.SSLSocket:
        context = ssl.create_default_context(cafile=self.root)
        context.set_alpn_protocols(["h2", "http/1.1"])
        with self.internet.agent.entered():
            plain = socket.create_connection(("127.0.0.1", 8443), 10)
        return context.wrap_socket(plain, server_hostname="localhost")

    def chromium(self, folder: Path, url: str, *words: str) -> str:
        path = shutil.which("chromium", path=PATH)
        if path is None:
            pytest.skip("no chromium: apt-get install --no-install-recommends chromium")
        quiet = (
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
            "--disable-background-networking",
        )
        argv = [path, "--headless=new", *quiet, f"--user-data-dir={folder}", *words]
        trust = "--ignore-certificate-errors"  # it reads no list but its own and the system's
        ended = self.internet.run([*argv, trust, "--dump-dom", url], env={"HOME": str(folder)})
        return ended.stdout + ended.stderr


@pytest.fixture(scope="module")
def browser(internet: Internet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    folders = Folders(tmp_path_factory.mktemp("browser"))
    folders.configure(f"resolver: {{upstream_ca: {internet.ca}}}\n")
    folders.rule(RULES)
    root = folders.config / "root.pem"
    with running(internet.agent, folders):
        sallyport(folders, "ca", "export", "--out", str(root))
        yield Browser(internet, root)


def read_answer(reading: ssl.SSLSocket, client: h2.connection.H2Connection) -> Answer:
    """Read to the end of the one stream."""
    answer = Answer({})
    while data := reading.recv(65535):
        for event in client.receive_data(data):
            if isinstance(event, h2.events.ResponseReceived):
                answer.fields = dict(event.headers)
            elif isinstance(event, h2.events.DataReceived):
                answer.content += event.data
            elif isinstance(event, h2.events.StreamEnded):
                return answer
    pytest.fail("the connection ended before the answer")


def client_of_octets() -> h2.connection.H2Connection:
    """Return a state machine for what comes back; what goes out is written by the test."""
    config = h2.config.H2Configuration(header_encoding=None)
    client = h2.connection.H2Connection(config)
    client.initiate_connection()
    client.send_headers(
        1,
        [(":method", "GET"), (":scheme", "https"), (":path", "/"), (":authority", "localhost")],
        end_stream=True,
    )
    client.data_to_send()
    return client


def check(answer: Answer, name: str) -> None:
    """Check fields and content of an answer to an id of 0."""
    assert answer.fields[b":status"] == b"200"
    assert answer.fields[b"content-type"] == b"application/dns-message"
    assert int(answer.fields[b"content-length"]) == len(answer.content)
    message = dns.message.from_wire(answer.content)
    assert message.id == 0
    if name == "example.com":
        assert COM in str(message.answer[0])
        fresh_s = message.answer[0].ttl  # RFC 8484, section 5.1
        assert answer.fields[b"cache-control"] == f"private, max-age={fresh_s}".encode()
    else:
        assert message.rcode() == dns.rcode.NXDOMAIN
        assert REFUSAL in str(message.extended_errors()[0].text)
        assert answer.fields[b"cache-control"] == b"private, max-age=5"


def test_the_octets_are_those_that_chromium_was_seen_to_send() -> None:
    query = chromium_query("redirector.gvt1.com").replace(
        bytes.fromhex("00010001"), b"\0\x41\0\1", 1
    )
    assert len(query) == 128
    sent = chromium_get(query)
    assert sent.startswith(bytes.fromhex("0000d8012500000001800000006d82418aa0e41d139d09b8f34d33"))
    assert sent[27:].startswith(bytes.fromhex("8704ff11624a90b76b4b67aff24a910430c3761861bb0c30"))
    post = chromium_post(query)
    assert post.startswith(bytes.fromhex("000065012400000001800000006d83418aa0e41d139d09b8f34d33"))


@pytest.mark.parametrize("name", ["example.com", "denied.example.net"])
@pytest.mark.parametrize("ask", [chromium_get, chromium_post], ids=["GET", "POST"])
def test_answers_what_chromium_sends(browser: Browser, ask: object, name: str) -> None:
    assert callable(ask)
    with browser.connected() as connection:
        connection.sendall(OPENING + ask(chromium_query(name)) + ACKNOWLEDGED)
        check(read_answer(connection, client_of_octets()), name)


@pytest.mark.parametrize("name", ["example.com", "denied.example.net"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_answers_what_firefox_sends(browser: Browser, method: str, name: str) -> None:
    """With its fields in its order; `accept-encoding` is empty, and `te` is of HTTP/2."""
    query = firefox_query(name)
    parameter = "?dns=" + urlsafe_b64encode(query).rstrip(b"=").decode() if method == "GET" else ""
    of_post = [("content-type", "application/dns-message"), ("content-length", str(len(query)))]
    fields = [
        *((":method", method), (":path", f"/dns-query{parameter}")),
        *((":authority", "localhost:8443"), (":scheme", "https")),
        *(("accept", "application/dns-message"), ("accept-encoding", "")),
        *(of_post if method == "POST" else []),
        *(("cache-control", "no-store"), ("te", "trailers")),
    ]
    client = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding=None))
    client.initiate_connection()
    client.send_headers(1, fields, end_stream=method == "GET")
    if method == "POST":
        client.send_data(1, query, end_stream=True)
    with browser.connected() as connection:
        connection.sendall(client.data_to_send())
        check(read_answer(connection, client), name)


@pytest.mark.parametrize("template", [URL, URL + "{?dns}"], ids=["POST", "GET"])
def test_chromium_resolves_over_doh(browser: Browser, tmp_path: Path, template: str) -> None:
    """In its secure mode, so that no other resolver is asked; the origin it dials itself."""
    policy = f'{{"dns_over_https": {{"mode": "secure", "templates": "{template}"}}}}'
    (tmp_path / "Local State").write_text(policy)
    assert "An example" in browser.chromium(tmp_path, "http://example.com/")
    shown = browser.chromium(tmp_path, "http://denied.example.net/")
    assert "net::ERR_NAME_NOT_RESOLVED" in shown
    assert "host-not-listed" not in shown


def test_chromium_shows_a_refusal_of_the_proxy_over_http_alone(
    browser: Browser, tmp_path: Path
) -> None:
    proxy = "--proxy-server=http://127.0.0.1:3128"
    assert "An example" in browser.chromium(tmp_path, "https://example.com/", proxy)
    shown = browser.chromium(tmp_path, "http://example.net/", proxy)
    assert '"reason":"host-not-listed"' in shown
    shown = browser.chromium(tmp_path, "https://example.net/", proxy)
    assert "net::ERR_TUNNEL_CONNECTION_FAILED" in shown
    assert "host-not-listed" not in shown
