"""Real clients that show a certificate: to the proxy over TLS, over DoT and over DoH.

What each is told is in docs/mtls.md.  The certificate is of the appliance's own trust domain.
"""

import datetime as dt
import shlex
import shutil
import subprocess
import sys
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import dns.message
import msgspec
import pytest
from msgspec import Struct

from tests.certs.forgery import Forged, Forger
from tests.internet import PATH, Internet, need, until
from tests.live.appliance import Appliance, Folders, running
from tests.live.registries import lay_out
from tests.live.test_token_clients import UNDICI
from tests.live.token_stand import PAGE, sallyport

pytestmark = pytest.mark.live

CODER, STRANGER = (f"spiffe://sallyport.internal/agent/{who}" for who in ("coder", "stranger"))
RULES = f"""
apps:
  coder:
    identity: [{{spiffe: "{CODER}"}}]
    require: [mtls]
    allow:
      - {{host: [example.com, "*.example.com"], ports: [80, 443], ech: accept}}
"""
CONFIG = """
listen: {{proxy_tls: ["127.0.0.1:3129"], control: ""}}
resolver: {{upstream_ca: {ca}}}
"""
PROXY = "https://localhost:3129"
COM = "93.184.215.14"
# argv: the URL, the folder of undici, what is trusted, our certificate and key
UNDICI_PROGRAM = """
const [, url, undici, origins, ca, cert, key] = process.argv;
const { ProxyAgent, request } = require(undici);
const read = require('fs').readFileSync;
const dispatcher = new ProxyAgent({
  uri: 'https://localhost:3129',
  proxyTls: { ca: read(ca), cert: read(cert), key: read(key) },
  requestTls: { ca: read(origins) },
});
setTimeout(() => { console.log('it still tries'); process.exit(1); }, 5000).unref();
request(url, { dispatcher })
  .then(async (answer) => console.log(answer.statusCode, await answer.body.text()))
  .catch((error) => { for (; error; error = error.cause) console.log(error.message); })
  .finally(() => dispatcher.destroy());
"""
HTTPX_PROGRAM = """
import ssl, sys, httpx
url, origins, ca, cert, key = sys.argv[1:]
context = ssl.create_default_context(cafile=ca)
context.load_cert_chain(cert, key)
proxy = httpx.Proxy("https://localhost:3129", ssl_context=context)
try:
    with httpx.Client(proxy=proxy, verify=ssl.create_default_context(cafile=origins)) as client:
        answer = client.get(url)
        print(answer.status_code, answer.reason_phrase, answer.text)
except httpx.HTTPError as error:
    print(error)
"""

type Argv = Sequence[str | Path]


class Shown(Struct, frozen=True):
    """Which certificate is shown, and a folder that is the client's own."""

    chain: Path
    key: Path
    root: Path
    origins: Path
    folder: Path

    @property
    def pem(self) -> tuple[Path, ...]:
        """What is trusted, the certificate, the key."""
        return self.root, self.chain, self.key


class Desk(Struct, frozen=True):
    """A running appliance, and certificates: `good`, `unlisted` and `foreign`."""

    internet: Internet
    appliance: Appliance
    shown: dict[str, Shown]

    def run(self, argv: Argv, folder: Path) -> str:
        ended = self.internet.run(argv, env={"HOME": str(folder), "PATH": PATH}, wait_s=90)
        return ended.stdout + ended.stderr


@pytest.fixture(scope="module")
def desk(internet: Internet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    folders = Folders(tmp_path_factory.mktemp("mtls"))
    folders.configure(CONFIG.format(ca=internet.ca))
    folders.rule(RULES)
    lay_out(internet.folder / "outside/www")
    now = dt.datetime.now(dt.UTC)
    with running(internet.agent, folders) as appliance:
        root = folders.config / "root.pem"
        sallyport(folders, "ca", "export", "--out", str(root))
        forger = Forger.strict(folders.state / "identity", now, "sallyport.internal")
        forged = {
            "good": forger.good(CODER),
            "unlisted": forger.good(STRANGER),
            "foreign": Forger.loose("sallyport.internal", now).good(CODER),
        }
        shown = {name: laid_out(folders.config / name, each) for name, each in forged.items()}
        yield Desk(
            internet,
            appliance,
            {
                name: Shown(*pair, root, internet.ca, folders.config / name)
                for name, pair in shown.items()
            },
        )


def laid_out(folder: Path, forged: Forged) -> tuple[Path, Path]:
    folder.mkdir()
    chain, key, _ = forged.write(folder)
    return chain, key


def curl(url: str, at: Shown) -> Argv:
    proxy = ("--proxy-cacert", at.root, "--proxy-cert", at.chain, "--proxy-key", at.key)
    return ["curl", "-sS", "--proxy", PROXY, *proxy, "--cacert", at.origins, url]


def git(url: str, at: Shown) -> Argv:
    host = url.replace("://", "://git.")
    settings = {
        "http.proxy": PROXY,
        "http.proxySSLCAInfo": at.root,
        "http.proxySSLCert": at.chain,
        "http.proxySSLKey": at.key,
        "http.sslCAInfo": at.origins,
    }
    words = [word for key, value in settings.items() for word in ("-c", f"{key}={value}")]
    script = 'git "$@" "$(mktemp -d)" && echo cloned'
    return ["sh", "-c", script, "sh", *words, "clone", "-q", f"{host}git/project.git"]


def npm(url: str, at: Shown) -> Argv:
    """Its `cert` and `key` are said to be out of use, and are what it shows to a proxy."""
    both = at.folder / "both.pem"
    both.write_text(at.root.read_text() + at.origins.read_text())
    pem = {name: path.read_text().replace("\n", "\\n") for name, path in _pair(at).items()}
    scheme = url.split(":", maxsplit=1)[0]
    lines = {
        "proxy": PROXY,
        "https-proxy": PROXY,
        "cafile": both,
        "cert": f'"{pem["cert"]}"',
        "key": f'"{pem["key"]}"',
        "registry": f"{url}npm/{scheme}/",
        "fetch-retries": 0,
    }
    (at.folder / ".npmrc").write_text("".join(f"{key}={text}\n" for key, text in lines.items()))
    return ["npm", "view", "--prefer-online", "tiny", "dist.tarball"]


def _pair(at: Shown) -> dict[str, Path]:
    return {"cert": at.chain, "key": at.key}


def undici(url: str, at: Shown) -> Argv:
    return ["node", "-e", UNDICI_PROGRAM, "--", url, UNDICI, at.origins, *at.pem]


def httpx(url: str, at: Shown) -> Argv:
    return [sys.executable, "-c", HTTPX_PROGRAM, url, at.origins, *at.pem]


class Client(Struct, frozen=True):
    """How it is told, what it shows of success, of a failed handshake and of a refusal."""

    argv: Callable[[str, Shown], Argv]
    alert: str
    http: str
    https: str
    fetched: str = PAGE


PHRASE = "403 sallyport identity-unknown"
CLIENTS = {
    "curl": Client(
        curl, "alert unknown ca", '"reason":"identity-unknown"', "CONNECT tunnel failed"
    ),
    "git": Client(git, "TLS fatal alert", "returned error: 403", "CONNECT tunnel failed", "cloned"),
    "npm": Client(npm, "alert unknown ca", PHRASE, PHRASE, "tiny.tgz"),
    "undici": Client(undici, "it still tries", "Proxy response (403)", "Proxy response (403)"),
    "httpx": Client(httpx, "TLSV1_ALERT_UNKNOWN_CA", PHRASE, PHRASE),
}


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("name", CLIENTS)
def test_fetches_with_a_certificate(desk: Desk, name: str, scheme: str) -> None:
    client, at = CLIENTS[name], desk.shown["good"]
    said = desk.run(client.argv(f"{scheme}://example.com/", at), at.folder)
    assert client.fetched in said


@pytest.mark.parametrize("name", CLIENTS)
def test_shows_that_its_certificate_is_of_nobody_we_know(desk: Desk, name: str) -> None:
    client, at = CLIENTS[name], desk.shown["foreign"]
    said = desk.run(client.argv("https://example.com/", at), at.folder)
    assert client.alert in said


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("name", CLIENTS)
def test_shows_that_no_line_names_its_certificate(desk: Desk, name: str, scheme: str) -> None:
    client, at = CLIENTS[name], desk.shown["unlisted"]
    said = desk.run(client.argv(f"{scheme}://example.com/", at), at.folder)
    assert getattr(client, scheme) in said


WHERE = {"dot": ("-p", "8853"), "doh": ("-p", "8443", "+https")}


def kdig(at: Shown, plane: str, *certificate: str | Path) -> Argv:
    tls = (f"+tls-ca={at.root}", "+tls-hostname=localhost", "+retry=0", "+time=5")
    shown = certificate or (f"+tls-certfile={at.chain}", f"+tls-keyfile={at.key}")
    return ["kdig", "@127.0.0.1", *WHERE[plane], "+tls", *tls, *shown, "example.com", "A"]


@pytest.mark.parametrize("plane", WHERE)
def test_kdig_asks_with_a_certificate(desk: Desk, plane: str) -> None:
    at = desk.shown["good"]
    assert COM in desk.run(kdig(at, plane), at.folder)


@pytest.mark.parametrize("plane", WHERE)
def test_kdig_shows_why_it_is_refused(desk: Desk, plane: str) -> None:
    at = desk.shown["unlisted"]
    said = desk.run(kdig(at, plane), at.folder)
    if plane == "dot":
        assert "REFUSED" in said
        assert f"no identity line names {STRANGER}" in said
    else:
        assert "status: 403" in said
    foreign = desk.shown["foreign"]
    assert "TLS fatal alert" in desk.run(kdig(foreign, plane), foreign.folder)
    without = desk.run(kdig(at, plane, "+nocrypto"), at.folder)
    assert COM not in without


def test_curl_asks_over_doh_with_a_certificate(desk: Desk) -> None:
    at = desk.shown["good"]
    query = dns.message.make_query("example.com", "A", use_edns=0)
    query.id = 0
    text = urlsafe_b64encode(query.to_wire()).rstrip(b"=").decode()
    out = at.folder / "answer"
    url = f"https://localhost:8443/dns-query?dns={text}"
    tls = ("--cacert", at.root, "--cert", at.chain, "--key", at.key)
    desk.run(["curl", "-sS", *tls, "-o", out, url], at.folder)
    assert COM in str(dns.message.from_wire(out.read_bytes()).answer[0])


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_openssl_is_given_no_session_to_resume(desk: Desk, version: str) -> None:
    """threats.md, "Identity": "TLS session resumption skips client-certificate checks"."""
    at = desk.shown["good"]
    session = at.folder / f"session{version}"
    words = ("-connect", "127.0.0.1:8853", "-CAfile", at.root, "-cert", at.chain, "-key", at.key)
    start: Argv = ["openssl", "s_client", version, *words, "-cert_chain", at.chain]
    said = desk.run([*start, "-sess_out", session], at.folder)
    assert "Verify return code: 0" in said
    if session.exists():  # of TLS 1.2 a client keeps one, which nobody takes
        said = desk.run([*start, "-sess_in", session], at.folder)
    assert "New, TLSv1." in said
    assert "Reused" not in said


def test_a_failed_handshake_is_in_audit(desk: Desk) -> None:
    at = desk.shown["foreign"]
    desk.run(curl("http://example.com/", at), at.folder)

    def lines() -> list[dict[str, object]]:
        audit = desk.appliance.audit()
        return [line for line in audit if "local issuer" in str(line["target"])]

    until(lambda: bool(lines()), "a line of the handshake")
    assert lines()[-1]["evidence"] == ["certificate"]
    assert lines()[-1]["app"] == "unknown"


def test_a_browser_shows_its_certificate(desk: Desk) -> None:
    """Chromium has it in its own database, and a policy says where to show it."""
    tools = {name: shutil.which(name, path=PATH) for name in ("chromium", "certutil", "pk12util")}
    if None in tools.values():
        pytest.skip("no chromium or certutil: apt-get install chromium libnss3-tools")
    at = desk.shown["good"]
    store = at.folder / ".pki" / "nssdb"
    store.mkdir(parents=True)
    bundle = at.folder / "client.p12"
    where = ("-d", f"sql:{store}")
    packed = ("-export", "-out", bundle, "-inkey", at.key, "-in", at.chain, "-passout", "pass:")
    commands: tuple[Argv, ...] = (
        ["openssl", "pkcs12", *packed],
        ["certutil", "-N", *where, "--empty-password"],
        ["certutil", "-A", *where, "-n", "ours", "-t", "C,,", "-i", at.root],
        ["certutil", "-A", *where, "-n", "origins", "-t", "C,,", "-i", at.origins],
        ["pk12util", "-i", bundle, *where, "-W", ""],
    )
    for argv in commands:
        subprocess.run([need(str(argv[0])), *argv[1:]], check=True, capture_output=True)
    said = desk.run(["unshare", "--mount", "sh", "-c", browse(at.folder)], at.folder)
    assert PAGE in said


def browse(folder: Path) -> str:
    """Return what runs Chromium under a policy that nobody else on this host is under."""
    policies = folder / "etc" / "policies" / "managed"
    policies.mkdir(parents=True)
    chosen = msgspec.json.encode({"pattern": PROXY, "filter": {}}).decode()
    policy = {"AutoSelectCertificateForUrls": [chosen]}
    (policies / "certificates.json").write_bytes(msgspec.json.encode(policy))
    words = (
        *("chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run"),
        *("--disable-background-networking", f"--user-data-dir={folder}/profile"),
        *(f"--proxy-server={PROXY}", "--dump-dom", "http://example.com/"),
    )
    return f"mount --bind {folder}/etc /etc/chromium && exec {shlex.join(words)}"
