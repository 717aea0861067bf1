"""Credentials, opened with a TPM's part of the standard that other code than ours computes."""

import hmac

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.decrepit.ciphers.modes import CFB
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.kdf.concatkdf import ConcatKDFHash
from cryptography.hazmat.primitives.kdf.kbkdf import KBKDFHMAC, CounterLocation, Mode

from certs.attestation_key import read_ak
from certs.credential import Credential, make_credential
from certs.endorsement import Endorsement
from certs.errors import EvidenceError
from tests.certs import paper_tpm as paper

type Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
AK = paper.ecc_public(paper.ecc_key())
SECRET = bytes(range(32))
KEYS: dict[str, Key] = {
    "RSA-2048": rsa.generate_private_key(65537, 2048),
    "P-256": ec.generate_private_key(ec.SECP256R1()),
    "P-384": ec.generate_private_key(ec.SECP384R1()),
}


def endorsement(key: Key) -> Endorsement:
    return Endorsement(key.public_key(), "aa" * 32, "a TPM on paper")


def unsized(octets: bytes) -> tuple[bytes, bytes]:
    """Return the first TPM2B, and what comes after it."""
    size = int.from_bytes(octets[:2])
    return octets[2 : 2 + size], octets[2 + size :]


def derived(
    hashed: hashes.HashAlgorithm, seed: bytes, label: bytes, context: bytes, octets: int
) -> bytes:
    """KDFa is SP 800-108 in counter mode."""
    kdf = KBKDFHMAC(
        *(hashed, Mode.CounterMode, octets, 4, 4, CounterLocation.BeforeFixed, label, context, None)
    )
    return kdf.derive(seed)


def seed_of(key: Key, encrypted: bytes) -> bytes:
    hashed = hashes.SHA384() if key.key_size == 384 else hashes.SHA256()
    if isinstance(key, rsa.RSAPrivateKey):
        label = b"IDENTITY\0"
        return key.decrypt(
            encrypted, padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), label)
        )
    x, rest = unsized(encrypted)
    y, rest = unsized(rest)
    assert not rest
    octets = key.key_size // 8
    assert len(x) == len(y) == octets
    theirs = ec.EllipticCurvePublicNumbers(int.from_bytes(x), int.from_bytes(y), key.curve)
    ours = key.public_key().public_numbers().x.to_bytes(octets)
    # KDFe is the one-step KDF of SP 800-56A
    kdf = ConcatKDFHash(hashed, hashed.digest_size, b"IDENTITY\0" + x + ours)
    return kdf.derive(key.exchange(ec.ECDH(), theirs.public_key()))


def activate(key: Key, name: bytes, made: Credential) -> bytes:
    """Do as TPM2_ActivateCredential (part 1, section 24.6)."""
    encrypted, rest = unsized(made.seed)
    assert not rest
    seed = seed_of(key, encrypted)
    is_large = key.key_size == 384
    hashed = hashes.SHA384() if is_large else hashes.SHA256()
    blob, rest = unsized(made.credential)
    assert not rest
    integrity, identity = unsized(blob)
    mac = derived(hashed, seed, b"INTEGRITY", b"", hashed.digest_size)
    if integrity != hmac.digest(mac, identity + name, hashed.name):
        raise InvalidTag
    cipher = derived(hashed, seed, b"STORAGE", name, 32 if is_large else 16)
    decryptor = Cipher(algorithms.AES(cipher), CFB(bytes(16))).decryptor()
    secret, rest = unsized(decryptor.update(identity) + decryptor.finalize())
    assert not rest
    return secret


@pytest.mark.parametrize("kind", KEYS)
def test_lets_the_tpm_of_both_keys_tell_the_secret(kind: str) -> None:
    made = make_credential(endorsement(KEYS[kind]), AK, SECRET)
    name = read_ak(AK).name
    assert made.name == name.hex()
    assert activate(KEYS[kind], name, made) == SECRET
    assert SECRET not in made.credential


@pytest.mark.parametrize("kind", KEYS)
def test_lets_no_other_ak_of_that_tpm_tell_it(kind: str) -> None:
    made = make_credential(endorsement(KEYS[kind]), AK, SECRET)
    other = read_ak(paper.ecc_public(paper.ecc_key())).name
    with pytest.raises(InvalidTag):
        activate(KEYS[kind], other, made)


def test_lets_no_other_ek_tell_it() -> None:
    name = read_ak(AK).name
    made = make_credential(endorsement(KEYS["P-256"]), AK, SECRET)
    with pytest.raises(InvalidTag):
        activate(ec.generate_private_key(ec.SECP256R1()), name, made)
    made = make_credential(endorsement(KEYS["RSA-2048"]), AK, SECRET)
    with pytest.raises(ValueError, match="ecryption failed"):
        activate(rsa.generate_private_key(65537, 2048), name, made)


@pytest.mark.parametrize("kind", KEYS)
def test_makes_another_one_each_time(kind: str) -> None:
    first, second = (make_credential(endorsement(KEYS[kind]), AK, SECRET) for _ in range(2))
    assert first.seed != second.seed
    assert first.credential != second.credential


@pytest.mark.parametrize("octets", [1, 16, 32])
def test_takes_secrets_as_long_as_a_digest(octets: int) -> None:
    key = KEYS["P-256"]
    made = make_credential(endorsement(key), AK, SECRET[:octets])
    assert activate(key, read_ak(AK).name, made) == SECRET[:octets]


@pytest.mark.parametrize("octets", [0, 33])
def test_refuses_secrets_that_no_tpm_takes(octets: int) -> None:
    with pytest.raises(ValueError, match="1 to 32 octets"):
        make_credential(endorsement(KEYS["P-256"]), AK, bytes(octets))


def test_refuses_an_ak_that_signs_whatever_it_is_given() -> None:
    unrestricted = paper.ecc_public(paper.ecc_key(), attributes=paper.ATTESTS & ~(1 << 16))
    with pytest.raises(EvidenceError, match="not restricted"):
        make_credential(endorsement(KEYS["P-256"]), unrestricted, SECRET)
