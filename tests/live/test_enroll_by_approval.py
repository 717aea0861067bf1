"""`sallyport enroll --oidc` as it is typed, a person who approves it, and the device's whole life.

The provider is npm's oidc-provider; what the device asks is the composed appliance.
"""

import asyncio
import contextlib
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess

import msgspec
import pytest
from msgspec import Struct

from certs.device import Enrolled, read_enrolled
from tests.internet import Internet, until
from tests.live.appliance import ROOT, Folders, running
from tests.live.identity_stand import Desk
from tests.proxy.issuing import openid
from tests.proxy.issuing.openid import OpenId

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(bool(openid.MISSING), reason=openid.MISSING),
]

LAPTOP, ROBOT = (f"spiffe://sallyport.internal/{who}" for who in ("laptop", "robot"))
CONFIG = """
listen:
  do53: []
  doh: []
  proxy: []
  metrics: []
  enroll: ["127.0.0.1:8444"]
  pki: ["127.0.0.1:8445"]
resolver: {{upstream_ca: {ca}}}
identity:
  oidc:
    issuer: {issuer}
    client_id: sallyport
    ca: {provider}
    apps:
      laptop: {{email: alice@desk.example}}
"""
RULES = f"""
apps:
  laptop:
    identity: [{{spiffe: "{LAPTOP}"}}]
    require: [mtls]
    allow: [{{host: example.com, ports: [80, 443]}}]
  robot:
    identity: [{{spiffe: "{ROBOT}"}}]
    allow: [{{host: example.com}}]
"""
# The command line with a clock of its own, 40 minutes ahead: half of an hour's life is over then.
LATER = """
import sys, time
now = time.time
time.time = lambda: now() + 2400
from proxy.cli import main
main(sys.argv[1:])
"""
BLOCK = re.compile(r"<!-- run -->\n```console\n(.*?)```", re.DOTALL)
PEM = re.compile(r"-----BEGIN.*?-----END CERTIFICATE-----\n", re.DOTALL)
URL = "https://localhost:8444"


class Stand(Struct, frozen=True):
    """A running appliance, the provider that it asks, and what verifies the appliance."""

    desk: Desk
    op: OpenId
    ca: Path

    def person(self, does: Callable[[str], object], page: str) -> None:
        """Have somebody click, where the provider can be reached."""
        with self.desk.space.entered():
            does(page)

    def enroll(self, folder: Path, *words: str) -> list[str | Path]:
        where = ("--url", URL, "--ca", self.ca, "--app", "laptop", "--folder", folder)
        return [sys.executable, "-P", "-m", "proxy", "enroll", *where, *words]

    def asked(self, argv: list[str | Path], does: Callable[[str], object]) -> tuple[int, str]:
        """Type a command, let a person do something on the page that it shows; return its end."""
        env = {**self.desk.folders.env, "PYTHONPATH": str(ROOT)}
        said: list[str] = []
        with subprocess.Popen(
            self.desk.space.command(argv),
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            assert process.stdout is not None
            reading = threading.Thread(target=said.extend, args=(process.stdout,))
            reading.start()
            try:
                page = re.compile(r"or open (\S+)")
                until(
                    lambda: process.poll() is not None or bool(page.search("".join(said))),
                    "the command shows a page, or ends",
                )
                if (found := page.search("".join(said))) is not None:
                    self.person(does, found[1])
                code = process.wait(60)
            finally:
                process.kill()
                reading.join()
        return code, "".join(said)

    def later(self, folder: Path, *words: str) -> CompletedProcess[str]:
        """Type the command when half of the certificate's life is over."""
        argv = [sys.executable, "-P", "-c", LATER, *self.enroll(folder, *words)[4:]]
        return self.desk.space.run(argv, {**self.desk.folders.env, "PYTHONPATH": str(ROOT)}, 60)

    def fetched(self, folder: Path) -> str:
        """Fetch a page with the device's certificate."""
        pair = ("--proxy-cert", folder / "svid.pem", "--proxy-key", folder / "svid.key")
        proxy = ("--proxy", "https://localhost:3129", "--proxy-cacert", self.ca)
        ended = self.desk.space.run(["curl", "-sS", *proxy, *pair, "http://example.com/"])
        return ended.stdout + ended.stderr


@pytest.fixture(scope="module")
def stand(internet: Internet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    folders = Folders(tmp_path_factory.mktemp("approval"))
    with contextlib.ExitStack() as stack:
        with internet.agent.entered():  # a child is born in the namespace of who makes it
            op = stack.enter_context(openid.provider(tmp_path_factory.mktemp("op")))
        places = {"ca": internet.ca, "issuer": op.issuer, "provider": op.ca}
        folders.configure(CONFIG.format(**places))
        folders.rule(RULES)
        appliance = stack.enter_context(running(internet.agent, folders))
        desk = Desk(internet.agent, folders, appliance)
        ca = folders.config / "root.pem"
        desk.cli("ca", "export", "--out", ca)
        yield Stand(desk, op, ca)


def known(folder: Path) -> Enrolled:
    """Return what a device has."""
    found = read_enrolled(folder)
    assert found is not None
    return found


def approving(stand: Stand, who: str) -> Callable[[str], object]:
    return lambda page: asyncio.run(stand.op.approve(page, who))


def test_a_device_is_approved_renewed_and_revoked(stand: Stand, tmp_path: Path) -> None:
    folder, desk = tmp_path / "device", stand.desk
    code, said = stand.asked(stand.enroll(folder, "--oidc"), approving(stand, "alice"))
    assert code == 0, said
    assert f"waiting for the approval of {LAPTOP}" in said
    first, key = known(folder), (folder / "svid.key").read_bytes()
    assert first.spiffe_id == LAPTOP
    assert "An example" in stand.fetched(folder)
    line = desk.await_line(change="enrolled", target=LAPTOP, serial=first.serial)
    assert (line["app"], line["how"]) == ("laptop", "oidc")

    early = desk.run(*map(str, stand.enroll(folder, "--renew")[4:]))
    assert early.returncode == 0, early.stderr
    assert known(folder) == first  # it is not time yet
    renewed = stand.later(folder, "--renew")
    assert renewed.returncode == 0, renewed.stderr
    assert known(folder).serial != first.serial
    assert (folder / "svid.key").read_bytes() == key
    desk.await_line(change="enrolled", serial=known(folder).serial, how="reenroll")
    assert "An example" in stand.fetched(folder)

    desk.cli("revoke", LAPTOP, "--why", "the laptop was lost")
    assert '"reason":"revoked"' in stand.fetched(folder)
    refused = stand.later(folder, "--renew")
    assert refused.returncode == 1
    assert "revoked" in refused.stdout + refused.stderr
    desk.await_line(change="refused", reason="revoked", how="reenroll")
    code, said = stand.asked(stand.enroll(folder, "--oidc"), approving(stand, "alice"))
    assert code == 1, said
    assert "refused (403)" in said
    desk.cli("restore", LAPTOP)
    assert "An example" in stand.fetched(folder)


def test_who_lacks_the_claims_or_says_no_gets_nothing(stand: Stand, tmp_path: Path) -> None:
    folder = tmp_path / "device"
    code, said = stand.asked(stand.enroll(folder, "--oidc"), approving(stand, "bob"))
    assert code == 1
    assert "email" in said
    code, said = stand.asked(
        stand.enroll(folder, "--oidc"), lambda page: asyncio.run(stand.op.deny(page))
    )
    assert code == 1
    assert read_enrolled(folder) is None
    stand.desk.await_line(change="refused", app="laptop", plane="control")
    other = stand.desk.run(*map(str, stand.enroll(folder, "--app", "robot", "--oidc")[4:]))
    assert other.returncode == 1  # nobody may approve for that app


def typed(stand: Stand, block: str, folder: Path) -> tuple[int, str]:
    """Type a block of docs/enrolment.md into a shell of the device."""
    text = block.replace("HOST:8443", "localhost:8444").replace("HOST:8080", "127.0.0.1:8445")
    lines = [line.removeprefix("$ ") for line in text.splitlines()]
    script = "\n".join(("set -euo pipefail", f"cd {folder}", *lines))
    ended = stand.desk.space.run(["bash", "-c", script])
    return ended.returncode, ended.stdout + ended.stderr


def test_curl_and_openssl_do_as_the_page_says(stand: Stand, tmp_path: Path) -> None:
    """EST by hand, until the device is revoked: then the responder and the CRL say so as well."""
    key, enrol, renew, status = BLOCK.findall((ROOT / "docs" / "enrolment.md").read_text())
    desk = stand.desk
    shutil.copy(stand.ca, tmp_path / "ca.pem")
    assert typed(stand, key, tmp_path)[0] == 0
    joined = msgspec.json.decode(desk.cli("app", "join", "robot", "--json"))
    (tmp_path / "token").write_text(f'user = "robot:{joined["secret"]}"\n')
    assert "device.pem: OK" in typed(stand, enrol, tmp_path)[1]
    assert typed(stand, renew, tmp_path)[0] == 0
    bundle = (tmp_path / "bundle.pem").read_text()
    found = PEM.findall((tmp_path / "authorities.pem").read_text())
    (tmp_path / "issuer.pem").write_text(next(each for each in found if each not in bundle))
    code, said = typed(stand, status, tmp_path)
    assert (code, "leaf.pem: good" in said, "leaf.pem: OK" in said) == (0, True, True), said
    again = typed(stand, enrol, tmp_path)
    assert "401" in again[1]  # the token was good once

    desk.cli("revoke", ROBOT)
    # The issuer looks for what was issued under that name: responder and CRL follow at once.
    until(lambda: typed(stand, status, tmp_path)[0] != 0, "the CRL says that it is revoked")
    _, said = typed(stand, status, tmp_path)
    assert "leaf.pem: revoked" in said
    assert "certificate revoked" in said
    code, said = typed(stand, renew, tmp_path)
    assert code != 0
    assert "403" in said
