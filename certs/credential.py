"""Credentials that one TPM alone can open, and only for one key in it: TPM2_MakeCredential.

TPM 2.0, part 1, section 24 (credential protection), with annexes B.10.3 (RSA) and C.6.4 (ECC) for
the seed.  Whoever sends the secret back has the EK and the AK in one TPM.
"""

import hashlib
import hmac
import secrets
from typing import Final

from cryptography.hazmat.decrepit.ciphers.modes import CFB
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from msgspec import Struct

from certs.attestation_key import read_ak
from certs.endorsement import Endorsement, EndorsementKey

SECRET_OCTETS: Final = 32  # at most the digest of the EK's nameAlg (part 3, section 12.6)
_IDENTITY = b"IDENTITY\0"  # annex B.10.3 and C.6.4: the label, with the octet that ends it
_P384_BITS = 384


class Credential(Struct, frozen=True):
    """`credential` is a TPM2B_ID_OBJECT, `seed` a TPM2B_ENCRYPTED_SECRET, `name` the AK's (hex)."""

    credential: bytes
    seed: bytes
    name: str


class _Template(Struct, frozen=True):
    """What the TCG's EK template says of hashing and encrypting (EK Credential Profile, annex B).

    A certificate does not say it, but the kind of its key does: all templates of one kind agree.
    """

    hash_name: str
    hash_octets: int
    key_bits: int


_SMALL = _Template("sha256", 32, 128)  # L-1, L-2, H-1 and H-2: RSA-2048 and P-256
_LARGE = _Template("sha384", 48, 256)  # H-3: P-384


def make_credential(endorsement: Endorsement, ak: bytes, secret: bytes) -> Credential:
    """Return `secret` (32 octets at most) such that ActivateCredential alone tells it.

    `ak` is a TPMT_PUBLIC.

    Raises:
        EvidenceError: the AK is none that attests.
        ValueError: the secret is longer than a TPM takes.
    """
    if not 0 < len(secret) <= SECRET_OCTETS:
        raise ValueError(f"a credential's secret has 1 to {SECRET_OCTETS} octets")
    name = read_ak(ak).name
    template = _template(endorsement.key)
    seed, encrypted = _seed(endorsement.key, template)
    # Part 1, sections 24.4 and 24.5: encrypt, then authenticate with the Name
    key = _kdfa(template, seed, b"STORAGE", name, template.key_bits)
    encryptor = Cipher(AES(key), CFB(bytes(16))).encryptor()
    identity = encryptor.update(_sized(secret)) + encryptor.finalize()
    key = _kdfa(template, seed, b"INTEGRITY", b"", 8 * template.hash_octets)
    integrity = hmac.digest(key, identity + name, template.hash_name)
    return Credential(_sized(_sized(integrity) + identity), _sized(encrypted), name.hex())


def _template(key: EndorsementKey) -> _Template:
    return _LARGE if key.key_size == _P384_BITS else _SMALL


def _seed(key: EndorsementKey, template: _Template) -> tuple[bytes, bytes]:
    """Return a seed, and it for the EK's eyes alone."""
    if isinstance(key, rsa.RSAPublicKey):
        seed = secrets.token_bytes(template.hash_octets)
        oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), _IDENTITY)
        return seed, key.encrypt(seed, oaep)
    ephemeral = ec.generate_private_key(key.curve)
    shared = ephemeral.exchange(ec.ECDH(), key)
    octets = (key.key_size + 7) // 8  # annex C.8: coordinates are padded to the field's size
    ours, theirs = ephemeral.public_key().public_numbers(), key.public_numbers()
    x, y = ours.x.to_bytes(octets), ours.y.to_bytes(octets)
    seed = _kdfe(template, shared, x, theirs.x.to_bytes(octets))
    return seed, _sized(x) + _sized(y)


def _kdfe(template: _Template, shared: bytes, ours: bytes, theirs: bytes) -> bytes:
    """KDFe (part 1, section 11.4.10.3) for one digest: a single round."""
    counted = (1).to_bytes(4) + shared + _IDENTITY + ours + theirs
    return hashlib.new(template.hash_name, counted).digest()


def _kdfa(template: _Template, seed: bytes, label: bytes, context: bytes, bits: int) -> bytes:
    """KDFa (part 1, section 11.4.10.2) for at most one digest: a single round of SP 800-108."""
    counted = (1).to_bytes(4) + label + b"\0" + context + bits.to_bytes(4)
    return hmac.digest(seed, counted, template.hash_name)[: bits // 8]


def _sized(octets: bytes) -> bytes:
    """Return a TPM2B: the size in two octets, then the octets."""
    return len(octets).to_bytes(2) + octets
