"""A registered secret is found in every form that names can carry, and nothing else is."""

import string
from base64 import b32encode, b32hexencode, b64encode, urlsafe_b64encode
from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rules.fingerprint import STRIDE, WINDOW, fingerprint, forms, own_part, squeezed
from rules.secret_scan import Hit, SecretTable

KEY = bytes(range(32))
LETTERS = string.ascii_letters + string.digits
ENCODINGS: dict[str, Callable[[bytes], bytes]] = {
    "hex": lambda octets: octets.hex().upper().encode(),
    "base32": b32encode,
    "base32hex": b32hexencode,
    "base64": b64encode,
    "base64url": urlsafe_b64encode,
}
BENIGN = (
    *("packages.vendor.example", "files.vendor.example", "oauth2.googleapis.com", "api.github.com"),
    *("d1a2b3c4d5e6f7.cloudfront.net", "my-bucket.s3.us-east-1.amazonaws.com"),
    *(
        "akia.example.com",
        "ghp.example.com",
        "sk-ant-api03.example.com",
        "000000000000.dkr.ecr.aws",
    ),
    *("2.0.0.127.zen.spamhaus.org", "_dmarc.example.org", "beginprivatekey.example.com"),
)


def key_of(seed: int, characters: int = 40) -> bytes:
    """Return what looks like an API key; the same for the same seed."""
    return "".join(Random(seed).choices(LETTERS, k=characters)).encode()  # noqa: S311 - a test's


def table_of(**secrets: bytes) -> SecretTable:
    return SecretTable(KEY, {name: fingerprint(each, KEY) for name, each in secrets.items()})


def found(table: SecretTable, text: bytes) -> str | None:
    hit = table.find(squeezed(text))
    return None if hit is None else hit.secret


def test_a_table_of_nothing_finds_nothing() -> None:
    table = SecretTable(b"", {})
    assert not table
    assert table.find(b"a" * 60) is None
    assert table.reach == 0


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 1 << 32),
    length=st.integers(16, 48),
    before=st.binary(max_size=9),
    after=st.binary(max_size=9),
    way=st.sampled_from(sorted(ENCODINGS)),
    is_reversed=st.booleans(),
)
def test_every_encoding_is_found_wherever_it_stands(
    seed: int, length: int, before: bytes, after: bytes, way: str, *, is_reversed: bool
) -> None:
    secret = key_of(seed, length)
    text = ENCODINGS[way](before + secret + after)
    text = text[::-1] if is_reversed else text
    hit = table_of(mine=secret, other=key_of(seed + 1)).find(squeezed(text))
    assert hit is not None
    assert hit.secret == "mine"  # noqa: S105 - its name
    assert hit.how.startswith(way[:6].removesuffix("h") if way != "hex" else "hex")
    assert hit.how.endswith("-reversed") == is_reversed


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1 << 32), data=st.data())
def test_every_run_of_the_promised_length_is_found(seed: int, data: st.DataObject) -> None:
    secret = key_of(seed)
    how, form = data.draw(st.sampled_from(list(forms(own_part(secret)))))
    length = WINDOW + STRIDE - 1
    begin = data.draw(st.integers(0, len(form) - length))
    context = data.draw(st.text("wxyz", max_size=20)).encode()
    hit = table_of(mine=secret).find(context + form[begin : begin + length] + context)
    assert hit == Hit("mine", how)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1 << 32), begin=st.integers(0, 29))
def test_fewer_characters_than_a_window_are_never_a_hit(seed: int, begin: int) -> None:
    secret = key_of(seed)
    piece = squeezed(secret)[begin : begin + WINDOW - 1]
    table = table_of(mine=secret)
    assert not any(table.find(b"%b%b.example" % (b"." * n, piece)) for n in range(STRIDE))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1 << 32), length=st.integers(8, 15))
def test_a_short_secret_is_found_as_a_whole_and_not_in_part(seed: int, length: int) -> None:
    secret = key_of(seed, length)
    if len({*secret}) < 6:
        return
    table = table_of(mine=secret)
    assert found(table, b"x" + secret + b".example.com") == "mine"
    assert found(table, b"xyz" + secret.hex().encode() + b".example.com") == "mine"
    piece = secret[: min(length, WINDOW) - 1]
    other = b"1" if secret[len(piece)] == ord("0") else b"0"
    assert found(table, b"x" + piece + other + b".example.com") is None


@settings(max_examples=150, deadline=None)
@given(name=st.text(string.ascii_lowercase + string.digits + "-.", min_size=4, max_size=120))
def test_names_of_chance_are_no_hit(name: str) -> None:
    assert TABLE.find(squeezed(name.encode())) is None


@pytest.mark.parametrize("name", BENIGN)
def test_names_of_everyday_are_no_hit(name: str) -> None:
    assert TABLE.find(squeezed(name.encode())) is None


@pytest.mark.parametrize(
    "prefix", ["sk-ant-api03-", "github_pat_", "AKIA", "eyJhbGciOiJIUzI1NiJ9."]
)
def test_another_key_with_the_same_prefix_is_no_hit(prefix: str) -> None:
    table = table_of(mine=prefix.encode() + b"eyJ" + key_of(1))
    other = prefix.encode() + key_of(2)
    for encode in ENCODINGS.values():
        assert found(table, encode(other)) is None
    assert found(table, other) is None
    assert found(table, prefix.encode() + b"eyJ" + key_of(1)) == "mine"


def test_a_secret_of_a_key_file_is_found_in_the_middle() -> None:
    random = Random(7)  # noqa: S311 - a test's
    lines = [b64encode(random.randbytes(48)) for _ in range(26)]
    pem = b"\n".join((b"-----BEGIN RSA PRIVATE KEY-----", *lines, b"-----END RSA PRIVATE KEY-----"))
    table = table_of(key=pem)
    assert found(table, b"".join(lines[10:15])) == "key"
    assert found(table, pem.hex().encode()[900:1300]) == "key"
    assert found(table, b"-----BEGIN RSA PRIVATE KEY-----MIIEpAIBAAKCAQEA") is None


def test_a_part_of_a_secret_is_held_wherever_its_window_begins() -> None:
    table, form = table_of(mine=key_of(1)), squeezed(key_of(1))
    assert all(table.holds(b"x" * n + form[5 : 5 + WINDOW]) for n in range(STRIDE))
    assert not table.holds(form[: WINDOW - 1] + b"xxx")


def test_each_secret_is_told_by_its_name() -> None:
    names = {f"s{each}": key_of(each) for each in range(40)}
    table = table_of(**names)
    assert all(found(table, secret) == name for name, secret in names.items())
    assert found(table, key_of(99)) is None


TABLE = table_of(**{f"s{each}": b"sk-ant-api03-" + key_of(each) for each in range(20)})
