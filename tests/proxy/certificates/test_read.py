"""Which verified chains are X.509-SVIDs, and what is said of those that are none."""

import datetime as dt
import hashlib
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from proxy.certificates.read import CHAIN, end_of, read_svid, trust_domain
from proxy.certificates.svid import Svid, Unfit
from proxy.errors import PeerError
from tests.certs.forgery import (
    FORGERIES,
    REFUSED_BY_OPENSSL,
    TRUST_DOMAIN,
    WHO,
    Forged,
    Forger,
    Wish,
    dns_besides,
)

NOW = dt.datetime(2026, 5, 6, 7, 8, 9, tzinfo=dt.UTC)
OUTSIDE = (
    "other-trust-domain",
    "below-trust-domain",
    "trailing-dot",
)  # seen to by `proxy.certificates.known`


@pytest.fixture(scope="module")
def forger() -> Forger:
    return Forger.loose(TRUST_DOMAIN, NOW)


def test_a_good_chain_is_the_svid_of_its_leaf(forger: Forger) -> None:
    forged = forger.good()
    found = read_svid(forged.ders)
    assert isinstance(found, Svid)
    assert found.spiffe_id == WHO
    assert found.serial == f"{forged.leaf.serial_number:x}"
    assert found.not_after == int((NOW + dt.timedelta(hours=1)).timestamp())
    assert found.not_before == int((NOW - dt.timedelta(hours=1)).timestamp())
    assert trust_domain(found) == TRUST_DOMAIN
    assert found.spki_sha256 == hashlib.sha256(_spki(forged)).hexdigest()


def _spki(forged: Forged) -> bytes:
    return forged.leaf.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def test_our_own_issuer_makes_such_chains(tmp_path: Path) -> None:
    found = read_svid(Forger.strict(tmp_path, NOW).good().ders)
    assert isinstance(found, Svid)


def test_a_name_of_a_host_besides_does_no_harm(forger: Forger) -> None:
    """X509-SVID, section 2: other names may stand beside the one URI."""
    assert isinstance(read_svid(dns_besides(forger).ders), Svid)


@pytest.mark.parametrize("name", sorted({*FORGERIES} - REFUSED_BY_OPENSSL - {*OUTSIDE}))
def test_what_openssl_lets_pass_and_spiffe_does_not_names_nobody(forger: Forger, name: str) -> None:
    """threats.md, "Identity": two names in a certificate, an authority as leaf, odd spellings."""
    found = read_svid(FORGERIES[name](forger).ders)
    assert isinstance(found, Unfit)
    assert found.text.isprintable()


def test_a_leaf_without_a_key_usage_is_none(forger: Forger) -> None:
    found = read_svid(forger.sign(Wish((WHO,), digital_signature=False, signs=True)).ders)
    assert isinstance(found, Unfit)
    assert "digitalSignature" in found.text


def test_a_chain_has_a_leaf_and_an_anchor_and_is_not_long(forger: Forger) -> None:
    leaf, *others = forger.good().ders
    for chain in ((), (leaf,), (leaf, *(others * CHAIN))):
        found = read_svid(chain)
        assert isinstance(found, Unfit)
        assert "2 to 8 certificates" in found.text


def test_what_cannot_be_read_is_said_so(forger: Forger) -> None:
    leaf, *others = forger.good().ders
    found = read_svid((leaf[:-1], *others))
    assert isinstance(found, Unfit)
    assert found.text.startswith("no certificate: ")
    with pytest.raises(PeerError):
        end_of((leaf, others[0][:-1]))


def test_a_chain_ends_with_the_first_of_its_certificates(forger: Forger) -> None:
    late = forger.sign(Wish((WHO,), ends=dt.timedelta(days=200))).ders
    assert end_of(late) == int((NOW + dt.timedelta(days=90)).timestamp())
    assert end_of(forger.good().ders) == int((NOW + dt.timedelta(hours=1)).timestamp())
