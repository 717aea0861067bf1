"""Basic and Bearer: what is read, and what is nobody's credential."""

import datetime as dt
from base64 import b64encode

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from certs.signed_claims import sign_claims
from certs.spiffe import MOST_ID_OCTETS, MOST_TRUST_DOMAIN_OCTETS
from proxy.attested.binding import NONCE_OCTETS, Binding, Kind
from proxy.attested.result import Result
from proxy.flow import new_id
from proxy.limits import Limits
from proxy.proven import is_result
from proxy.verifier.claims import claims_of
from proxy.wire.credential import CREDENTIAL_OCTETS, Credential, read_credential
from rules.facts import Level


def basic(text: str) -> bytes:
    return b"Basic " + b64encode(text.encode())


@pytest.mark.parametrize(
    ("value", "user", "secret"),
    [
        (basic("coder:spt_x"), "coder", "spt_x"),
        (basic(":spt_x"), "", "spt_x"),
        (basic("coder:a:b"), "coder", "a:b"),  # RFC 7617, section 2: the first colon
        (b"bAsIc   " + b64encode(b"u:p"), "u", "p"),
        (basic("käthe:größe"), "käthe", "größe"),
    ],
)
def test_reads_basic(value: bytes, user: str, secret: str) -> None:
    assert read_credential(value) == Credential("basic", user, secret)


@pytest.mark.parametrize("scheme", [b"Bearer", b"bearer", b"BEARER"])
def test_reads_bearer(scheme: bytes) -> None:
    assert read_credential(scheme + b" spt_a-b.c~d+e/f==") == Credential(
        "bearer", "", "spt_a-b.c~d+e/f=="
    )


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"Basic", id="no credential"),
        pytest.param(b"Basic ", id="empty credential"),
        pytest.param(b"Bearer ", id="empty token"),
        pytest.param(b"Bearer a b", id="two words"),
        pytest.param(b"Bearer =a", id="padding first"),
        pytest.param(b"Bearer a\xff", id="not ASCII"),
        pytest.param(b" Bearer a", id="leading space"),
        pytest.param(b"Bearer a ", id="trailing space"),
        pytest.param(b"Bearer\ta", id="a tab"),
        pytest.param(b"Bearer a, Basic dTpw", id="two credentials"),
        pytest.param(b"Digest username=u", id="another scheme"),
        pytest.param(b"Negotiate abcd", id="yet another"),
        pytest.param(b"Basic dTpw=", id="padding that is none"),
        pytest.param(b"Basic dTp", id="not a multiple of four"),
        pytest.param(b"Basic dT-w", id="base64url"),
        pytest.param(b"Basic dTo=", id="no secret"),
        pytest.param(b"Basic dXA=", id="no colon"),
        pytest.param(b"Basic dTpwPR==", id="bits after the end"),
        pytest.param(b"Basic " + b64encode(b"u:p\x00"), id="NUL"),
        pytest.param(b"Basic " + b64encode(b"u\n:p"), id="line feed"),
        pytest.param(b"Basic " + b64encode(b"u:\xff"), id="not UTF-8"),
        pytest.param(b"Bearer " + b"a" * CREDENTIAL_OCTETS, id="too long"),
    ],
)
def test_anything_else_is_nobodys_credential(value: bytes) -> None:
    assert read_credential(value) is None


def test_the_largest_result_that_we_issue_can_be_presented() -> None:
    """All PCRs, the longest SPIFFE ID and trust domain, and claims that JSON writes at length."""
    binding = Binding(Kind.KEY, "aa" * 32)
    domain = "x" * MOST_TRUST_DOMAIN_OCTETS
    spiffe_id = f"spiffe://{domain}/".ljust(MOST_ID_OCTETS, "y")
    now = dt.datetime(2026, 5, 6, tzinfo=dt.UTC)
    at = now.timestamp()
    made = Result(
        new_id(at, bytes(10)), "", binding, "coder", spiffe_id, Level.TPM, "000b" + "ab" * 32,
        at, at + 300, "dd" * 32, "ee" * 20,
    )  # fmt: skip
    pcrs = {"pcr": {str(index): "ab" * 32 for index in range(24)}}
    claimed = {"agent_hash": "\1" * 128, "version": "\1" * 64}
    claims = claims_of(made, domain, bytes(NONCE_OCTETS), pcrs, claimed)
    key = ec.generate_private_key(ec.SECP256R1())
    thumbprint = "k" * 43  # RFC 7638: base64url of SHA-256
    value = b"Bearer " + sign_claims(claims, "eat+jwt", now, thumbprint, key).encode()
    assert CREDENTIAL_OCTETS - 100 < len(value) <= CREDENTIAL_OCTETS
    found = read_credential(value)
    assert found is not None
    assert is_result(found)
    rest = b":method:path:scheme:authorityauthorizationcontent-typePOST/tokenhttpshost:8443text"
    assert len(value) + len(rest) < Limits().doh_head_octets < Limits().head_octets


def test_no_repr_shows_the_secret() -> None:
    """threats.md, "Identity": tokens leak through environ, .npmrc and logs."""
    credential = Credential("basic", "coder", "spt_secret")
    assert "secret" not in f"{credential} {credential!r} {[credential]} {credential!s}"
    assert "coder" in repr(credential)


@given(st.binary(max_size=200))
def test_never_raises_on_any_octets(value: bytes) -> None:
    for prefix in (b"", b"Basic ", b"Bearer "):
        found = read_credential(prefix + value)
        assert found is None or found.secret


@given(
    st.text(st.characters(exclude_categories=["Cc", "Cs"], exclude_characters=":"), max_size=30),
    st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=60),
)
def test_what_a_client_encodes_is_what_is_read(user: str, secret: str) -> None:
    assert read_credential(basic(f"{user}:{secret}")) == Credential("basic", user, secret)
