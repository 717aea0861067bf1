"""An attester that was enrolled: an attestation key (AK) that a TPM holds (TPM 2.0, part 1, 24)."""

from msgspec import Struct


class Attester(Struct, frozen=True):
    """`name` is the AK's Name (hex), `key` its TPMT_PUBLIC, `enrolled_at` Unix time in seconds.

    It attests for `app` alone.  `ek_sha256` is the digest of the endorsement key's
    SubjectPublicKeyInfo (hex): which TPM it is.  The counters are what its last quote said (TPM
    2.0, part 2, section 10.11); -1 before the first.
    """

    name: str
    app: str
    spiffe_id: str
    ek_sha256: str
    key: bytes
    enrolled_at: float
    reset_count: int = -1
    restart_count: int = -1
    clock_ms: int = -1
    firmware: int = 0
    used_at: float = 0.0
