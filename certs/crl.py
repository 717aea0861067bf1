"""Certificate revocation lists (RFC 5280, section 5): which of our certificates are void."""

import datetime as dt
from collections.abc import Iterable

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from msgspec import Struct

from certs.mint import Authority

LIFE = dt.timedelta(hours=1)  # as long as the default SVID lives; Let's Encrypt's CRLs: 10 days
SKEW = dt.timedelta(minutes=5)  # of a reader's clock that is late


class Revoked(Struct, frozen=True):
    """A certificate that is void since `at`; `reason` is one of RFC 5280, section 5.3.1."""

    serial: int
    at: dt.datetime
    reason: str = "unspecified"


def make_crl(
    issuer: Authority, revoked: Iterable[Revoked], now: dt.datetime, *, as_pem: bool = False
) -> bytes:
    """Return the complete CRL of `issuer`, DER or PEM, good for `LIFE` from `now`.

    Its number is the time in microseconds: it grows with each list, also over a restart.
    """
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key())
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.certificate.subject)
        .last_update(now - SKEW)
        .next_update(now + LIFE)  # RFC 5280, section 5.1.2.5: MUST be there
        # RFC 5280, section 5.2.3: monotonically increasing, of 20 octets at most
        .add_extension(x509.CRLNumber(int(now.timestamp() * 1_000_000)), critical=False)
        .add_extension(identifier, critical=False)  # RFC 5280, section 5.2.1
    )
    for each in {one.serial: one for one in revoked}.values():
        builder = builder.add_revoked_certificate(_entry(each))
    encoding = serialization.Encoding.PEM if as_pem else serialization.Encoding.DER
    return builder.sign(issuer.key, hashes.SHA256()).public_bytes(encoding)


def reason_flag(reason: str) -> x509.ReasonFlags | None:
    """Return the flag of a reason; None for `unspecified`, and for what is no reason."""
    try:
        flag = x509.ReasonFlags(reason)
    except ValueError:
        return None
    # RFC 5280, section 5.3.1: the code SHOULD be absent instead; a complete CRL removes nothing.
    is_said = flag not in {x509.ReasonFlags.unspecified, x509.ReasonFlags.remove_from_crl}
    return flag if is_said else None


def _entry(each: Revoked) -> x509.RevokedCertificate:
    builder = x509.RevokedCertificateBuilder(each.serial, each.at)
    flag = reason_flag(each.reason)
    if flag is not None:
        builder = builder.add_extension(x509.CRLReason(flag), critical=False)
    return builder.build()
