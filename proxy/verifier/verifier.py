"""The verifier (RFC 9334, section 4.1): nonces out, evidence in, attestation results out.

    shape -> rate -> nonce -> verify (the issuer) -> counters -> appraise (the rules) -> sign (the
    issuer) -> is all as it was? -> keep -> answer

A nonce is used up by the first evidence that names it.
"""

from proxy.agent_api.api import Route
from proxy.agent_api.asked import Answer, Asked, encoded
from proxy.errors import BindError
from proxy.verifier.appraisal import verified
from proxy.verifier.callers import Attesting, attesting
from proxy.verifier.contents import Attested, EvidenceKind, EvidenceSent, NonceGiven, NonceWanted
from proxy.verifier.enrolment import Enrolments
from proxy.verifier.evidence import evidence_of
from proxy.verifier.nonces import Nonces
from proxy.verifier.octets import octets_of, text_of
from proxy.verifier.pace import Pace
from proxy.verifier.parts import Outcome, Parts, RefusedError
from proxy.verifier.refusing import answer_of, check_audit, malformed, stale, unavailable
from proxy.verifier.results import Results
from proxy.verifier.voiding import Voiding
from rules.decision import Reason


class Verifier:
    """Answers `POST /attest/nonce`, `/attest`, `/attest/enrol` and `/attest/activate`."""

    def __init__(self, parts: Parts) -> None:
        limits = parts.limits
        self._parts = parts
        self._nonces = Nonces(limits, parts.entropy, parts.metrics.bounds.add)
        self._nonce_pace = Pace(limits, parts.metrics)
        self._pace = Pace(limits, parts.metrics)
        self._voiding = Voiding(parts)
        self._results = Results(parts, self._voiding)
        self._enrolments = Enrolments(parts, self._pace)
        parts.metrics.attestation_nonces.read_by(self._nonces.__len__)

    def routes(self) -> tuple[Route, ...]:
        """Return what the API of agents answers by us."""
        return (
            Route(
                "POST",
                "/attest/nonce",
                "A nonce, and what is to be signed with it",
                self._nonce,
                takes=NonceWanted,
                gives=NonceGiven,
            ),
            Route(
                "POST",
                "/attest",
                "Evidence in, an attestation result out (RFC 9334, RFC 9711)",
                self._attest,
                takes=EvidenceSent,
                gives=Attested,
            ),
            *self._enrolments.routes(),
        )

    async def _nonce(self, asked: Asked) -> Answer:
        who = attesting(asked.caller, self._parts)
        try:
            return encoded(self._given(who))
        except RefusedError as refusal:
            return answer_of(asked, refusal)

    def _given(self, who: Attesting) -> NonceGiven:
        parts, rules = self._parts, who.rules()
        self._nonce_pace.check(who, parts.clock())
        nonce = self._nonces.give(who.binding, who.app, parts.clock())
        if nonce is None:
            raise unavailable("too many nonces are outstanding", Reason.CAPACITY)
        kinds: list[EvidenceKind] = ["software"]
        if rules.reference_values.pcrs:
            kinds.append("tpm")
        if rules.reference_values.launched and who.measured is not None:
            kinds.append("launched")
        return NonceGiven(
            nonce=text_of(nonce),
            expires_in=int(parts.limits.attestation_nonce_s),
            binding=who.binding.value,
            message=text_of(who.message(nonce)),
            evidence=tuple(kinds),
        )

    async def _attest(self, asked: Asked) -> Answer:
        parts, who = self._parts, attesting(asked.caller, self._parts)
        sent: EvidenceSent = asked.value
        started = parts.clock()
        try:
            answer = await self._attested(who, sent)
        except RefusedError as refusal:
            parts.metrics.attestations.add(sent.evidence, refusal.outcome)
            if refusal.outcome is Outcome.CHANGED:
                asked.stay()  # his certificate is revoked by it, and he is to be told why
            await self._voiding.refused(who, sent, refusal)
            return answer_of(asked, refusal)
        parts.metrics.attestations.add(sent.evidence, Outcome.ATTESTED)
        parts.metrics.attestation_s.observe(parts.clock() - started)
        return answer

    async def _attested(self, who: Attesting, sent: EvidenceSent) -> Answer:
        parts = self._parts
        try:
            evidence, nonce = evidence_of(sent), octets_of(sent.nonce)
        except ValueError as error:
            raise malformed(str(error)) from None
        self._pace.check(who, parts.clock())
        await self._check_room(who)
        who.rules()
        now = parts.clock()
        given = self._nonces.take(nonce, who.binding, who.app, now)
        if given is None or now - given >= parts.ttl_s:  # what it proves would have ended
            raise stale(min(parts.limits.attestation_nonce_s, parts.ttl_s))
        proven = await verified(who, evidence, nonce, parts)
        if proven.is_reset:
            await self._settle()
        return await self._results.answer(who, sent, nonce, proven, given)

    async def _check_room(self, who: Attesting) -> None:
        """Raise where a result could not be kept or told of: then no nonce is used up for it."""
        live, hit_bound = self._parts.live, self._parts.metrics.bounds.add
        check_audit(self._parts, who.app)
        try:
            await live.ready()
        except BindError:
            raise unavailable("results cannot be kept now") from None
        if live.is_full:
            hit_bound("attested_queue")
            raise unavailable("results cannot be written as fast as they come", Reason.CAPACITY)
        if not live.attestations.has_room(who.app):
            hit_bound("attestations")
            raise unavailable("too many results stand", Reason.CAPACITY)

    async def _settle(self) -> None:
        """Have counters that rose on the disk before anything is made of them."""
        try:
            await self._parts.live.settled()
        except BindError:
            raise unavailable("what was learned of the TPM cannot be written now") from None
