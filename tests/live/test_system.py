"""`up --system`: our own uid, rules that are root's, state that is ours; or it does not start."""

import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.internet import Namespace, need
from tests.live.appliance import Appliance, Folders, launched

pytestmark = pytest.mark.live

UID = 64053
RULES = "apps: {coder: {identity: [{process: {uid: 64054}}], allow: [{host: example.com}]}}\n"
# PR_SET_MDWE is what MemoryDenyWriteExecute= of the unit asks of the kernel, since Linux 6.3.
HARDENED = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(65, 1, 0, 0, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


class Host:
    """A host of its own: a namespace, and folders as the package and the unit make them."""

    def __init__(self, root: Path, namespace: Namespace) -> None:
        self.namespace = namespace
        self.folders = Folders(root)
        self.folders.state.mkdir(mode=0o700)
        self.runtime = root / "runtime"
        for path in (self.folders.state, self.runtime):
            os.chown(path, UID, UID)
        self.config = self.folders.config / "sallyport.yaml"
        doors = f"control: {self.runtime}/control.sock, workload: {self.runtime}/workload.sock"
        self.folders.configure(f"listen: {{{doors}}}\n")
        self.folders.rule(RULES)
        for path in (root, *root.rglob("*")):
            if path != self.folders.state:
                path.chmod(0o755 if path.is_dir() else 0o644)

    def argv(self) -> list[str]:
        """Return `up --system` with these folders instead of those below /etc and /var."""
        places = ("--config", self.config, "--rules", self.folders.rules)
        up = ("-m", "proxy", "up", "--system", "--json", "--state", self.folders.state)
        return [sys.executable, *map(str, (*up, *places))]

    def up(
        self, notified: Path | None = None, argv: Sequence[str] | None = None
    ) -> AbstractContextManager[Appliance]:
        """Start it as the unit does, as a user of its own and with one capability.

        CAP_DAC_READ_SEARCH is for the interpreter of the tests, which may stand where only root
        may look; it lets nothing be written.
        """
        given = "+net_bind_service,+dac_read_search"
        as_user = [
            "setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups", "--no-new-privs",
            f"--inh-caps={given}", f"--ambient-caps={given}", f"--bounding-set=-all,{given}",
        ]  # fmt: skip
        hardened = [sys.executable, "-c", HARDENED, *(argv or self.argv())]
        env = {"NOTIFY_SOCKET": str(notified)} if notified else {}
        return launched(self.namespace, self.folders, [*as_user, *hardened], env)


@pytest.fixture
def host() -> Iterator[Host]:
    if os.geteuid() != 0:
        pytest.skip("needs root to be another user")
    assert need("setpriv")
    root = Path(tempfile.mkdtemp(prefix="sallyport-system-", dir="/var/tmp"))
    try:
        with Namespace.made("system") as namespace:
            yield Host(root, namespace)
    finally:
        shutil.rmtree(root)


def ended(host: Host) -> tuple[int, str]:
    with host.up() as appliance:
        return appliance.wait()


def test_it_claims_system_and_takes_the_ports_that_clients_know(host: Host) -> None:
    with host.up() as appliance:
        appliance.wait_ready()
        ready = appliance.ready
        assert ready.enforcement == "system"
        assert ready.listen["do53"] == ["127.0.0.1:53", "[::1]:53"]
        assert ready.listen["dot"] == ["127.0.0.1:853", "[::1]:853"]
        assert ready.listen["doh"] == ["127.0.0.1:443", "[::1]:443"]
        assert Path(f"/proc/{ready.pid}").stat().st_uid == UID
        code, _ = appliance.stop()
        assert code == 0
    assert not (host.folders.rules / "me.yaml").exists()
    assert (host.folders.state / "audit.jsonl").stat().st_uid == UID


def test_the_service_manager_is_told(host: Host) -> None:
    path = host.runtime / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        path.chmod(0o777)
        manager.settimeout(20)
        with host.up(notified=path) as appliance:
            appliance.wait_ready()
            assert manager.recv(200).splitlines()[0] == b"READY=1"
            appliance.stop()
            assert manager.recv(200).splitlines()[0] == b"STOPPING=1"


def test_root_is_warned(host: Host) -> None:
    for path in (host.folders.state, host.runtime):
        os.chown(path, 0, 0)
    with launched(host.namespace, host.folders, host.argv()) as appliance:
        appliance.wait_ready()
        assert appliance.ready.enforcement == "system"
        code, text = appliance.stop()
    assert code == 0
    assert "the appliance runs as root" in text


def test_an_agent_of_our_own_uid_is_refused(host: Host) -> None:
    """threats.md, "Identity": same-uid agents outside a sandbox rewrite rules and state."""
    host.folders.rule(RULES.replace("64054", str(UID)))
    code, text = ended(host)
    assert code == 3
    assert f"uid {UID} is the appliance's own" in text


def test_rules_that_an_agent_may_write_are_refused(host: Host) -> None:
    """threats.md, "Identity": agents rewrite rules; --system claims that they cannot."""
    host.folders.rules.chmod(0o775)
    code, text = ended(host)
    assert code == 3
    assert f"chmod go-w {host.folders.rules}" in text


def test_a_configuration_of_another_user_is_refused(host: Host) -> None:
    os.chown(host.config, 64054, -1)
    code, text = ended(host)
    assert code == 3
    assert f"chown root: {host.config}" in text


@pytest.mark.parametrize(("mode", "owner"), [(0o755, UID), (0o710, UID), (0o755, 64054)])
def test_state_that_is_not_ours_alone_is_refused(host: Host, mode: int, owner: int) -> None:
    """The agent reaches the admin side: state holds tokens and the CA's key."""
    host.folders.state.chmod(mode)
    os.chown(host.folders.state, owner, -1)
    code, text = ended(host)
    assert code == 4, text
    assert str(host.folders.state) in text
    assert "cure: " in text


def test_no_first_rules_are_written(host: Host) -> None:
    shutil.rmtree(host.folders.rules)
    argv = [word for word in host.argv() if word not in {"--rules", str(host.folders.rules)}]
    (host.folders.config / "sallyport.yaml").write_text("rules: [rules]\n")
    with host.up(argv=argv) as appliance:
        code, text = appliance.wait()
    assert code == 3
    assert "the folder does not exist" in text
    assert not host.folders.rules.exists()
