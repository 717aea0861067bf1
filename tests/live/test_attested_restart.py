"""What is proven over a restart: after SIGTERM, after kill -9, and with a damaged file.

Results, enrolled AKs, capability tokens and their revocations last; what is damaged counts for
nothing.
"""

import signal
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import swtpm
from tests.internet import Internet, until
from tests.live.appliance import Appliance, Folders, running
from tests.live.attestation_stand import COM, PAGE, TRUST, Stand
from tests.swtpm import Swtpm, Vendor

pytestmark = pytest.mark.live

DOCUMENTS, SCOPE = f"{TRUST}/documents", "read"
REFUSED = "attestation-required"
RULES = "apps:\n" + "".join(
    f"""
  {name}:
    identity: [{{spiffe: "{TRUST}/{name}"}}]
    require: [{require}]
    reference_values: {{pcrs: {{16: "{"0" * 64}"}}}}
    allow: [{{host: example.com, ports: [80, 443]}}]
    capabilities: [{{audience: "{DOCUMENTS}", scopes: [{SCOPE}], ttl: 10m}}]
"""
    for name, require in (("worker", "attested"), ("machine", "{attested: {level: tpm}}"))
)
RULES += f'  documents:\n    identity: [{{spiffe: "{DOCUMENTS}"}}]\n    allow: []\n'


@pytest.fixture
def folders(internet: Internet, tmp_path: Path) -> Folders:
    made = Folders(tmp_path)
    made.configure(f"resolver: {{upstream_ca: {internet.ca}}}\n")
    made.rule(RULES)
    return made


def end(stand: Stand, appliance: Appliance, *, is_killed: bool) -> None:
    """End it in order, or kill it once what it writes behind is written."""
    if not is_killed:
        assert appliance.stop()[0] == 0
        return
    appliance.process.send_signal(signal.SIGKILL)
    appliance.wait()
    until(lambda: not stand.internet.agent.accepts("127.0.0.1", 8443), "the port is free")


@contextmanager
def first_life(internet: Internet, folders: Folders) -> Iterator[tuple[Stand, Appliance]]:
    with running(internet.agent, folders) as appliance:
        yield Stand(internet, folders, appliance), appliance


@pytest.mark.parametrize("is_killed", [False, True])
def test_what_was_proven_and_granted_lasts(
    internet: Internet, folders: Folders, *, is_killed: bool
) -> None:
    """threats.md, "Attestation": a restart neither loses a revocation nor proves anything."""
    with first_life(internet, folders) as (stand, appliance):
        agent, documents = stand.agent("worker"), stand.agent("documents")
        proof = agent.attest()["token"]
        kept, void = (agent.token(proof, DOCUMENTS, SCOPE).said["access_token"] for _ in range(2))
        assert agent.ask("/revoke", token=void).status == 200
        unproven = stand.agent("worker", "unproven")
        revoked = stand.agent("worker", "revoked")
        revoked.attest()
        stand.desk.cli("revoke", revoked.serial)
        # A result and a token are on the disk when those that were settled after them are.
        assert agent.ask("/revoke", token=void).status == 200
        end(stand, appliance, is_killed=is_killed)
    with running(internet.agent, folders) as appliance:
        stand.use(appliance)
        assert stand.desk.problems() == {}
        assert documents.introspect(void) == {"active": False}
        assert PAGE not in unproven.curl("http://example.com/")
        assert REFUSED in unproven.kdig("dot")
        assert "revoked" in revoked.curl("http://example.com/")
        assert documents.introspect(kept)["active"] is True
        assert PAGE in agent.curl("http://example.com/")
        assert COM in agent.doh(proof)[1]
        assert agent.token(proof, DOCUMENTS, SCOPE).status == 200


@pytest.mark.skipif(bool(swtpm.missing()), reason=swtpm.missing())
def test_an_enrolled_tpm_is_known_after_a_crash(
    internet: Internet, folders: Folders, tmp_path: Path
) -> None:
    with Swtpm(tmp_path / "tpm", Vendor()) as tpm:
        pems = (ssl.DER_cert_to_PEM_cert(each) for each in (tpm.vendor.root, *tpm.vendor.above))
        root = tmp_path / "tpm-root.pem"
        root.write_text("".join(pems))
        folders.configure(
            f"resolver: {{upstream_ca: {internet.ca}}}\nattestation: {{ek_roots: [{root}]}}\n"
        )
        by = ("--tpm", tpm.tcti, "--pcrs", "16")
        with first_life(internet, folders) as (stand, appliance):
            agent = stand.agent("machine")
            assert agent.command(*by)["level"] == "tpm"
            stand.await_change("enrolled")
            end(stand, appliance, is_killed=True)
        with running(internet.agent, folders) as appliance:
            stand.use(appliance)
            agent.command(*by)
            assert PAGE in agent.curl("http://example.com/")
            until(lambda: len(stand.changes("attested")) == 2, "the second attestation in audit")
            assert len(stand.changes("enrolled")) == 1
            [attester] = stand.desk.control.get("/attesters")
            assert attester["app"] == "machine"
            # What it proved is void with it, and so is the certificate.
            stand.desk.control.ask("DELETE", f"/attesters/{attester['attester']}")
            assert PAGE not in agent.curl("http://example.com/")
            end(stand, appliance, is_killed=True)
        with running(internet.agent, folders) as appliance:
            stand.use(appliance)
            assert stand.desk.control.get("/attesters") == []
            assert "revoked" in agent.curl("http://example.com/")


@pytest.mark.parametrize("file", ["attested.sqlite", "capabilities.sqlite"])
def test_a_damaged_file_proves_nothing_and_is_shown(
    internet: Internet, folders: Folders, file: str
) -> None:
    """threats.md, "Attestation": state that cannot be read fails closed."""
    with first_life(internet, folders) as (stand, appliance):
        agent, documents = stand.agent("worker"), stand.agent("documents")
        proof = agent.attest()["token"]
        token = agent.token(proof, DOCUMENTS, SCOPE).said["access_token"]
        end(stand, appliance, is_killed=False)
    for each in folders.state.glob(f"{file}*"):
        assert each.stat().st_mode & 0o777 == 0o600
        each.unlink() if each.name != file else each.write_bytes(b"no database" * 1000)
    with running(internet.agent, folders) as appliance:
        stand.use(appliance)
        what = "attestation" if file.startswith("attested") else "capabilities"
        assert stand.desk.problems()[what]
        ready = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "127.0.0.1:9153/readyz"]
        assert internet.run(ready).stdout == "503"
        if what == "attestation":
            assert REFUSED in agent.curl("http://example.com/")
            assert agent.ask("/attest/nonce", {}).status in {200, 503}
            assert (
                stand.desk.run("attest", "--folder", agent.folder, "--ca", agent.ca).returncode != 0
            )
        else:
            assert documents.introspect(token) == {"active": False}
            assert agent.token(proof, DOCUMENTS, SCOPE).status == 503
