"""The proxy dials an nginx over TLS and shows it the SVID of the app, from the issuer composed."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import Struct

from tests.authority import PrivateAuthority
from tests.internet import Internet
from tests.live.appliance import Folders, running
from tests.live.identity_stand import Desk, Met, met, mutual_origin

pytestmark = pytest.mark.live

BUILDER = "spiffe://sallyport.internal/builder"
PORT, UNKNOWN_PORT, IMPOSTOR_PORT = 9444, 9445, 9446
RULES = f"""
apps:
  builder:
    identity: [{{spiffe: "{BUILDER}"}}, {{process: {{uid: {os.getuid()}}}}}]
    allow:
      - {{name: mutual, host: example.com, ports: [{PORT}, {UNKNOWN_PORT}, {IMPOSTOR_PORT}],
         https_upgrade: true, client_certificate: svid}}
  bare:
    identity: [{{listener: "127.0.0.1:3130"}}]
    allow:
      - {{name: bare, host: example.com, ports: [{PORT}], https_upgrade: true}}
"""
CONFIG = """
listen: {{dot: [], doh: [], proxy: ["127.0.0.1:3128", "127.0.0.1:3130"], proxy_tls: []}}
resolver: {{upstream_ca: {ca}}}
egress: {{upstream_ca: {origins}}}
identity: {{svid_ttl: 5m}}
"""


class Answer(Struct, frozen=True):
    """What curl got."""

    status: int
    body: str


class Stand(Struct, frozen=True):
    """A running appliance before origins that want a certificate."""

    desk: Desk
    folder: Path

    def get(self, port: int = PORT, proxy: int = 3128, path: str = "/") -> Answer:
        """Ask in the clear, as an agent that has no certificate does."""
        where = ("--proxy", f"http://127.0.0.1:{proxy}", f"http://example.com:{port}{path}")
        said = self.desk.space.run(["curl", "-sS", "-w", "\n%{http_code}", *where])
        body, _, status = said.stdout.rpartition("\n")
        return Answer(int(status or 0), body)

    def met(self, path: str = "/") -> Met:
        """Ask an origin that believes us, and return whom it met."""
        answer = self.get(path=path)
        assert answer.status == 200, answer
        return met(answer.body)


@pytest.fixture(scope="module")
def stand(internet: Internet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    root = tmp_path_factory.mktemp("upstream")
    folders = Folders(root / "appliance")
    places = {name: root / name for name in ("believed", "unbelieved")}
    for place in places.values():
        place.mkdir()
    believed, unbelieved = (PrivateAuthority(place) for place in places.values())
    folders.configure(CONFIG.format(ca=internet.ca, origins=believed.certificate))
    folders.rule(RULES)
    with contextlib.ExitStack() as stack:
        appliance = stack.enter_context(running(internet.agent, folders))
        desk = Desk(internet.agent, folders, appliance)
        ours = desk.bundle(root / "roots.pem")
        for port, pair in (
            (PORT, believed.issue(["example.com"])),
            (UNKNOWN_PORT, unbelieved.issue(["example.com"])),
            (IMPOSTOR_PORT, believed.issue(["other.example.com"])),
        ):
            origin = mutual_origin(internet, root / f"nginx-{port}", pair, ours, port)
            stack.enter_context(origin)
        yield Stand(desk, root)


def test_an_origin_meets_the_app_by_its_svid(stand: Stand) -> None:
    found = stand.met()
    assert found.spiffe_id == BUILDER
    stand.desk.await_line(change="issued", target=BUILDER, serial=found.serial)
    line = stand.desk.await_line(plane="http", app="builder", verdict="allow", port=PORT)
    assert line["rule"] == "mutual"
    again = stand.met()
    assert (again.serial, again.connection) == (found.serial, found.connection)  # it was kept


def test_without_client_certificate_the_origin_says_no(stand: Stand) -> None:
    answer = stand.get(proxy=3130)
    assert answer.status == 400
    assert "No required SSL certificate was sent" in answer.body
    assert "nginx" in answer.body  # its words, not ours


@pytest.mark.parametrize(
    ("port", "words"),
    [
        (UNKNOWN_PORT, "unable to get local issuer certificate"),
        (IMPOSTOR_PORT, "certificate is not valid for 'example.com'"),
    ],
)
def test_an_origin_that_is_not_verified_gets_nothing(stand: Stand, port: int, words: str) -> None:
    answer = stand.get(port)
    assert answer.status == 502
    assert '"reason":"upstream-tls"' in answer.body
    line = stand.desk.await_line(reason="upstream-tls", port=port)
    assert words in str(line)


@pytest.mark.parametrize("what", ["builder", BUILDER])
def test_what_is_revoked_is_not_shown_and_its_connection_not_used(stand: Stand, what: str) -> None:
    before = stand.met()
    stand.desk.cli("revoke", what)
    answer = stand.get()
    assert answer.status in {403, 407}
    assert '"reason":"revoked"' in answer.body
    stand.desk.await_line(reason="revoked", plane="http", port=PORT)
    stand.desk.cli("restore", what)
    after = stand.met()
    assert after.spiffe_id == BUILDER
    assert after.connection != before.connection


def test_a_revoked_serial_number_is_followed_by_the_next_certificate(stand: Stand) -> None:
    before = stand.met("/once")  # the origin ends that connection
    stand.desk.cli("revoke", before.serial, "--kind", "serial")
    after = stand.met("/once")
    assert after.spiffe_id == BUILDER
    assert after.serial != before.serial


def test_a_connection_that_rests_is_not_used_with_a_revoked_serial_number(stand: Stand) -> None:
    before = stand.met()
    assert stand.met().connection == before.connection
    stand.desk.cli("revoke", before.serial, "--kind", "serial")
    after = stand.met()
    assert (after.spiffe_id, after.serial != before.serial) == (BUILDER, True)


def test_it_goes_on_over_a_rotation_of_the_intermediate(stand: Stand) -> None:
    before = stand.met("/once")
    stand.desk.cli("ca", "rotate")
    assert stand.met("/once").serial == before.serial
    stand.desk.cli("revoke", before.serial, "--kind", "serial")
    after = stand.met("/once")  # of the new intermediate, which the proxy sends along
    assert after.serial != before.serial
