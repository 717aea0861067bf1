"""What a TPM says of itself: TPMT_PUBLIC, TPMS_ATTEST and TPMT_SIGNATURE (TPM 2.0, part 2).

Octets from outside, read once from front to back; nothing recurses, and what is left over is an
error.  Only what a quote over the SHA-256 bank and its keys need is taken; what it is worth is
asked elsewhere.
"""

import hashlib
from typing import Final

from msgspec import Struct

from certs.tpm_octets import Octets

PUBLIC_OCTETS: Final = 1024  # TPMT_PUBLIC; 88 of an AK on P-256, 280 of one with RSA-2048
ATTEST_OCTETS: Final = 1024  # TPMS_ATTEST; 145 of a quote, and TPM2B_ATTEST never exceeds 1.2 KiB
SIGNATURE_OCTETS: Final = 1024  # TPMT_SIGNATURE; 72 with P-256, 262 with RSA-2048

# Part 2, section 6.3: TPM_ALG_ID
RSA, SHA256, NULL, RSASSA, ECDSA, ECC = 0x0001, 0x000B, 0x0010, 0x0014, 0x0018, 0x0023
_WITHOUT_DETAILS = frozenset({NULL, 0x0015})  # section 11.2: TPM_ALG_RSAES is empty
_ECDAA = 0x001A
NIST_P256: Final = 0x0003  # section 6.4: TPM_ECC_CURVE

# Section 8.3.2: TPMA_OBJECT
FIXED_TPM, FIXED_PARENT, SENSITIVE_DATA_ORIGIN = 1 << 1, 1 << 4, 1 << 5
RESTRICTED, DECRYPT, SIGN, X509_SIGN = 1 << 16, 1 << 17, 1 << 18, 1 << 19

_GENERATED: Final = 0xFF544347  # section 6.2: TPM_GENERATED_VALUE
_QUOTE: Final = 0x8018  # section 6.9: TPM_ST_ATTEST_QUOTE
_OTHER_STATEMENTS = {  # the same section; what else a restricted key signs
    0x8014: "NV_Certify",
    0x8015: "GetCommandAuditDigest",
    0x8016: "GetSessionAuditDigest",
    0x8017: "Certify",
    0x8019: "GetTime",
    0x801A: "CertifyCreation",
    0x801C: "NV_Certify",
}
_NAME_OCTETS, _DATA_OCTETS = 68, 66  # TPMU_NAME and TPM2B_DATA with SHA-512
_DIGEST_OCTETS, _KEY_OCTETS = 64, 512  # TPM2B_DIGEST; RSA-4096
_SELECT_OCTETS = 4  # section 10.6.1: 24 PCRs are 3; a PC has no more


class Public(Struct, frozen=True):
    """A TPMT_PUBLIC (section 12.2.4), as the TPM has it; numbers are those of the TPM.

    `hash_alg` is that of `scheme`, 0 without one; `size` is `keyBits` or the curve; `unique` is
    the modulus, or the two coordinates.
    """

    kind: int
    name_alg: int
    attributes: int
    symmetric: int
    scheme: int
    hash_alg: int
    size: int
    exponent: int
    unique: tuple[bytes, ...]


class Attest(Struct, frozen=True):
    """A TPMS_ATTEST of a quote over the SHA-256 bank (section 10.12.8).

    `clock_ms` is the time that the TPM was powered, in milliseconds; `selected` the indices of the
    PCRs, ascending.
    """

    extra_data: bytes
    clock_ms: int
    reset_count: int
    restart_count: int
    is_safe: bool
    firmware: int
    selected: tuple[int, ...]
    pcr_digest: bytes


class Signature(Struct, frozen=True):
    """A TPMT_SIGNATURE (section 11.3.4): one value with RSASSA, r and s with ECDSA."""

    scheme: int
    hash_alg: int
    values: tuple[bytes, ...]


def name_of(public: bytes) -> bytes:
    """Return the Name of an object whose nameAlg is SHA-256 (part 1, section 16)."""
    return SHA256.to_bytes(2) + hashlib.sha256(public).digest()


def read_public(octets: bytes) -> Public:
    """Return what a TPMT_PUBLIC says.

    Raises:
        EvidenceError: it is none, or of another kind of key than RSA and ECC.
    """
    reader = Octets("TPMT_PUBLIC", octets, PUBLIC_OCTETS)
    kind, name_alg, attributes = reader.number(2), reader.number(2), reader.number(4)
    reader.sized(_DIGEST_OCTETS)  # authPolicy: who may use it is its owner's affair
    if kind not in {RSA, ECC}:
        reader.refuse(f"is of a key of kind {kind:#06x}: send one on P-256 or RSA-2048")
    symmetric = _symmetric(reader)
    scheme, hash_alg = _scheme(reader)
    size = reader.number(2)
    exponent, parts = 0, 1
    if kind == RSA:
        exponent = reader.number(4)
    else:
        _scheme(reader)  # kdf: there for symmetry, section 12.2.3.6
        parts = 2
    unique = tuple(reader.sized(_KEY_OCTETS) for _ in range(parts))
    reader.end()
    return Public(kind, name_alg, attributes, symmetric, scheme, hash_alg, size, exponent, unique)


def read_attest(octets: bytes) -> Attest:
    """Return what a quote says.

    Raises:
        EvidenceError: it is no TPMS_ATTEST of a quote over PCRs of the SHA-256 bank.
    """
    reader = Octets("TPMS_ATTEST", octets, ATTEST_OCTETS)
    if reader.number(4) != _GENERATED:  # part 1, section 31.2: nothing else proves a TPM made it
        reader.refuse("was not made inside a TPM: its magic is not TPM_GENERATED_VALUE")
    statement = reader.number(2)
    if statement != _QUOTE:
        other = _OTHER_STATEMENTS.get(statement, f"{statement:#06x}")
        reader.refuse(f"is a statement of another kind ({other}): send that of TPM2_Quote")
    reader.sized(_NAME_OCTETS)  # qualifiedSigner: the signature says whose it is
    extra_data = reader.sized(_DATA_OCTETS)
    clock_ms, reset_count, restart_count = reader.number(8), reader.number(4), reader.number(4)
    is_safe, firmware = _yes_no(reader), reader.number(8)
    selected, pcr_digest = _selection(reader), reader.sized(_DIGEST_OCTETS)
    reader.end()
    return Attest(
        *(extra_data, clock_ms, reset_count, restart_count, is_safe, firmware),
        *(selected, pcr_digest),
    )


def read_signature(octets: bytes) -> Signature:
    """Return a signature with RSASSA or ECDSA.

    Raises:
        EvidenceError: it is no TPMT_SIGNATURE of these.
    """
    reader = Octets("TPMT_SIGNATURE", octets, SIGNATURE_OCTETS)
    scheme = reader.number(2)
    if scheme not in {RSASSA, ECDSA}:
        reader.refuse(f"is of scheme {scheme:#06x}: sign with ECDSA or RSASSA")
    hash_alg = reader.number(2)
    count = 2 if scheme == ECDSA else 1
    values = tuple(reader.sized(_KEY_OCTETS) for _ in range(count))
    reader.end()
    return Signature(scheme, hash_alg, values)


def _yes_no(reader: Octets) -> bool:
    value = reader.number(1)  # section 9.2: TPMI_YES_NO
    if value > 1:
        reader.refuse(f"has {value} where yes or no should be")
    return bool(value)


def _symmetric(reader: Octets) -> int:
    """Take a TPMT_SYM_DEF_OBJECT (section 11.1.7): its algorithm, key size and mode."""
    algorithm = reader.number(2)
    if algorithm != NULL:
        reader.take(4)
    return algorithm


def _scheme(reader: Octets) -> tuple[int, int]:
    """Take a TPMT_RSA_SCHEME, TPMT_ECC_SCHEME or TPMT_KDF_SCHEME, with its hash."""
    scheme = reader.number(2)
    if scheme in _WITHOUT_DETAILS:
        return scheme, 0
    hash_alg = reader.number(2)
    if scheme == _ECDAA:  # section 11.2.1.4: a count follows
        reader.take(2)
    return scheme, hash_alg


def _selection(reader: Octets) -> tuple[int, ...]:
    """Take a TPML_PCR_SELECTION (section 10.9.7) of one bank, that of SHA-256."""
    banks = reader.number(4)
    hash_alg = reader.number(2) if banks else 0
    if banks != 1 or hash_alg != SHA256:
        reader.refuse("is not over the SHA-256 bank of PCRs alone: select that one")
    octets = reader.number(1)
    if octets > _SELECT_OCTETS:
        reader.refuse(f"selects PCRs with {octets} octets where {_SELECT_OCTETS} are the most")
    chosen = int.from_bytes(reader.take(octets), "little")
    indices = tuple(index for index in range(8 * octets) if chosen >> index & 1)
    if not indices:
        reader.refuse("selects no PCR: select those that the rules name")
    return indices
