"""The README's "Encrypted", typed into a shell of the agent's namespace, in an empty folder.

Unchanged but for `resolver.upstream_ca` and CURL_CA_BUNDLE, which name the private CA.
"""

import re
from collections.abc import Iterator

import pytest

from tests.internet import Internet, until
from tests.live.appliance import ROOT, Appliance, Folders, running

pytestmark = pytest.mark.live

KDIG = "kdig @127.0.0.1 -p {port} +tls-ca=sallyport-ca.pem +tls-hostname=localhost"
DOT, DOH = KDIG.format(port=8853), KDIG.format(port=8443)
CURL = "curl --cacert both.pem --doh-url https://localhost:8443/dns-query"
# What each line of the README's block shows; `ID` is that of the last refusal.
SHOWN = {
    "sallyport ca export --out sallyport-ca.pem": (),
    f"{DOT} example.com": ("TLS session", "NOERROR", "93.184.215.14"),
    f"{DOT} denied.example.net": ("NXDOMAIN", "EDE: 15 (Blocked)", "sallyport host-not-listed"),
    f"{DOH} +https example.com": ("HTTP/2-POST", "NOERROR", "93.184.215.14"),
    "cat ${CURL_CA_BUNDLE:-/etc/ssl/certs/ca-certificates.crt} sallyport-ca.pem >both.pem": (),
    f"{CURL} https://example.com/": ("An example",),
    f"{CURL} https://denied.example.net/": ("Couldn't resolve host name",),
    "sallyport why --last": ("host-not-listed", "denied.example.net"),
    "curl --cacert sallyport-ca.pem https://localhost:8443/why/ID": (
        *('"reason":"host-not-listed"', "denied.example.net"),
        '"app":"me"',
    ),
}


def readme_lines() -> list[str]:
    """Return the commands of the README's block, without their comments."""
    text = (ROOT / "README.md").read_text()
    block = text.partition("\n## Encrypted\n")[2].partition("```sh\n")[2].partition("```")[0]
    return [line.partition(" #")[0].strip() for line in block.splitlines() if line.strip()]


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    return Folders(tmp_path_factory.mktemp("newcomer"))


@pytest.fixture(scope="module")
def started(internet: Internet, newcomer: Folders) -> Iterator[Appliance]:
    newcomer.configure(f"resolver: {{upstream_ca: {internet.ca}}}\n")
    with running(internet.agent, newcomer) as appliance:
        yield appliance


def test_the_readme_has_these_lines_in_this_order() -> None:
    assert readme_lines() == list(SHOWN)


def test_each_line_shows_what_it_says(
    internet: Internet, newcomer: Folders, started: Appliance
) -> None:
    env = {**newcomer.env, "CURL_CA_BUNDLE": str(internet.ca)}
    identifier = ""
    for line, expected in SHOWN.items():
        assert started.process.poll() is None, started.wait()
        typed = f"cd && {line.replace('/ID', f'/{identifier}')}"
        shown = ""

        def is_shown(typed: str = typed, expected: tuple[str, ...] = expected) -> bool:
            nonlocal shown
            ended = internet.run(["bash", "-c", typed], env=env)
            shown = ended.stdout + ended.stderr
            return all(text in shown for text in expected)

        # Evidence is on disk within a second; a person types no faster.
        until(is_shown, f"{line} shows {expected}", 5.0)
        if found := re.search(r"\b[0-9a-f]{12}7[0-9a-f]{19}\b", shown):
            identifier = found[0]
    assert identifier
