"""What attesters send, taken to the issuer: it has the cryptography, and the key that signs."""

from collections.abc import Callable, Mapping

from proxy.channel import Challenge, Challenged, SignClaims, SignedClaims, Verified, Verify
from proxy.limits import Limits
from proxy.metrics import Metrics
from proxy.workload.issuer import Issuer
from proxy.workload.questions import Questions, Room


class Evidence:
    """Fulfils `proxy.agent_api.issuing.EvidenceVerifier`; `unrecorded` says why nothing is signed.

    It returns an empty text while what is issued can be recorded.
    """

    def __init__(
        self, issuer: Issuer, limits: Limits, metrics: Metrics, unrecorded: Callable[[], str]
    ) -> None:
        room = Room(
            ("issuer_questions", limits.issuer_questions),
            ("issuer_questions_per_app", limits.issuer_questions_per_app),
            limits.issuer_questions_at_once,
        )
        self.questions = Questions(issuer, limits, metrics, room)
        self._unrecorded = unrecorded

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
        """Return what `key` signed over `message`; never raises."""
        values = dict(pcrs)
        return await self.questions.ask(
            lambda call: Verify(call, kind, message, key, signature, quote, values), Verified, app
        )

    async def challenge(
        self, *, certificates: tuple[bytes, ...], ak: bytes, secret: bytes, app: str = ""
    ) -> Challenged:
        """Return `secret` for the TPM of that EK alone; never raises."""
        return await self.questions.ask(
            lambda call: Challenge(call, certificates, ak, secret), Challenged, app
        )

    async def sign_claims(self, claims: bytes, typ: str, app: str = "") -> SignedClaims:
        """Return a JWT of `claims`; never raises."""
        problem = self._unrecorded()
        if problem:
            return SignedClaims(0, problem=problem, unanswered=True)
        return await self.questions.ask(
            lambda call: SignClaims(call, claims, typ), SignedClaims, app
        )
