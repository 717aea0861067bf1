"""Envoy with the page's envoy.yaml, against the composed appliance: certificates and decisions."""

import contextlib
import http.client
import os
import signal
import ssl
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from cryptography import x509
from msgspec import Struct

from tests.internet import Internet, until
from tests.live.appliance import Folders, running
from tests.live.identity_stand import RESTART_S, Desk, certified, shown_at
from tests.proxy.issuing.test_envoy import app, documented, envoy_program

pytestmark = pytest.mark.live

EDGE, CODER, GUEST = (f"spiffe://sallyport.internal/{who}" for who in ("edge", "coder", "guest"))
PORT = 8450
RULES = f"""
apps:
  edge:
    identity: [{{spiffe: "{EDGE}"}}, {{process: {{uid: {os.getuid()}}}}}]
    allow: []
  coder:
    identity: [{{spiffe: "{CODER}"}}]
    allow:
      - {{name: front, host: api.example.com, ports: [443], methods: [GET], paths: ["/ok/**"]}}
  guest:
    identity: [{{spiffe: "{GUEST}"}}]
    allow:
      - {{name: all, host: api.example.com, ports: [443]}}
"""
CONFIG = """
listen:
  do53: ["127.0.0.1:5300"]
  dot: []
  doh: []
  proxy: []
  proxy_tls: []
  metrics: []
  workload: {folder}/workload.sock
  ext_authz: {folder}/ext_authz.sock
identity: {{svid_ttl: 5m}}
"""


class Problem(Struct):
    """The document of a refusal."""

    status: int
    reason: str
    app: str
    instance: str


class Said(Struct, frozen=True):
    """What a client of Envoy gets."""

    status: int
    reason: str | None
    kind: str | None
    body: bytes


class Edge(Struct, frozen=True):
    """A running Envoy before an app, and the appliance that it asks."""

    desk: Desk
    folder: Path

    def client(self, name: str) -> ssl.SSLContext:
        """Return TLS with a new certificate of an app."""
        count = len(list(self.folder.glob("svid-*")))
        found = self.desk.svid(name, self.folder / f"svid-{count}")
        return certified(found, self.desk.bundle(self.folder / "roots.pem"))

    def get(self, path: str, tls: ssl.SSLContext) -> Said:
        """Ask on a connection of its own."""
        with self.desk.space.entered():
            connection = http.client.HTTPSConnection("127.0.0.1", PORT, timeout=10, context=tls)
            with contextlib.closing(connection):
                connection.request("GET", path, headers={"Host": "api.example.com"})
                got = connection.getresponse()
                kind = got.headers["content-type"]
                return Said(got.status, got.headers["x-deny-reason"], kind, got.read())

    def shown(self, tls: ssl.SSLContext) -> x509.Certificate:
        """Return the certificate that Envoy shows."""
        return shown_at(self.desk.space, PORT, tls)


@pytest.fixture(scope="module")
def edge(internet: Internet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    program, root = envoy_program(), tmp_path_factory.mktemp("edge")
    folders, place = Folders(root), root / "sockets"
    place.mkdir(mode=0o700)
    folders.configure(CONFIG.format(folder=place))
    folders.rule(RULES)
    space = internet.agent
    with contextlib.ExitStack() as stack:
        appliance = stack.enter_context(running(space, folders))
        with space.entered():
            port = stack.enter_context(app())
        sample, log = documented(place, PORT, port), root / "envoy.log"
        argv = [str(program), "-c", str(sample), "--concurrency", "1", "-l", "warning"]
        stack.enter_context(space.started([*argv, "--base-id", str(PORT)], log))
        until(lambda: space.accepts("127.0.0.1", PORT), f"Envoy accepts; see {log}")
        yield Edge(Desk(space, folders, appliance), root)


def test_envoy_shows_our_certificate_and_asks_for_our_decisions(edge: Edge) -> None:
    coder = edge.client("coder")
    names = edge.shown(coder).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert names.value.get_values_for_type(x509.UniformResourceIdentifier) == [EDGE]
    assert edge.get("/ok/page?secret=1", coder) == Said(200, None, None, b"from the app\n")
    refused = edge.get("/private", coder)
    assert (refused.status, refused.reason) == (403, "path-not-allowed")
    assert refused.kind == "application/problem+json"
    problem = msgspec.json.decode(refused.body, type=Problem)
    assert (problem.status, problem.reason, problem.app) == (403, "path-not-allowed", "coder")
    line = edge.desk.await_line(id=problem.instance.removeprefix("urn:uuid:").replace("-", ""))
    said = {"app": "coder", "reason": "path-not-allowed", "via": "ext_authz", "spiffe_id": CODER}
    assert said.items() <= line.items()
    edge.desk.await_line(app="coder", via="ext_authz", verdict="allow")
    assert b"secret=1" not in (edge.desk.folders.state / "audit.jsonl").read_bytes()


def test_who_shows_no_certificate_or_one_of_no_app_is_refused(edge: Edge) -> None:
    nobody = ssl.create_default_context(cafile=str(edge.desk.bundle(edge.folder / "roots.pem")))
    nobody.check_hostname = False
    with pytest.raises((ssl.SSLError, ConnectionError, http.client.HTTPException)):
        edge.get("/ok/", nobody)
    stranger = edge.get("/ok/", edge.client("spiffe://sallyport.internal/stranger"))
    assert stranger.reason == "identity-unknown"


def test_a_revoked_client_is_refused_from_its_next_request_on(edge: Edge) -> None:
    guest = edge.client("guest")
    assert edge.get("/", guest).status == 200
    with edge.desk.space.entered():
        connection = http.client.HTTPSConnection("127.0.0.1", PORT, timeout=10, context=guest)
        with contextlib.closing(connection):  # one that is open before, and stays so
            connection.request("GET", "/", headers={"Host": "api.example.com"})
            assert connection.getresponse().read() == b"from the app\n"
            edge.desk.control.ask("POST", "/revocations", {"what": GUEST})
            connection.request("GET", "/", headers={"Host": "api.example.com"})
            got = connection.getresponse()
            assert (got.status, got.headers["x-deny-reason"]) == (403, "revoked")
    assert edge.get("/", guest).reason == "revoked"
    edge.desk.await_line(reason="revoked", via="ext_authz", spiffe_id=GUEST)
    edge.desk.cli("restore", GUEST)
    assert edge.get("/", guest).status == 200


def test_it_serves_over_a_rotation_of_the_intermediate(edge: Edge) -> None:
    before = edge.client("coder")
    edge.desk.cli("ca", "rotate")
    after = edge.client("coder")
    assert edge.get("/ok/", before).status == 200
    assert edge.get("/ok/", after).status == 200


def test_it_serves_again_when_the_issuer_was_killed(edge: Edge) -> None:
    coder = edge.client("coder")
    shown, before = edge.shown(coder), edge.desk.issuer()
    assert before is not None
    os.kill(before, signal.SIGKILL)
    until(lambda: edge.desk.issuer() != before, "the issuer ends", 10)
    answers: list[Said] = []

    def serves() -> bool:
        answers.append(edge.get("/ok/", coder))
        return answers[-1].status == 200

    until(serves, "Envoy's requests are decided again", RESTART_S)
    # Meanwhile the handshake worked, and nothing was let through without a decision.
    assert {each.status for each in answers} <= {200, 503}
    until(lambda: edge.shown(coder) != shown, "Envoy has a certificate of the next one", RESTART_S)
    assert edge.desk.issuer() not in {before, None}
    assert edge.get("/private", coder).reason == "path-not-allowed"


def test_a_stolen_root_is_believed_no_more_and_the_next_one_is(edge: Edge) -> None:
    before = edge.client("coder")
    edge.desk.cli("ca", "rotate", "root", "--forget")
    after = edge.client("coder")

    def is_new() -> bool:
        with contextlib.suppress(ssl.SSLError, ConnectionError, http.client.HTTPException):
            return edge.get("/ok/", after).status == 200
        return False

    until(is_new, "Envoy shows and believes what the new root vouches for")
    with pytest.raises((ssl.SSLError, ConnectionError, http.client.HTTPException)):
        edge.get("/ok/", before)
