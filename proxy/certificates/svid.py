"""What a client's certificate says, once it is believed."""

from msgspec import Struct


class Svid(Struct, frozen=True):
    """An X.509-SVID whose chain OpenSSL has verified, and which is one by SPIFFE's rules.

    `serial` is lower-case hex without leading zeros, `sha256` the hex digest of the DER,
    `spki_sha256` that of its SubjectPublicKeyInfo; times are Unix time in seconds.
    """

    spiffe_id: str
    serial: str
    not_before: int
    not_after: int
    sha256: str
    spki_sha256: str = ""


class Unfit(Struct, frozen=True):
    """Why a certificate that was presented names nobody; `text` is for the agent."""

    text: str
