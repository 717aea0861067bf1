"""The agent's certificate: what TLS shows and what is signed are of the same key."""

import shutil
import ssl
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from proxy.attester.certificate import OwnCertificate, trusting
from proxy.attester.errors import UnusableError
from tests.proxy.attester.verifier import Verifier


@pytest.fixture
def home(tmp_path: Path) -> Verifier:
    return Verifier(tmp_path)


def test_the_binding_is_of_the_key_in_the_file(home: Verifier) -> None:
    presented = home.own.load()
    assert presented.binding == home.binding()
    assert presented.context.verify_mode is ssl.CERT_REQUIRED
    assert presented.context.check_hostname


def test_a_replaced_certificate_has_another_stamp_and_another_key(home: Verifier) -> None:
    before, stamp = home.own.load(), home.own.stamp()
    home.issue()
    assert home.own.stamp() != stamp
    assert home.own.load().binding != before.binding


def test_a_missing_file_has_no_stamp(home: Verifier) -> None:
    home.own.key.unlink()
    assert home.own.stamp() == ()


def test_files_that_change_while_they_are_read_are_read_again(
    home: Verifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    real: Callable[[OwnCertificate], bytes] = OwnCertificate._spki
    changes = iter([True, False])

    def changing(own: OwnCertificate) -> bytes:
        found = real(own)
        if next(changes):
            home.issue()
        return found

    monkeypatch.setattr(OwnCertificate, "_spki", changing)
    assert home.own.load().binding == home.binding()


def test_files_that_never_come_to_rest_are_refused(
    home: Verifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    real: Callable[[OwnCertificate], bytes] = OwnCertificate._spki

    def changing(own: OwnCertificate) -> bytes:
        found = real(own)
        home.issue()
        return found

    monkeypatch.setattr(OwnCertificate, "_spki", changing)
    with pytest.raises(UnusableError, match="replaced all the time"):
        home.own.load()


def test_the_key_of_another_certificate_is_refused(home: Verifier, tmp_path: Path) -> None:
    shutil.copy(home.own.key, tmp_path / "old.key")
    home.issue()
    own = msgspec.structs.replace(home.own, key=tmp_path / "old.key")
    with pytest.raises(UnusableError, match="MISMATCH"):
        own.load()


def test_a_key_with_a_passphrase_asks_nobody(home: Verifier) -> None:
    text = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIGjMF8G\n-----END ENCRYPTED PRIVATE KEY-----\n"
    home.own.key.write_text(text)
    with pytest.raises(UnusableError, match="cannot be used"):
        home.own.load()


def test_a_missing_certificate_says_what_to_do(home: Verifier) -> None:
    home.own.chain.unlink()
    with pytest.raises(UnusableError, match=r"svid\.pem .* enrol first"):
        home.own.load()


def test_a_file_that_is_no_certificate_is_refused(home: Verifier) -> None:
    home.own.chain.write_text("no")
    with pytest.raises(UnusableError, match="no PEM file of certificates"):
        home.own.load()


def test_a_file_that_verifies_nobody_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnusableError, match="no file of PEM certificates"):
        trusting(tmp_path / "none")
