"""Evidence for tests: a software key, a quote that a TPM made, and a vendor of one EK."""

import datetime as dt
import os
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from proxy.channel import Verify
from tests.authority import named
from tests.swtpm import DAY, Vendor

_QUOTE = Path(__file__).parents[2] / "vectors" / "tpm" / "quote-ecc.hex"


def software(call: int = 1, **changed: Any) -> Verify:
    """A question about a new software key, which has signed."""
    key = ec.generate_private_key(ec.SECP256R1())
    spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    message = os.urandom(100)
    signature = key.sign(message, ec.ECDSA(hashes.SHA256()))
    known: dict[str, Any] = {"message": message, "key": spki, "signature": signature}
    return Verify(call, **{"kind": "software", **known, **changed})


def quoted(call: int = 1, **changed: Any) -> Verify:
    """A question about a quote that a real TPM made (tests/vectors/tpm)."""
    lines = [line.partition(": ") for line in _QUOTE.read_text().splitlines() if line]
    found = {name: value for name, _, value in lines}
    known: dict[str, Any] = {
        name: bytes.fromhex(found[name]) for name in ("message", "key", "signature", "quote")
    }
    pcrs = {
        name.removeprefix("pcr "): value for name, value in found.items() if name.startswith("pcr ")
    }
    return Verify(call, **{"kind": "tpm", "pcrs": pcrs, **known, **changed})


def endorsed(vendor: Vendor) -> tuple[bytes, ...]:
    """The certificates of an EK that `vendor` made: its own first."""
    now = dt.datetime.now(dt.UTC)
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    usage = x509.KeyUsage(
        *(False, False, False, False),
        key_agreement=True,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    serial = x509.random_serial_number()
    leaf = (
        x509.CertificateBuilder(vendor.name, named("an EK"), key, serial)
        .not_valid_before(now - DAY)
        .not_valid_after(now + DAY)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(vendor.key.public_key()), False
        )
        .sign(vendor.key, hashes.SHA256())
    )
    return leaf.public_bytes(Encoding.DER), *vendor.above
