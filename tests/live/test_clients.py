"""Real clients through the appliance: each is let through, or shows a person why not."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec import Struct

from tests.internet import Internet
from tests.live.appliance import ROOT, Appliance

pytestmark = pytest.mark.live

PROXY = "http://127.0.0.1:3128"
REFUSAL = "403 sallyport host-not-listed"

REQUESTS = """
import sys, requests
try:
    print(requests.get(sys.argv[1], timeout=10).text)
except requests.RequestException as error:
    print(error)
"""
HTTPX = """
import sys, httpx
try:
    answer = httpx.get(sys.argv[1], timeout=10)
    print(answer.reason_phrase if answer.status_code != 200 else answer.text)
except httpx.HTTPError as error:
    print(error)
"""
URLLIB = """
import sys, urllib.error, urllib.request
try:
    print(urllib.request.urlopen(sys.argv[1], timeout=10).read().decode())
except urllib.error.URLError as error:
    print(error)
"""
UNDICI = """
const { ProxyAgent, request } = require(process.argv[2]);
const ca = require('fs').readFileSync(process.env.NODE_EXTRA_CA_CERTS);
const dispatcher = new ProxyAgent({ uri: process.env.http_proxy, requestTls: { ca } });
request(process.argv[1], { dispatcher })
  .then(async (answer) => console.log(answer.statusCode, await answer.body.text()))
  .catch((error) => console.log(error.message, error.cause ? error.cause.message : ''))
  .finally(() => dispatcher.close());
"""
UNDICI_HOME = ROOT / ".venv-node" / "node_modules" / "undici"


class Client(Struct, frozen=True):
    """How a client is told to fetch, and what it shows of a refusal over http and https."""

    command: tuple[str, ...]
    http: str
    https: str


# What a person sees at the terminal; docs/clients.md has the same table.
TUNNELING = "Proxy response (403) !== 200 when HTTP Tunneling"
CLIENTS = {
    "curl": Client(("curl", "-sS"), '"reason":"host-not-listed"', "tunnel failed, response 403"),
    "curl -v": Client(("curl", "-sSv"), REFUSAL, REFUSAL),
    "curl -f": Client(("curl", "-sSf"), "returned error: 403", "returned error: 403"),
    "wget": Client(
        ("wget", "-O-", "--tries=1"),
        "ERROR 403: sallyport host-not-listed",
        "Proxy tunneling failed: sallyport host-not-listed",
    ),
    "requests": Client((sys.executable, "-c", REQUESTS), '"host-not-listed"', REFUSAL),
    "httpx": Client((sys.executable, "-c", HTTPX), REFUSAL[4:], REFUSAL),
    "urllib": Client(
        (sys.executable, "-c", URLLIB),
        "HTTP Error 403: sallyport host-not-listed",
        f"Tunnel connection failed: {REFUSAL}",
    ),
    "undici": Client(("node", "-e", UNDICI, "--"), TUNNELING, TUNNELING),
}

type Fetch = Callable[[Client, str], str]


@pytest.fixture
def fetch(internet: Internet, appliance: Appliance, tmp_path: Path) -> Fetch:
    assert appliance.process.poll() is None
    (tmp_path / "wgetrc").write_text(f"ca_certificate = {internet.ca}\n")
    env = {
        "HOME": str(tmp_path),
        "WGETRC": str(tmp_path / "wgetrc"),
        **dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), PROXY),
        **dict.fromkeys(
            ("CURL_CA_BUNDLE", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"),
            str(internet.ca),
        ),
    }

    def run(client: Client, url: str) -> str:
        extra = [str(UNDICI_HOME)] if "node" in client.command else []
        ended = internet.run([*client.command, url, *extra], env=env)
        return ended.stdout + ended.stderr

    return run


@pytest.mark.parametrize("name", CLIENTS)
def test_fetches_what_is_allowed(fetch: Fetch, name: str) -> None:
    if name == "undici":
        assert UNDICI_HOME.exists(), "run scripts/test once: it fetches undici"
    for scheme in ("http", "https"):
        shown = fetch(CLIENTS[name], f"{scheme}://example.com/")
        assert "An example" in shown, (scheme, shown)


@pytest.mark.parametrize("name", CLIENTS)
def test_shows_why_when_refused(fetch: Fetch, internet: Internet, name: str) -> None:
    client = CLIENTS[name]
    before = len(internet.requests())
    for scheme, expected in (("http", client.http), ("https", client.https)):
        shown = fetch(client, f"{scheme}://example.net/")
        assert expected in shown, (scheme, shown)
        assert "An example" not in shown
    assert len(internet.requests()) == before


def test_a_large_file_arrives_whole(fetch: Fetch, internet: Internet, tmp_path: Path) -> None:
    for scheme in ("http", "https"):
        target = tmp_path / scheme
        fetch(Client(("curl", "-sS", "-o", str(target)), "", ""), f"{scheme}://example.com/big")
        assert target.read_bytes() == (internet.folder / "outside/www/big").read_bytes()


def test_dig_and_kdig_show_the_reason(internet: Internet, appliance: Appliance) -> None:
    assert appliance.process.poll() is None
    for client in ("dig", "kdig"):
        for transport in ("+notcp", "+tcp"):
            asked = [client, "@127.0.0.1", "-p", "5300", "+edns=0", transport]
            assert "93.184.215.14" in internet.run([*asked, "example.com"]).stdout
            assert "2606:2800:21f:" in internet.run([*asked, "example.com", "AAAA"]).stdout
            shown = internet.run([*asked, "denied.example.net"]).stdout
            assert "NXDOMAIN" in shown
            assert "EDE: 15 (Blocked)" in shown
            assert "sallyport host-not-listed" in shown


def test_a_cut_tunnel_is_a_tls_alert(fetch: Fetch) -> None:
    """The 2xx was sent before the ClientHello could be wrong (docs/clients.md)."""
    wrong = ("--connect-to", "example.com:443:example.org:443")
    shown = fetch(Client(("curl", "-sS", *wrong), "", ""), "https://example.com/")
    assert "curl: (35)" in shown
    assert "alert access denied" in shown


@pytest.fixture
def git(internet: Internet, appliance: Appliance, tmp_path: Path) -> Callable[..., str]:
    assert appliance.process.poll() is None
    env = {
        "HOME": str(tmp_path),
        "http_proxy": PROXY,
        "https_proxy": PROXY,
        "GIT_SSL_CAINFO": str(internet.ca),
        "GIT_TERMINAL_PROMPT": "0",
        **{f"GIT_{who}_NAME": "Agent" for who in ("AUTHOR", "COMMITTER")},
        **{f"GIT_{who}_EMAIL": "agent@example.com" for who in ("AUTHOR", "COMMITTER")},
    }

    def run(*arguments: str | Path) -> str:
        ended = internet.run(["git", *arguments], env=env, wait_s=60)
        return ended.stdout + ended.stderr

    return run


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_git_clones_and_pushes(
    git: Callable[..., str], internet: Internet, tmp_path: Path, scheme: str
) -> None:
    url = f"{scheme}://git.example.com/git/project.git"
    copy = tmp_path / "copy"
    git("clone", url, copy)
    (copy / "large").write_bytes((internet.folder / "outside/www/big").read_bytes())
    git("-C", copy, "checkout", "-q", "-b", scheme)
    git("-C", copy, "add", ".")
    git("-C", copy, "commit", "-q", "-m", "large: add")
    shown = git("-C", copy, "push", "origin", scheme)
    assert "[new branch]" in shown, shown
    again = tmp_path / "again"
    git("clone", "-q", "--branch", scheme, url, again)
    assert (again / "large").read_bytes() == (copy / "large").read_bytes()


@pytest.mark.parametrize(
    ("scheme", "expected"),
    [("http", "returned error: 403"), ("https", "CONNECT tunnel failed, response 403")],
)
def test_git_shows_the_refusal(
    git: Callable[..., str], tmp_path: Path, scheme: str, expected: str
) -> None:
    shown = git("clone", f"{scheme}://git.example.net/git/project.git", tmp_path / "none")
    assert expected in shown
    assert not (tmp_path / "none").exists()
