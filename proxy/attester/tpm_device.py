"""A TPM 2.0 on the agent's side: its EK certificate, an AK, quotes (TPM 2.0, part 3).

    with Tpm("device:/dev/tpmrm0") as tpm:
        name, public = tpm.ak()
        quote, signature, pcrs = tpm.quote(message, (0, 7))

The AK is a primary key of the endorsement hierarchy: whoever makes it from the same template gets
the same key, so that no file holds it, and clearing the TPM does not change it.  For keys of the
owner's hierarchy a TPM obscures the counters of its resets (part 1, section 36.7), and the verifier
could not see them go back.
"""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import takewhile
from types import TracebackType
from typing import Any, Final, Self

from certs.tpm_structures import read_attest
from proxy.attester.tpm_errors import TpmError, explained, load, why_closed

DEFAULT_TCTI: Final = "device:/dev/tpmrm0"
# EK Credential Profile, section 2.2.1.4: where the certificate is tells the template of its key.
# ECC first: a TPM makes its keys ten times faster.
_CERTIFICATES = {
    "EK-ECC256": 0x01C0000A,
    "EK-HIGH-ECC256": 0x01C00014,
    "EK-HIGH-ECC384": 0x01C00016,
    "EK-RSA2048": 0x01C00002,
    "EK-HIGH-RSA2048": 0x01C00012,
}
_CHAIN = range(0x01C00100, 0x01C00108)  # section 2.2.1.5: Intel's have what is above there
_AK_TEMPLATE = "ecc:ecdsa-sha256:null"
_PCRS, _READ_AT_ONCE = 24, 8  # a TPML_DIGEST has no more than eight (part 2, section 10.9.6)
_LONG = b"\x30\x82"  # how a certificate begins: a SEQUENCE, of 256 octets and more
_TRIES = 8  # PCRs move while a host starts, and seldom after


class Tpm:
    """One connection to a TPM; a context manager that leaves no key in it.

    `tcti` names the TPM as tpm2-tools do; `chain` are certificates above the EK's, DER, where the
    TPM does not hold them.
    """

    def __init__(self, tcti: str = DEFAULT_TCTI, chain: Sequence[bytes] = ()) -> None:
        self._tcti, self._chain = tcti, tuple(chain)
        self._tss = load()
        self._made: list[Any] = []
        self._known_ak: tuple[Any, Any] | None = None
        self._context: Any = None

    def __enter__(self) -> Self:
        """Open it.

        Raises:
            TpmError: there is none, or it is not for us.
        """
        try:
            self._context = self._tss.ESAPI(self._tcti)
        except (self._tss.TSS2_Exception, RuntimeError, ValueError):
            raise TpmError(why_closed(self._tcti)) from None
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Take our keys out of the TPM, and close it."""
        try:
            with explained(self._tss):
                while self._made:
                    self._context.flush_context(self._made.pop())
        finally:
            self._known_ak = None
            self._context.close()

    def ek_certificates(self) -> tuple[bytes, ...]:
        """Return the certificate of the EK that `activate` uses, and those above it, DER.

        Raises:
            TpmError: the TPM has none.
        """
        _template, octets = self._ek_certificate()
        return (*_certificates(octets), *(self._chain or self._chain_within()))

    def ak(self) -> tuple[str, bytes]:
        """Return the Name of the AK (hex) and its TPMT_PUBLIC.

        Raises:
            TpmError: the TPM does not make it.
        """
        _handle, public = self._ak()
        return bytes(public.get_name()).hex(), bytes(public.publicArea.marshal())

    def quote(self, message: bytes, pcrs: Sequence[int]) -> tuple[bytes, bytes, dict[str, str]]:
        """Return a quote (TPMS_ATTEST) over the SHA-256 of `message`, its signature, the PCRs.

        The signature is a TPMT_SIGNATURE.  The PCRs are those of the SHA-256 bank that the quote
        is of, hex by index: both are read again where one moved between.

        Raises:
            TpmError: the TPM has no such PCRs, or they never stood still.
        """
        indices = sorted(set(pcrs))
        if not indices or not set(indices) <= set(range(_PCRS)):
            raise TpmError(f"a quote is over one PCR at least, 0 to {_PCRS - 1}")
        digest = hashlib.sha256(message).digest()
        for _ in range(_TRIES):
            values = self._read_pcrs(indices)
            quote, signature = self._quote(indices, digest)
            if read_attest(quote).pcr_digest == hashlib.sha256(b"".join(values)).digest():
                texts = [each.hex() for each in values]
                return quote, signature, dict(zip(map(str, indices), texts, strict=True))
        raise TpmError("the PCRs change all the time: attest once the host has started")

    def activate(self, credential: bytes, seed: bytes) -> bytes:
        """Return the secret in a TPM2B_ID_OBJECT and its TPM2B_ENCRYPTED_SECRET.

        Raises:
            TpmError: it is not for this TPM and its AK.
        """
        try:
            blob, _ = self._tss.TPM2B_ID_OBJECT.unmarshal(credential)
            encrypted, _ = self._tss.TPM2B_ENCRYPTED_SECRET.unmarshal(seed)
        except self._tss.TSS2_Exception:
            raise TpmError("what the verifier sent is no credential: enrol again") from None
        ak, _public = self._ak()
        with explained(self._tss), self._ek() as (ek, session):
            secret = self._context.activate_credential(
                *(ak, ek, blob, encrypted), session1=self._tss.ESYS_TR.PASSWORD, session2=session
            )
        return bytes(secret)

    def _ek_certificate(self) -> tuple[str, bytes]:
        for template, index in _CERTIFICATES.items():
            octets = self._memory(index)
            if octets:
                return template, octets
        raise TpmError(
            "this TPM has no EK certificate for P-256, P-384 or RSA-2048: its vendor vouches for it"
            " to nobody, so attest with a software key"
        )

    def _chain_within(self) -> tuple[bytes, ...]:
        """Return what the TPM holds of the chain: one after the other, over as many indices."""
        return _certificates(b"".join(takewhile(bool, map(self._memory, _CHAIN))))

    def _memory(self, index: int) -> bytes:
        """Return what is in an NV index, nothing where there is none."""
        try:
            with explained(self._tss):
                return bytes(self._tss.utils.NVReadEK(self._context)(index))
        except self._tss.utils.NoSuchIndex:
            return b""

    def _ak(self) -> tuple[Any, Any]:
        """Return the handle and the public part; the key stays in the TPM until we close it."""
        if self._known_ak is None:
            bits = self._tss.TPMA_OBJECT
            template = self._tss.TPMT_PUBLIC.parse(
                _AK_TEMPLATE,
                objectAttributes=bits.FIXEDTPM
                | bits.FIXEDPARENT
                | bits.SENSITIVEDATAORIGIN
                | bits.USERWITHAUTH
                | bits.NODA
                | bits.RESTRICTED
                | bits.SIGN_ENCRYPT,
            )
            self._known_ak = self._primary(self._tss.TPM2B_PUBLIC(template))
            self._made.append(self._known_ak[0])
        return self._known_ak

    def _primary(self, template: Any) -> tuple[Any, Any]:
        with explained(self._tss):
            handle, public, *_ = self._context.create_primary(
                None, template, self._tss.ESYS_TR.ENDORSEMENT
            )
        return handle, public

    def _quote(self, indices: Sequence[int], digest: bytes) -> tuple[bytes, bytes]:
        handle, _public = self._ak()
        with explained(self._tss):
            quote, signature = self._context.quote(handle, _selection(indices), digest)
        return bytes(quote), bytes(signature.marshal())

    def _read_pcrs(self, indices: Sequence[int]) -> list[bytes]:
        values: list[bytes] = []
        for start in range(0, len(indices), _READ_AT_ONCE):
            wanted = indices[start : start + _READ_AT_ONCE]
            with explained(self._tss):
                _counter, _read, digests = self._context.pcr_read(_selection(wanted))
            if len(digests) != len(wanted):
                raise TpmError("this TPM has no SHA-256 bank of PCRs: `tpm2_pcrallocate` makes it")
            values.extend(map(bytes, digests))
        return values

    @contextmanager
    def _ek(self) -> Iterator[tuple[Any, Any]]:
        """Give the EK and a session that may use it; both are gone afterwards."""
        name, _certificate = self._ek_certificate()
        read = self._tss.utils.NVReadEK(self._context)
        _octets, template = self._tss.utils.create_ek_template(name, read)
        ek, public = self._primary(template)
        self._made.append(ek)
        if public.publicArea.objectAttributes & self._tss.TPMA_OBJECT.USERWITHAUTH:
            yield ek, self._tss.ESYS_TR.PASSWORD
        else:
            with self._policy() as session:
                yield ek, session
        self._context.flush_context(self._made.pop())

    @contextmanager
    def _policy(self) -> Iterator[Any]:
        """Give a session for EKs of the low range: PolicySecret of the endorsement hierarchy."""
        tr, nothing = self._tss.ESYS_TR, self._tss.TPMT_SYM_DEF(algorithm=self._tss.TPM2_ALG.NULL)
        session = self._context.start_auth_session(
            *(tr.NONE, tr.NONE, self._tss.TPM2_SE.POLICY, nothing, self._tss.TPM2_ALG.SHA256)
        )
        self._made.append(session)
        stays = self._tss.TPMA_SESSION.CONTINUESESSION
        self._context.trsess_set_attributes(session, stays, stays)
        self._context.policy_secret(tr.ENDORSEMENT, session, b"", b"", b"", 0)
        yield session
        self._context.flush_context(self._made.pop())


def _selection(indices: Sequence[int]) -> str:
    return "sha256:" + ",".join(map(str, indices))


def _certificates(octets: bytes) -> tuple[bytes, ...]:
    """Return the certificates in a TPM's memory: some indices are larger than what is in them.

    What is none goes to the verifier as it is, which says so.
    """
    found: list[bytes] = []
    while octets[:2] == _LONG or (octets and not found):
        end = 4 + int.from_bytes(octets[2:4]) if octets[:2] == _LONG else len(octets)
        found.append(octets[:end])
        octets = octets[end:]
    return tuple(found)
