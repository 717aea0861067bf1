"""docs/enrolment.md as it is typed, against an issuer in a process of its own."""

import asyncio
import datetime as dt
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from certs import authority as local
from proxy.channel import Serve
from proxy.limits import Limits
from proxy.tokens.file import FILE_NAME, TokenFile
from proxy.tokens.known import Purpose, Wanted
from tests.proxy.issuing.desk import APP, ID, ROOT, Desk, settings

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(
        not (shutil.which("curl") and shutil.which("openssl")), reason="needs curl and openssl"
    ),
]
_BLOCK = re.compile(r"<!-- run -->\n```console\n(.*?)```", re.DOTALL)


class Issuing:
    def __init__(self, state: Path) -> None:
        names = ("localhost", "127.0.0.1")
        local.ensure(state / "ca", names, dt.datetime.now(dt.UTC))
        self.state = state
        self.desk = Desk(settings(state)).ready()
        self.ports = {kind: self._serve(kind) for kind in ("enroll", "pki")}

    def _serve(self, kind: str) -> int:
        with socket.create_server(("127.0.0.1", 0)) as sock:
            self.desk.send(Serve(kind, kind), sock.fileno())
            port: int = sock.getsockname()[1]
            return port

    def join(self) -> str:
        tokens = TokenFile(self.state / FILE_NAME, Limits(), os.urandom)
        wanted = Wanted(name=APP, purpose=Purpose.JOIN)
        now = dt.datetime.now(dt.UTC).timestamp()
        return asyncio.run(tokens.issue(wanted, now)).secret

    def run(self, block: str, folder: Path) -> str:
        """Run the commands of a block of the page; return what they print."""
        text = block.replace("HOST:8443", f"localhost:{self.ports['enroll']}")
        text = text.replace("http://HOST:8080", f"http://127.0.0.1:{self.ports['pki']}")
        commands = [line.removeprefix("$ ") for line in text.splitlines()]
        script = "set -euo pipefail\n" + "\n".join(commands)
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=folder,
            env={**os.environ, "no_proxy": "*"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr


@pytest.fixture
def issuing(tmp_path: Path) -> Iterator[Issuing]:
    found = Issuing(tmp_path / "state")
    try:
        yield found
    finally:
        found.desk.close()


def test_the_page_is_true(issuing: Issuing, tmp_path: Path) -> None:
    key, enrol, renew, status = _BLOCK.findall((ROOT / "docs" / "enrolment.md").read_text())
    folder = tmp_path / "device"
    folder.mkdir()
    shutil.copy(issuing.state / "ca" / "root.pem", folder / "ca.pem")
    issuing.run(key, folder)
    (folder / "token").write_text(f'user = "{APP}:{issuing.join()}"\n')
    assert "device.pem: OK" in issuing.run(enrol, folder)
    issuing.run(renew, folder)
    found = re.findall(
        r"-----BEGIN.*?-----END CERTIFICATE-----\n",
        (folder / "authorities.pem").read_text(),
        re.DOTALL,
    )
    bundle = (folder / "bundle.pem").read_text()
    (folder / "issuer.pem").write_text(next(each for each in found if each not in bundle))
    told = issuing.run(status, folder)
    assert "leaf.pem: good" in told
    assert "Response verify OK" in told
    assert "leaf.pem: OK" in told
    first, second = issuing.desk.events("enrolled")
    assert (first.app, first.target, first.detail["how"]) == (APP, ID, "join")
    assert second.detail["how"] == "reenroll"
    assert first.detail["spki_sha256"] == second.detail["spki_sha256"]
    assert first.detail["serial"] != second.detail["serial"]


def test_a_token_is_in_no_event_and_in_no_log(issuing: Issuing, tmp_path: Path) -> None:
    """Private keys and tokens are never in logs, audit or error texts."""
    secret = issuing.join()
    folder = tmp_path / "device"
    folder.mkdir()
    url = f"https://localhost:{issuing.ports['enroll']}/.well-known/est/simpleenroll"
    kind = "Content-Type: application/pkcs10"
    told = issuing.run(
        f"curl --silent --cacert {issuing.state}/ca/root.pem --user other:{secret}"
        f" --header '{kind}' --data MAA= {url}",
        folder,
    )
    [event] = issuing.desk.events("refused")
    issuing.desk.close()
    assert secret not in f"{told}{event}{issuing.desk.log}"
