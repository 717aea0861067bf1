"""What the API needs of the issuer, where the keys and the cryptography are.

`proxy.workload.evidence.Evidence` fulfils both.  Nothing here raises: where there is no answer,
`problem` says why, and what to do.  Evidence that was not looked at is `unanswered`, and so it is
not evidence that failed.  `app` is whose share of those that wait a question takes.
"""

from collections.abc import Mapping
from typing import Protocol

from proxy.channel import Challenged, SignedClaims, Verified

RESULT = "eat+jwt"
"""The `typ` of an attestation result (RFC 9782); never that of a JWT-SVID (RFC 8725, 3.11)."""

ACCESS = "at+jwt"
"""The `typ` of a capability token (RFC 9068, section 2.1)."""

SOFTWARE = "software"
TPM = "tpm"


class Signer(Protocol):
    """Signs with the JWT key of our trust domain."""

    async def sign_claims(self, claims: bytes, typ: str, app: str = "") -> SignedClaims:
        """Return a JWT of `claims`, which is a JSON object; `typ` is `RESULT` or `ACCESS`."""


class EvidenceVerifier(Signer, Protocol):
    """Verifies what attesters send; what the evidence says is not appraised here."""

    async def verify(  # noqa: PLR0913 - each is a part of the evidence, and has a name
        self,
        *,
        kind: str,
        message: bytes,
        key: bytes,
        signature: bytes,
        quote: bytes = b"",
        pcrs: Mapping[str, str] = {},
        app: str = "",
    ) -> Verified:
        """Return what `key` signed over `message`; `kind` is `SOFTWARE` or `TPM`.

        The rest is as in `proxy.channel.Verify`.
        """

    async def challenge(
        self, *, certificates: tuple[bytes, ...], ak: bytes, secret: bytes, app: str = ""
    ) -> Challenged:
        """Return `secret` so that only the TPM of that EK can open it, if the AK is in it.

        `certificates` are DER, that of the EK first; `ak` is a TPMT_PUBLIC.
        """
