"""Evidence (RFC 9334, section 8.1): what is put before the verifier, and what signs it."""

import base64
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from msgspec import Struct

from certs.attester_key import AttesterKey
from proxy.attester.api import Api
from proxy.attester.errors import UnreachableError, UnusableError
from proxy.attester.tpm_errors import TpmError

type Claims = dict[str, object]


class TpmDevice(Protocol):
    """An open TPM 2.0, as `proxy.attester.tpm_device.Tpm` is one; each raises `TpmError`."""

    def ek_certificates(self) -> tuple[bytes, ...]:
        """Return the chain of the endorsement key, DER, its own first."""

    def ak(self) -> tuple[str, bytes]:
        """Return the Name of the attestation key (hex), and its TPMT_PUBLIC."""

    def quote(self, message: bytes, pcrs: Sequence[int]) -> tuple[bytes, bytes, dict[str, str]]:
        """Return TPMS_ATTEST over the SHA-256 of `message`, TPMT_SIGNATURE, and the registers."""

    def activate(self, credential: bytes, seed: bytes) -> bytes:
        """Return the secret that only this TPM can tell (TPM2_ActivateCredential)."""


class Evidence(Protocol):
    """A kind of evidence, by the name that the API has for it."""

    kind: str
    """`software`, `tpm` or `launched`."""
    enrols: bool
    """Whether an appliance that does not know the attester can be made to."""

    def of(self, message: bytes) -> Claims:
        """Return what proves `message`: members of the content of POST /attest.

        Raises:
            UnusableError: the TPM cannot be used.
        """

    def enrol(self, api: Api) -> None:
        """Make the attester known to the appliance, where it `enrols`.

        Raises:
            RefusedError: the appliance said no.
            UnusableError: the TPM cannot be used.
            UnreachableError: nobody answered.
        """


class Software:
    """A key in a file."""

    kind = "software"
    enrols = False

    def __init__(self, key: AttesterKey) -> None:
        self._key = key

    def of(self, message: bytes) -> Claims:
        """Return the key and its signature."""
        return {"key": b64url(self._key.spki), "signature": b64url(self._key.sign(message))}

    def enrol(self, _api: Api) -> None:
        """Do nothing: any key may attest."""


class Launched:
    """What the lease's launcher executed; the appliance knows it, so that nothing is signed."""

    kind = "launched"
    enrols = False

    def of(self, _message: bytes) -> Claims:
        """Return nothing."""
        return {}

    def enrol(self, _api: Api) -> None:
        """Do nothing: the launcher did."""


class _Challenge(Struct):
    handle: str
    credential: str
    seed: str


class _Activated(Struct):
    attester: str


class TpmQuote:
    """A TPM's quote of the registers `pcrs`; `open_device` opens it for one attestation."""

    kind = "tpm"
    enrols = True

    def __init__(
        self, open_device: Callable[[], AbstractContextManager[TpmDevice]], pcrs: Sequence[int]
    ) -> None:
        self._open = open_device
        self._pcrs = tuple(pcrs)

    def of(self, message: bytes) -> Claims:
        """Return the quote, what it is of, and the Name of the key that signed it."""
        with _usable(), self._open() as device:
            quote, signature, pcrs = device.quote(message, self._pcrs)
            name, _public = device.ak()
        signed = {"quote": b64url(quote), "signature": b64url(signature)}
        return {"attester": name, "pcr": pcrs, **signed}

    def enrol(self, api: Api) -> None:
        """Prove that the key is in the TPM of the endorsement certificate."""
        with _usable(), self._open() as device:
            certificates = [b64url(each) for each in device.ek_certificates()]
            _name, public = device.ak()
            asked = {"certificates": certificates, "ak": b64url(public)}
            challenge = api.post("/attest/enrol", asked, _Challenge)
            secret = device.activate(unb64url(challenge.credential), unb64url(challenge.seed))
        told = {"handle": challenge.handle, "secret": b64url(secret)}
        api.post("/attest/activate", told, _Activated)


@contextmanager
def _usable() -> Iterator[None]:
    try:
        yield
    except TpmError as error:
        raise UnusableError(str(error)) from None


def b64url(octets: bytes) -> str:
    """Return base64url without padding (RFC 7515, section 2)."""
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


def unb64url(text: str) -> bytes:
    """Return what base64url without padding says.

    Raises:
        UnreachableError: it is none.
    """
    try:
        octets = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except ValueError:
        octets = None
    if octets is None or b64url(octets) != text:
        raise UnreachableError("the appliance's answer is no base64url")
    return octets
