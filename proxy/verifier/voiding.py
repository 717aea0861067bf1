"""What a refusal puts an end to: results, those that are being signed, and what came of them.

Evidence that *fails* (a signature, a nonce) ends what its binding has: whoever has the key can
prove nothing more with it until he attests anew; so do the capability tokens of that binding, but
for a nonce that was too late.  Evidence that shows a *change* ends everything
that the attester has proven, with all AKs of its TPM for that app, and the certificates and
capability tokens that go with it.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from proxy.attested.result import Result
from proxy.errors import BindError
from proxy.verifier.callers import Attesting
from proxy.verifier.contents import EvidenceSent, level_name
from proxy.verifier.parts import Changed, Outcome, Parts, RefusedError, StaleError
from proxy.verifier.refusing import verdict_of
from rules.decision import Reason, Verdict

VOID: Final = "attestation-void"
"""What audit calls a result that counts no more before its time."""


class Voiding:
    """Voids results, and knows which are being signed: those are voided with them."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._under_way: dict[str, Result] = {}  # by id
        self._tasks: set[asyncio.Task[None]] = set()

    @contextmanager
    def signing(self, result: Result) -> Iterator[Callable[[], bool]]:
        """Sign `result` inside; what comes along returns whether it was not voided meanwhile."""
        self._under_way[result.id] = result
        try:
            yield lambda: result.id in self._under_way
        finally:
            self._under_way.pop(result.id, None)

    async def refused(self, who: Attesting, sent: EvidenceSent, refusal: RefusedError) -> None:
        """Void what `refusal` puts an end to, and tell audit, before the agent hears of it."""
        parts = self._parts
        detail = {"level": sent.evidence, "outcome": refusal.outcome, "text": str(refusal)}
        verdict = verdict_of(refusal)
        parts.record(who.app, "attest-refused", verdict, refusal.reason, who.target, detail)
        # What a TPM has measured is the same for each of its AKs.
        changed = parts.live.of_tpm(refusal.attester, who.app)
        which = _ended_by(who, refusal, changed)
        if which is None:
            return
        for each in [each for each in self._under_way.values() if which(each)]:
            del self._under_way[each.id]
        voided = parts.live.attestations.void(which)
        if isinstance(refusal, StaleError) and not voided:
            return
        # It goes on to its end whether the agent waits for the answer or not.
        finishing = self._finish(who, refusal, voided, changed - {refusal.attester})
        task = asyncio.get_running_loop().create_task(finishing)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        await asyncio.shield(task)

    async def _finish(
        self,
        who: Attesting,
        refusal: RefusedError,
        voided: tuple[Result, ...],
        others: frozenset[str],
    ) -> None:
        parts, why = self._parts, str(refusal)
        for each in voided:
            target = each.spiffe_id or f"{each.binding.kind} {each.binding.value}"
            detail = {"result": each.id, "level": level_name(each.level), "why": why}
            # It was done: a refusal would fold with others, and its id be lost.
            parts.record(each.app, VOID, Verdict.ALLOW, Reason.LOCAL, target, detail)
        # All of it is in force whatever the disk says: the problems of its files are shown.
        with contextlib.suppress(BindError):
            if refusal.outcome is Outcome.CHANGED:
                await parts.void(_changed(who, refusal, voided))
                for name in others:
                    await parts.void(Changed((), who.app, name, why))
            elif not isinstance(refusal, StaleError):
                await parts.failed(who.binding, why)
        with contextlib.suppress(BindError):
            await parts.live.settled()


def _changed(who: Attesting, refusal: RefusedError, voided: tuple[Result, ...]) -> Changed:
    """Return what has changed: also where its last result has expired a moment ago."""
    svid = who.caller.svid
    serial, until = ("", 0) if svid is None else (svid.serial, svid.not_after)
    return Changed(voided, who.app, refusal.attester, str(refusal), serial, until)


def _ended_by(
    who: Attesting, refusal: RefusedError, changed: frozenset[str]
) -> Callable[[Result], bool] | None:
    """Return which results count no more; None: all that count go on."""
    if refusal.outcome is Outcome.FAILED:
        return lambda each: each.binding == who.binding
    if refusal.outcome is Outcome.CHANGED:
        return lambda each: each.attester in changed and each.app == who.app
    return None
