"""What comes from TPMs, or does not: `EvidenceError` is allowed."""

from certs.attestation_key import read_ak
from certs.errors import EvidenceError
from certs.quote import verify_quote
from certs.software_key import verify_signature
from certs.tpm_structures import ATTEST_OCTETS, read_attest, read_public, read_signature
from tests.certs.paper_tpm import vector

_ECC, _RSA = vector("quote-ecc"), vector("quote-rsa")
SEEDS: tuple[bytes, ...] = (
    *(_ECC.key, _ECC.quote, _ECC.signature),
    *(_RSA.key, _RSA.quote, _RSA.signature),
    *(vector(f"refused-{name}").quote for name in ("certify", "get-time", "two-banks")),
    vector("refused-unrestricted").key,
)


def target(data: bytes) -> None:
    """Only the octets that the TPM signed are ever believed."""
    try:
        attest = read_attest(data)
        assert len(data) <= ATTEST_OCTETS
        assert attest.selected == tuple(sorted(set(attest.selected)))
    except EvidenceError:
        pass
    for key, quote, signature in (
        (data, _ECC.quote, _ECC.signature),
        (_ECC.key, data, _ECC.signature),
        (_ECC.key, _ECC.quote, data),
        (_RSA.key, _RSA.quote, data),
    ):
        try:
            quoted = verify_quote(key, quote, signature, _ECC.message, _ECC.pcrs)
        except EvidenceError:
            continue
        assert quoted.pcrs == _ECC.pcrs
        assert quote in {_ECC.quote, _RSA.quote}
    for read in (read_public, read_ak, read_signature):
        try:
            read(data)
        except EvidenceError:
            continue
    try:
        verify_signature(data, data, _ECC.message)
    except EvidenceError:
        return
    raise AssertionError(data)
