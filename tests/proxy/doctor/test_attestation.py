"""What keeps agents from attesting is told: roots of TPMs, listeners, reference values."""

import os
from datetime import timedelta
from pathlib import Path

import pytest

from proxy.doctor.attestation import attestable, ek_roots
from proxy.doctor.patient import Patient
from tests.proxy.patients import only, patient_in
from tests.swtpm import Vendor

STRANGER = 64054
REQUIRING = 'identity: [{spiffe: "spiffe://sallyport.internal/a"}], allow: [], require: [attested]'
QUOTING = f"reference_values: {{pcrs: {{7: {'a' * 64!r}}}}}"
SILENT = "listen: {proxy_tls: [], doh: []}\n"


@pytest.fixture(scope="module")
def vendor() -> Vendor:
    return Vendor()


@pytest.fixture
def path(tmp_path: Path, vendor: Vendor) -> Path:
    made = tmp_path / "tpm.pem"
    made.write_bytes(vendor.root_pem)
    made.chmod(0o644)
    return made


def trusting(tmp_path: Path, *paths: Path, **changed: object) -> Patient:
    named = ", ".join(map(str, paths))
    return patient_in(tmp_path, f"attestation: {{ek_roots: [{named}]}}\n", **changed)


def ruled(tmp_path: Path, rules: str, text: str = "") -> Patient:
    folder = tmp_path / "config" / "rules"
    folder.mkdir(parents=True)
    file = folder / "r.yaml"
    file.write_text(rules)
    file.chmod(0o600)
    return patient_in(tmp_path, text)


def test_roots_that_are_good_are_fine(tmp_path: Path, path: Path) -> None:
    assert list(ek_roots(trusting(tmp_path, path))) == []
    assert list(ek_roots(patient_in(tmp_path))) == []


def test_a_file_may_hold_several_and_words_between(
    tmp_path: Path, path: Path, vendor: Vendor
) -> None:
    path.write_bytes(b"# a vendor\n" + vendor.root_pem + b"# another\n" + vendor.root_pem)
    assert list(ek_roots(trusting(tmp_path, path))) == []


def test_a_file_that_is_not_there_is_told(tmp_path: Path, path: Path) -> None:
    finding = only(ek_roots(trusting(tmp_path, tmp_path / "none.pem", path)))
    assert finding.severity == "error"
    assert "none.pem of attestation.ek_roots is not there" in finding.message


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no certificate in PEM"),
        (b"\xff\x00", "no certificate in PEM"),
        (b"-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n", "is none"),
        (b"-----BEGIN CERTIFICATE-----\nA\n-----END CERTIFICATE-----\n", "cannot be used"),
        (b"x" * ((4 << 20) + 1), "more than 4194304 octets"),
    ],
)
def test_what_is_no_certificate_is_told(
    tmp_path: Path, path: Path, content: bytes, said: str
) -> None:
    path.write_bytes(content)
    finding = only(ek_roots(trusting(tmp_path, path)))
    assert finding.severity == "error"
    assert said in finding.message


def test_what_is_no_file_is_told(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pem", 0o600)
    assert "no regular file" in only(ek_roots(trusting(tmp_path, tmp_path / "pipe.pem"))).message


def test_a_root_that_expired_is_told(tmp_path: Path, path: Path) -> None:
    later = patient_in(tmp_path).now + timedelta(days=40 * 365).total_seconds()
    finding = only(ek_roots(trusting(tmp_path, path, now=later)))
    assert (finding.severity, finding.message) == (
        "warning",
        f"certificate 1 of {path} has expired",
    )


@pytest.mark.parametrize("mode", [0o666, 0o646])
def test_a_file_that_others_may_write_is_told(tmp_path: Path, path: Path, mode: int) -> None:
    """threats.md, "Identity": who writes a root says whose TPMs are believed."""
    path.chmod(mode)
    finding = only(ek_roots(trusting(tmp_path, path)))
    assert finding.severity == "error"
    assert (
        finding.message == f"{path}: every user may write it, and with it whose TPMs are believed"
    )


def test_a_folder_that_others_may_write_is_told(tmp_path: Path, path: Path) -> None:
    os.chown(tmp_path, STRANGER, -1)
    finding = only(ek_roots(trusting(tmp_path, path)))
    assert finding.message.startswith(f"{tmp_path}: uid {STRANGER} owns it")


def test_a_file_that_the_appliance_may_not_read_is_told(tmp_path: Path, path: Path) -> None:
    path.chmod(0o600)
    finding = only(ek_roots(trusting(tmp_path, path, uid=STRANGER)))
    assert finding.severity == "error"
    assert f"cannot be read by uid {STRANGER}" in finding.message


def test_a_folder_that_we_may_not_enter_is_told(
    tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed(self: Path) -> os.stat_result:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "stat", closed)
    finding = only(ek_roots(trusting(tmp_path, path)))
    assert (finding.severity, "cannot be read by this user" in finding.message) == ("info", True)


def test_where_nobody_can_attest_it_is_told(tmp_path: Path) -> None:
    rules = f"apps:\n  a: {{{REQUIRING}}}\n  b: {{{REQUIRING.replace('/a', '/b')}}}\n"
    finding = only(attestable(ruled(tmp_path, rules, SILENT)))
    assert finding.severity == "error"
    assert finding.message.startswith("nobody can attest, and the app a and 1 more must")


@pytest.mark.parametrize("listen", ["proxy_tls: ['127.0.0.1:0'], doh: []", "proxy_tls: []"])
def test_one_listener_is_enough_to_attest(tmp_path: Path, listen: str) -> None:
    rules = f"apps:\n  a: {{{REQUIRING}}}\n"
    assert list(attestable(ruled(tmp_path, rules, f"listen: {{{listen}}}\n"))) == []


def test_where_nothing_is_required_nothing_is_told(tmp_path: Path) -> None:
    assert list(attestable(patient_in(tmp_path, SILENT))) == []
    rules = "apps:\n  a: {identity: [{token: a}], allow: []}\n"
    assert list(attestable(ruled(tmp_path, rules, SILENT))) == []


def test_values_of_pcrs_without_a_root_are_told(tmp_path: Path, path: Path) -> None:
    rules = f"apps:\n  a: {{{REQUIRING}, {QUOTING}}}\n"
    finding = only(attestable(ruled(tmp_path, rules, "listen: {proxy_tls: ['127.0.0.1:0']}\n")))
    assert finding.severity == "warning"
    assert "reference_values.pcrs of the app a" in finding.message
    text = f"listen: {{proxy_tls: ['127.0.0.1:0']}}\nattestation: {{ek_roots: [{path}]}}\n"
    (tmp_path / "other").mkdir()
    assert list(attestable(ruled(tmp_path / "other", rules, text))) == []


def test_rules_that_do_not_load_are_told_by_another_check(tmp_path: Path) -> None:
    assert list(attestable(ruled(tmp_path, "apps: [", SILENT))) == []
