"""After a whole life with attestation and exchange: no secret of it stands where it should not.

A TPM is enrolled, evidence of both kinds is brought, tokens are made, passed on, presented and
revoked, bad ones are sent.  Then files, audit, logs, command lines and environments are searched.
"""

import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from proxy.attester.api import Api
from proxy.attester.evidence import unb64url
from proxy.attester.means import Means, open_attester
from tests import swtpm
from tests.internet import Internet
from tests.live.appliance import ROOT, UP, Folders, running
from tests.live.attestation_stand import PATIENCE_S, PLAIN, TRUST, Agent, Stand
from tests.live.test_secrets import (
    PASSPHRASE,
    Life,
    add_keys_on_disk,
    on_disk,
    processes_of,
    said,
)
from tests.swtpm import Swtpm, Vendor

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(bool(swtpm.missing()), reason=swtpm.missing()),
]

AUDIENCE, SCOPE = f"{TRUST}/documents", "read"
RULES = f"""
apps:
  agent:
    identity: [{{spiffe: "{TRUST}/agent"}}, {{listener: "127.0.0.1:3128"}}]
    require: [attested]
    allow: [{{host: example.com, ports: [80, 443]}}]
    reference_values: {{pcrs: {{16: "{"0" * 64}"}}}}
    capabilities: [{{audience: "{AUDIENCE}", scopes: [{SCOPE}], ttl: 10m}}]
"""


@pytest.fixture
def tpm(tmp_path: Path) -> Iterator[Swtpm]:
    with Swtpm(tmp_path / "tpm", Vendor()) as found:
        yield found


@pytest.fixture
def stand(internet: Internet, tmp_path: Path, tpm: Swtpm) -> Iterator[Stand]:
    folders = Folders(tmp_path / "home")
    key_file, root = tmp_path / "passphrase", tmp_path / "tpm-root.pem"
    key_file.write_bytes(PASSPHRASE + b"\n")
    key_file.chmod(0o600)
    pems = (ssl.DER_cert_to_PEM_cert(each) for each in (tpm.vendor.root, *tpm.vendor.above))
    root.write_text("".join(pems))
    folders.configure(
        f"identity: {{key_file: {key_file}}}\nattestation: {{ek_roots: [{root}]}}\n"
        f"resolver: {{upstream_ca: {internet.ca}}}\n"
    )
    folders.rule(RULES)
    folders.env["PYTHONPATH"] = str(ROOT)
    with running(internet.agent, folders, UP) as appliance:
        yield Stand(internet, folders, appliance)


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """Return what `sallyport attest` sends, as it is sent: path and content."""
    found: list[tuple[str, dict[str, Any]]] = []
    post = Api.post

    def kept(api: Api, path: str, content: dict[str, Any], kind: Any) -> Any:
        found.append((path, content))
        return post(api, path, content, kind)

    monkeypatch.setattr(Api, "post", kept)
    return found


def attested(agent: Agent, tcti: str = "") -> str:
    """Attest as the command does, in this process, and return the token."""
    where = agent.folder, "https://localhost:8443", "", agent.ca, None, None, agent.folder
    with agent.stand.internet.agent.entered():
        return open_attester(Means(*where, tpm=tcti, pcrs=(16,))).attest().token


def test_no_secret_of_attestation_leaves_its_place(
    stand: Stand, tpm: Swtpm, sent: list[tuple[str, dict[str, Any]]]
) -> None:
    """threats.md, "Attestation": tokens and credentials in logs, audit and state."""
    agent, life = (
        stand.agent("agent"),
        Life(stand.internet.agent, stand.folders, stand.desk.appliance),
    )
    life.secrets.add("the passphrase", PASSPHRASE)
    results = [attested(agent), attested(agent, tpm.tcti), attested(agent)]
    tokens = [agent.token(each, AUDIENCE, SCOPE).said["access_token"] for each in results]
    present(agent, *results, *tokens)
    agent.ask("/revoke", token=tokens[0])
    life.cli("capabilities", "revoke", jti(stand))
    tpm.extend(16, b"something else")
    with pytest.raises(Exception, match="PCR 16"):
        attested(agent, tpm.tcti)
    kept = kept_fresh(agent, life)
    for name, texts in (("a result", results), ("a capability token", tokens)):
        for text in texts:
            life.secrets.add(name, text.encode())
            life.secrets.add(f"the signature of {name}", text.rpartition(".")[2].encode())
    [secret] = [content["secret"] for path, content in sent if path == "/attest/activate"]
    life.secrets.add("the secret of a credential", unb64url(secret))
    for path, content in sent:
        if path == "/attest":
            life.secrets.add("a nonce", unb64url(content["nonce"]))
    key = (agent.folder / "attester.key").read_bytes()
    life.secrets.add_key("the key of software evidence", key)
    life.secrets.add_key("the key of the agent", agent.key.read_bytes())
    add_keys_on_disk(life)
    found = [*on_disk(life), *processes_of(life), *kept]
    assert {"attested.sqlite", "capabilities.sqlite", "audit.jsonl"} <= {name for name, _ in found}
    assert stand.desk.appliance.stop()[0] == 0
    found += [*on_disk(life), *said(life)]
    assert [each for where, octets in found for each in life.secrets.found_in(where, octets)] == []
    assert [where for where, octets in found if b"eyJ" in octets] == []


def jti(stand: Stand) -> str:
    """Return the id of a token that stands."""
    listed = stand.desk.control.get("/capabilities")
    found: str = next(each["id"] for each in listed if each["state"] == "current")
    return found


def present(agent: Agent, *tokens: str) -> None:
    """Show each where it counts, where it does not, and with a part of it changed."""
    other = agent.stand.agent("agent", "other")
    for token in tokens:
        header = f"Proxy-Authorization: Bearer {token}"
        agent.curl("http://example.com/", "--proxy-header", header)
        agent.curl("http://example.com/", "--proxy-header", header, proxy=PLAIN)
        agent.curl("http://example.com/", "--proxy-header", f"{header}x")
        for each in (agent, other):
            each.doh(token)
            each.introspect(token)
            each.token(token, AUDIENCE, SCOPE)
        agent.ask("/attest", {"nonce": token, "evidence": "software"})
        agent.ask("/heartbeat", {"health": token})


def kept_fresh(agent: Agent, life: Life) -> list[tuple[str, bytes]]:
    """Return what is seen of `sallyport attest --keep-fresh`, of another agent, while it runs."""
    other = agent.stand.agent("agent", "keeping")
    file = other.folder / "token"
    with other.keeping("--file", file, "--heartbeat") as keeping:
        keeping.until("attested as software for")
        life.secrets.add("a result that is kept fresh", file.read_bytes().strip())
        pid = keeping.process.pid
        seen = [
            (f"{what} of sallyport attest", Path(f"/proc/{pid}/{what}").read_bytes())
            for what in ("cmdline", "environ", "comm", "status")
        ]
        assert file.stat().st_mode & 0o777 == 0o600
        keeping.end()
        keeping.process.wait(PATIENCE_S)
    return [*seen, ("what sallyport attest says", "".join(keeping.lines).encode())]
