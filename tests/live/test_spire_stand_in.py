"""Two composed appliances: one issues, as SPIRE would, and the other is a workload of it."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from msgspec import Struct
from spiffe import WorkloadApiClient
from spiffe.workloadapi.errors import FetchX509SvidError

from tests.authority import PrivateAuthority
from tests.internet import Internet, Namespace, until
from tests.live.appliance import Appliance, Folders, running
from tests.live.identity_stand import RESTART_S, Desk, met, mutual_origin

pytestmark = pytest.mark.live

CODER, SECOND = (f"spiffe://spire.example/{who}" for who in ("coder", "second"))
PORT = 9443
FIRST_CONFIG = """
listen:
  do53: ["127.0.0.1:5399"]
  dot: []
  doh: []
  proxy: []
  proxy_tls: []
  metrics: []
identity: {trust_domain: spire.example}
"""
FIRST_RULES = f"""
apps:
  second:
    identity: [{{spiffe: "{SECOND}"}}, {{process: {{uid: {os.getuid()}}}}}]
    allow: []
  coder:
    identity: [{{spiffe: "{CODER}"}}]
    allow: []
"""
SECOND_CONFIG = """
listen: {{proxy: ["127.0.0.1:3128", "127.0.0.1:3140"]}}
resolver: {{upstream_ca: {ca}}}
egress: {{upstream_ca: {origins}}}
identity: {{trust_domain: spire.example, workload_api: "{socket}"}}
"""
SECOND_RULES = f"""
apps:
  coder:
    identity: [{{spiffe: "{CODER}"}}]
    require: [mtls]
    allow: [{{host: example.com, ports: [80, 443]}}]
  second:
    identity: [{{spiffe: "{SECOND}"}}, {{listener: "127.0.0.1:3128"}}]
    allow:
      - host: example.com
        ports: [{PORT}]
        https_upgrade: true
        client_certificate: svid
  stray:
    identity: [{{spiffe: "{SECOND}/stray"}}, {{listener: "127.0.0.1:3140"}}]
    allow:
      - host: example.com
        ports: [{PORT}]
        https_upgrade: true
        client_certificate: svid
"""


class Pair(Struct, frozen=True):
    """Who issues, who believes it, and the folder of one who has an SVID."""

    first: Desk
    second: Desk
    coder: Path

    def ask(self, *argv: str | Path) -> str:
        """Run a client beside them; return all that it printed."""
        ended = self.second.space.run(argv)
        return ended.stdout + ended.stderr

    def looked_up(self) -> str:
        """Ask the second over DoT with the certificate of the first."""
        tls = (f"+tls-ca={self.coder}/server.pem", "+tls-hostname=localhost", "+retry=0")
        shown = (f"+tls-certfile={self.coder}/svid.pem", f"+tls-keyfile={self.coder}/svid.key")
        return self.ask("kdig", "@127.0.0.1", "-p", "8853", *tls, *shown, "example.com")

    def fetched(self) -> str:
        """Fetch a page through the proxy over TLS of the second with it."""
        proxy = ("--proxy", "https://localhost:3129", "--proxy-cacert", self.coder / "server.pem")
        pair = ("--proxy-cert", self.coder / "svid.pem", "--proxy-key", self.coder / "svid.key")
        return self.ask("curl", "-sS", *proxy, *pair, "http://example.com/")

    def at_origin(self, proxy: str = "127.0.0.1:3128") -> str:
        """Fetch from the origin that wants a certificate, without having one."""
        return self.ask("curl", "-sS", "--proxy", f"http://{proxy}", f"http://example.com:{PORT}/")


@contextlib.contextmanager
def second_of(internet: Internet, first: Desk, root: Path) -> Iterator[Desk]:
    """Run the second, which has the first for its issuer."""
    folders = Folders(root)
    places = {"ca": internet.ca, "origins": root / "origins" / "ca.pem", "socket": first.workload}
    folders.configure(SECOND_CONFIG.format(**places))
    folders.rule(SECOND_RULES)
    with running(internet.agent, folders) as appliance:
        yield Desk(internet.agent, folders, appliance)


@contextlib.contextmanager
def first_of(space: Namespace, folders: Folders) -> Iterator[Desk]:
    """Run the first; a second time with the same keys."""
    with running(space, folders) as appliance:
        yield Desk(space, folders, appliance)


@pytest.fixture
def folders_of_first(tmp_path: Path) -> Folders:
    folders = Folders(tmp_path / "first")
    folders.configure(FIRST_CONFIG)
    folders.rule(FIRST_RULES)
    return folders


def ended(appliance: Appliance) -> None:
    """End an appliance as an operator does."""
    code, said = appliance.stop()
    assert code == 0, said


def ready(desk: Desk) -> tuple[int, str]:
    """Ask /readyz; return the status and what it says."""
    page = desk.space.run(["curl", "-sS", "-w", "%{http_code}", "http://127.0.0.1:9153/readyz"])
    return int(page.stdout[-3:]), page.stdout[:-3]


def test_a_second_appliance_is_a_workload_of_the_first(
    internet: Internet, folders_of_first: Folders, tmp_path: Path
) -> None:
    space, origins = internet.agent, tmp_path / "second" / "origins"
    origins.mkdir(parents=True)
    chain_and_key = PrivateAuthority(origins).issue(["example.com"])
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(first_of(space, folders_of_first))
        anchors = first.bundle(tmp_path / "anchors.pem")
        nginx = mutual_origin(internet, tmp_path / "nginx", chain_and_key, anchors, PORT)
        stack.enter_context(nginx)
        second = stack.enter_context(second_of(internet, first, tmp_path / "second"))
        pair = Pair(first, second, first.svid("coder", tmp_path / "coder"))
        second.cli("ca", "export", "--out", pair.coder / "server.pem")
        until(lambda: ready(second)[0] == 200, "the second has heard of the first")
        check_it_believes_the_first(pair)
        check_it_presents_its_own(pair)
        check_it_issues_nothing(pair)
        ended(first.appliance)
        check_it_says_so_and_goes_on(pair)
        again = stack.enter_context(first_of(space, folders_of_first))
        until(lambda: not second.problems(), "the second has the first again", RESTART_S)
        assert ready(second)[0] == 200
        fresh = again.svid("coder", tmp_path / "fresh")
        (fresh / "server.pem").write_bytes((pair.coder / "server.pem").read_bytes())
        check_it_believes_the_first(Pair(again, second, fresh))
        check_revocation_cuts_here(Pair(again, second, fresh))


def check_it_believes_the_first(pair: Pair) -> None:
    """Who has an SVID of the first is known at the second, on DNS and at the proxy."""
    assert "93.184.215.14" in pair.looked_up()
    assert "An example" in pair.fetched()
    pair.second.await_line(app="coder", plane="http", verdict="allow")


def check_it_presents_its_own(pair: Pair) -> None:
    """The origin meets the SPIFFE ID that the first gave it; another cannot be had."""
    found = met(pair.at_origin())
    assert found.spiffe_id == SECOND
    pair.first.await_line(change="issued", target=SECOND, serial=found.serial)


def check_it_issues_nothing(pair: Pair) -> None:
    """Its own Workload API says where to ask, and it has made no keys."""
    with (
        WorkloadApiClient(f"unix:{pair.second.workload}", default_timeout=10.0) as client,
        pytest.raises(FetchX509SvidError, match=r"SPIRE issues here: use its socket.*UNAVAILABLE"),
    ):
        client.fetch_x509_svid()
    said = pair.second.run("svid", "coder", "--out", pair.coder / "never")
    assert said.returncode != 0
    assert "not ours to present" in said.stdout + said.stderr
    assert not list((pair.second.folders.state).rglob("identity/*.key"))


def check_it_says_so_and_goes_on(pair: Pair) -> None:
    """While the first is away it is a problem, and what is known counts further."""
    until(lambda: "issuer" in pair.second.problems(), "the second misses the first")
    text = pair.second.problems()["issuer"]
    assert str(pair.first.workload) in text
    status, page = ready(pair.second)
    assert status == 503
    assert msgspec.json.decode(page)["problems"]["issuer"] == text
    check_it_believes_the_first(pair)
    assert met(pair.at_origin()).spiffe_id == SECOND


def check_revocation_cuts_here(pair: Pair) -> None:
    """What the second revokes counts for nothing there, whoever issued it."""
    pair.second.cli("revoke", CODER)
    assert "sallyport revoked" in pair.looked_up()
    assert '"reason":"revoked"' in pair.fetched()
