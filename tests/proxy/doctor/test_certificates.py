"""Certificates of our own CA, made as `up` makes them, at other times and for other names."""

import datetime as dt
from pathlib import Path

import pytest

from certs.authority import ensure
from certs.issuer import LEAF_LIFE
from certs.names import server_names
from proxy.doctor.certificates import certificates
from proxy.doctor.patient import Finding
from tests.proxy.patients import only, patient_in

LISTEN = 'listen: {dot: ["127.0.0.1:8853"], doh: ["127.0.0.1:8443"]}\n'
LIFE = LEAF_LIFE.days
NAMES = server_names(["127.0.0.1"])


def found_days_later(folder: Path, days: float, text: str = LISTEN) -> list[Finding]:
    now = dt.datetime.now(dt.UTC)
    ensure(folder / "state" / "ca", NAMES, now)
    patient = patient_in(folder, text, now=(now + dt.timedelta(days=days)).timestamp())
    return list(certificates(patient))


def test_what_was_just_made_is_fine(tmp_path: Path) -> None:
    assert found_days_later(tmp_path, 0) == []


def test_what_is_not_made_yet_is_fine(tmp_path: Path) -> None:
    assert list(certificates(patient_in(tmp_path, LISTEN))) == []
    (tmp_path / "state" / "ca").mkdir(parents=True)
    assert list(certificates(patient_in(tmp_path, LISTEN))) == []


def test_a_server_certificate_that_nobody_renewed_is_told(tmp_path: Path) -> None:
    finding = only(found_days_later(tmp_path, LIFE - 5))
    assert finding.severity == "warning"
    assert finding.message == "the server certificate expires in 5 days"
    assert "it renews the certificate" in finding.cure
    assert only(found_days_later(tmp_path, LIFE - 1)).message.endswith("expires in 24 hours")


def test_a_server_certificate_that_expired_is_told(tmp_path: Path) -> None:
    finding = only(found_days_later(tmp_path, LIFE + 3))
    assert finding.severity == "error"
    assert finding.message == "the server certificate expired 3 days ago"


@pytest.mark.parametrize(("days", "severity"), [(3640, "warning"), (3653, "error")])
def test_a_root_at_its_end_is_told(tmp_path: Path, days: int, severity: str) -> None:
    root, _server = found_days_later(tmp_path, days)
    assert root.severity == severity
    assert root.message.startswith("the local CA expire")
    assert "sallyport ca init --force" in root.cure


def test_a_listener_that_the_certificate_does_not_name_is_told(tmp_path: Path) -> None:
    text = 'listen: {dot: ["127.0.0.2:8853"], doh: ["[::1]:8443"]}\n'
    finding = only(found_days_later(tmp_path, 0, text))
    assert finding.message == "the server certificate is not for 127.0.0.2, ::1"


def test_without_a_tls_listener_nothing_is_looked_at(tmp_path: Path) -> None:
    assert found_days_later(tmp_path, 4000, "listen: {dot: [], doh: []}\n") == []


def test_a_foreign_certificate_is_told(tmp_path: Path) -> None:
    ensure(tmp_path / "state" / "ca", NAMES, dt.datetime.now(dt.UTC))
    server = tmp_path / "state" / "ca" / "server.pem"
    server.write_bytes(server.read_bytes() + b"\n")
    assert "is not the one that we made" in only(found_in(tmp_path)).message


@pytest.mark.parametrize(
    "text", ["", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_a_root_that_is_none_is_told(tmp_path: Path, text: str) -> None:
    folder = tmp_path / "state" / "ca"
    ensure(folder, NAMES, dt.datetime.now(dt.UTC))
    (folder / "root.pem").write_text(text)
    finding = only(found_in(tmp_path))
    assert finding.severity == "error"
    assert str(folder) in finding.cure


def test_who_may_not_read_is_told_who_may(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root reads everything, so that the refusal of the kernel is played here."""
    ensure(tmp_path / "state" / "ca", NAMES, dt.datetime.now(dt.UTC))

    def refuse(_folder: Path) -> None:
        raise PermissionError(13, "Permission denied", "root.pem")

    monkeypatch.setattr("proxy.doctor.certificates.root_certificate", refuse)
    finding = only(found_in(tmp_path))
    assert (finding.severity, finding.cure) == ("info", "run doctor as its owner or root")


def found_in(folder: Path) -> list[Finding]:
    return list(certificates(patient_in(folder, LISTEN)))
