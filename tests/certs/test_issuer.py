"""Root and leaf: what OpenSSL says of them, and what neither may be used for."""

import datetime as dt
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from certs.errors import IssueError
from certs.issuer import (
    LEAF_LIFE,
    LEAF_SKEW,
    ROOT_LIFE,
    Pair,
    constraints_of,
    make_leaf,
    make_root,
    names_of,
)
from certs.names import DNS_NAMES, LOOPBACK, server_names

NOW = dt.datetime(2026, 11, 22, 1, 2, 3, tzinfo=dt.UTC)
SECOND = dt.timedelta(seconds=1)
NAMES = server_names(["127.0.0.1", "::1", "192.0.2.7"])


@pytest.fixture(scope="module")
def root() -> Pair:
    return make_root(NAMES, NOW)


@pytest.fixture(scope="module")
def leaf(root: Pair) -> Pair:
    return make_leaf(root, NAMES, NOW)


def forged(root: Pair, *names: x509.GeneralName, ca: bool = False) -> x509.Certificate:
    """What somebody with the root's key would sign: any name, or an authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    builder = (
        x509.CertificateBuilder()
        .issuer_name(root.certificate.subject)
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "forged")]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW)
        .not_valid_after(NOW + LEAF_LIFE)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(root.key.public_key()),
            critical=False,
        )
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
    )
    return builder.sign(root.key, hashes.SHA256())


def openssl(
    folder: Path, root: Pair, leaf: x509.Certificate, *more: str, at: dt.datetime = NOW
) -> str:
    """Return what `openssl verify` says: the words of a real peer."""
    for name, certificate in (("root", root.certificate), ("leaf", leaf)):
        (folder / name).write_bytes(certificate.public_bytes(Encoding.PEM))
    where = ("-CAfile", str(folder / "root"), "-attime", str(int(at.timestamp())))
    leaf_file = str(folder / "leaf")
    done = subprocess.run(
        ["openssl", "verify", "-x509_strict", "-purpose", "sslserver", *where, *more, leaf_file],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr


@pytest.mark.parametrize("name", NAMES)
def test_the_chain_verifies_for_each_name(
    tmp_path: Path, root: Pair, leaf: Pair, name: str
) -> None:
    kind = "-verify_hostname" if name in DNS_NAMES else "-verify_ip"
    assert openssl(tmp_path, root, leaf.certificate, kind, name).endswith("leaf: OK\n")


@pytest.mark.parametrize("name", ["example.com", "a.localhost", "sallyport"])
def test_it_verifies_for_no_other_name(tmp_path: Path, root: Pair, leaf: Pair, name: str) -> None:
    said = openssl(tmp_path, root, leaf.certificate, "-verify_hostname", name)
    assert "hostname mismatch" in said


@pytest.mark.parametrize(
    "name",
    [
        x509.DNSName("example.com"),
        x509.DNSName("notlocalhost"),
        x509.DNSName("internal"),
        x509.IPAddress(LOOPBACK[0].network_address + (1 << 24)),
        x509.IPAddress(LOOPBACK[1].network_address + 1),
    ],
    ids=str,
)
def test_a_stolen_root_can_be_no_other_host(
    tmp_path: Path, root: Pair, name: x509.GeneralName
) -> None:
    """threats.md, "Identity": the agent reaches the CA key."""
    breach = forged(root, name)
    assert "permitted subtree violation" in openssl(tmp_path, root, breach)
    verifier = PolicyBuilder().store(Store([root.certificate])).time(NOW)
    assert isinstance(name, x509.DNSName | x509.IPAddress)
    with pytest.raises(VerificationError):
        verifier.build_server_verifier(name).verify(breach, [])


def test_a_name_that_is_permitted_beside_one_that_is_not_does_not_help(
    tmp_path: Path, root: Pair
) -> None:
    breach = forged(root, x509.DNSName("localhost"), x509.DNSName("example.com"))
    assert "permitted subtree violation" in openssl(tmp_path, root, breach)


def test_the_root_signs_servers_only(tmp_path: Path, root: Pair, leaf: Pair) -> None:
    for purpose in ("sslclient", "smimesign"):
        said = openssl(tmp_path, root, leaf.certificate, "-purpose", purpose)
        assert "verification failed" in said
    usage = root.certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.SERVER_AUTH]


def test_nothing_may_stand_between_the_root_and_its_leaves(root: Pair) -> None:
    basic = root.certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert basic.critical
    assert (basic.value.ca, basic.value.path_length) == (True, 0)
    usage = root.certificate.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert usage.value.key_cert_sign
    assert not usage.value.digital_signature


def test_the_constraints_are_critical_and_hold_nothing_else(root: Pair) -> None:
    found = root.certificate.extensions.get_extension_for_class(x509.NameConstraints)
    assert found.critical
    assert found.value.excluded_subtrees is None
    subtrees, networks = constraints_of(root.certificate)
    assert subtrees == DNS_NAMES
    assert [str(each) for each in networks] == ["127.0.0.0/8", "::1/128", "192.0.2.7/32"]


def test_a_certificate_without_constraints_permits_nothing(leaf: Pair) -> None:
    assert constraints_of(leaf.certificate) == ((), ())


def test_each_certificate_has_its_own_key_and_number(root: Pair, leaf: Pair) -> None:
    for pair in (root, leaf):
        assert isinstance(pair.key.curve, ec.SECP256R1)
        assert pair.key.public_key() == pair.certificate.public_key()
    assert root.key.public_key() != leaf.key.public_key()
    assert root.certificate.serial_number != leaf.certificate.serial_number


def test_two_roots_have_two_names(root: Pair) -> None:
    assert make_root(NAMES, NOW).certificate.subject != root.certificate.subject


def test_a_leaf_has_the_names_in_their_order(leaf: Pair) -> None:
    assert names_of(leaf.certificate) == NAMES


@pytest.mark.parametrize(
    ("at", "said"),
    [
        pytest.param(NOW - LEAF_SKEW, "OK", id="a client's clock is an hour behind"),
        pytest.param(NOW - LEAF_SKEW - SECOND, "not yet valid", id="more than that"),
        pytest.param(NOW + LEAF_LIFE - SECOND, "OK", id="to its end"),
        pytest.param(NOW + LEAF_LIFE + SECOND, "certificate has expired", id="beyond it"),
    ],
)
def test_a_leaf_lives_from_a_little_ago(
    tmp_path: Path, root: Pair, leaf: Pair, at: dt.datetime, said: str
) -> None:
    assert said in openssl(tmp_path, root, leaf.certificate, at=at)


def test_a_leaf_does_not_outlive_its_root(root: Pair) -> None:
    late = make_leaf(root, NAMES, NOW + ROOT_LIFE - SECOND).certificate
    assert late.not_valid_after_utc == root.certificate.not_valid_after_utc
    early = make_leaf(root, NAMES, root.certificate.not_valid_before_utc).certificate
    assert early.not_valid_before_utc == root.certificate.not_valid_before_utc


@pytest.mark.parametrize(
    ("at", "said"),
    [
        pytest.param(NOW + ROOT_LIFE, r"ended on 2036-11-21: .*init --force", id="ended"),
        pytest.param(NOW - dt.timedelta(days=2), "correct the clock", id="the clock is behind"),
    ],
)
def test_a_root_that_is_not_valid_signs_nothing(root: Pair, at: dt.datetime, said: str) -> None:
    with pytest.raises(IssueError, match=said):
        make_leaf(root, NAMES, at)


def test_every_name_that_the_root_does_not_permit_is_named(root: Pair) -> None:
    names = (*NAMES, "example.com", "192.0.2.8")
    with pytest.raises(IssueError, match=r"permit example\.com, 192\.0\.2\.8: .*init --force"):
        make_leaf(root, names, NOW)


def test_what_is_shown_of_a_pair_holds_no_key(root: Pair) -> None:
    number = str(root.key.private_numbers().private_value)
    for text in (repr(root), str(root), f"{root!r}"):
        assert text == f"Pair({root.certificate.subject.rfc4514_string()})"
        assert number not in text
