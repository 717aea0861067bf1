"""`sallyport doctor` in a namespace of its own: each fault is real and has a cure."""

import contextlib
import datetime as dt
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec
import pytest
from msgspec import Struct

from certs.authority import ensure
from certs.issuer import LEAF_LIFE
from certs.names import server_names
from tests.internet import Internet, Namespace, need, until
from tests.live.appliance import AGENT, ROOT, Folders, running

pytestmark = pytest.mark.live

DOCTOR = (sys.executable, "-m", "proxy", "doctor", "--json")
LISTEN = """
listen:
  do53: ["127.0.0.1:5300"]
  dot: ["127.0.0.1:8853"]
  doh: ["127.0.0.1:8443"]
  proxy: ["127.0.0.1:3128"]
"""
# Denies socket(AF_NETLINK, ...), as a sandbox or RestrictAddressFamilies= does, then goes on.
WITHOUT_NETLINK = """
import ctypes, os, struct, sys
number = {"x86_64": 41, "aarch64": 198}[os.uname().machine]
program = [
    (0x20, 0, 0, 0),             # load the number of the system call
    (0x15, 0, 3, number),        # is it socket(2)?
    (0x20, 0, 0, 16),            # load its first argument
    (0x15, 0, 1, 16),            # is it AF_NETLINK?
    (0x06, 0, 0, 0x00050000 | 97),  # EAFNOSUPPORT
    (0x06, 0, 0, 0x7FFF0000),    # allow
]
code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *each) for each in program))
class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]
filled = Program(len(program), ctypes.addressof(code))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.byref(filled)) == 0, ctypes.get_errno()
os.execv(sys.argv[1], sys.argv[1:])
"""


class Finding(Struct):
    """One finding of the document (docs/doctor.md)."""

    severity: str
    message: str
    cure: str


class Check(Struct):
    check: str
    outcome: str
    findings: list[Finding]


class Report(Struct):
    healthy: bool
    running: int | None
    enforcement: str
    checks: list[Check]

    def of(self, name: str) -> list[Finding]:
        """Return what one check found."""
        (found,) = [each.findings for each in self.checks if each.check == name]
        assert all(each.cure for each in found)
        return found

    def found(self) -> set[str]:
        """Return the checks that want something done."""
        return {each.check for each in self.checks if each.outcome in {"warning", "error"}}


def examined(
    namespace: Namespace,
    folders: Folders,
    argv: Sequence[str] = DOCTOR,
    env: Mapping[str, str] | None = None,
) -> Report:
    """Run the doctor; its exit code says whether it found anything."""
    ended = subprocess.run(
        namespace.command(argv), cwd=ROOT, env={**folders.env, **(env or {})},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ended.returncode in {0, 1}, ended.stderr
    report = msgspec.json.decode(ended.stdout, type=Report)
    assert report.healthy == (ended.returncode == 0)
    return report


@pytest.fixture
def configured(internet: Internet, folders: Folders) -> Folders:
    folders.configure(f"{LISTEN}resolver: {{upstream_ca: {internet.ca}}}\n")
    folders.rule(AGENT)
    return folders


@pytest.fixture
def alone() -> Iterator[Namespace]:
    """A host without a network, in which everything may be broken."""
    with Namespace.made("doctor") as namespace:
        yield namespace


@contextlib.contextmanager
def disk(folder: Path, options: str) -> Iterator[Path]:
    folder.mkdir(parents=True)
    subprocess.run([need("mount"), "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run([need("umount"), "--lazy", str(folder)], check=True)


def fill(folder: Path) -> None:
    with contextlib.suppress(OSError), (folder / "ballast").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def test_nothing_is_wrong_before_the_first_start(internet: Internet, configured: Folders) -> None:
    report = examined(internet.agent, configured)
    assert report.found() == set()
    assert report.running is None
    assert report.enforcement == "advisory"
    assert not configured.state.exists(), "looking changes nothing"


def test_nothing_is_wrong_while_it_runs(internet: Internet, configured: Folders) -> None:
    with running(internet.agent, configured) as appliance:
        report = examined(internet.agent, configured)
        assert report.running == appliance.process.pid
        assert report.found() == set()


def test_no_name_of_an_agent_leaves_the_host(internet: Internet, configured: Folders) -> None:
    """A denied name never leaves: upstreams are asked for the root, over TLS, and nothing else."""
    with internet.capture() as capture:
        examined(internet.agent, configured)
        assert capture.packets()
        assert {packet.port for packet in capture.packets()} == {853}


def test_a_port_that_is_taken(internet: Internet, configured: Folders) -> None:
    taker = [sys.executable, "-c",
             "import socket; s = socket.create_server(('127.0.0.1', 3128)); input()"]  # fmt: skip
    with subprocess.Popen(internet.agent.command(taker), stdin=subprocess.PIPE) as process:
        until(lambda: internet.agent.accepts("127.0.0.1", 3128), "the port is taken")
        report = examined(internet.agent, configured)
        process.communicate(b"\n")
    (finding,) = report.of("ports")
    assert report.found() == {"ports"}
    assert f"end pid {process.pid} (" in finding.message


def test_a_clock_that_went_back(internet: Internet, configured: Folders) -> None:
    later = (dt.datetime.now(dt.UTC) + dt.timedelta(days=2)).isoformat()
    configured.state.mkdir(mode=0o700)
    (configured.state / "audit.jsonl").write_text(f'{{"time": "{later}"}}\n')
    report = examined(internet.agent, configured)
    assert report.found() == {"clock"}
    assert "before the newest audit line" in report.of("clock")[0].message


def test_state_that_cannot_be_written(internet: Internet, configured: Folders) -> None:
    with disk(configured.state, "ro"):
        report = examined(internet.agent, configured)
    assert report.found() == {"state", "disk"} or report.found() == {"state"}
    assert "Read-only file system" in report.of("state")[0].message


def test_a_disk_that_is_full_while_it_runs(internet: Internet, configured: Folders) -> None:
    with disk(configured.state, "size=1m,mode=0700"), running(internet.agent, configured):
        fill(configured.state)
        ask = ["kdig", "@127.0.0.1", "-p", "5300", "+noall", "n.example.net"]
        until(
            lambda: bool(internet.run(ask)) and bool(stalled(internet, configured)),
            "the audit stalls",
        )
        report = examined(internet.agent, configured)
    assert {"audit", "disk"} <= report.found()
    assert report.of("audit")[0].message == "audit is stalled: No space left on device"


def stalled(internet: Internet, configured: Folders) -> str:
    del configured
    page = internet.run(["curl", "-s", "http://127.0.0.1:9153/readyz"]).stdout
    return page if "No space left" in page else ""


def test_no_sock_diag(internet: Internet, configured: Folders) -> None:
    argv = [sys.executable, "-c", WITHOUT_NETLINK, *DOCTOR]
    report = examined(internet.agent, configured, argv)
    (finding,) = report.of("peers")
    assert finding.message.startswith("sock_diag is not to be had: Address family not supported")
    assert "AF_NETLINK" in finding.cure


def test_a_forwarder_in_front(internet: Internet, configured: Folders, tmp_path: Path) -> None:
    """threats.md, "Identity": local forwarders make many apps one: `doctor` names them."""
    dnsmasq = [
        "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts",
        "--user=root", "--pid-file=", "--listen-address=127.0.0.1", "--bind-interfaces",
        "--port=5399", "--server=127.0.0.1#5300",
    ]  # fmt: skip
    with (
        running(internet.agent, configured),
        internet.agent.started(dnsmasq, tmp_path / "dnsmasq.log") as process,
    ):
        until(lambda: internet.agent.accepts("127.0.0.1", 5399), "dnsmasq accepts")
        report = examined(internet.agent, configured)
    assert report.found() == {"forwarders"}
    assert f"dnsmasq (pid {process.pid}) forwards to us" in report.of("forwarders")[0].message


def test_upstreams_that_are_dead(alone: Namespace, configured: Folders) -> None:
    report = examined(alone, configured)
    assert report.found() == {"upstreams"}
    assert [each.severity for each in report.of("upstreams")] == ["error", "error"]
    assert "dns.quad9.net" in report.of("upstreams")[0].message


def test_a_certificate_that_nobody_renewed(internet: Internet, configured: Folders) -> None:
    then = dt.datetime.now(dt.UTC) - LEAF_LIFE + dt.timedelta(days=4, hours=1)
    ensure(configured.state / "ca", server_names(["127.0.0.1"]), then)
    configured.state.chmod(0o700)
    report = examined(internet.agent, configured)
    assert report.found() == {"certificates"}
    assert report.of("certificates")[0].message == "the server certificate expires in 4 days"


def test_no_ipv6(alone: Namespace, configured: Folders) -> None:
    configured.configure("")  # the default listeners, two of which are on [::1]
    assert "ipv6" not in examined(alone, configured).found()
    assert alone.run(["sysctl", "-w", "net.ipv6.conf.lo.disable_ipv6=1"]).returncode == 0
    report = examined(alone, configured)
    (finding,) = report.of("ipv6")
    assert "this host has no IPv6: nobody can reach [::1]:5300" in finding.message
    assert "disable_ipv6=0" in finding.cure
    assert report.of("ports") == []


def test_few_open_files(internet: Internet, configured: Folders) -> None:
    argv = ["sh", "-c", 'ulimit -n 1024; exec "$@"', "sh", *DOCTOR]
    report = examined(internet.agent, configured, argv)
    assert report.found() == {"descriptors"}
    assert "LimitNOFILE=" in report.of("descriptors")[0].cure


def test_rules_that_are_broken_and_a_proxy_elsewhere(
    internet: Internet, configured: Folders
) -> None:
    configured.rule("apps: {agent: {alow: []}}\n", "broken.yaml")
    proxy = {"https_proxy": "http://192.0.2.1:8080"}
    report = examined(internet.agent, configured, env=proxy)
    assert report.found() == {"rules", "proxy-variables"}
    assert "broken.yaml:1:" in report.of("rules")[0].message


def test_a_database_that_is_damaged(internet: Internet, configured: Folders) -> None:
    configured.state.mkdir(mode=0o700)
    (configured.state / "sallyport.sqlite").write_bytes(os.urandom(4096))
    assert examined(internet.agent, configured).found() == {"database"}


def test_what_system_claims_and_this_host_is_not(internet: Internet, configured: Folders) -> None:
    config = configured.config / "sallyport.yaml"
    config.chmod(0o666)
    argv = (*DOCTOR, "--system", "--config", str(config), "--state", str(configured.state))
    report = examined(internet.agent, configured, argv)
    assert report.enforcement == "system"
    messages = [each.message for each in report.of("system")]
    assert f"{config}: others than root may write it" in messages
    assert "the appliance runs as root: whoever breaks it owns the host" in messages
