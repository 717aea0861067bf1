"""Admins on another machine: `sallyport --control https://...` as it is typed there."""

import contextlib
import http.client
import os
import shutil
import ssl
from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess

import msgspec
import pytest
from msgspec import Struct

from tests.internet import Internet, until
from tests.live.appliance import Folders, running
from tests.live.identity_stand import Desk

pytestmark = pytest.mark.live

HERE, PORT = "198.18.0.2", 9443  # the appliance's end of the cable of tests.internet
CODER = "spiffe://sallyport.internal/coder"
ALICE, BOB = (f"spiffe://sallyport.internal/sallyport/admin/{who}" for who in ("alice", "bob"))
CONFIG = f"""
listen:
  do53: ["127.0.0.1:5300"]
  dot: []
  doh: []
  proxy: []
  proxy_tls: []
  metrics: []
  control_tls: ["{HERE}:{PORT}"]
"""
RULES = f"""
apps:
  coder:
    identity: [{{spiffe: "{CODER}"}}, {{process: {{uid: {os.getuid()}}}}}]
    allow: [{{host: example.com}}]
"""


class Elsewhere(Struct, frozen=True):
    """Another machine, which can reach the appliance and has certificates."""

    internet: Internet
    desk: Desk
    folder: Path

    def admin(self, name: str) -> Path:
        """Have the appliance's host make an admin's folder, and carry it over."""
        out = self.desk.folders.config / name
        self.desk.cli("admin", name, "--out", out)
        there = self.folder / name
        shutil.copytree(out, there)
        return there

    def sallyport(self, who: Path, *arguments: str) -> CompletedProcess[str]:
        """Run the command there; it has no appliance of its own."""
        files = ("--cert", who / "svid.pem", "--key", who / "svid.key", "--ca", who / "ca.pem")
        home = {name: str(self.folder / name) for name in ("HOME", "XDG_RUNTIME_DIR")}
        there = {**home, "XDG_CONFIG_HOME": home["HOME"], "XDG_STATE_HOME": home["HOME"]}
        url = f"https://{HERE}:{PORT}"
        return self.desk.run(
            "--control", url, *files, *arguments, space=self.internet.outside, **there
        )

    @contextlib.contextmanager
    def connection(self, who: Path) -> Iterator[http.client.HTTPSConnection]:
        """Yield a connection that stays open, from there."""
        tls = ssl.create_default_context(cafile=str(who / "ca.pem"))
        tls.load_cert_chain(who / "svid.pem", who / "svid.key")
        with self.internet.outside.entered():
            found = http.client.HTTPSConnection(HERE, PORT, timeout=10, context=tls)
            with contextlib.closing(found):
                found.connect()
                yield found


def shown(ended: CompletedProcess[str]) -> str:
    """Return what a command that is to succeed showed."""
    assert ended.returncode == 0, ended.stderr
    return ended.stdout + ended.stderr


@pytest.fixture(scope="module")
def there(internet: Internet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Elsewhere]:
    folders = Folders(tmp_path_factory.mktemp("here"))
    folders.configure(CONFIG)
    folders.rule(RULES)
    with running(internet.agent, folders) as appliance:
        desk = Desk(internet.agent, folders, appliance)
        yield Elsewhere(internet, desk, tmp_path_factory.mktemp("there"))


def test_an_admin_elsewhere_sees_how_it_is_and_revokes(there: Elsewhere) -> None:
    alice = there.admin("alice")
    said = there.sallyport(alice, "status", "--json")
    assert said.returncode == 0, said.stderr
    status = msgspec.json.decode(said.stdout)
    assert status["pid"] == there.desk.appliance.ready.pid
    assert f"{HERE}:{PORT}" in status["listen"]["control_tls"]
    said = there.sallyport(alice, "revoke", CODER, "--why", "seen elsewhere")
    assert said.returncode == 0, said.stderr
    assert CODER in said.stderr
    line = there.desk.await_line(change="revoked", target=CODER)
    assert (line["by_spiffe"], line["why"]) == (ALICE, "seen elsewhere")
    assert line["by_serial"]
    assert CODER in shown(there.sallyport(alice, "revoked", "--json"))
    refused = there.desk.run("svid", "coder", "--out", there.folder / "never")
    assert "revoked" in refused.stdout + refused.stderr
    assert there.sallyport(alice, "restore", CODER).returncode == 0
    assert CODER not in shown(there.sallyport(alice, "revoked", "--json"))


def test_who_is_no_admin_is_refused_with_the_reason(there: Elsewhere) -> None:
    alice = there.admin("alice-2")
    coder = there.desk.svid("coder", there.folder / "coder")
    shutil.copy(alice / "ca.pem", coder)
    said = there.sallyport(coder, "status")
    assert said.returncode != 0
    assert f"{CODER} is no admin" in said.stdout + said.stderr
    line = there.desk.await_line(verdict="deny", plane="control", by_spiffe=CODER)
    assert line["reason"] == "identity-unknown"
    with there.connection(coder) as connection:
        connection.request("POST", "/revocations", '{"what": "coder"}')
        assert connection.getresponse().status == 403
    assert CODER not in shown(there.sallyport(alice, "revoked", "--json"))


def test_nobody_gets_in_without_a_certificate(there: Elsewhere) -> None:
    root = there.admin("carol") / "ca.pem"
    url = f"https://{HERE}:{PORT}/status"
    said = there.internet.outside.run(["curl", "-sS", "--cacert", root, url])
    assert said.returncode != 0
    assert "alert" in said.stderr
    assert said.stdout == ""


def test_an_admin_makes_no_admins_from_elsewhere(there: Elsewhere) -> None:
    with there.connection(there.admin("dave")) as connection:
        wanted = {"spiffe_id": ALICE, "profile": "admin"}
        connection.request("POST", "/svids", msgspec.json.encode(wanted))
        answer = connection.getresponse()
        assert (answer.status, b"KEY" in answer.read()) == (403, False)


def test_a_revoked_admin_is_cut_and_stays_out(there: Elsewhere) -> None:
    alice, bob = there.admin("erin"), there.admin("bob")
    with there.connection(bob) as connection:
        connection.request("GET", "/status")
        assert connection.getresponse().read()
        assert there.sallyport(alice, "revoke", BOB).returncode == 0

        def is_cut() -> bool:
            connection.sock.settimeout(0.1)
            try:
                return connection.sock.recv(1) == b""
            except TimeoutError:
                return False
            except OSError:
                return True

        until(is_cut, "the connection of a revoked admin ends", 5.0)
    said = there.sallyport(bob, "status")
    assert said.returncode != 0
    assert "revoked" in said.stdout + said.stderr
    there.desk.await_line(verdict="deny", plane="control", reason="revoked")
