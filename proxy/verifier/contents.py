r"""What is sent to the verifier and what it answers, as JSON (docs/attestation.md has examples).

Octets are base64url without padding (RFC 4648, section 5), digests lower-case hex.  In Python `$`
lets a line feed at the end through, in ECMA 262, which OpenAPI names, it does not: `(?!\n)`.
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from rules.facts import Level

_SHORT, _LONG = 2048, 16384  # characters: of a key, signature or quote, and of a certificate

type Octets = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]*(?!\n)$", max_length=_SHORT)]
type LongOctets = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]+(?!\n)$", max_length=_LONG)]
type Digest = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}(?!\n)$")]
type Name = Annotated[
    str, Meta(pattern=r"^([0-9a-f]{68})?(?!\n)$")
]  # TPM 2.0, part 1, 16: alg, SHA-256
type Index = Annotated[str, Meta(pattern=r"^(0|1?[1-9]|10|2[0-3])(?!\n)$")]

type EvidenceKind = Literal["software", "tpm", "launched"]


class NonceWanted(Struct, frozen=True, forbid_unknown_fields=True):
    """Nothing: `{}`."""


class NonceGiven(Struct, frozen=True):
    """A nonce for one attestation, and `message`, what is to be signed with it.

    `evidence` are the kinds that can be appraised here.
    """

    nonce: str
    expires_in: int
    binding: str
    message: str
    evidence: tuple[EvidenceKind, ...]


class EvidenceSent(Struct, frozen=True, forbid_unknown_fields=True):
    """Evidence of one kind.

    Of a software key it is `key` and `signature`; of a TPM `attester`, `signature`, `quote` and
    `pcr`; of what was launched nothing.  `agent_hash` and `version` are recorded, never believed.
    """

    nonce: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{43}(?!\n)$")]
    evidence: EvidenceKind
    key: Octets = ""
    attester: Name = ""
    signature: Octets = ""
    quote: Octets = ""
    pcr: Annotated[dict[Index, Digest], Meta(max_length=24)] = {}
    agent_hash: Annotated[str, Meta(max_length=128)] = ""
    version: Annotated[str, Meta(max_length=64)] = ""


class Attested(Struct, frozen=True):
    """An attestation result: `token` is a JWT (EAT, RFC 9711) that is bound to `binding`.

    In `renew_in` seconds it is time for another, if no rule is to find it too old.
    """

    token: str
    expires_in: int
    renew_in: int
    level: str
    id: str
    binding: str
    attested_at: int
    token_type: str = "N_A"  # noqa: S105 - RFC 8693, section 2.2.1: it is no access token


class EnrolmentSent(Struct, frozen=True, forbid_unknown_fields=True):
    """A TPM: the certificates of its endorsement key, that one first, and an AK (TPMT_PUBLIC)."""

    certificates: Annotated[tuple[LongOctets, ...], Meta(min_length=1, max_length=8)]
    ak: LongOctets


class Challenge(Struct, frozen=True):
    """What TPM2_ActivateCredential takes: TPM2B_ID_OBJECT and TPM2B_ENCRYPTED_SECRET."""

    handle: str
    credential: str
    seed: str
    expires_in: int


class ActivationSent(Struct, frozen=True, forbid_unknown_fields=True):
    """The secret that only the TPM could tell."""

    handle: Annotated[str, Meta(pattern=r"^[0-9a-f]{32}(?!\n)$")]
    secret: Octets


class Enrolled(Struct, frozen=True):
    """The Name of the AK that may attest from now on."""

    attester: str


def level_name(level: Level) -> str:
    """Return a level as claims, answers and metrics have it."""
    return level.name.lower()
