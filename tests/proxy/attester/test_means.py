"""From the command line to an attester: which files, which place, which evidence."""

import shutil
import subprocess
from pathlib import Path

import msgspec
import pytest

from certs.errors import KeystoreError
from proxy.attester.errors import UnusableError
from proxy.attester.evidence import Launched, Software, TpmQuote
from proxy.attester.means import Means, open_attester, own_certificate, read_pcrs
from proxy.attester.place import OURS, Place
from tests.proxy.attester.verifier import Verifier


@pytest.fixture
def home(tmp_path: Path) -> Verifier:
    return Verifier(tmp_path)


@pytest.fixture
def means(home: Verifier, tmp_path: Path) -> Means:
    return Means(tmp_path / "state", folder=home.folder)


def test_by_default_a_software_key_attests_at_the_local_listener(
    means: Means, home: Verifier
) -> None:
    found = open_attester(means)
    assert found._place == Place("127.0.0.1", 8443, is_tls=True)
    assert isinstance(found._evidence, Software)
    assert (home.folder / "attester.key").stat().st_mode & 0o777 == 0o600


def test_a_proxy_takes_the_place_of_the_listener(means: Means) -> None:
    found = open_attester(msgspec.structs.replace(means, proxy="https://127.0.0.1:3129"))
    assert found._place == Place("127.0.0.1", 3129, is_tls=True, prefix=OURS)


def test_in_a_lease_no_file_is_needed(tmp_path: Path) -> None:
    found = open_attester(Means(tmp_path / "none", launched=True))
    assert found._place == Place("127.0.0.1", 3128, is_tls=False, prefix=OURS)
    assert isinstance(found._evidence, Launched)
    assert not (tmp_path / "none").exists()


def test_a_lease_has_a_plain_port(tmp_path: Path) -> None:
    with pytest.raises(UnusableError, match="plain port"):
        open_attester(Means(tmp_path, launched=True, proxy="https://127.0.0.1:3129"))


@pytest.mark.filterwarnings("ignore::DeprecationWarning:tpm2_pytss")
def test_a_tpm_is_opened_for_each_attestation_only(means: Means) -> None:
    found = open_attester(msgspec.structs.replace(means, tpm="device:/dev/none"))
    assert isinstance(found._evidence, TpmQuote)
    with pytest.raises(UnusableError, match=r"no TPM at /dev/none|extra `tpm`"):
        found._evidence.of(b"")


@pytest.mark.filterwarnings("ignore::DeprecationWarning:tpm2_pytss")
def test_certificates_above_the_tpms_own_come_from_a_file(means: Means, home: Verifier) -> None:
    chain = home.authority.certificate
    wanted = msgspec.structs.replace(means, tpm="device:/dev/none", ek_chain=chain)
    assert isinstance(open_attester(wanted)._evidence, TpmQuote)
    for name in ("svid.key", "none"):
        wanted = msgspec.structs.replace(wanted, ek_chain=home.folder / name)
        with pytest.raises(UnusableError, match="another --ek-chain"):
            open_attester(wanted)


def test_the_one_enrolment_that_there_is_needs_no_name(means: Means, home: Verifier) -> None:
    place = means.state / "enrolled" / "coder"
    shutil.copytree(home.folder, place)
    found = own_certificate(Means(means.state))
    assert (found.chain, found.key) == (place / "svid.pem", place / "svid.key")


def test_two_enrolments_are_to_be_told_apart(means: Means, home: Verifier) -> None:
    for name in ("coder", "tester"):
        shutil.copytree(home.folder, means.state / "enrolled" / name)
    with pytest.raises(UnusableError, match=r"2 certificates .* --folder"):
        own_certificate(Means(means.state))


def test_without_a_certificate_there_is_a_cure(means: Means) -> None:
    with pytest.raises(UnusableError, match=r"no certificate .* enrol"):
        own_certificate(Means(means.state))


def test_files_of_any_name_may_be_named(means: Means, tmp_path: Path, home: Verifier) -> None:
    (tmp_path / "root.pem").write_bytes(home.authority.certificate.read_bytes())
    named = Means(
        means.state, cert=tmp_path / "a.pem", key=tmp_path / "b.pem", ca=tmp_path / "root.pem"
    )
    found = own_certificate(named)
    assert (found.chain.name, found.key.name, found.ca.name) == ("a.pem", "b.pem", "root.pem")


def test_who_is_trusted_is_looked_for_in_the_folder_then_in_our_state(
    means: Means, home: Verifier
) -> None:
    assert own_certificate(means).ca == home.folder / "ca.pem"
    ours = means.state / "ca" / "root.pem"
    ours.parent.mkdir(parents=True)
    shutil.move(home.folder / "ca.pem", ours)
    assert own_certificate(means).ca == ours
    ours.unlink()
    with pytest.raises(UnusableError, match="name --ca"):
        own_certificate(means)


def test_the_attesters_key_may_be_elsewhere(means: Means, tmp_path: Path) -> None:
    other = tmp_path / "keys" / "mine.key"
    open_attester(msgspec.structs.replace(means, attester_key=other))
    assert other.exists()


def test_a_folder_that_others_may_read_gets_no_key(means: Means, home: Verifier) -> None:
    subprocess.run(["chmod", "755", home.folder], check=True)
    with pytest.raises(KeystoreError, match="chmod 700"):
        open_attester(means)


@pytest.mark.parametrize(("text", "pcrs"), [("0,7,16", (0, 7, 16)), ("23", (23,)), ("7,0", (0, 7))])
def test_registers_are_a_list_of_numbers(text: str, pcrs: tuple[int, ...]) -> None:
    assert read_pcrs(text) == pcrs


@pytest.mark.parametrize("text", ["", "7,0,7", "24", "-1", "a", "0,", ",0", "0;7", "٣", "0 7"])
def test_what_is_no_list_of_registers_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="write 0,7,16"):
        read_pcrs(text)
