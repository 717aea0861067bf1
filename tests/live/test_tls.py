"""Our TLS before the scanners that auditors use, and before real clients, on a real listener."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from msgspec import Struct

from tests.live.appliance import ROOT, STOP_S, Ready

pytestmark = pytest.mark.live

CONFIG = """
listen: {do53: [], dot: [], doh: ["127.0.0.1:0"], proxy: [], metrics: [],
         control: "", proxy_tls: [], workload: ""}
resolver: {upstreams: ["udp://127.0.0.1:9"]}
rules: [rules]
state: state
"""

# Findings that a private root has by its nature.
OF_A_PRIVATE_ROOT = {
    "cert_chain_of_trust": "nobody's trust store has it",
    "cert_revocation": "nobody serves a list for it; a leaf is replaced instead",
}
# What testssl.sh says of itself and the openssl that it uses.
OF_TESTSSL = {
    "engine_problem": "the host's openssl has no GOST",
    "RC4": "the host's openssl has no RC4 to try",
    "sessionresumption_ticket": "it gives openssl 3 an option that is no more",
}
ASKED = {"SSLv3", "TLS1", "TLS1_1", "TLS1_3", "heartbleed", "CRIME_TLS", "secure_client_renego"} | {
    *("secure_renego", "LUCKY13", "BEAST", "cipher_order", "cert_expirationStatus")
}


class Served(Struct, frozen=True):
    """Where a server with our context listens, and what is to be trusted."""

    port: int
    folder: Path

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def root(self) -> Path:
        return self.folder / "root.pem"


class Finding(Struct, frozen=True):
    """One line of testssl.sh's JSON."""

    id: str
    severity: str
    finding: str


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Run an appliance with a DoH listener on loopback."""
    folder = tmp_path_factory.mktemp("tls")
    (folder / "rules").mkdir(mode=0o700)
    (folder / "rules" / "a.yaml").write_text("apps: {agent: {allow: []}}\n")
    (folder / "sallyport.yaml").write_text(CONFIG)
    process = subprocess.Popen(
        [
            sys.executable,
            "-P",
            "-m",
            "proxy",
            "up",
            "--json",
            "--config",
            folder / "sallyport.yaml",
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        ready = msgspec.json.decode(process.stdout.readline(), type=Ready)
        port = int(ready.listen["doh"][0].rpartition(":")[2])
        yield Served(port, folder / "state" / "ca")
    finally:
        process.terminate()
        process.wait(STOP_S)
        process.stdout.close()


def present(program: str) -> str:
    path = shutil.which(program)
    assert path is not None, f"install {program}"
    return path


def scanned(served: Served, file: Path) -> list[Finding]:
    """Ask for protocols, ciphers, forward secrecy, preferences, defaults and vulnerabilities."""
    quiet = ("--quiet", "--warnings", "off", "--color", "0", "--nodns", "none")
    checks = ("--fast", "-p", "-s", "-f", "-P", "-S", "-U")
    subprocess.run(
        [present("testssl"), *quiet, *checks, "--jsonfile", file, served.address],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        check=False,  # its exit code counts findings
    )
    return msgspec.json.decode(file.read_bytes(), type=list[Finding])


@pytest.mark.timeout(300)  # 40 s of its own, on a machine that does nothing else
def test_testssl_finds_nothing_but_a_private_root(
    served: Served, tmp_path: Path, report: list[str]
) -> None:
    """threats.md, "Parser, transport, cache": TLS as an auditor's scanner sees it."""
    findings = scanned(served, tmp_path / "findings.json")
    assert {finding.id for finding in findings} >= ASKED
    by_id = {
        finding.id: f"{finding.severity}: {finding.finding}"
        for finding in findings
        if finding.severity not in ("OK", "INFO")
    }
    report.append(f"testssl.sh: {len(findings)} answers, with a finding: {', '.join(by_id)}")
    warnings = {each for each, text in by_id.items() if text.startswith("WARN")}
    assert by_id.keys() - warnings <= OF_A_PRIVATE_ROOT.keys(), by_id
    assert warnings <= OF_TESTSSL.keys(), by_id


def test_sslscan_finds_two_protocols_and_strong_ciphers(served: Served) -> None:
    done = subprocess.run(
        [present("sslscan"), "--no-colour", served.address],
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [line.split() for line in done.stdout.splitlines()]
    enabled = [line[0] for line in lines if line[1:] == ["enabled"]]
    assert enabled == ["TLSv1.2", "TLSv1.3"]
    ciphers = [line[4] for line in lines if line[:1] in (["Preferred"], ["Accepted"])]
    assert len(ciphers) == 6
    assert [each for each in ciphers if not each.startswith(("TLS_", "ECDHE-ECDSA-"))] == []
    assert [each for each in ciphers if not ("GCM" in each or "POLY1305" in each)] == []
    assert "Session renegotiation not supported" in done.stdout
    assert done.stdout.count("not vulnerable to heartbleed") == 2
    assert " vulnerable to heartbleed" not in done.stdout.replace("not vulnerable", "")


CURL = (
    "curl",
    "-sS",
    "--noproxy",
    "*",
    "-o",
    "/dev/null",
    "-w",
    "%{ssl_verify_result} %{http_code}",
)
OPENSSL = ("openssl", "s_client", "-verify_return_error", "-brief")


@pytest.mark.parametrize(
    ("name", "code", "said"),
    [
        pytest.param("localhost", 0, "0 404", id="localhost"),
        pytest.param("sallyport.internal", 0, "0 404", id="our name"),
        pytest.param("127.0.0.1", 0, "0 404", id="address"),
        pytest.param("example.com", 60, "no alternative certificate subject name", id="another"),
    ],
)
def test_curl_knows_us_by_our_names_alone(served: Served, name: str, code: int, said: str) -> None:
    where = ("--connect-to", f"::{served.address}", f"https://{name}:{served.port}/")
    done = subprocess.run(
        [*CURL, "--cacert", served.root, *where], capture_output=True, text=True, check=False
    )
    assert done.returncode == code
    assert said in done.stdout + done.stderr


def test_curl_does_not_know_us_without_the_root(served: Served) -> None:
    done = subprocess.run(
        [*CURL, f"https://{served.address}/"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 60  # CURLE_PEER_FAILED_VERIFICATION


# A certificate of P-256 asks for that curve as well in TLS 1.2 (RFC 8422, section 5.1).
@pytest.mark.parametrize("group", ["X25519:P-256", "P-256", "ffdhe8192:X25519:P-256"])
@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_openssl_agrees_whatever_it_likes_best(served: Served, version: str, group: str) -> None:
    done = subprocess.run(
        [*OPENSSL, version, "-groups", group, "-CAfile", served.root, "-connect", served.address],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0
    assert "Verification: OK" in done.stderr
    assert "ECDSA" in done.stderr
