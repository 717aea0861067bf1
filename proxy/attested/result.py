"""An attestation result as it is kept (RFC 9334, section 8.4); the token itself is not."""

from msgspec import Struct

from proxy.attested.binding import Binding
from rules.facts import Level


class Result(Struct, frozen=True):
    """What was proven, of whom, and until when; times are Unix time in seconds.

    `id` is the token's `jti`, `token_sha256` the digest of its text (hex).  `thumbprint` (SHA-256
    of the DER, hex) and `serial` are of the certificate, empty for a lease.  `attester` is the Name
    of an AK, the digest of a software key, or a lease's id; `measured` what a launcher executed, as
    a digest, else empty.
    """

    id: str
    token_sha256: str
    binding: Binding
    app: str
    spiffe_id: str
    level: Level
    attester: str
    at: float
    expires: float
    thumbprint: str = ""
    serial: str = ""
    measured: str = ""
