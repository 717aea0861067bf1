"""TPM structures written by hand, with keys that are in no TPM: what a TPM, or an attacker, sends.

    key = ecc_key(); public = ecc_public(key)
    quote = attest(b"message", PCRS); signature = ecc_signed(key, quote)

`vector` reads tests/vectors/tpm, which real TPMs made.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils
from msgspec import Struct

VECTORS = Path(__file__).parents[1] / "vectors" / "tpm"
MESSAGE = b"what is to be signed"
PCRS = {"0": "aa" * 32, "7": "bb" * 32}
ATTESTS = 0x00050072  # restricted, sign, userWithAuth, sensitiveDataOrigin, fixedParent, fixedTPM
NULL = b"\x00\x10"
ECDSA, RSASSA, SHA256, SHA384 = 0x0018, 0x0014, 0x000B, 0x000C
P256, P384 = 3, 4


def sized(octets: bytes) -> bytes:
    return len(octets).to_bytes(2) + octets


def ecc_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def ecc_public(
    key: ec.EllipticCurvePrivateKey,
    *,
    attributes: int = ATTESTS,
    name_alg: int = SHA256,
    symmetric: bytes = NULL,
    scheme: bytes = ECDSA.to_bytes(2) + SHA256.to_bytes(2),
    curve: int = P256,
    point: tuple[bytes, bytes] | None = None,
) -> bytes:
    numbers = key.public_key().public_numbers()
    octets = (key.key_size + 7) // 8
    x, y = point or (numbers.x.to_bytes(octets), numbers.y.to_bytes(octets))
    head = b"\x00\x23" + name_alg.to_bytes(2) + attributes.to_bytes(4) + sized(b"")
    return head + symmetric + scheme + curve.to_bytes(2) + NULL + sized(x) + sized(y)


def rsa_public(
    key: rsa.RSAPrivateKey,
    *,
    scheme: bytes = RSASSA.to_bytes(2) + SHA256.to_bytes(2),
    bits: int = 2048,
    exponent: int = 0,
    modulus: bytes = b"",
) -> bytes:
    modulus = modulus or key.public_key().public_numbers().n.to_bytes(key.key_size // 8)
    head = b"\x00\x01" + SHA256.to_bytes(2) + ATTESTS.to_bytes(4) + sized(b"")
    return head + NULL + scheme + bits.to_bytes(2) + exponent.to_bytes(4) + sized(modulus)


def selection(
    indices: tuple[int, ...], *, bank: int = SHA256, octets: int = 3, count: int = 1
) -> bytes:
    bits = sum(1 << index for index in indices)
    one = bank.to_bytes(2) + octets.to_bytes() + bits.to_bytes(octets, "little")
    return count.to_bytes(4) + one * count


def attest(
    message: bytes = MESSAGE,
    pcrs: Mapping[str, str] = PCRS,
    *,
    magic: int = 0xFF544347,
    statement: int = 0x8018,
    safe: int = 1,
    selected: bytes | None = None,
    digest: bytes | None = None,
) -> bytes:
    values = bytes.fromhex("".join(pcrs.values()))
    clock = (4711).to_bytes(8) + (5).to_bytes(4) + (6).to_bytes(4) + safe.to_bytes()
    chosen = selection(tuple(map(int, pcrs))) if selected is None else selected
    return (
        magic.to_bytes(4)
        + statement.to_bytes(2)
        + sized(b"\x00\x0b" + bytes(32))
        + sized(hashlib.sha256(message).digest())
        + clock
        + (0x1122).to_bytes(8)
        + chosen
        + sized(hashlib.sha256(values).digest() if digest is None else digest)
    )


def ecc_signature(r: bytes, s: bytes, *, hash_alg: int = SHA256) -> bytes:
    return ECDSA.to_bytes(2) + hash_alg.to_bytes(2) + sized(r) + sized(s)


def ecc_signed(
    key: ec.EllipticCurvePrivateKey,
    octets: bytes,
    *,
    hashed: hashes.HashAlgorithm | None = None,
    hash_alg: int = SHA256,
) -> bytes:
    der = key.sign(octets, ec.ECDSA(hashed or hashes.SHA256()))
    r, s = (each.to_bytes(32) for each in utils.decode_dss_signature(der))
    return ecc_signature(r, s, hash_alg=hash_alg)


def rsa_signed(key: rsa.RSAPrivateKey, octets: bytes) -> bytes:
    signed = key.sign(octets, padding.PKCS1v15(), hashes.SHA256())
    return RSASSA.to_bytes(2) + SHA256.to_bytes(2) + sized(signed)


class Vector(Struct, frozen=True):
    """What a real TPM made, and what is expected of it: "refused TEXT", or words `what=value`."""

    name: str
    expect: str
    key: bytes
    quote: bytes
    signature: bytes
    message: bytes
    pcrs: dict[str, str]

    @property
    def facts(self) -> dict[str, str]:
        return dict(word.split("=") for word in self.expect.split())


def vector(name: str) -> Vector:
    head, _, body = (VECTORS / f"{name}.hex").read_text().partition("\n\n")
    expect = head.partition("expect: ")[2].strip()
    fields = dict(line.split(": ") for line in body.splitlines())
    pcrs = {key[4:]: fields.pop(key) for key in tuple(fields) if key.startswith("pcr ")}
    octets = {key: bytes.fromhex(value) for key, value in fields.items()}
    return Vector(
        *(name, expect, octets["key"], octets["quote"]),
        *(octets["signature"], octets["message"], pcrs),
    )


def vectors(start: str) -> list[Vector]:
    return [vector(path.stem) for path in sorted(VECTORS.glob(f"{start}*.hex"))]
