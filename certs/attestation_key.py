"""Keys in a TPM that sign nothing but what the TPM says itself (TPM 2.0, part 1, section 27.6)."""

import hashlib

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils
from msgspec import Struct

from certs import tpm_structures as tpm
from certs.errors import EvidenceError

_RSA_BITS, _RSA_EXPONENT = 2048, 65537
_P256_OCTETS = 32
_TEMPLATE = "make it anew: `tpm2_createak -G ecc -g sha256 -s ecdsa`"
_REQUIRED = (
    (tpm.FIXED_TPM, "fixedTPM: it could be copied to another TPM"),
    (tpm.FIXED_PARENT, "fixedParent: it could be moved under a parent that somebody has"),
    (tpm.SENSITIVE_DATA_ORIGIN, "sensitiveDataOrigin: somebody may have it outside the TPM"),
    (tpm.RESTRICTED, "restricted: it signs whatever it is given, a made-up quote too"),
    (tpm.SIGN, "sign: it cannot quote"),
)
_FORBIDDEN = (
    (tpm.DECRYPT, "decrypt: a key that attests does nothing else"),
    (tpm.X509_SIGN, "x509sign: a key that attests does nothing else"),
)


class AttestationKey(Struct, frozen=True):
    """An AK: its Name (part 1, section 16) and its public key."""

    name: bytes
    key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey

    @property
    def key_sha256(self) -> str:
        """The digest of its SubjectPublicKeyInfo, lower-case hex."""
        spki = self.key.public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return hashlib.sha256(spki).hexdigest()


def read_ak(octets: bytes) -> AttestationKey:
    """Return the AK of a TPMT_PUBLIC.

    Raises:
        EvidenceError: it is none, or it could be used for more than attesting, or outside its TPM.
    """
    public = tpm.read_public(octets)
    _check_attributes(public.attributes)
    if public.name_alg != tpm.SHA256:
        raise EvidenceError(f"the AK's Name is not made with SHA-256: {_TEMPLATE}")
    if public.symmetric != tpm.NULL:
        raise EvidenceError(f"the AK has a symmetric algorithm, as keys that decrypt: {_TEMPLATE}")
    key = _ecc(public) if public.kind == tpm.ECC else _rsa(public)
    return AttestationKey(tpm.name_of(octets), key)


def check_signed(ak: AttestationKey, signature: bytes, octets: bytes) -> None:
    """Check a TPMT_SIGNATURE by `ak` over `octets`.

    Raises:
        EvidenceError: it is none, or not by this key.
    """
    read = tpm.read_signature(signature)
    wanted = tpm.ECDSA if isinstance(ak.key, ec.EllipticCurvePublicKey) else tpm.RSASSA
    if (read.scheme, read.hash_alg) != (wanted, tpm.SHA256):
        raise EvidenceError("the signature is not made with the AK's own scheme and SHA-256")
    try:
        _verify(ak.key, read.values, octets)
    except InvalidSignature:
        raise EvidenceError(
            "the signature of the quote is not by this AK: attest with the one that was enrolled"
        ) from None


def _check_attributes(attributes: int) -> None:
    for bit, text in _REQUIRED:
        if not attributes & bit:
            raise EvidenceError(f"the AK is not {text}; {_TEMPLATE}")
    for bit, text in _FORBIDDEN:
        if attributes & bit:
            raise EvidenceError(f"the AK has {text}; {_TEMPLATE}")


def _ecc(public: tpm.Public) -> ec.EllipticCurvePublicKey:
    if (public.size, public.scheme, public.hash_alg) != (tpm.NIST_P256, tpm.ECDSA, tpm.SHA256):
        raise EvidenceError(f"the AK is not for ECDSA on P-256 with SHA-256: {_TEMPLATE}")
    x, y = public.unique
    if max(len(x), len(y)) > _P256_OCTETS:
        raise EvidenceError("the AK's point has more octets than one on P-256")
    numbers = ec.EllipticCurvePublicNumbers(int.from_bytes(x), int.from_bytes(y), ec.SECP256R1())
    try:
        return numbers.public_key()
    except ValueError:
        raise EvidenceError("the AK's point is not on P-256") from None


def _rsa(public: tpm.Public) -> rsa.RSAPublicKey:
    if (public.size, public.scheme, public.hash_alg) != (_RSA_BITS, tpm.RSASSA, tpm.SHA256):
        raise EvidenceError(f"the AK is not for RSASSA with RSA-2048 and SHA-256: {_TEMPLATE}")
    modulus = int.from_bytes(public.unique[0])
    if modulus.bit_length() != _RSA_BITS or not modulus & 1:
        raise EvidenceError("the AK's modulus is none of RSA-2048")
    # Part 2, section 12.2.3.5: zero stands for the usual exponent
    if public.exponent not in {0, _RSA_EXPONENT}:
        raise EvidenceError(f"the AK's exponent is not {_RSA_EXPONENT}")
    return rsa.RSAPublicNumbers(_RSA_EXPONENT, modulus).public_key()


def _verify(
    key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey, values: tuple[bytes, ...], octets: bytes
) -> None:
    if isinstance(key, rsa.RSAPublicKey):
        key.verify(values[0], octets, padding.PKCS1v15(), hashes.SHA256())
        return
    if max(map(len, values)) > _P256_OCTETS:
        raise InvalidSignature
    r, s = map(int.from_bytes, values)
    key.verify(utils.encode_dss_signature(r, s), octets, ec.ECDSA(hashes.SHA256()))
