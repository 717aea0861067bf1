"""Of each kind of evidence what it has, and nothing else."""

from typing import Any

import pytest

from proxy.verifier.contents import EvidenceSent
from proxy.verifier.evidence import (
    LaunchedEvidence,
    SoftwareEvidence,
    TpmEvidence,
    evidence_of,
)

NONCE = "A" * 43
PARTS: dict[str, Any] = {
    "key": "AQ",
    "attester": "000b" + "0" * 64,
    "signature": "Ag",
    "quote": "Aw",
    "pcr": {"0": "aa" * 32},
}
KINDS = {
    "software": ("key", "signature"),
    "tpm": ("attester", "signature", "quote", "pcr"),
    "launched": (),
}


def sent(kind: Any, *parts: str) -> EvidenceSent:
    return EvidenceSent(NONCE, kind, **{part: PARTS[part] for part in parts})


def test_each_kind_is_read() -> None:
    assert evidence_of(sent("software", "key", "signature")) == SoftwareEvidence(b"\1", b"\2")
    assert evidence_of(sent("tpm", *KINDS["tpm"])) == TpmEvidence(
        PARTS["attester"], b"\2", b"\3", {"0": "aa" * 32}
    )
    assert evidence_of(sent("launched")) == LaunchedEvidence()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("part", PARTS)
def test_a_part_less_or_more_is_no_evidence(kind: str, part: str) -> None:
    wrong = {*KINDS[kind]} ^ {part}
    with pytest.raises(ValueError, match=f"`{part}`"):
        evidence_of(sent(kind, *wrong))


def test_octets_that_are_none_are_no_evidence() -> None:
    with pytest.raises(ValueError, match="base64url"):
        evidence_of(EvidenceSent(NONCE, "software", key="A", signature="Ag"))
