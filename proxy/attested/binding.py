"""What an attestation result is bound to: the key of a TLS client, or a lease (RFC 7800)."""

import hashlib
from enum import StrEnum
from typing import Final

from msgspec import Struct

from proxy.certificates.svid import Svid

NONCE_OCTETS: Final = 32
_PREFIX = b"sallyport-attestation-1\0"
_NOTHING_MEASURED = bytes(32)


class Kind(StrEnum):
    """To what kind of thing."""

    KEY = "key"
    LEASE = "lease"


class Binding(Struct, frozen=True):
    """`value` is the SHA-256 of the client's SubjectPublicKeyInfo (hex), or the lease's id."""

    kind: Kind
    value: str

    @property
    def digest(self) -> bytes:
        """What stands for it in a message: 32 octets."""
        if self.kind is Kind.KEY:
            return bytes.fromhex(self.value)
        return hashlib.sha256(self.value.encode()).digest()


def of_key(svid: Svid) -> Binding:
    """Return the binding to the key of a certificate that was presented."""
    return Binding(Kind.KEY, svid.spki_sha256)


def message(nonce: bytes, binding: Binding, measured: bytes = _NOTHING_MEASURED) -> bytes:
    """Return what an attester signs: software keys these octets, a TPM their SHA-256.

    `measured` is the digest of what a launcher executed, 32 octets; zeros where nothing was.
    Every part has a fixed length, so that no two messages have the same octets.
    """
    kind = b"\1" if binding.kind is Kind.KEY else b"\2"
    return _PREFIX + nonce + kind + binding.digest + measured
