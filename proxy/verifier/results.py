"""Attestation results: made of what was proven, signed by the issuer, and kept."""

from collections.abc import Mapping
from hashlib import sha256
from typing import Final

from msgspec.structs import replace

from proxy.agent_api.asked import Answer, encoded
from proxy.agent_api.issuing import RESULT
from proxy.attested.result import Result
from proxy.flow import new_id
from proxy.verifier.appraisal import Proven, appraise
from proxy.verifier.callers import Attesting
from proxy.verifier.claims import claims_of
from proxy.verifier.contents import Attested, EvidenceSent, level_name
from proxy.verifier.parts import Outcome, Parts, RefusedError
from proxy.verifier.refusing import unavailable
from proxy.verifier.voiding import Voiding
from rules.decision import Reason, Verdict

_ENTROPY_OCTETS: Final = 10


class Results:
    """Makes them; `voiding` knows of each while it is being signed."""

    def __init__(self, parts: Parts, voiding: Voiding) -> None:
        self._parts = parts
        self._voiding = voiding

    async def answer(
        self, who: Attesting, sent: EvidenceSent, nonce: bytes, proven: Proven
    ) -> Answer:
        """Return what was proven as a result that counts from now on.

        Raises:
            RefusedError: it does not fit the rules, or there is no result to be had.
        """
        parts = self._parts
        appraise(proven, who.rules())
        made = self._made(who, proven)
        claimed = _claimed(sent)
        claims = claims_of(made, parts.trust_domain, nonce, proven.measurements, claimed)
        with self._voiding.signing(made) as stands:
            signed = await parts.issuer.sign_claims(claims, RESULT, who.app)
            if signed.problem:
                raise unavailable(signed.problem)
            # While that was awaited he may have been revoked, and the rules may have changed.
            self._check(who, proven, is_void=not stands())
        result = replace(made, token_sha256=sha256(signed.token.encode()).hexdigest())
        if not parts.live.keep(result):
            raise unavailable("too many results stand", Reason.CAPACITY)
        self._record(who, result, claimed)
        return encoded(
            Attested(
                token=signed.token,
                expires_in=int(result.expires - result.at),
                level=level_name(result.level),
                id=result.id,
                binding=result.binding.value,
                attested_at=int(result.at),
            )
        )

    def _made(self, who: Attesting, proven: Proven) -> Result:
        parts, svid = self._parts, who.caller.svid
        now = parts.wall()
        expires = int(now) + parts.ttl_s  # as `exp` says it
        if svid is not None:  # it proves something of that certificate's key while it lasts
            expires = min(expires, svid.not_after)
        return Result(
            id=new_id(now, parts.entropy(_ENTROPY_OCTETS)),
            token_sha256="",
            binding=who.binding,
            app=who.app,
            spiffe_id=who.spiffe_id,
            level=proven.level,
            attester=proven.attester,
            at=now,
            expires=float(expires),
            thumbprint="" if svid is None else svid.sha256,
            serial="" if svid is None else svid.serial,
            measured=proven.measured_sha256,
        )

    def _check(self, who: Attesting, proven: Proven, *, is_void: bool) -> None:
        appraise(proven, who.rules())
        if is_void:
            text = "other evidence of the same binding or attester failed meanwhile"
            raise _withdrawn(text, "attest again")
        if proven.ek_sha256 and self._parts.live.attester(proven.attester, who.app) is None:
            raise _withdrawn("the AK was removed meanwhile", "ask the admin, and enrol it again")

    def _record(self, who: Attesting, result: Result, claimed: Mapping[str, str]) -> None:
        detail = {
            "result": result.id,
            "level": level_name(result.level),
            "binding": f"{result.binding.kind} {result.binding.value}",
            "attester": result.attester,
            "expires": int(result.expires),
            **claimed,
        }
        self._parts.record(who.app, "attested", Verdict.ALLOW, Reason.LOCAL, who.target, detail)


def _claimed(sent: EvidenceSent) -> dict[str, str]:
    """Return what the client says of itself, which nobody believes."""
    said = {"agent_hash": sent.agent_hash, "version": sent.version}
    return {name: value for name, value in said.items() if value}


def _withdrawn(text: str, how: str) -> RefusedError:
    return RefusedError(Outcome.WITHDRAWN, Reason.ATTESTATION_REQUIRED, text, how)
