"""The folder of a trust domain, as tests look at it: what it holds, and whether it is good."""

import datetime as dt
from pathlib import Path

from cryptography import x509

from certs.known_domain import BUNDLE_PEM, DOMAIN_JSON, Record, pem_of, record_of
from certs.trust_domain import TrustDomain

NOW = dt.datetime(2026, 11, 22, 1, 2, 3, tzinfo=dt.UTC)
TD = "desk.example"
WHO = f"spiffe://{TD}/agent/coder"


def s(seconds: float) -> dt.timedelta:
    return dt.timedelta(seconds=seconds)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def whole(folder: Path) -> Record:
    """Return the record, having seen that the folder holds what it names and nothing else."""
    record = record_of(folder)
    keys = {f"{each.id}.key" for each in record.all}
    assert set(contents(folder)) == keys | {DOMAIN_JSON, BUNDLE_PEM}
    assert (folder / BUNDLE_PEM).read_text() == pem_of(record.roots)
    return record


def verified(domain: TrustDomain, now: dt.datetime) -> x509.Certificate:
    """Issue, and see that the chain leads to one of the anchors; return the leaf."""
    chain = [x509.load_der_x509_certificate(each) for each in domain.issue(WHO, now).chain]
    chain[0].verify_directly_issued_by(chain[1])
    anchors = [x509.load_der_x509_certificate(each) for each in domain.anchors]
    (above,) = [each for each in anchors if each.subject == chain[1].issuer]
    chain[1].verify_directly_issued_by(above)
    return chain[0]
