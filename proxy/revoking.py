"""Carrying a revocation out: rules restated, what is open cut, audit and metrics told.

All that matters happens before a change is acknowledged, in the step that makes it: from then on
every decision is made with the revocation in force, and no octet more is read or written for what
was revoked.  What there is to say of it follows.
"""

import asyncio
from collections.abc import Callable, Coroutine

from proxy.attested.result import Result
from proxy.audit import Audit, Line
from proxy.audit_line import rfc3339
from proxy.certificates.revoked import Change, Kind, Revocation
from proxy.certificates.trust import TrustBundles
from proxy.control.revocations import Cut
from proxy.control.routes import OURSELVES
from proxy.egress.context import Context
from proxy.egress.cut import cut, cut_lapsed, end_lapsed, tell
from proxy.egress.standing import Told
from proxy.egress.sweep import sweep, sweep_askers
from proxy.flow import Plane, new_id
from proxy.metrics import Metrics
from proxy.tokens.known import Token, Tokens
from rules.decision import Reason, Verdict

_APPS = frozenset({Kind.APP})
_ENTROPY_OCTETS = 10


class Cutting:
    """Cuts what was revoked; call it from the loop's thread only.

    `restate` puts the same rules into force under a new generation, which it returns
    (`Reloader.restate`); `wall` is Unix time in seconds.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - the composition root hands every part in
        self,
        context: Context,
        tokens: Tokens,
        restate: Callable[[], int],
        audit: Audit,
        metrics: Metrics,
        wall: Callable[[], float],
        entropy: Callable[[int], bytes],
    ) -> None:
        self._context = context
        self._tokens = tokens
        self._restate = restate
        self._audit = audit
        self._metrics = metrics
        self._wall = wall
        self._entropy = entropy
        self._tasks: set[asyncio.Task[object]] = set()
        self._last: asyncio.Task[Cut] | None = None

    async def cut(self) -> Cut:
        """Return what the last revocation cut, once its resets are out."""
        return Cut() if self._last is None else await asyncio.shield(self._last)

    async def close(self) -> None:
        """End what is under way."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def changed(self, change: Change) -> None:
        """Act on revocations that came or went: `Revocations.on_change`."""
        generation = None
        if Kind.APP in change.kinds:
            generation = self._restate()
        for each in change.revoked:
            self._metrics.revocations.add(each.kind)
        if change.revoked:
            since = min(each.at for each in change.revoked)
            self._last = self._begin(since, apps_only=change.kinds == _APPS)
        if generation is not None:
            self._start(sweep(self._context, generation))  # one under way ends with its generation
        if Kind.SERIAL in change.kinds:
            self.renew_presented()
        if change.kinds != _APPS:
            self._start(sweep_askers(self._context))
        if not change.is_ours:
            self._start(self._tell_of(change))

    def follow(self, trust: TrustBundles) -> None:
        """Act on anchors that are believed no more, from now on; other changes void nothing."""
        before = trust.anchors

        def changed() -> None:
            nonlocal before
            is_less, before = not {*before} <= {*trust.anchors}, trust.anchors
            if is_less:
                self.renew_presented()

        trust.on_change(changed)

    def renew_presented(self) -> None:
        """Show origins no certificate any more that may be void: rests are ended, new ones fetched.

        Of what is in use the exchange ends first; a revoked app or SPIFFE ID ends it at once.
        """
        self._context.identities.forget()
        for origin in self._context.pool.resting():
            if origin.key.secure is not None and origin.key.secure.certificate is not None:
                origin.end()

    def lapsed(self, results: tuple[Result, ...], *, is_void: bool) -> None:
        """End what nothing fresh is proven for any more: `Attestations.on_void`.

        What was voided is ended here and now; what has expired, within the second.
        """
        bindings = {each.binding for each in results}
        if is_void:
            _, evidence = cut_lapsed(self._context, bindings)
            self._start(tell(evidence))
        else:
            self._start(end_lapsed(self._context, bindings))

    def token_is_void(self, token: Token) -> None:
        """Act on a token that was revoked, has expired or is gone: `Tokens.on_void`."""
        revoked = next((each.revoked for each in self._tokens.all() if each.id == token.id), None)
        if revoked is not None:
            self._metrics.revocations.add("token")
            self._last = self._begin(revoked, apps_only=False)
        self._start(sweep_askers(self._context))

    def _begin(self, since: float, *, apps_only: bool) -> asyncio.Task[Cut]:
        count, evidence = cut(self._context, apps_only=apps_only)
        return self._start(self._finish(since, count, evidence))

    async def _finish(self, since: float, count: int, evidence: list[Told]) -> Cut:
        await asyncio.sleep(0)  # the loop closes in its next turn what was reset in this one
        within_s = round(max(self._wall() - since, 0.0), 6)
        self._metrics.revocation_cut_s.observe(within_s)
        self._start(tell(evidence))
        return Cut(count, within_s)

    async def _tell_of(self, change: Change) -> None:
        """Tell audit of what another process wrote."""
        done = await self.cut() if change.revoked else Cut()
        for each in change.revoked:
            said = {"why": each.why, "revoked_at": rfc3339(each.at)}
            counts = {"cut": done.flows, "cut_s": done.within_s}
            self._told(each, "revoked", **said, **counts)
        for each in change.restored:
            self._told(each, "restored")

    def _told(self, each: Revocation, change: str, **said: object) -> None:
        line = Line(
            flow=new_id(self._wall(), self._entropy(_ENTROPY_OCTETS)),
            app=OURSELVES,
            evidence=(),
            plane=Plane.CONTROL,
            fact=None,
            verdict=Verdict.ALLOW,
            reason=Reason.LOCAL,
            rule=None,
            generation=self._context.authorizer.generation,
            target=each.value,
            detail={"change": change, "kind": each.kind, "by_uid": each.by_uid, **said},
        )
        self._audit.write(line, line.flow)  # with an id of its own it folds with no other

    def _start[T](self, work: Coroutine[None, None, T]) -> asyncio.Task[T]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
