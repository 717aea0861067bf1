"""From a chain that OpenSSL has verified to the X.509-SVID that it is, or why it is none.

OpenSSL has seen to signatures, times, path lengths, name constraints, and that the leaf may
authenticate a client.  What SPIFFE asks beyond that is seen to here (X509-SVID, sections 2 to 5).
"""

from collections.abc import Sequence
from hashlib import sha256

from certs.errors import SpiffeError
from certs.spiffe import parse_id
from proxy.certificates.svid import Svid, Unfit
from proxy.errors import PeerError
from proxy.wire.certificate import (
    CRL_SIGN,
    DIGITAL_SIGNATURE,
    KEY_CERT_SIGN,
    Certificate,
    read_certificate,
)

CHAIN = 8  # certificates from leaf to anchor; OpenSSL's verify depth is 100, nginx's default 1


def read_svid(chain: Sequence[bytes]) -> Svid | Unfit:
    """Return the X.509-SVID that a verified `chain` (DER, the leaf first) is, or what it lacks."""
    if not 2 <= len(chain) <= CHAIN:
        return Unfit(f"a chain has 2 to {CHAIN} certificates, from the leaf to its trust anchor")
    try:
        leaf = read_certificate(chain[0])
    except PeerError as error:
        return Unfit(str(error))
    unfit = _unfit(leaf)
    if unfit:
        return Unfit(f"the certificate is no X.509-SVID: {unfit}")
    (uri,) = leaf.uris
    try:
        spiffe_id = parse_id(uri)
    except SpiffeError as error:
        return Unfit(str(error))
    if not spiffe_id.path:  # X509-SVID, section 2: the trust domain itself is no workload
        return Unfit(f"{uri} is the trust domain itself: a workload has a path")
    digest, key = sha256(chain[0]).hexdigest(), sha256(leaf.spki).hexdigest()
    return Svid(uri, f"{leaf.serial:x}", leaf.not_before, leaf.not_after, digest, key)


def end_of(chain: Sequence[bytes]) -> int:
    """Return when the first certificate of a chain ends (Unix time): with it, all of them do.

    Raises:
        PeerError: one of them cannot be read.
    """
    return min(read_certificate(each).not_after for each in chain)


def trust_domain(svid: Svid) -> str:
    """Return the trust domain of its SPIFFE ID."""
    return svid.spiffe_id.split("/", 3)[2]


def _unfit(leaf: Certificate) -> str:
    """Return what keeps a leaf from being an X.509-SVID; nothing where it is one."""
    if leaf.is_ca:  # X509-SVID, section 4.1
        return "it is an authority's"
    usage = leaf.key_usage
    if usage is None or not usage & DIGITAL_SIGNATURE:  # X509-SVID, section 4.3
        return "its key usage lacks digitalSignature"
    if usage & (KEY_CERT_SIGN | CRL_SIGN):
        return "its key may sign certificates or revocations"
    if len(leaf.uris) != 1:  # X509-SVID, section 2: exactly one URI, whatever else there is
        return f"it has {len(leaf.uris)} URIs as alternative names, where one belongs"
    return ""
