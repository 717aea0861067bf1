"""Evidence: what stands in the request, and what signs it."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, override

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from certs.attester_key import ensure_attester_key
from proxy.attester.api import Api
from proxy.attester.errors import RefusedError, UnreachableError, UnusableError
from proxy.attester.evidence import Launched, Software, TpmQuote, b64url, unb64url
from proxy.attester.tpm_errors import TpmError
from tests.proxy.attester.verifier import Verifier

PUBLIC = b"TPMT_PUBLIC"
NAME = f"000b{hashlib.sha256(PUBLIC).hexdigest()}"


class PaperTpm:
    """What a TPM says, written down: the quote is the message itself."""

    def __init__(self, broken: str = "") -> None:
        self.broken = broken
        self.opened = self.closed = 0

    def __enter__(self) -> Self:
        """Count it."""
        self.opened += 1
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Count it."""
        self.closed += 1

    def ek_certificates(self) -> tuple[bytes, ...]:
        return (b"ek", b"vendor")

    def ak(self) -> tuple[str, bytes]:
        return NAME, PUBLIC

    def quote(self, message: bytes, pcrs: Sequence[int]) -> tuple[bytes, bytes, dict[str, str]]:
        if self.broken:
            raise TpmError(self.broken)
        return message, b"signed", {str(each): "00" * 32 for each in pcrs}

    def activate(self, credential: bytes, seed: bytes) -> bytes:
        return credential + b"+" + seed


class ForeignTpm(PaperTpm):
    @override
    def activate(self, credential: bytes, seed: bytes) -> bytes:
        return b"a guess"


def api_of(verifier: Verifier) -> Api:
    return Api(verifier.place, verifier.own.load().context)


def test_a_software_key_signs_the_message(tmp_path: Path) -> None:
    key = ensure_attester_key(tmp_path / "agent" / "attester.key")
    claims = Software(key).of(b"message")
    assert claims.keys() == {"key", "signature"}
    public = serialization.load_der_public_key(unb64url(str(claims["key"])))
    assert isinstance(public, ec.EllipticCurvePublicKey)
    public.verify(unb64url(str(claims["signature"])), b"message", ec.ECDSA(hashes.SHA256()))


def test_what_was_launched_signs_nothing() -> None:
    assert Launched().of(b"") == {}


def test_what_has_nothing_to_enrol_asks_for_nothing(verifier: Verifier, tmp_path: Path) -> None:
    software = Software(ensure_attester_key(tmp_path / "agent" / "attester.key"))
    with api_of(verifier) as api:
        for each in (software, Launched()):
            assert not each.enrols
            each.enrol(api)
    assert not verifier.calls


def test_a_tpm_is_closed_after_each_quote() -> None:
    tpm = PaperTpm()
    claims = TpmQuote(lambda: tpm, (7, 0)).of(b"message")
    assert claims == {
        "attester": NAME,
        "quote": b64url(b"message"),
        "signature": b64url(b"signed"),
        "pcr": {"7": "00" * 32, "0": "00" * 32},
    }
    assert (tpm.opened, tpm.closed) == (1, 1)


def test_a_tpm_that_fails_is_an_error_with_its_text() -> None:
    with pytest.raises(UnusableError, match="is locked"):
        TpmQuote(lambda: PaperTpm("the TPM is locked"), (0,)).of(b"message")


def test_enrolment_proves_that_the_key_is_in_that_tpm(verifier: Verifier) -> None:
    with api_of(verifier) as api:
        TpmQuote(PaperTpm, (0,)).enrol(api)
    assert verifier.attesters == {NAME}
    assert verifier.contents[0]["certificates"] == [b64url(b"ek"), b64url(b"vendor")]


def test_a_tpm_that_does_not_tell_the_secret_is_not_enrolled(verifier: Verifier) -> None:
    with api_of(verifier) as api, pytest.raises(RefusedError, match="not the secret"):
        TpmQuote(ForeignTpm, (0,)).enrol(api)
    assert not verifier.attesters


@given(st.binary(max_size=100))
def test_base64url_comes_back(octets: bytes) -> None:
    text = b64url(octets)
    assert "=" not in text
    assert unb64url(text) == octets


@pytest.mark.parametrize("text", ["AA==", "A", "AB", "A+/A", "AA A", "ä", "AAAA\n"])
def test_another_spelling_of_base64url_is_refused(text: str) -> None:
    with pytest.raises(UnreachableError, match="no base64url"):
        unb64url(text)
