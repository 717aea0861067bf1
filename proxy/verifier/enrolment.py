"""Enrolment of TPMs: an AK is proven to be in the TPM of an EK (TPM 2.0, part 1, section 24).

The certificates of the EK and the AK come in, a credential goes out: that TPM alone opens it, and
only with the AK in it.  Who returns the secret of it has enrolled the AK.
"""

import hmac
from typing import Final, override

from msgspec import Struct

from proxy.agent_api.api import Route
from proxy.agent_api.asked import Answer, Asked, encoded
from proxy.attested.attester import Attester
from proxy.attested.binding import Binding
from proxy.channel import Challenged
from proxy.errors import BindError
from proxy.verifier.callers import Attesting, attesting
from proxy.verifier.contents import ActivationSent, Challenge, Enrolled, EnrolmentSent
from proxy.verifier.crowd import crowded
from proxy.verifier.octets import octets_of, text_of
from proxy.verifier.pace import Pace
from proxy.verifier.parts import Parts, RefusedError
from proxy.verifier.refusing import (
    answer_of,
    check_audit,
    failed,
    malformed,
    unavailable,
    verdict_of,
)
from rules.decision import Reason, Verdict

_SECRET_OCTETS: Final = 32  # the most that a SHA-256 Name's TPM2B_DIGEST holds
_HANDLE_OCTETS: Final = 16


class _Pending(Struct, frozen=True):
    binding: Binding
    app: str
    ak: bytes
    secret: bytes
    name: str
    ek_sha256: str
    until: float

    @override
    def __repr__(self) -> str:
        """Return what may stand in a log."""
        return f"_Pending({self.app!r}, ...)"


class Enrolments:
    """Answers `POST /attest/enrol` and `/attest/activate`.

    At `limits.attester_challenges` the oldest of who has the most goes (`crowded`).
    """

    def __init__(self, parts: Parts, pace: Pace) -> None:
        self._parts = parts
        self._pace = pace
        self._pending: dict[str, _Pending] = {}  # by handle, the oldest first

    def routes(self) -> tuple[Route, ...]:
        """Return what the API of agents answers by us."""
        return (
            Route(
                "POST",
                "/attest/enrol",
                "An EK's certificates and an AK in, a credential for that TPM out",
                self._enrol,
                takes=EnrolmentSent,
                gives=Challenge,
            ),
            Route(
                "POST",
                "/attest/activate",
                "The secret of a credential in: the AK is enrolled",
                self._activate,
                takes=ActivationSent,
                gives=Enrolled,
            ),
        )

    async def _enrol(self, asked: Asked) -> Answer:
        who = attesting(asked.caller, self._parts)
        try:
            return await self._challenged(who, asked.value)
        except RefusedError as refusal:
            return self._refused(asked, who, refusal)

    async def _activate(self, asked: Asked) -> Answer:
        who = attesting(asked.caller, self._parts)
        try:
            answer = await self._activated(who, asked.value)
        except RefusedError as refusal:
            return self._refused(asked, who, refusal)
        self._parts.metrics.attester_enrolments.add("enrolled")
        return answer

    async def _challenged(self, who: Attesting, sent: EnrolmentSent) -> Answer:
        parts = self._parts
        try:
            certificates, ak = tuple(map(octets_of, sent.certificates)), octets_of(sent.ak)
        except ValueError as error:
            raise malformed(str(error)) from None
        self._pace.check(who, parts.clock())
        self._in_the_way(who)
        who.rules()
        secret = parts.entropy(_SECRET_OCTETS)
        made = await parts.issuer.challenge(
            certificates=certificates, ak=ak, secret=secret, app=who.app
        )
        if made.unanswered:
            raise unavailable(made.problem)
        if made.problem:
            how = (
                "bring the certificates of the TPM's own EK, and an AK as docs/attestation.md says"
            )
            raise failed(made.problem, how)
        who.rules()
        goes = self._in_the_way(who)
        if goes is not None:
            del self._pending[goes]
        handle = self._keep(who, ak, secret, made)
        return encoded(
            Challenge(
                handle=handle,
                credential=text_of(made.credential),
                seed=text_of(made.seed),
                expires_in=int(parts.limits.attester_challenge_s),
            )
        )

    def _keep(self, who: Attesting, ak: bytes, secret: bytes, made: Challenged) -> str:
        parts = self._parts
        handle = parts.entropy(_HANDLE_OCTETS).hex()
        until = parts.clock() + parts.limits.attester_challenge_s
        self._pending[handle] = _Pending(
            who.binding, who.app, ak, secret, made.name, made.ek_sha256, until
        )
        return handle

    async def _activated(self, who: Attesting, sent: ActivationSent) -> Answer:
        parts = self._parts
        try:
            secret = octets_of(sent.secret)
        except ValueError as error:
            raise malformed(str(error)) from None
        self._pace.check(who, parts.clock())
        check_audit(parts, who.app)
        try:
            await parts.live.ready()
        except BindError:
            raise unavailable("attesters cannot be kept now") from None
        who.rules()
        pending = self._taken(who, sent.handle)
        if not hmac.compare_digest(pending.secret, secret):
            text = "this is not the secret: the AK is not in the TPM of that EK"
            raise failed(text, "enrol anew, with the TPM that the certificates are of")
        await self._known(who, pending)
        return encoded(Enrolled(pending.name))

    def _taken(self, who: Attesting, handle: str) -> _Pending:
        """Return what `handle` stands for; it counts once, and for whom it was given to."""
        pending = self._pending.get(handle)
        if pending is None or (pending.binding, pending.app) != (who.binding, who.app):
            text = "no credential waits under this handle on this connection"
            raise failed(text, "enrol anew")
        del self._pending[handle]
        if pending.until <= self._parts.clock():
            raise failed("the credential was not activated in time", "enrol anew")
        return pending

    async def _known(self, who: Attesting, pending: _Pending) -> None:
        """Enrol the AK, and have it on the disk."""
        parts, live = self._parts, self._parts.live
        before = live.attester(pending.name, who.app)
        made = Attester(
            name=pending.name,
            app=who.app,
            spiffe_id=who.spiffe_id,
            ek_sha256=pending.ek_sha256,
            key=pending.ak,
            enrolled_at=parts.wall(),
        )
        if before is None and not live.enrol(made):
            raise unavailable("too many AKs are enrolled", Reason.CAPACITY)
        try:
            await live.settled()
        except BindError:
            raise unavailable("the AK cannot be written now") from None
        detail = {"attester": made.name, "ek_sha256": made.ek_sha256}
        parts.record(who.app, "enrolled", Verdict.ALLOW, Reason.LOCAL, who.target, detail)

    def _in_the_way(self, who: Attesting) -> str | None:
        """Forget what has ended; return the handle that is to make way for another.

        Raises:
            RefusedError: it is full, and nobody has more than one.
        """
        pending, now = self._pending, self._parts.clock()
        for handle in [handle for handle, each in pending.items() if each.until <= now]:
            del pending[handle]
        if len(pending) < self._parts.limits.attester_challenges:
            return None
        self._parts.metrics.bounds.add("attester_challenges")
        holders = [(each.app, each.binding) for each in pending.values()]
        at = crowded(holders, (who.app, who.binding))
        if at is None:
            raise unavailable("too many are being enrolled", Reason.CAPACITY)
        return list(pending)[at]

    def _refused(self, asked: Asked, who: Attesting, refusal: RefusedError) -> Answer:
        parts = self._parts
        parts.metrics.attester_enrolments.add("refused")
        detail = {"outcome": refusal.outcome, "text": str(refusal)}
        verdict = verdict_of(refusal)
        parts.record(who.app, "enrol-refused", verdict, refusal.reason, who.target, detail)
        return answer_of(asked, refusal)
