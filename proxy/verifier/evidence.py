"""Evidence as values (RFC 9334, section 8.1): of each kind what it has, and nothing else."""

from msgspec import Struct

from proxy.agent_api.issuing import SOFTWARE, TPM
from proxy.verifier.contents import EvidenceSent
from proxy.verifier.octets import octets_of


class SoftwareEvidence(Struct, frozen=True):
    """`signature` was made by `key`, a SubjectPublicKeyInfo."""

    key: bytes
    signature: bytes


class TpmEvidence(Struct, frozen=True):
    """A TPMS_ATTEST and its TPMT_SIGNATURE by the AK whose Name is `attester` (hex)."""

    attester: str
    signature: bytes
    quote: bytes
    pcrs: dict[str, str]


class LaunchedEvidence(Struct, frozen=True):
    """Nothing: what was launched, the lease says."""


type Evidence = SoftwareEvidence | TpmEvidence | LaunchedEvidence

_PARTS = {
    SOFTWARE: ("key", "signature"),
    TPM: ("attester", "signature", "quote", "pcr"),
    "launched": (),
}
_ALL = ("key", "attester", "signature", "quote", "pcr")


def evidence_of(sent: EvidenceSent) -> Evidence:
    """Return the evidence of a request.

    Raises:
        ValueError: something is missing, or there is more; the text is for the agent.
    """
    wanted = _PARTS[sent.evidence]
    for part in _ALL:
        is_there = bool(getattr(sent, part))
        if is_there != (part in wanted):
            needs = "needs" if part in wanted else "has no"
            raise ValueError(f"{sent.evidence} evidence {needs} `{part}`")
    if sent.evidence == SOFTWARE:
        return SoftwareEvidence(octets_of(sent.key), octets_of(sent.signature))
    if sent.evidence == TPM:
        signature, quote = octets_of(sent.signature), octets_of(sent.quote)
        return TpmEvidence(sent.attester, signature, quote, dict(sent.pcr))
    return LaunchedEvidence()
