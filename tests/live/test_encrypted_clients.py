"""Real clients of DoT and DoH: each is answered, knows us by our root, and shows a refusal."""

import sys
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import dns.message
import dns.rcode
import pytest
from msgspec import Struct

from tests.internet import Internet, until
from tests.live.appliance import Appliance, Folders, running
from tests.live.token_stand import sallyport, token

pytestmark = pytest.mark.live

RULES = """
apps:
  desk:
    identity: [{listener: "127.0.0.1:8853"}, {listener: "127.0.0.1:8443"}]
    allow:
      - {host: [example.com, www.example.com, example.org], ports: [80, 443]}
  coder:
    identity: [{token: coder}]
    allow:
      - {host: [example.net], ports: [80, 443]}
"""
COM, ORG, NET = "93.184.215.14", "23.215.0.136", "93.184.216.34"
REFUSAL = "sallyport host-not-listed"
WHERE = {"dot": ("-p", "8853", "+tls"), "doh": ("-p", "8443", "+https")}
URL = "https://localhost:8443/dns-query"
MESSAGE = "application/dns-message"
DNSPYTHON = """
import ssl, sys, dns.message, dns.query, httpx
how, ca, name = sys.argv[1:]
question = dns.message.make_query(name, "A", use_edns=0)
if how == "tls":
    answer = dns.query.tls(question, "127.0.0.1", port=8853, server_hostname="localhost", verify=ca)
else:
    client = httpx.Client(http2=True, verify=ssl.create_default_context(cafile=ca))
    fields = {"content-type": "application/dns-message"}
    url = "https://localhost:8443/dns-query"
    said = client.post(url, content=question.to_wire(), headers=fields)
    assert said.http_version == "HTTP/2"
    answer = dns.message.from_wire(said.content)
print(answer)
print([each.text for each in answer.extended_errors()])
"""
UNBOUND = """
server:
  interface: 127.0.0.1@5453
  access-control: 127.0.0.0/8 allow
  do-not-query-localhost: no
  do-ip6: no
  username: ""
  chroot: ""
  directory: "{folder}"
  pidfile: ""
  use-syslog: no
  module-config: "iterator"
  tls-cert-bundle: "{root}"
forward-zone:
  name: "."
  forward-tls-upstream: yes
  forward-addr: 127.0.0.1@8853#{name}
"""


class Desk(Struct, frozen=True):
    """A running appliance, its root as clients are given it, and a token's secret."""

    internet: Internet
    appliance: Appliance
    root: Path
    secret: str

    def run(self, *argv: str | Path) -> str:
        ended = self.internet.run(argv)
        return ended.stdout + ended.stderr

    def kdig(self, kind: str, *words: str, ca: Path | None = None, name: str = "localhost") -> str:
        trust = (f"+tls-ca={ca or self.root}", f"+tls-hostname={name}")
        return self.run("kdig", "@127.0.0.1", *WHERE[kind], *trust, *words)

    def connections(self, kind: str) -> int:
        page = self.run("curl", "-sS", "http://127.0.0.1:9153/metrics")
        name = f'sallyport_connections_total{{listener="{kind}",outcome="accepted"}} '
        return int(float(page.partition(name)[2].split()[0]))


@pytest.fixture(scope="module")
def desk(internet: Internet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    folders = Folders(tmp_path_factory.mktemp("desk"))
    folders.configure(f"resolver: {{upstream_ca: {internet.ca}}}\n")
    folders.rule(RULES)
    root = folders.config / "root.pem"
    with running(internet.agent, folders) as appliance:
        sallyport(folders, "ca", "export", "--out", str(root))
        yield Desk(internet, appliance, root, token(folders, "coder"))


@pytest.mark.parametrize("kind", WHERE)
def test_kdig_is_answered_and_shows_a_refusal(desk: Desk, kind: str) -> None:
    """Its queries are padded, so that they have an OPT record, and the reason comes unasked."""
    assert COM in desk.kdig(kind, "example.com")
    shown = desk.kdig(kind, "denied.example.net")
    assert "NXDOMAIN" in shown
    assert "EDE: 15 (Blocked)" in shown
    assert REFUSAL in shown
    assert "PADDING" in shown


@pytest.mark.parametrize("kind", WHERE)
def test_kdig_knows_us_by_our_root_and_name_alone(desk: Desk, kind: str) -> None:
    for name in ("localhost", "sallyport.internal", "127.0.0.1"):
        assert COM in desk.kdig(kind, "example.com", name=name)
    for shown in (
        desk.kdig(kind, "+retry=0", "example.com", name="dns.example"),
        desk.kdig(kind, "+retry=0", "example.com", ca=desk.internet.ca),
    ):
        assert COM not in shown
        assert "certificate" in shown.lower()


@pytest.mark.parametrize("kind", WHERE)
def test_kdig_asks_several_questions_over_one_connection(desk: Desk, kind: str) -> None:
    before = desk.connections(kind)
    names = ("example.com", "www.example.com", "example.org", "denied.example.net")
    shown = desk.kdig(kind, "+keepopen", *names)
    assert shown.count(f"A\t{COM}") == 2
    assert ORG in shown
    assert REFUSAL in shown
    assert desk.connections(kind) == before + 1


def test_kdig_asks_with_get(desk: Desk) -> None:
    shown = desk.kdig("doh", "+https-get", "example.com")
    assert "HTTP/2-GET" in shown
    assert COM in shown


@pytest.fixture
def fetch(desk: Desk, tmp_path: Path) -> Callable[[str], str]:
    """Fetch a page as curl does that resolves over DoH and then dials the origin itself."""
    both = tmp_path / "both.pem"
    both.write_bytes(desk.internet.ca.read_bytes() + desk.root.read_bytes())
    return lambda url: desk.run("curl", "-sS", "--cacert", both, "--doh-url", URL, url)


def test_curl_resolves_over_doh(desk: Desk, fetch: Callable[[str], str]) -> None:
    before = desk.connections("doh")
    for scheme in ("http", "https"):
        assert "An example" in fetch(f"{scheme}://example.com/")
    assert "Couldn't resolve host name" in fetch("https://denied.example.net/")
    assert desk.connections("doh") > before


def test_curl_does_not_resolve_over_doh_without_the_root(desk: Desk) -> None:
    shown = desk.run("curl", "-sS", "--cacert", desk.internet.ca, "--doh-url", URL, "example.com")
    assert "Couldn't resolve host name" in shown


def curl_asks(desk: Desk, folder: Path, name: str, *words: str) -> tuple[str, bytes]:
    """Ask with a GET of curl's; return status and content."""
    query = dns.message.make_query(name, "A", use_edns=0)
    query.id = 0  # RFC 8484, section 4.1
    parameter = urlsafe_b64encode(query.to_wire()).rstrip(b"=").decode()
    content = folder / "content"
    trust = ("--cacert", desk.root)
    shows: Sequence[str | Path] = ("-o", content, "-w", "%{http_code} %{http_version}")
    status = desk.run("curl", "-sS", *trust, *shows, *words, f"{URL}?dns={parameter}")
    return status, content.read_bytes()


def test_curl_shows_a_token_on_doh(desk: Desk, tmp_path: Path) -> None:
    bearer = ("-H", f"Authorization: Bearer {desk.secret}")
    for version in ("--http2", "--http1.1"):
        status, content = curl_asks(desk, tmp_path, "example.net", version, *bearer)
        assert status.split()[0] == "200"
        assert NET in str(dns.message.from_wire(content))


def test_curl_shows_the_wrong_token_on_doh(desk: Desk, tmp_path: Path) -> None:
    status, content = curl_asks(desk, tmp_path, "example.com", "-H", "Authorization: Bearer none")
    assert status.split()[0] == "401"
    assert b'"reason":"identity-unknown"' in content


def test_an_app_of_a_listener_is_asked_for_no_token_on_doh(desk: Desk, tmp_path: Path) -> None:
    status, content = curl_asks(desk, tmp_path, "example.net")
    assert status.split()[0] == "200"
    answer = dns.message.from_wire(content)
    assert answer.rcode() == dns.rcode.NXDOMAIN
    assert REFUSAL in str(answer.extended_errors()[0].text)


@pytest.mark.parametrize("how", ["tls", "httpx"])
def test_dnspython_is_answered_and_shows_a_refusal(desk: Desk, how: str) -> None:
    ask = partial(desk.run, sys.executable, "-c", DNSPYTHON, how, desk.root)
    assert COM in ask("example.com")
    shown = ask("denied.example.net")
    assert "NXDOMAIN" in shown
    assert REFUSAL in shown


@pytest.mark.parametrize("name", ["sallyport.internal", "127.0.0.1"])
def test_unbound_forwards_over_dot(desk: Desk, tmp_path: Path, name: str) -> None:
    file = tmp_path / "unbound.conf"
    file.write_text(UNBOUND.format(folder=tmp_path, root=desk.root, name=name))
    argv = ("unbound", "-d", "-p", "-c", file)
    with desk.internet.agent.started(argv, tmp_path / "unbound.log"):
        until(lambda: desk.internet.agent.accepts("127.0.0.1", 5453), "Unbound accepts")
        ask = partial(desk.run, "kdig", "@127.0.0.1", "-p", "5453", "+edns")
        assert COM in ask("example.com")
        shown = ask("denied.example.net")
        assert "NXDOMAIN" in shown
        assert "sallyport.internal." in shown


def test_unbound_does_not_forward_to_another_name(desk: Desk, tmp_path: Path) -> None:
    file = tmp_path / "unbound.conf"
    file.write_text(UNBOUND.format(folder=tmp_path, root=desk.root, name="dns.example"))
    argv = ("unbound", "-d", "-p", "-c", file)
    with desk.internet.agent.started(argv, tmp_path / "unbound.log"):
        until(lambda: desk.internet.agent.accepts("127.0.0.1", 5453), "Unbound accepts")
        shown = desk.run("kdig", "@127.0.0.1", "-p", "5453", "+time=20", "example.com")
        assert "SERVFAIL" in shown
