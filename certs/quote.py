"""Quotes: a TPM's signed statement of its PCRs (TPM 2.0, part 3, section 18.4)."""

import hashlib
import hmac
import re
from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from certs.attestation_key import check_signed, read_ak
from certs.errors import EvidenceError
from certs.tpm_structures import Attest, read_attest

PCRS: Final = 24  # of a PC (TCG PC Client Platform TPM Profile, section 4.6)
_INDEX = re.compile("[0-9]|1[0-9]|2[0-3]")
_VALUE = re.compile("[0-9a-fA-F]{64}")


class Quoted(Struct, frozen=True):
    """What a TPM said, and that it was this one; whether that is good is not asked here.

    `name` is the AK's (hex), `key_sha256` the digest of its SubjectPublicKeyInfo (hex), `pcrs` the
    values of the SHA-256 bank (lower-case hex) by index.  `clock_ms` counts the milliseconds that
    the TPM was powered, and may have gone back where `is_safe` is false (part 2, section 10.11).
    """

    name: str
    key_sha256: str
    pcrs: dict[str, str]
    clock_ms: int
    reset_count: int
    restart_count: int
    is_safe: bool
    firmware: int


def verify_quote(
    key: bytes, quote: bytes, signature: bytes, message: bytes, pcrs: Mapping[str, str]
) -> Quoted:
    """Verify that the AK `key` (TPMT_PUBLIC) signed `quote` over `message` and these PCRs.

    `quote` is a TPMS_ATTEST whose extraData is the SHA-256 of `message`, `signature` a
    TPMT_SIGNATURE.  `pcrs` are what the digest in the quote is of: exactly those it selects.

    Raises:
        EvidenceError: it did not; nothing of the quote is to be believed.
    """
    ak = read_ak(key)
    attest = read_attest(quote)
    check_signed(ak, signature, quote)
    if not hmac.compare_digest(attest.extra_data, hashlib.sha256(message).digest()):
        raise EvidenceError(
            "the quote is over another message: quote over the SHA-256 of the one that came with"
            " the nonce, on the connection that it came on"
        )
    return Quoted(
        name=ak.name.hex(),
        key_sha256=ak.key_sha256,
        pcrs=_checked(attest, pcrs),
        clock_ms=attest.clock_ms,
        reset_count=attest.reset_count,
        restart_count=attest.restart_count,
        is_safe=attest.is_safe,
        firmware=attest.firmware,
    )


def _checked(attest: Attest, pcrs: Mapping[str, str]) -> dict[str, str]:
    """Return the values by index, after the digest of all of them (part 1, section 17.5)."""
    if len(pcrs) > PCRS or not all(map(_INDEX.fullmatch, pcrs)):
        raise EvidenceError("the PCR values are not by their index, 0 to 23")
    if set(map(int, pcrs)) != set(attest.selected):
        covered = ", ".join(map(str, attest.selected))
        raise EvidenceError(f"the quote covers the PCRs {covered}: send the value of each of them")
    values = {str(index): pcrs[str(index)].lower() for index in attest.selected}
    if not all(map(_VALUE.fullmatch, values.values())):
        raise EvidenceError("a PCR value is not 64 hexadecimal digits")
    digest = hashlib.sha256(bytes.fromhex("".join(values.values()))).digest()
    if not hmac.compare_digest(attest.pcr_digest, digest):
        raise EvidenceError(
            "the PCR values are not those of the quote: read them again, and quote again"
        )
    return values
