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
from rules.freshness import ages_of
from rules.ruleset import App

_ENTROPY_OCTETS: Final = 10
_RENEWED: Final = 0.8  # of what is left; RFC 8555's clients renew at two thirds, SPIRE's at half
_LEAST_RENEWAL_S: Final = 5  # whatever a rule asks for: as the heartbeats of an agent


class Results:
    """Makes them; `voiding` knows of each while it is being signed."""

    def __init__(self, parts: Parts, voiding: Voiding) -> None:
        self._parts = parts
        self._voiding = voiding

    async def answer(
        self, who: Attesting, sent: EvidenceSent, nonce: bytes, proven: Proven, given: float
    ) -> Answer:
        """Return what was proven as a result that counts from now on, as old as its nonce.

        `given` is when that was given, in monotonic seconds.

        Raises:
            RefusedError: it does not fit the rules, or there is no result to be had.
        """
        parts, rules = self._parts, who.rules()
        appraise(proven, rules)
        made = self._made(who, proven, parts.clock() - given)
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
                expires_in=int(result.expires - parts.wall()),
                renew_in=_renewed_in_s(result, rules, parts.wall()),
                level=level_name(result.level),
                id=result.id,
                binding=result.binding.value,
                attested_at=int(result.at),
            )
        )

    def _made(self, who: Attesting, proven: Proven, age_s: float) -> Result:
        """RFC 9334, section 10.3: all that is known is that it is younger than its nonce."""
        parts, svid = self._parts, who.caller.svid
        at = parts.wall() - age_s
        expires = int(at) + parts.ttl_s  # as `exp` says it
        if svid is not None:  # it proves something of that certificate's key while it lasts
            expires = min(expires, svid.not_after)
        return Result(
            id=new_id(parts.wall(), parts.entropy(_ENTROPY_OCTETS)),
            token_sha256="",
            binding=who.binding,
            app=who.app,
            spiffe_id=who.spiffe_id,
            level=proven.level,
            attester=proven.attester,
            at=at,
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


def _renewed_in_s(result: Result, app: App, now: float) -> int:
    """Return when to attest anew: before it ends, and before the least age that a rule names."""
    ages_s = ages_of(app) if app.max_ages_s is None else app.max_ages_s
    least_s = min((result.expires - result.at, *ages_s))
    return max(int(_RENEWED * (least_s - (now - result.at))), _LEAST_RENEWAL_S)


def _claimed(sent: EvidenceSent) -> dict[str, str]:
    """Return what the client says of itself, which nobody believes."""
    said = {"agent_hash": sent.agent_hash, "version": sent.version}
    return {name: value for name, value in said.items() if value}


def _withdrawn(text: str, how: str) -> RefusedError:
    return RefusedError(Outcome.WITHDRAWN, Reason.ATTESTATION_REQUIRED, text, how)
