"""An appliance whose only evidence is a token, and real clients that show one, or do not.

`Client` says how a program is told to fetch; `TokenStand.fetch` runs it and returns what a person
sees, and how often it came.
"""

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct, field

from tests.internet import Internet
from tests.live.appliance import ROOT, Folders, running
from tests.live.registries import lay_out

# A second listener of the proxy, for programs that cannot be given a token.
CONFIG = """
listen: {{dot: [], proxy: ["127.0.0.1:3128", "127.0.0.1:3130"]}}
resolver: {{upstream_ca: {ca}}}
"""
RULES = """
apps:
  coder:
    identity: [{token: coder}]
    allow:
      - {name: sites, host: [example.com, "*.example.com", example.org], ports: [80, 443]}
  desk:
    identity: [{listener: "127.0.0.1:3130"}]
    allow:
      - {host: [example.com], ports: [80, 443], ech: accept}
      - {host: [example.org], ports: [80, 443]}
"""
PAGE = "An example"

type Scheme = Literal["http", "https"]
type Argv = Sequence[str | Path]
type Tries = Mapping[tuple[str, Scheme], tuple[int, int] | None]
SCHEMES: tuple[Scheme, ...] = ("http", "https")


class Situation(Struct, frozen=True):
    """Which secret is shown for which host, and what the appliance answers."""

    secret: str
    host: str
    status: int
    reason: str


SITUATIONS = {
    "refused": Situation("good", "example.net", 403, "host-not-listed"),
    "missing": Situation("", "example.com", 407, "host-not-listed"),
    "wrong": Situation("wrong", "example.com", 407, "identity-unknown"),
    "revoked": Situation("revoked", "example.com", 407, "revoked"),
}


class Place(Struct, frozen=True):
    """What a program is to fetch, through which proxy, and a folder that is its own.

    `patient`: it may try as often as it does by itself.  Some take long to give up, so that they
    do so in one situation only.
    """

    scheme: Scheme
    host: str
    proxy: str
    folder: Path
    ca: Path
    patient: bool = True

    @property
    def url(self) -> str:
        """The page."""
        return f"{self.scheme}://{self.host}/"


class Client(Struct, frozen=True):
    """How a program is told to fetch, what it shows of a refusal, and how often it tries.

    The texts may have `{status}` and `{reason}`.  `shows` and `tries` are exceptions by
    situation and scheme; tries are connections and refused requests, None where they vary.
    """

    argv: Callable[[Place], Argv]
    http: str
    https: str
    fetched: str = PAGE
    shows: Mapping[tuple[str, Scheme], str] = field(default_factory=dict)
    tries: Tries = field(default_factory=dict)
    variables: bool = True  # whether it is told of the proxy by the environment

    def text(self, situation: str, scheme: Scheme) -> str:
        """Return what it shows, with its fields still open."""
        usual = self.http if scheme == "http" else self.https
        return self.shows.get((situation, scheme), usual)


class Shown(Struct, frozen=True):
    """What a person saw, and what the appliance counted meanwhile."""

    text: str
    code: int
    connections: int
    refused: int
    seconds: float


class TokenStand:
    """A running appliance with three secrets: `good`, `wrong` and `revoked`."""

    def __init__(self, internet: Internet, folders: Folders, folder: Path) -> None:
        self._internet = internet
        self._folder = folder
        self._runs = 0
        self.secrets = {name: token(folders, "coder") for name in ("good", "revoked")}
        self.secrets["wrong"] = "spt_" + "a" * 43
        sallyport(folders, "app", "revoke", "coder.2")

    def proxy(self, secret: str) -> str:
        """Return the proxy's URL with the secret of that name; none where it is empty."""
        user = f"coder:{self.secrets[secret]}@" if secret else ""
        return f"http://{user}127.0.0.1:3128"

    def place(self, scheme: Scheme, host: str, secret: str, *, patient: bool = True) -> Place:
        """Return what is to be fetched, with a folder that nobody used before."""
        self._runs += 1
        folder = self._folder / f"run-{self._runs}"
        folder.mkdir(parents=True)
        return Place(scheme, host, self.proxy(secret), folder, self._internet.ca, patient)

    def fetch(self, client: Client, place: Place) -> Shown:
        """Let a client fetch, to its end."""
        env = self.environment(place)
        if not client.variables:
            env = {name: text for name, text in env.items() if not name.lower().endswith("_proxy")}
        before = self._counted()
        began = time.monotonic()
        ended = self._internet.run(client.argv(place), env=env, wait_s=90)
        seconds = time.monotonic() - began
        after = self._counted()
        text = ended.stdout + ended.stderr
        connections, refused = (late - early for early, late in zip(before, after, strict=True))
        return Shown(text, ended.returncode, connections, refused, seconds)

    def environment(self, place: Place) -> dict[str, str]:
        """Return the variables that programs read: the proxy, whom to trust, who they are."""
        wgetrc = place.folder / "wgetrc"
        wgetrc.write_text(f"ca_certificate = {place.ca}\n")
        trusts = ("CURL_CA_BUNDLE", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS")
        proxies = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")
        return {
            "HOME": str(place.folder),
            "WGETRC": str(wgetrc),
            "GIT_TERMINAL_PROMPT": "0",
            **dict.fromkeys(proxies, place.proxy),
            **dict.fromkeys((*trusts, "GIT_SSL_CAINFO", "PIP_CERT"), str(place.ca)),
            **{f"GIT_{who}_NAME": "Agent" for who in ("AUTHOR", "COMMITTER")},
            **{f"GIT_{who}_EMAIL": "agent@example.com" for who in ("AUTHOR", "COMMITTER")},
        }

    def _counted(self) -> tuple[int, int]:
        """Return how many connections the proxy took, and how many requests it refused."""
        page = self._internet.run(["curl", "-sS", "http://127.0.0.1:9153/metrics"]).stdout
        lines = [line for line in page.splitlines() if not line.startswith("#")]
        counted = {
            name: float(value) for name, _, value in (each.rpartition(" ") for each in lines)
        }
        accepted = 'sallyport_connections_total{listener="proxy",outcome="accepted"}'
        refused = [
            value
            for name, value in counted.items()
            if name.startswith("sallyport_proxy_requests_total") and 'outcome="refused"' in name
        ]
        return int(counted[accepted]), int(sum(refused))


def sallyport(folders: Folders, *arguments: str) -> str:
    """Run the command line of the appliance that lives in these folders."""
    return subprocess.run(
        [sys.executable, "-m", "proxy", *arguments],
        cwd=ROOT,
        env=folders.env,
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def token(folders: Folders, name: str) -> str:
    """Make a token and return its secret."""
    said = msgspec.json.decode(sallyport(folders, "app", "token", name, "--json"))
    return str(said["secret"])


@contextlib.contextmanager
def token_stand(internet: Internet, folder: Path) -> Iterator[TokenStand]:
    """Lay out the registries and start an appliance with its tokens."""
    lay_out(internet.folder / "outside" / "www")
    folders = Folders(folder / "appliance")
    folders.configure(CONFIG.format(ca=internet.ca))
    folders.rule(RULES)
    with running(internet.agent, folders):
        yield TokenStand(internet, folders, folder)


def check_fetches(stand: TokenStand, client: Client) -> None:
    """Fetch what is allowed, over http and https."""
    for scheme in SCHEMES:
        shown = stand.fetch(client, stand.place(scheme, "example.com", "good"))
        assert client.fetched in shown.text, (scheme, shown)
        assert shown.code == 0, (scheme, shown)


def check_refusal(stand: TokenStand, client: Client, name: str) -> list[str]:
    """Be refused over http and https; return how long each took to give up.

    Where the text that is expected names no reason, the client must not show one.
    """
    situation = SITUATIONS[name]
    figures = []
    for scheme in SCHEMES:
        place = stand.place(scheme, situation.host, situation.secret, patient=name == "refused")
        shown = stand.fetch(client, place)
        expected = client.text(name, scheme)
        filled = expected.format(status=situation.status, reason=situation.reason)
        assert filled in shown.text, (scheme, shown)
        assert PAGE not in shown.text, (scheme, shown)
        if situation.reason not in filled:
            assert situation.reason not in shown.text, (scheme, shown)
        tries = client.tries.get((name, scheme), (1, 1))
        if tries is not None:
            assert (shown.connections, shown.refused) == tries, (scheme, shown)
        figures.append(f"{scheme} {shown.connections}/{shown.refused} in {shown.seconds:.1f} s")
    return figures
