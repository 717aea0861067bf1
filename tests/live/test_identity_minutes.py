"""The README's "Proven" and "Freshly proven", typed into a shell of the agent's namespace.

Enrol, use, revoke, be cut; then attest, and use again.

Unchanged but for `resolver.upstream_ca` and CURL_CA_BUNDLE, which name the private CA.
"""

import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.internet import Internet, until
from tests.live.appliance import ROOT, Appliance, Folders, running

pytestmark = pytest.mark.live

KDIG = (
    "kdig @127.0.0.1 -p 8853 +tls-ca=sallyport-ca.pem +tls-hostname=localhost"
    " +tls-certfile=id/svid.pem +tls-keyfile=id/svid.key example.com"
)
CURL = (
    "curl -sS --proxy https://localhost:3129 --proxy-cacert sallyport-ca.pem"
    " --proxy-cert id/svid.pem --proxy-key id/svid.key"
)
ENROLL = (
    "sallyport enroll --url https://localhost:8444 --ca sallyport-ca.pem --app agent"
    " --token-file join --folder id"
)
# What each line of the README's block shows.
SHOWN = {
    "sallyport ca export --out sallyport-ca.pem": (),
    "sallyport app join agent >join": (),
    ENROLL: ("spiffe://sallyport.internal/agent",),
    KDIG: ("NOERROR", "93.184.215.14"),
    f"{CURL} https://example.com/": ("An example",),
    "sallyport revoke spiffe://sallyport.internal/agent": ("spiffe://sallyport.internal/agent",),
    f"{KDIG} ": ("REFUSED", "sallyport revoked"),
    f"{CURL} http://example.com/": ('"reason":"revoked"',),
    "sallyport why --last": ("revoked", "example.com"),
}
# The same of "Freshly proven", which goes on from there.
SHOWN_FRESHLY = {
    "sallyport restore spiffe://sallyport.internal/agent": (),
    f"{CURL} http://example.com/": ('"reason":"attestation-required"', "sallyport attest"),
    "sallyport attest --folder id --ca sallyport-ca.pem": ("eyJ",),
    KDIG: ("NOERROR", "93.184.215.14"),
    f"{CURL} https://example.com/": ("An example",),
    "sallyport agents": ("agent", "valid", "software"),
}

BUILDER = """
apps:
  builder:
    identity: [{spiffe: "spiffe://sallyport.internal/builder"}, {process: {uid: 0}}]
    require: [mtls]
    allow: [{host: example.com, ports: [80, 443]}]
"""
FETCH = """
import sys
from pathlib import Path
from cryptography.hazmat.primitives.serialization import Encoding
from spiffe import WorkloadApiClient
with WorkloadApiClient(f"unix://{sys.argv[1]}") as client:
    svid = client.fetch_x509_svid()
svid.save("svid.pem", "svid.key", Encoding.PEM)
print(svid.spiffe_id)
"""


def readme(title: str, language: str) -> str:
    """Return the first block in `language` of a section of the README."""
    section = (ROOT / "README.md").read_text().partition(f"\n## {title}\n")[2]
    return section.partition(f"```{language}\n")[2].partition("```")[0]


def readme_lines(title: str) -> list[str]:
    """Return the commands of a block of the README, without their comments."""
    lines = readme(title, "sh").splitlines()
    return [line.partition(" #")[0].strip() for line in lines if line.strip()]


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    return Folders(tmp_path_factory.mktemp("newcomer"))


@pytest.fixture(scope="module")
def started(internet: Internet, newcomer: Folders) -> Iterator[Appliance]:
    listen = 'listen: {enroll: ["127.0.0.1:8444"]}'
    assert listen in readme("Proven", "yaml")
    newcomer.configure(f"{listen}\nresolver: {{upstream_ca: {internet.ca}}}\n")
    newcomer.rule(readme("Proven", "yaml").replace(listen, ""))
    newcomer.rule(BUILDER, "builder.yaml")
    with running(internet.agent, newcomer) as appliance:
        yield appliance


@pytest.fixture(scope="module")
def proven(internet: Internet, newcomer: Folders, started: Appliance) -> str:
    """Type what stands under "Proven"; return what its last line shows."""
    return typed(internet, newcomer, started, SHOWN)


def typed(
    internet: Internet, newcomer: Folders, started: Appliance, lines: Mapping[str, tuple[str, ...]]
) -> str:
    """Type lines, each until it shows what it should; return what the last one shows."""
    env = {**newcomer.env, "CURL_CA_BUNDLE": str(internet.ca)}
    shown = ""
    for line, expected in lines.items():
        assert started.process.poll() is None, started.wait()
        shown = ""

        def is_shown(line: str = line, expected: tuple[str, ...] = expected) -> bool:
            nonlocal shown
            ended = internet.run(["bash", "-c", f"cd && {line}"], env=env)
            shown = ended.stdout + ended.stderr
            return all(text in shown for text in expected)

        # Evidence is on disk within a second; a person types no faster.
        until(is_shown, f"{line} shows {expected}", 5.0)
    return shown


@pytest.mark.parametrize(("title", "lines"), [("Proven", SHOWN), ("Freshly proven", SHOWN_FRESHLY)])
def test_the_readme_has_these_lines_in_this_order(
    title: str, lines: Mapping[str, tuple[str, ...]]
) -> None:
    assert readme_lines(title) == [line.strip() for line in lines]


def test_each_line_shows_what_it_says(proven: str) -> None:
    assert re.search(r"\b[0-9a-f]{12}7[0-9a-f]{19}\b", proven)


def test_each_line_that_proves_it_freshly_shows_what_it_says(
    internet: Internet, newcomer: Folders, started: Appliance, proven: str
) -> None:
    """The appliance that was started takes the changed rule over by itself."""
    assert "revoked" in proven
    newcomer.rule(readme("Freshly proven", "yaml"))
    typed(internet, newcomer, started, SHOWN_FRESHLY)
    assert started.process.poll() is None


def test_what_the_spiffe_library_fetched_is_used_and_taken_back(
    internet: Internet, newcomer: Folders, started: Appliance
) -> None:
    """The real client, then kdig and curl with what it got; revoked, refused, and told why."""
    env = {**newcomer.env, "CURL_CA_BUNDLE": str(internet.ca)}
    home, socket = Path(env["HOME"]), Path(env["XDG_RUNTIME_DIR"]) / "sallyport/workload.sock"
    (home / "id").mkdir(exist_ok=True)

    def said(line: str) -> str:
        ended = internet.run(["bash", "-c", f"cd && {line}"], env=env)
        return ended.stdout + ended.stderr

    (home / "fetch.py").write_text(FETCH)
    fetched = said(f"cd id && {sys.executable} ../fetch.py {socket}")
    assert "spiffe://sallyport.internal/builder" in fetched
    assert "93.184.215.14" in said(KDIG)
    assert "An example" in said(f"{CURL} https://example.com/")
    said("sallyport revoke builder --why 'it was seen elsewhere'")
    assert "sallyport revoked" in said(KDIG)
    assert '"reason":"revoked"' in said(f"{CURL} http://example.com/")
    assert "PERMISSION_DENIED" in said(f"cd id && {sys.executable} ../fetch.py {socket}").upper()
    told = "sallyport why --last --app builder --json"
    until(lambda: '"change":"refused"' in said(told), "audit tells of the last one")
    assert '"reason":"revoked"' in said(told)
    assert started.process.poll() is None
