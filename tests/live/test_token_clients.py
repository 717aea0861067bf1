"""Real clients with a token: each gets through, or shows a person why not, and gives up.

docs/clients.md has the same texts and counts as tables.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.internet import Internet, need
from tests.live import client_programs as programs
from tests.live.appliance import ROOT
from tests.live.registries import apt_settings
from tests.live.token_stand import (
    SCHEMES,
    SITUATIONS,
    Argv,
    Client,
    Place,
    Scheme,
    TokenStand,
    Tries,
    check_fetches,
    check_refusal,
    token_stand,
)

pytestmark = pytest.mark.live

UNDICI = ROOT / ".venv-node" / "node_modules" / "undici"
TUNNELING = "Proxy response ({status}) !== 200 when HTTP Tunneling"
PHRASE = "{status} sallyport {reason}"
NO_CREDENTIALS_FIRST: Tries = {  # git asks without them, and once more with them
    (name, scheme): (1, 2) for name in ("refused", "wrong", "revoked") for scheme in SCHEMES
}
PIP_PATIENT: Tries = {
    **{(name, "https"): (2, 2) for name in ("missing", "wrong", "revoked")},
    ("refused", "https"): (6, 6),
}
APT_PATIENT: Tries = {
    **{(name, "http"): None for name in SITUATIONS},  # three times each file of its index
    ("refused", "https"): (4, 4),
}


def git(at: Place) -> Argv:
    url = f"{at.scheme}://git.{at.host}/git/project.git"
    return ["git", "clone", url, at.folder / "copy"]


def pip(at: Place) -> Argv:
    index = f"{at.scheme}://{at.host}/simple"
    options = ("--no-deps", "--no-cache-dir", "--disable-pip-version-check")
    hasty = () if at.patient else ("--retries", "1")  # it says why when it tries once more
    trusted = ("--trusted-host", at.host) if at.scheme == "http" else ()
    where = ("--index-url", index, *trusted, "--dest", at.folder)
    return [sys.executable, "-m", "pip", "download", *options, *hasty, *where, "tiny"]


def npm(at: Place) -> Argv:
    registry = f"{at.scheme}://{at.host}/npm/{at.scheme}/"
    quiet = ("--no-audit", "--no-fund", "--no-update-notifier")
    where = ("--registry", registry, "--prefix", at.folder)
    return ["npm", "install", *quiet, *where, "tiny"]


def apt(at: Place) -> Argv:
    repository = f"{at.scheme}://{at.host}/apt"
    settings = apt_settings(at.folder / "apt", repository, at.proxy, at.ca)
    hasty = "" if at.patient else "-o Acquire::Retries=0"
    script = f"cd {at.folder} && apt-get {hasty} update && apt-get download tiny && ls *.deb"
    return ["env", f"APT_CONFIG={settings}", "bash", "-c", script]


def node_agent(at: Place) -> Argv:
    """Use the agents that npm brings, and that most programs for Node use."""
    modules = Path(os.path.realpath(need("npm"))).parent.parent / "node_modules"
    return ["node", "-e", programs.NODE_AGENT, "--", at.url, modules]


CLIENTS = {
    "curl": Client(
        lambda at: ["curl", "-sS", at.url],
        '"reason":"{reason}"',
        "CONNECT tunnel failed, response {status}",
    ),
    "curl -v": Client(lambda at: ["curl", "-sSv", at.url], PHRASE, PHRASE),
    "wget": Client(
        lambda at: ["wget", "-O-", at.url],
        "ERROR {status}: sallyport {reason}",
        "Proxy tunneling failed: sallyport {reason}",
    ),
    "git": Client(
        git,
        "The requested URL returned error: {status}",
        "CONNECT tunnel failed, response {status}",
        fetched="Cloning into",
        tries=NO_CREDENTIALS_FIRST,
    ),
    "pip": Client(
        pip,
        "ERROR: No matching distribution found for tiny",
        "Tunnel connection failed: {status} sallyport {reason}",
        fetched="Successfully downloaded tiny",
        tries=PIP_PATIENT,
    ),
    "npm": Client(npm, PHRASE, PHRASE, fetched="added 1 package"),
    "apt": Client(
        apt,
        "{status}  sallyport {reason}",
        "Invalid response from proxy: HTTP/1.1 {status} sallyport {reason}",
        fetched="tiny_1_all.deb",
        tries=APT_PATIENT,
        variables=False,
    ),
    "requests": Client(
        lambda at: [sys.executable, "-c", programs.REQUESTS, at.url],
        PHRASE,
        f"Tunnel connection failed: {PHRASE}",
    ),
    "httpx": Client(lambda at: [sys.executable, "-c", programs.HTTPX, at.url], PHRASE, PHRASE),
    "urllib": Client(
        lambda at: [sys.executable, "-c", programs.URLLIB, at.url],
        "HTTP Error {status}: sallyport {reason}",
        f"Tunnel connection failed: {PHRASE}",
    ),
    "undici": Client(
        lambda at: ["node", "-e", programs.UNDICI, "--", at.url, UNDICI], TUNNELING, TUNNELING
    ),
    "node fetch": Client(
        lambda at: ["node", "-e", programs.NODE_FETCH, "--", at.url, UNDICI], TUNNELING, TUNNELING
    ),
    "node https": Client(node_agent, PHRASE, PHRASE),
}


@pytest.fixture(scope="module")
def stand(internet: Internet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TokenStand]:
    assert UNDICI.exists(), "run scripts/test once: it fetches undici"
    with token_stand(internet, tmp_path_factory.mktemp("tokens")) as made:
        yield made


@pytest.mark.parametrize("name", CLIENTS)
def test_fetches_with_a_token(stand: TokenStand, name: str) -> None:
    check_fetches(stand, CLIENTS[name])


@pytest.mark.parametrize("situation", SITUATIONS)
@pytest.mark.parametrize("name", CLIENTS)
def test_shows_the_refusal_and_gives_up(
    stand: TokenStand, report: list[str], name: str, situation: str
) -> None:
    figures = check_refusal(stand, CLIENTS[name], situation)
    if situation == "refused":
        report.append(f"{name} gives up (connections/requests): {', '.join(figures)}")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_git_pushes_a_large_file_with_a_token(
    stand: TokenStand, internet: Internet, scheme: Scheme
) -> None:
    """The content of a POST is asked for once more where credentials come late."""
    at = stand.place(scheme, "example.com", "good")
    copy, again = at.folder / "copy", at.folder / "again"
    url, branch = f"{scheme}://git.example.com/git/project.git", f"token-{scheme}"
    big = internet.folder / "outside/www/big"
    script = f"""
    git clone -q {url} {copy} && cd {copy} && git checkout -q --orphan {branch} &&
    cp {big} large && git add . && git commit -q -m 'large: add' && git push origin {branch} &&
    git clone -q --branch {branch} {url} {again} && cmp large {again}/large && echo "it is whole"
    """
    shown = stand.fetch(Client(lambda _: ["bash", "-c", script], "", ""), at)
    assert "it is whole" in shown.text, shown
