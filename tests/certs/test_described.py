"""What a person sees of the trust domain: states and fingerprints, and no key."""

import datetime as dt
import json
import subprocess
from pathlib import Path

import pytest

from certs.described import describe_domain, export_bundle
from certs.domain import init_domain, load_domain, rotate
from certs.errors import KeystoreError
from certs.known_domain import BUNDLE_PEM, record_of
from tests.certs.identity import NOW, TD


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "identity"
    init_domain(path, TD, NOW, b"secret")
    return path


def test_each_generation_has_its_state(folder: Path) -> None:
    for what in ("root", "intermediate", "jwt"):
        rotate(folder, NOW + dt.timedelta(seconds=1), b"secret", what)
    later = NOW + dt.timedelta(seconds=2)
    found = describe_domain(folder, later)
    assert found is not None
    assert (found.trust_domain, found.sequence, found.is_encrypted) == (TD, 4, True)
    assert [each.state for each in found.roots] == ["signs", "prepared"]
    assert [each.state for each in found.intermediates] == ["retired", "signs"]
    assert [each.state for each in found.jwt_keys] == ["signs", "prepared"]
    assert [each.id for each in found.jwt_keys] == [each.id for each in record_of(folder).jwt_keys]
    assert {each.sha256 for each in found.jwt_keys} == {""}
    assert found.roots[1].signs_from == NOW + dt.timedelta(days=7, seconds=1)
    gone = describe_domain(folder, NOW + dt.timedelta(days=5000))
    assert gone is not None
    assert {each.state for each in gone.roots} == {"retired"}


def test_fingerprints_are_those_that_openssl_prints(folder: Path) -> None:
    found = describe_domain(folder, NOW)
    assert found is not None
    command = ("openssl", "x509", "-noout", "-fingerprint", "-sha256", "-in")
    said = subprocess.run(
        [*command, str(folder / BUNDLE_PEM)], capture_output=True, text=True, check=True
    )
    digest = said.stdout.strip().partition("=")[2].replace(":", "").lower()
    assert digest == found.roots[0].sha256
    assert len(found.intermediates[0].sha256) == 64


def test_describing_and_exporting_read_no_key(folder: Path) -> None:
    domain = load_domain(folder, b"secret")
    for path in folder.glob("*.key"):
        path.write_bytes(b"rubbish")
    found = describe_domain(folder, NOW)
    assert found is not None
    assert not found.is_encrypted
    assert export_bundle(folder) == (folder / BUNDLE_PEM).read_bytes()
    assert export_bundle(folder, as_jwks=True) == domain.jwks()
    assert json.loads(export_bundle(folder, as_jwks=True))["spiffe_sequence"] == 1


def test_without_a_trust_domain_there_is_nothing_to_describe(tmp_path: Path) -> None:
    assert describe_domain(tmp_path / "identity", NOW) is None
    with pytest.raises(KeystoreError, match="`sallyport up` makes it"):
        export_bundle(tmp_path / "identity")
