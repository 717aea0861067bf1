"""Private keys and secrets stay where they are: in no log, evidence, core file, argument or error.

A whole life is lived: keys made and encrypted, certificates fetched, written and enrolled, bad
input sent to every door, the issuer and then the appliance killed as a bug would.  Then everything
that was written or said is searched for each secret in every spelling that a program may print.
"""

import base64
import contextlib
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from spiffe import WorkloadApiClient

from proxy.control.client import ControlClient, ControlError
from proxy.errors import ProxyError
from tests.internet import Internet, Namespace, need, until
from tests.live.appliance import ROOT, UP, Appliance, Folders, running

pytestmark = pytest.mark.live

PASSPHRASE = b"correct horse battery staple 4711"
AGENT_ID = "spiffe://sallyport.internal/agent"
CONFIG = """
listen:
  do53: ["127.0.0.1:5300"]
  dot: ["127.0.0.1:8853"]
  doh: []
  proxy: ["127.0.0.1:3128"]
  proxy_tls: ["127.0.0.1:3129"]
  metrics: []
  control_tls: ["127.0.0.1:9443"]
  enroll: ["127.0.0.1:9444"]
  pki: ["127.0.0.1:9445"]
resolver: {upstreams: ["udp://9.9.9.9:5999"]}
"""
RULES = f"""
apps:
  agent:
    identity: [{{process: {{uid: {os.getuid()}}}}}, {{spiffe: "{AGENT_ID}"}}]
    allow: [{{host: example.com, ports: [443]}}]
"""
# A process of the same user, root here, which lacks what lets root look at everything.
LOOKING = """
import ctypes, json, sys
pid, seen = int(sys.argv[1]), {}
for what in ("mem", "maps", "environ", "auxv"):
    try:
        seen[what] = bool(open(f"/proc/{pid}/{what}", "rb").read(1))
    except OSError:
        seen[what] = False
seen["ptrace"] = ctypes.CDLL(None).ptrace(0x4206, pid, None, None) == 0
print(json.dumps(seen))
"""
POWERLESS = ("--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all")
BAD = (
    b"GET / HTTP/1.1\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 64,
    b"\x16\x03\x01\x02\x00" + b"\x00" * 512,
    os.urandom(512),
)


class Secrets:
    """What must be nowhere: each under the name that a failure shows instead of it."""

    def __init__(self) -> None:
        self.spellings: dict[bytes, str] = {}

    def add(self, name: str, octets: bytes) -> None:
        """Look for `octets` as they are, in hexadecimal, and in Base64 wherever it begins."""
        found = [octets, octets.hex().encode(), octets.hex().upper().encode()]
        written = repr(octets)[2:-1].replace("\\'", "'").encode()
        found += [written, written.replace(b"'", b"\\'")]  # whichever quotes stand around it
        for skipped in range(3):
            for encode in (base64.b64encode, base64.urlsafe_b64encode):
                text = encode(bytes(skipped) + octets)
                # The first and last characters hold bits of the neighbours, too.
                found.append(text[4 if skipped else 0 : -4])
        number = str(int.from_bytes(octets)).encode()
        self.spellings |= dict.fromkeys([*found, number], name)

    def add_key(self, name: str, pem: bytes, secret: bytes | None = None) -> None:
        """Look for the scalar of a private key: every encoding of the key has it."""
        key = serialization.load_pem_private_key(pem, secret)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        size = (key.curve.key_size + 7) // 8
        self.add(name, key.private_numbers().private_value.to_bytes(size))

    def found_in(self, where: str, octets: bytes) -> list[str]:
        """Return what was found, by name."""
        # The lines of a PEM text as one, for the key stands across them.
        texts = octets, octets.replace(b"\n", b"").replace(b"\\n", b"")
        found = {
            name
            for spelling, name in self.spellings.items()
            if any(spelling in each for each in texts)
        }
        return [f"{name} in {where}" for name in sorted(found)]


class Life:
    """A running appliance and what its user does with it; every word it says is kept."""

    def __init__(self, space: Namespace, folders: Folders, appliance: Appliance) -> None:
        self.space = space
        self.folders = folders
        self.appliance = appliance
        self.secrets = Secrets()
        self.said: list[str] = []
        runtime = Path(folders.env["XDG_RUNTIME_DIR"], "sallyport")
        self.control = ControlClient(runtime / "control.sock")
        self.workload = runtime / "workload.sock"

    @property
    def pid(self) -> int:
        return self.appliance.ready.pid

    def issuer(self) -> int | None:
        """Return the issuer's process, where it runs."""
        for tasks in Path(f"/proc/{self.pid}/task").glob("*/children"):
            for child in tasks.read_text().split():
                with contextlib.suppress(OSError):
                    if b"proxy.issuing.main" in Path(f"/proc/{child}/cmdline").read_bytes():
                        return int(child)
        return None

    def cli(self, *arguments: str | Path, **env: str) -> str:
        """Run a command that is to succeed; return stdout, which may hold a secret."""
        ended = self.space.run(
            [sys.executable, "-m", "proxy", *map(str, arguments)],
            env={**self.folders.env, **env}, wait_s=60,
        )  # fmt: skip
        self.said.append(ended.stderr)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    def fetch(self) -> None:
        """Fetch an SVID as a workload does."""
        with WorkloadApiClient(f"unix://{self.workload}") as client:
            svid = client.fetch_x509_svid()
            token = client.fetch_jwt_svid({"audience.example"}).token
        assert str(svid.spiffe_id) == AGENT_ID
        pem = svid.private_key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        self.secrets.add_key("the key of a workload", pem)
        self.secrets.add("a JWT-SVID", token.rpartition(".")[2].encode())


@pytest.fixture
def life(internet: Internet, tmp_path: Path) -> Iterator[Life]:
    folders = Folders(tmp_path)
    key_file = tmp_path / "passphrase"
    key_file.write_bytes(PASSPHRASE + b"\n")
    key_file.chmod(0o600)
    folders.configure(f"{CONFIG}identity: {{key_file: {key_file}, svid_ttl: 5m}}\n")
    folders.rule(RULES)
    # Whatever limit it was started with: cores are asked for here, in a folder of their own.
    cores = tmp_path / "cores"
    cores.mkdir()
    up: list[str | Path] = ["bash", "-c", 'cd "$0" && ulimit -c unlimited && exec "$@"', cores, *UP]
    folders.env["PYTHONPATH"] = str(ROOT)
    with running(internet.agent, folders, up) as appliance:
        yield Life(internet.agent, folders, appliance)


def test_no_secret_leaves_its_place(life: Life, tmp_path: Path) -> None:
    """threats.md, "Identity": the agent reaches the CA key."""
    secrets = life.secrets
    secrets.add("the passphrase", PASSPHRASE)
    life.fetch()
    write_certificates(life, tmp_path)
    enrol(life, tmp_path)
    send_rubbish(life)
    outside = looked_at_from_outside(life)
    crash_the_issuer(life)
    add_keys_on_disk(life)
    processes = processes_of(life)
    os.kill(life.pid, signal.SIGSEGV)
    life.appliance.wait()
    assert list((tmp_path / "cores").iterdir()) == []
    assert outside == [dict.fromkeys(("mem", "maps", "environ", "auxv", "ptrace"), False)] * 2
    assert len(secrets.spellings) > 10 * 6
    found = [*on_disk(life), *processes, *said(life)]
    assert [each for where, octets in found for each in secrets.found_in(where, octets)] == []
    marked = [where for where, octets in found if b"PRIVATE KEY" in octets]
    assert marked == []


@pytest.mark.parametrize(
    "scalar",
    [0x27220A00 << 200 | 7, (1 << 255) + 0x5C6E, 0xFB << 240],
    ids=["quotes", "high", "zeros"],
)
@pytest.mark.parametrize("kind", ["PKCS8", "TraditionalOpenSSL"])
def test_the_search_finds_what_it_looks_for(kind: str, scalar: int) -> None:
    """Each spelling, wherever it stands: else finding nothing would mean nothing."""
    key = ec.derive_private_key(scalar, ec.SECP256R1())
    kinds = getattr(serialization.PrivateFormat, kind), serialization.NoEncryption()
    pem = key.private_bytes(serialization.Encoding.PEM, *kinds)
    der = key.private_bytes(serialization.Encoding.DER, *kinds)
    secrets = Secrets()
    secrets.add_key("it", pem)
    for text in (
        *(pem, pem.replace(b"\n", b""), repr(pem).encode(), str([pem.decode()]).encode()),
        *(der, der.hex().encode(), der.hex().upper().encode(), repr(der).encode()),
        *(base64.b64encode(b"x" * skipped + der) for skipped in range(3)),
        f"private_value={scalar}".encode(),
    ):
        assert secrets.found_in("here", text) == ["it in here"], text
    assert secrets.found_in("here", b"something else") == []


def write_certificates(life: Life, tmp_path: Path) -> None:
    """Have the command line write certificates, an admin's among them, and use that."""
    for command, name in (("svid", AGENT_ID), ("admin", "alice")):
        out = tmp_path / command
        words = [command]
        life.cli(*words, name, "--out", out)
        life.secrets.add_key(f"the key of {name}", (out / "svid.key").read_bytes())
    admin = tmp_path / "admin"
    files = ("--cert", admin / "svid.pem", "--key", admin / "svid.key", "--ca", admin / "ca.pem")
    status = life.cli("--control", "https://127.0.0.1:9443", *files, "status", "--json")
    assert msgspec.json.decode(status)["pid"] == life.pid


def enrol(life: Life, tmp_path: Path) -> None:
    """Enrol a device with a join token, and fail to with the same one."""
    root = tmp_path / "root.pem"
    life.cli("ca", "export", "--out", root)
    token = msgspec.json.decode(life.cli("app", "join", "agent", "--json"))["secret"]
    life.secrets.add("a join token", token.encode())
    where = ("--url", "https://127.0.0.1:9444", "--ca", root, "--app", "agent")
    device = tmp_path / "device"
    life.cli("enroll", *where, "--folder", device, SALLYPORT_JOIN_TOKEN=token)
    for key in device.rglob("*.key"):
        life.secrets.add_key("the key of a device", key.read_bytes())
    with pytest.raises(AssertionError):
        life.cli("enroll", *where, "--folder", tmp_path / "again", SALLYPORT_JOIN_TOKEN=token)


def send_rubbish(life: Life) -> None:
    """Send what nobody should to every door, and a secret where none belongs."""
    for octets in BAD:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as client:
            client.settimeout(2.0)
            client.connect(str(life.workload))
            client.sendall(octets)
            client.recv(4096)
        for port in (8853, 3129, 9443, 9444, 9445):
            with contextlib.suppress(OSError):
                exchange(life.space, port, octets)
    key = next((life.folders.state / "ca").glob("*.key")).read_text()
    for content in (
        {"spiffe_id": key}, {"spiffe_id": AGENT_ID, "key": key}, {"spiffe_id": 1, "profile": key},
    ):  # fmt: skip
        with pytest.raises((ControlError, ProxyError)) as caught:
            life.control.ask("POST", "/svids", content)
        life.said.append(str(caught.value))


def exchange(space: Namespace, port: int, octets: bytes) -> None:
    """Send octets, over TLS where that comes up, and read an answer."""
    with space.entered(), socket.create_connection(("127.0.0.1", port), 2.0) as client:
        client.settimeout(2.0)
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        if port == 9445:
            client.sendall(octets)
            client.recv(4096)
            return
        with context.wrap_socket(client) as encrypted:
            encrypted.sendall(octets)
            encrypted.recv(4096)


def looked_at_from_outside(life: Life) -> list[dict[str, bool]]:
    """Return what a process of the same user sees of the appliance and of the issuer."""
    found = []
    for pid in (life.pid, life.issuer()):
        looking = [need("setpriv"), *POWERLESS, sys.executable, "-c", LOOKING, str(pid)]
        ended = subprocess.run(looking, capture_output=True, check=True, timeout=30)
        found.append(msgspec.json.decode(ended.stdout, type=dict[str, bool]))
        if (gcore := shutil.which("gcore")) is not None:
            dumped = life.folders.state.parent / f"core-{pid}"
            command: list[str | Path] = [need("setpriv"), *POWERLESS, gcore, "-o", dumped, str(pid)]
            ended = subprocess.run(command, capture_output=True, check=False, timeout=60)
            assert not list(dumped.parent.glob("core-*")), ended.stdout
    return found


def crash_the_issuer(life: Life) -> None:
    """End the issuer as a bug would; the next who asks gets another one."""
    before = life.issuer()
    assert before is not None
    os.kill(before, signal.SIGSEGV)
    until(lambda: life.issuer() != before, "the issuer ends", 10)

    def fetches() -> bool:
        try:
            life.fetch()
        except Exception:  # noqa: BLE001 - whatever the library says while nobody is there
            return False
        return True

    until(fetches, "another issuer", 30)


def add_keys_on_disk(life: Life) -> None:
    """Look for every key of the state from now on."""
    keys = sorted(life.folders.state.rglob("*.key"))
    assert {each.parent.name for each in keys} >= {"ca", "identity"}
    for path in keys:
        secret = PASSPHRASE if path.parent.name == "identity" else None
        life.secrets.add_key(f"{path.parent.name}/{path.name}", path.read_bytes(), secret)
        assert path.stat().st_mode & 0o777 == 0o600


def processes_of(life: Life) -> list[tuple[str, bytes]]:
    """Return what `ps` and /proc show of our processes."""
    return [
        (f"{what} of {name}", Path(f"/proc/{pid}/{what}").read_bytes())
        for name, pid in (("the appliance", life.pid), ("the issuer", life.issuer()))
        for what in ("cmdline", "environ", "comm", "status")
    ]


def on_disk(life: Life) -> Iterable[tuple[str, bytes]]:
    """Return every file of ours but the keys; of those, the encrypted ones too."""
    for path in sorted(life.folders.state.parent.rglob("*")):
        if path.is_file() and not (path.suffix == ".key" and path.parent.name == "ca"):
            octets = path.read_bytes()
            if path.suffix == ".key":
                assert octets.startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----")
                octets = octets.replace(b"ENCRYPTED PRIVATE KEY", b"")
            yield path.name, octets


def said(life: Life) -> Iterable[tuple[str, bytes]]:
    """Return what was logged and printed."""
    yield "stderr", life.appliance.stderr.encode()
    yield "stdout", life.appliance.stdout.encode()
    yield "the commands' stderr and errors", "".join(life.said).encode()
