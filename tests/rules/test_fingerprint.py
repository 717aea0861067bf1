"""What is kept of a secret: digests of windows of its forms, and nothing that it can be read of."""

from base64 import b32encode, b64encode
from random import Random

import pytest

from rules.fingerprint import (
    DIGEST_OCTETS,
    HOWS,
    STRIDE,
    WINDOW,
    WeakSecretError,
    digest,
    fingerprint,
    forms,
    own_part,
    squeezed,
)

KEY = bytes(range(32))
BODY = b"T3BlbkFJq7Zx0aVbR9LmWc"


def octets(seed: int, count: int) -> bytes:
    """Return random octets, the same for the same seed."""
    return Random(seed).randbytes(count)  # noqa: S311 - a test's


def count(secret: bytes) -> int:
    return sum(len(each.digests) // DIGEST_OCTETS for each in fingerprint(secret, KEY))


def test_every_form_is_kept_and_named() -> None:
    found = fingerprint(BODY, KEY)
    assert {each.how for each in found} == {*HOWS}
    assert {each.characters for each in found} == {WINDOW}
    plain = next(each for each in found if each.how == "plain")
    first = digest(KEY, squeezed(BODY)[:WINDOW])
    assert first in [plain.digests[at : at + 8] for at in range(0, len(plain.digests), 8)]
    assert plain.shortest == len(BODY)


def test_nothing_of_the_secret_stands_in_what_is_kept() -> None:
    """threats.md, "The resolver as a channel": what finds a secret must not give it away."""
    kept = repr(fingerprint(BODY, KEY)).encode()
    for _, form in forms(BODY):
        assert form[:6] not in kept


def test_another_key_makes_other_digests() -> None:
    one, other = fingerprint(BODY, KEY), fingerprint(BODY, KEY[::-1])
    assert {each.digests for each in one}.isdisjoint({each.digests for each in other})


def test_a_form_holds_only_what_the_secret_decides() -> None:
    texts = {form for _, form in forms(BODY)}
    for before in (b"", b"x", b"ab", b"zzz", b"1234"):
        whole = squeezed(b32encode(before + BODY + b"tail"))
        assert any(form in whole for form in texts if len(form) > 30)


@pytest.mark.parametrize(
    "prefix",
    [
        *(b"sk-", b"sk-ant-api03-", b"sk-proj-", b"sk-or-v1-", b"rk_live_", b"ghp_", b"glpat-"),
        *(b"github_pat_", b"AKIA", b"AIza", b"xoxb-", b"hf_", b"npm_", b"SG.", b"Bearer "),
        *(b"pypi-AgEIcHlwaS5vcmc", b"Bearer sk-", b"\n", b"eyJhbGciOiJIUzI1NiJ9."),
    ],
)
def test_a_prefix_that_others_share_is_no_part_of_the_secret(prefix: bytes) -> None:
    body = b"eyJ" + BODY
    assert own_part(prefix + body) == body
    with pytest.raises(WeakSecretError):
        own_part(prefix + b"eyJabc")


def test_what_all_keys_of_a_kind_begin_and_end_with_is_no_part_of_the_secret() -> None:
    lines = [b64encode(octets(each, 48)) for each in range(3)]
    pem = b"\n".join((b"-----BEGIN PRIVATE KEY-----", *lines, b"-----END PRIVATE KEY-----", b""))
    own = own_part(pem)
    assert own == b"\n".join(lines)[48:]
    assert b"PRIVATE" not in own


@pytest.mark.parametrize(
    ("secret", "text"),
    [
        (b"", "8 octets at least"),
        (b"1234567", "8 octets at least"),
        (b"sk-1234567", "8 octets at least"),
        (b"aaaaaaaaaaaaaaaaaaaaaaa", "same few characters"),
        (b"https://hooks.example.com/services/T0/B0/abcdefgh", "a URL"),
    ],
)
def test_what_names_hold_by_chance_is_refused_without_being_repeated(
    secret: bytes, text: str
) -> None:
    with pytest.raises(WeakSecretError) as caught:
        fingerprint(secret, KEY)
    assert text in str(caught.value)
    assert not secret or secret.decode() not in str(caught.value)


def test_a_short_secret_is_looked_for_as_a_whole() -> None:
    found = {(each.how, each.characters): each for each in fingerprint(b"x7Q2m9Kz", KEY)}
    assert found["plain", 8].digests == digest(KEY, b"x7q2m9kz")
    assert found["hex", 12].shortest == 16


def test_a_form_of_few_characters_is_not_looked_for() -> None:
    hows = {each.how for each in fingerprint(b"a-!$%&/(b", KEY)}
    assert hows == {*HOWS} - {"plain", "plain-reversed"}


def test_windows_of_zeros_are_not_kept() -> None:
    windows = fingerprint(b"00000000000000000000000000000000abcd", KEY)
    plain = next(each for each in windows if each.how == "plain")
    kept = {plain.digests[at : at + DIGEST_OCTETS] for at in range(0, len(plain.digests), 8)}
    assert digest(KEY, b"0" * WINDOW) not in kept
    assert digest(KEY, b"00000000abcd") in kept


def test_of_a_long_secret_no_more_is_kept_than_of_a_shorter_one() -> None:
    assert count(octets(1, 4096)) < 1.2 * count(octets(2, 128))


def test_of_a_long_secret_every_stride_meets_a_window() -> None:
    secret = octets(3, 1024)
    kept = next(each for each in fingerprint(secret, KEY) if each.how == "hex").digests
    known = {kept[at : at + DIGEST_OCTETS] for at in range(0, len(kept), DIGEST_OCTETS)}
    text, period = secret.hex().encode(), STRIDE * 8
    for begin in (0, 1, 77, 1000, len(text) - period - WINDOW - STRIDE):
        run = text[begin : begin + period + WINDOW + STRIDE]
        starts = range(STRIDE - 1, len(run) - WINDOW + 1, STRIDE)
        assert any(digest(KEY, run[at : at + WINDOW]) in known for at in starts)
