"""Programs in Go and Java with a token, and Chromium, which can show none by itself.

Unlike the peers of the other tests these are large, and a test whose program is missing is left
out with the reason.
"""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.internet import PATH, Internet
from tests.live import client_programs as programs
from tests.live.token_stand import (
    SCHEMES,
    SITUATIONS,
    Argv,
    Client,
    Place,
    TokenStand,
    Tries,
    check_fetches,
    check_refusal,
    token_stand,
)

pytestmark = pytest.mark.live

PASSWORD = "changeit"  # noqa: S105 - the JDK wants one for a list of public certificates
NOT_ANSWERED = "407 host-not-listed null"  # a challenge that the JDK does not answer
GIVES_UP = "too many authentication attempts. Limit: 3"
TUNNELS = "-Djdk.http.auth.tunneling.disabledSchemes="
# It asks without credentials first, and then as often as it may.
ASKS_ON: Tries = {
    ("refused", "http"): (1, 2),
    ("wrong", "http"): (1, 5),
    ("revoked", "http"): (1, 5),
}


type Start = tuple[str | Path, ...]
type Settings = Callable[[Start], Client]


def installed(program: str, package: str) -> str:
    path = shutil.which(program, path=PATH)
    if path is None:
        pytest.skip(f"no {program}: apt-get install --no-install-recommends {package}")
    return path


@pytest.fixture(scope="module")
def stand(internet: Internet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TokenStand]:
    with token_stand(internet, tmp_path_factory.mktemp("tokens")) as made:
        yield made


@pytest.fixture(scope="module")
def go(tmp_path_factory: pytest.TempPathFactory) -> Client:
    """Compile with the standard library alone, so that nothing is downloaded."""
    compiler = installed("go", "golang-go")
    folder = tmp_path_factory.mktemp("go")
    (folder / "fetch.go").write_text(programs.GO)
    env = {"PATH": PATH, "HOME": str(folder), "GOPROXY": "off", "CGO_ENABLED": "0"}
    argv = [compiler, "build", "-o", "fetch", "fetch.go"]
    subprocess.run(argv, cwd=folder, env=env, check=True, capture_output=True)
    return Client(
        lambda at: [folder / "fetch", at.url], "{status} sallyport {reason}", ": sallyport {reason}"
    )


@pytest.fixture(scope="module")
def java(internet: Internet, tmp_path_factory: pytest.TempPathFactory) -> Start:
    """Compile, make a list of whom to trust, and return how the program is started."""
    compiler = installed("javac", "default-jdk-headless")
    folder = tmp_path_factory.mktemp("java")
    (folder / "Fetch.java").write_text(programs.JAVA)
    subprocess.run([compiler, "-d", folder, folder / "Fetch.java"], check=True, capture_output=True)
    store = folder / "trusted"
    words = ("-importcert", "-noprompt", "-alias", "origins", "-storepass", PASSWORD)
    files: Argv = ("-file", internet.ca, "-keystore", store)
    subprocess.run(["keytool", *words, *files], check=True, capture_output=True)
    trusted = (f"trustStore={store}", f"trustStorePassword={PASSWORD}")
    trust = [f"-Djavax.net.ssl.{each}" for each in trusted]
    return ("java", "-XX:TieredStopAtLevel=1", *trust, "-cp", folder)


def jvm(java: Start) -> Client:
    """HttpClient as it comes: no Basic for tunnels, whatever credentials it has."""
    return Client(
        lambda at: [*java, "Fetch", at.url],
        "{status} {reason} {{",
        NOT_ANSWERED,
        shows={(name, "http"): GIVES_UP for name in ("wrong", "revoked")},
        tries=ASKS_ON,
    )


def jvm_with_tunnels(java: Start) -> Client:
    """HttpClient with Basic for tunnels; it makes a new connection for each try."""
    return Client(
        lambda at: [java[0], TUNNELS, *java[1:], "Fetch", at.url],
        "{status} {reason} {{",
        GIVES_UP,
        shows={
            **{(name, "http"): GIVES_UP for name in ("wrong", "revoked")},
            ("refused", "https"): "Tunnel failed, got: 403",
            ("missing", "https"): NOT_ANSWERED,
        },
        tries={
            **ASKS_ON,
            ("refused", "https"): (2, 2),
            ("wrong", "https"): (5, 5),
            ("revoked", "https"): (5, 5),
        },
    )


SETTINGS: dict[str, Settings] = {"as it comes": jvm, "with tunnels": jvm_with_tunnels}


def test_go_fetches_with_a_token(stand: TokenStand, go: Client) -> None:
    check_fetches(stand, go)


@pytest.mark.parametrize("situation", SITUATIONS)
def test_go_shows_the_refusal_and_gives_up(stand: TokenStand, go: Client, situation: str) -> None:
    check_refusal(stand, go, situation)


def test_a_jvm_fetches_over_http_alone_as_it_comes(stand: TokenStand, java: Start) -> None:
    client = jvm(java)
    plain = stand.fetch(client, stand.place("http", "example.com", "good"))
    assert client.fetched in plain.text, plain
    tunnel = stand.fetch(client, stand.place("https", "example.com", "good"))
    assert NOT_ANSWERED in tunnel.text, tunnel


def test_a_jvm_fetches_where_tunnels_may_have_a_token(stand: TokenStand, java: Start) -> None:
    check_fetches(stand, jvm_with_tunnels(java))


@pytest.mark.parametrize("situation", SITUATIONS)
@pytest.mark.parametrize("settings", SETTINGS)
def test_a_jvm_shows_the_refusal_and_gives_up(
    stand: TokenStand,
    java: Start,
    report: list[str],
    settings: str,
    situation: str,
) -> None:
    figures = check_refusal(stand, SETTINGS[settings](java), situation)
    report.append(f"JVM {settings}, {situation}: {', '.join(figures)}")


def chromium(port: int) -> Client:
    """A browser that loads one page without a window and prints what became of it."""
    path = installed("chromium", "chromium")
    quiet = ("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")
    proxy = f"--proxy-server=http://127.0.0.1:{port}"

    def argv(at: Place) -> Argv:
        profile = f"--user-data-dir={at.folder}/profile"
        trust = "--ignore-certificate-errors"  # of the origin; the proxy is not asked over TLS
        return [path, "--headless=new", *quiet, proxy, profile, trust, "--dump-dom", at.url]

    return Client(argv, "", "", variables=False)


def test_chromium_without_a_window_cannot_answer_a_challenge(stand: TokenStand) -> None:
    for scheme in SCHEMES:
        shown = stand.fetch(chromium(3128), stand.place(scheme, "example.com", ""))
        assert "net::ERR_INVALID_AUTH_CREDENTIALS" in shown.text
        assert "host-not-listed" not in shown.text


def test_chromium_is_challenged_where_its_listener_alone_does_not_do(stand: TokenStand) -> None:
    """A token could change the answer, so that ambient evidence gets 407, not 403."""
    shown = stand.fetch(chromium(3130), stand.place("http", "example.net", ""))
    assert "net::ERR_INVALID_AUTH_CREDENTIALS" in shown.text


def test_chromium_needs_a_rule_that_accepts_its_ech(stand: TokenStand) -> None:
    """It sends encrypted_client_hello to every origin, whether it has a key or not."""
    client = chromium(3130)  # by its listener it is an app, without a token
    cut = stand.fetch(client, stand.place("https", "example.org", ""))
    assert "net::ERR_SSL_PROTOCOL_ERROR" in cut.text
    accepted = stand.fetch(client, stand.place("https", "example.com", ""))
    assert client.fetched in accepted.text
