"""Samples of what attestation prints: made of the types that the commands print."""

import msgspec

from proxy.agents.state import AgentView, Claimed, State
from proxy.attester.attester import Attested, Capability
from proxy.control.attesters import AttesterView
from proxy.control.capabilities import CapabilityView
from scripts.reference.samples import fenced

_TIME, _END = "2026-11-22T01:45:40.059179Z", "2026-11-22T01:47:40.059179Z"
_CODER = "spiffe://sallyport.internal/coder"
_ATTESTER = "000b" + "9f2c" * 16  # a Name: SHA-256, and the digest


def attest() -> str:
    """Return what `attest --json` prints."""
    made = Attested(
        token="eyJ...",  # noqa: S106 - the beginning of one
        expires_in=300,
        level="software",
        id="01a200ee31db7a3c897d0c0b7ed48390",
        binding="09c8" * 16,
        attested_at=1795311940,
    )
    return _shown(made)


def exchange() -> str:
    """Return what `exchange --json` prints."""
    kind = "urn:ietf:params:oauth:token-type:access_token"
    scope = "read-project-x:documents"
    return _shown(Capability("eyJ...", 120, kind, scope=scope))


def agents() -> str:
    """Return what `agents --json` prints: of one that attests and beats, of one that is gone."""
    valid = AgentView(
        agent=_CODER,
        app="coder",
        state=State.VALID,
        level="software",
        attested_s=12.4,
        expires_s=287.6,
        heartbeat_s=3.1,
        claimed=Claimed("ok", "1.4", ""),
    )
    silent = AgentView(agent=_CODER + "/2", app="coder", state=State.SILENT)
    return _shown([valid, silent])


def capabilities() -> str:
    """Return what `capabilities list --json` prints."""
    made = CapabilityView(
        id="9ceeba4ca6d3be62aba523eb332a2c44",
        state="current",
        audience="sallyport:app:documents",
        scopes=("read-project-x:documents",),
        app="coder",
        subject=_CODER,
        actors=(),
        level="software",
        issued=_TIME,
        expires=_END,
        rule="$CONFIG/rules/coder.yaml:6",
        parent="",
        why="",
    )
    return _shown([made])


def attesters() -> str:
    """Return what `GET /attesters` answers of a TPM that has quoted."""
    made = AttesterView(
        attester=_ATTESTER,
        app="coder",
        spiffe_id=_CODER,
        ek_sha256="41d0" * 16,
        enrolled_at=_TIME,
        quoted_at=_TIME,
        reset_count=7,
        restart_count=0,
        clock_ms=3725100,
        firmware="2023031400163636",
        results=1,
    )
    return _shown([made])


def _shown(value: object) -> str:
    return fenced(msgspec.json.encode(value).decode())
