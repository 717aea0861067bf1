"""A device's folder: its key stays, what it got is checked before it is kept."""

import datetime as dt
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from certs.csr import certs_only, read_request
from certs.device import (
    BUNDLE,
    CHAIN,
    KEY,
    AnswerError,
    make_request,
    read_enrolled,
    read_message,
    store,
)
from certs.domain import init_domain, load_domain
from certs.errors import KeystoreError
from certs.trust_domain import TrustDomain

NOW = dt.datetime.now(dt.UTC).replace(microsecond=0)
ID = "spiffe://desk.example/agent/coder"


@pytest.fixture
def domain(tmp_path: Path) -> TrustDomain:
    init_domain(tmp_path / "identity", "desk.example", NOW, None)
    return load_domain(tmp_path / "identity", None)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "device"


def answer(domain: TrustDomain, folder: Path) -> list[bytes]:
    csr = read_request(make_request(folder))
    issued = domain.issue(ID, NOW, 3600, spki=csr.spki)
    return [*domain.anchors, issued.chain[1], issued.chain[0]]


def test_the_key_is_made_once_and_is_ours_alone(folder: Path) -> None:
    first = read_request(make_request(folder, ID))
    assert first.uris == (ID,)
    assert first.spki == read_request(make_request(folder)).spki
    assert (folder / KEY).stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700


def test_an_answer_with_another_name_than_was_asked_for_is_not_kept(
    domain: TrustDomain, folder: Path
) -> None:
    got = answer(domain, folder)
    with pytest.raises(AnswerError, match="another name"):
        store(folder, got, "spiffe://desk.example/agent/other")
    assert read_enrolled(folder) is None
    assert store(folder, got, ID).spiffe_id == ID


def test_an_answer_of_very_many_certificates_is_refused(domain: TrustDomain) -> None:
    """Each would be tried as the issuer of each: a server could keep a device busy for hours."""
    with pytest.raises(AnswerError, match="more than 64"):
        read_message(certs_only(domain.anchors * 65))


def test_what_was_got_is_kept_as_files_that_clients_take(domain: TrustDomain, folder: Path) -> None:
    enrolled = store(folder, answer(domain, folder))
    assert enrolled == read_enrolled(folder)
    assert enrolled.spiffe_id == ID
    assert enrolled.not_before < enrolled.renew_at < enrolled.not_after
    chain = x509.load_pem_x509_certificates((folder / CHAIN).read_bytes())
    assert len(chain) == 2
    chain[0].verify_directly_issued_by(chain[1])
    assert (folder / BUNDLE).read_text() == domain.anchors_pem
    for name in (CHAIN, BUNDLE):
        assert (folder / name).stat().st_mode & 0o777 == 0o600


def test_an_answer_for_another_key_is_not_kept(
    tmp_path: Path, domain: TrustDomain, folder: Path
) -> None:
    make_request(folder)
    with pytest.raises(AnswerError, match="this device's key"):
        store(folder, answer(domain, tmp_path / "other"))
    assert read_enrolled(folder) is None


def test_an_answer_without_its_root_is_not_kept(
    tmp_path: Path, domain: TrustDomain, folder: Path
) -> None:
    got = answer(domain, folder)
    init_domain(tmp_path / "other", "desk.example", NOW, None)
    roots = load_domain(tmp_path / "other", None).anchors
    for above in ([], [got[1]], [*roots, got[1]]):
        with pytest.raises(AnswerError, match="no root"):
            store(folder, [*above, got[-1]])


def test_a_certificate_that_cannot_be_read_is_not_kept(folder: Path) -> None:
    with pytest.raises(AnswerError, match="cannot be read"):
        store(folder, [b"none"])


@pytest.mark.parametrize(
    "text", ["", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----"]
)
def test_a_key_that_is_none_is_never_replaced(folder: Path, text: str) -> None:
    make_request(folder)
    (folder / KEY).write_text(text)
    with pytest.raises(KeystoreError, match="no key of ours"):
        make_request(folder)
    assert (folder / KEY).read_text() == text


def test_a_key_that_others_may_read_is_not_used(folder: Path) -> None:
    make_request(folder)
    (folder / KEY).chmod(0o640)
    with pytest.raises(KeystoreError, match="open to other users"):
        make_request(folder)


def test_a_chain_that_is_none_is_told(folder: Path) -> None:
    assert read_enrolled(folder) is None
    make_request(folder)
    (folder / CHAIN).write_text("none")
    with pytest.raises(KeystoreError, match="enrol again"):
        read_enrolled(folder)


def test_a_message_is_its_certificates(domain: TrustDomain) -> None:
    assert read_message(certs_only(domain.anchors)) == domain.anchors


def test_an_answer_with_a_changed_octet_is_kept_whole_or_not_at_all(
    domain: TrustDomain, folder: Path
) -> None:
    got = answer(domain, folder)
    before = store(folder, got)
    for at in range(0, len(got[-1]), 7):
        changed = bytearray(got[-1])
        changed[at] ^= 5
        try:
            store(folder, [*got[:-1], bytes(changed)])
        except AnswerError:
            assert read_enrolled(folder) == before


@given(st.binary(max_size=300))
def test_any_octets_are_no_message(octets: bytes) -> None:
    with pytest.raises(AnswerError):
        read_message(octets)


def test_the_request_holds_no_private_key(folder: Path) -> None:
    request = make_request(folder)
    key = serialization.load_pem_private_key((folder / KEY).read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert key.private_numbers().private_value.to_bytes(32) not in request
