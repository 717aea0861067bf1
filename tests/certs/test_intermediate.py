"""Root and intermediate: what OpenSSL believes below them, and what it does not."""

import datetime as dt
import subprocess
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from certs.intermediate import make_intermediate, make_root
from certs.mint import Authority
from certs.profile import INTERMEDIATE, ROOT
from tests.certs.forgery import (
    BREACHES,
    FORGERIES,
    REFUSED_BY_OPENSSL,
    TRUST_DOMAIN,
    Forged,
    Forger,
    Wish,
    dns_besides,
)

NOW = dt.datetime(2026, 11, 22, 1, 2, 3, tzinfo=dt.UTC)


@pytest.fixture(scope="module")
def root() -> Authority:
    return make_root(TRUST_DOMAIN, NOW)


@pytest.fixture(scope="module")
def intermediate(root: Authority) -> Authority:
    return make_intermediate(root, TRUST_DOMAIN, NOW)


@pytest.fixture(scope="module")
def strict(root: Authority, intermediate: Authority) -> Forger:
    anchors = root.certificate.public_bytes(Encoding.PEM).decode()
    return Forger(TRUST_DOMAIN, NOW, intermediate.certificate, intermediate.key, anchors)


@pytest.fixture(scope="module")
def loose() -> Forger:
    return Forger.loose(TRUST_DOMAIN, NOW)


def openssl(folder: Path, forged: Forged, *more: str) -> str:
    """Return what `openssl verify` says of a client's chain: the words of a real peer."""
    chain, _, anchors = forged.write(folder)
    leaf = folder / "leaf.pem"
    leaf.write_bytes(forged.leaf.public_bytes(Encoding.PEM))
    trust = ("-no-CApath", "-no-CAstore", "-CAfile", str(anchors), "-untrusted", str(chain))
    at = ("-attime", str(int(NOW.timestamp())))
    purpose = () if "-purpose" in more else ("-purpose", "sslclient")
    done = subprocess.run(
        ["openssl", "verify", *purpose, *more, *trust, *at, str(leaf)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode == 0) is done.stdout.endswith("leaf.pem: OK\n")
    return done.stdout + done.stderr


@pytest.mark.parametrize("purpose", ["sslclient", "sslserver"])
def test_openssl_believes_an_svid_as_client_and_as_server(
    tmp_path: Path, strict: Forger, purpose: str
) -> None:
    said = openssl(tmp_path, strict.good(), "-x509_strict", "-purpose", purpose)
    assert said.endswith(": OK\n")


def test_both_are_named_as_the_trust_domain_and_held_to_it(
    root: Authority, intermediate: Authority
) -> None:
    """X509-SVID, sections 3.2 and 4.2."""
    for certificate in (root.certificate, intermediate.certificate):
        found = certificate.extensions
        names = found.get_extension_for_class(x509.SubjectAlternativeName).value
        assert [each.value for each in names] == [f"spiffe://{TRUST_DOMAIN}"]
        constraints = found.get_extension_for_class(x509.NameConstraints)
        assert constraints.critical
        assert [each.value for each in constraints.value.permitted_subtrees or []] == [TRUST_DOMAIN]
        assert [str(each.value) for each in constraints.value.excluded_subtrees or []] == [
            "",
            "0.0.0.0/0",
            "::/0",
        ]


def test_lives_are_those_of_the_profiles(root: Authority, intermediate: Authority) -> None:
    for profile, made in ((ROOT, root), (INTERMEDIATE, intermediate)):
        certificate = made.certificate
        assert certificate.not_valid_before_utc == NOW - dt.timedelta(seconds=profile.skew_s)
        assert certificate.not_valid_after_utc == NOW + dt.timedelta(seconds=profile.life_s)


def test_an_intermediate_never_outlives_its_root(root: Authority) -> None:
    later = root.certificate.not_valid_after_utc - dt.timedelta(days=10)
    made = make_intermediate(root, TRUST_DOMAIN, later)
    assert made.certificate.not_valid_after_utc == root.certificate.not_valid_after_utc


def test_two_generations_share_neither_name_nor_key(root: Authority) -> None:
    one, two = (make_intermediate(root, TRUST_DOMAIN, NOW) for _ in range(2))
    assert one.certificate.subject != two.certificate.subject
    assert one.certificate.public_key() != two.certificate.public_key()


@pytest.mark.parametrize("name", sorted(FORGERIES))
def test_openssl_refuses_what_breaches_a_constraint_and_what_x509_forbids(
    tmp_path: Path, strict: Forger, name: str
) -> None:
    """threats.md, "Identity": whoever steals our intermediate is nobody elsewhere."""
    said = openssl(tmp_path, FORGERIES[name](strict))
    assert (not said.endswith(": OK\n")) is (name in REFUSED_BY_OPENSSL | BREACHES)
    if name in BREACHES:
        assert "subtree violation" in said


@pytest.mark.parametrize("name", sorted(BREACHES | {"expired", "ca-as-leaf"}))
def test_without_constraints_only_the_rules_of_x509_are_left(
    tmp_path: Path, loose: Forger, name: str
) -> None:
    said = openssl(tmp_path, FORGERIES[name](loose))
    assert (not said.endswith(": OK\n")) is (name in REFUSED_BY_OPENSSL)


def test_a_stolen_intermediate_signs_no_web_site_address_or_authority(
    tmp_path: Path, strict: Forger
) -> None:
    others: tuple[x509.GeneralName, ...] = (
        x509.DNSName("www.example"),
        x509.IPAddress(ip_address("192.0.2.7")),
        x509.IPAddress(ip_address("2001:db8::1")),
    )
    for other in others:
        forged = strict.sign(Wish((), (other,)))
        assert "excluded subtree violation" in openssl(tmp_path, forged, "-purpose", "sslserver")
    assert "excluded subtree violation" in openssl(tmp_path, dns_besides(strict))
    authority = strict.sign(Wish((f"spiffe://{TRUST_DOMAIN}",), ca=True, signs=True))
    key = _key_of(authority)
    forged = Forger(TRUST_DOMAIN, NOW, authority.leaf, key, strict.anchors).good()
    whole = Forged(forged.chain + authority.chain, forged.key, forged.anchors)
    assert "path length constraint exceeded" in openssl(tmp_path, whole)


def _key_of(forged: Forged) -> ec.EllipticCurvePrivateKey:
    key = load_pem_private_key(forged.key.encode(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key
