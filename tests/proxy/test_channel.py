"""Messages between the appliance and its issuer: each reads back as what it was."""

import msgspec
import pytest

from proxy.channel import (
    Adopt,
    Challenge,
    Challenged,
    Entitle,
    Event,
    Gone,
    Judge,
    Judged,
    Look,
    Named,
    Ready,
    Serve,
    Sign,
    SignClaims,
    Signed,
    SignedClaims,
    ToAppliance,
    ToIssuer,
    Trust,
    Verified,
    Verify,
    Whose,
)

TO_ISSUER = (
    Serve("enroll", "127.0.0.1:8444"),
    Adopt(1, "workload", "coder", ("spiffe://a.example/coder",), 1000, 7),
    Entitle(1, "", ()),
    Named(2, "coder", ("spiffe://a.example/coder",)),
    Judged(3, allowed=False, app="coder", reason="rule", id="0", status=403, how="ask"),
    Sign(4, "spiffe://a.example/coder"),
    Look(),
    Verify(5, "tpm", b"message", b"key", b"\0signature", b"quote", {"7": "00"}),
    Challenge(6, (b"EK", b"CA"), b"AK", b"secret"),
    SignClaims(7, b'{"exp": 1}', "eat+jwt"),
)
TO_APPLIANCE = (
    Ready(),
    Gone(1),
    Whose(2, "coder"),
    Judge(3, "spiffe://a.example/coder", "GET", "https", "example.com", "/"),
    Signed(4, "chain", "key", "0a", 1),
    Trust({"a.example": "PEM"}, "stale"),
    Event("issued", "coder", "spiffe://a.example/coder", detail={"serial": "0a"}),
    Verified(5, "", "0b", "000b", {"7": "00"}, 1, 2, 3, is_safe=True, firmware=4),
    Challenged(6, "", b"credential", b"\xffseed", "000b", "0c"),
    SignedClaims(7, "a.b.c"),
)


@pytest.mark.parametrize("message", TO_ISSUER)
def test_what_the_issuer_is_told_reads_back(message: ToIssuer) -> None:
    octets = msgspec.json.encode(message)
    decoded = msgspec.json.decode(octets, type=ToIssuer)
    assert decoded == message


@pytest.mark.parametrize("message", TO_APPLIANCE)
def test_what_the_appliance_is_told_reads_back(message: ToAppliance) -> None:
    octets = msgspec.json.encode(message)
    decoded = msgspec.json.decode(octets, type=ToAppliance)
    assert decoded == message


def test_a_key_that_was_signed_for_stands_in_no_text() -> None:
    signed = Signed(4, "chain", "a private key", "0a", 1)
    assert "private" not in f"{signed!r} {signed}"


@pytest.mark.parametrize(
    "message", [Challenge(6, (b"EK",), b"AK", b"a secret"), SignedClaims(7, "a secret")]
)
def test_neither_does_what_proves_something(message: Challenge | SignedClaims) -> None:
    assert "a secret" not in f"{message!r} {message}"
