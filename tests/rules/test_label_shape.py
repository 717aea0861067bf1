"""Numbers that describe labels; none of them decides anything."""

import base64
import random

from rules.label_shape import entropy, looks_base32, looks_base64, looks_hex, shape

OCTETS = random.Random(5).randbytes(24)  # noqa: S311 - a fixed example, no secret


def lowered(encoded: bytes) -> str:
    """Return what a name would carry."""
    return encoded.decode().lower().rstrip("=")


def test_encodings_are_told_apart() -> None:
    hexed, base32 = OCTETS.hex(), lowered(base64.b32encode(OCTETS))
    base32_hex, base64_ = (
        lowered(base64.b32hexencode(OCTETS)),
        lowered(base64.urlsafe_b64encode(OCTETS)),
    )
    assert [looks_hex(label) for label in (hexed, base32, base64_)] == [True, False, False]
    assert [looks_base32(label) for label in (hexed, base32, base32_hex)] == [False, True, True]
    assert [looks_base64(label) for label in (hexed, base32, base64_)] == [False, False, True]


def test_words_are_no_encodings() -> None:
    for word in ("www", "accounts", "us-east-1", "deadbeef", "20240131", "internationalization"):
        assert not looks_hex(word)
        assert not looks_base32(word)
        assert not looks_base64(word)


def test_hex_stays_under_four_bits_a_character() -> None:
    assert entropy("aaaa") == 0
    assert entropy("ab") == 1
    assert 3 < entropy(OCTETS.hex()) <= 4


def test_a_shape_is_means_and_shares() -> None:
    assert shape(["www", OCTETS.hex()]) == {
        "label_octets_mean": 25.5,
        "label_bits_per_octet": round(entropy(OCTETS.hex()) / 2, 2),
        "hex_share": 0.5,
        "base32_share": 0.0,
        "base64_share": 0.0,
    }
    assert set(shape([]).values()) == {0.0}
