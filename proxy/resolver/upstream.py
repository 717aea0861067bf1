"""Which upstream is asked, and when the next one is.

Upstreams of a group have equal policy, so that any of them may be asked for anything that was
allowed, and a slow one is hedged inside its group (`upstream_race`).  The one that answered last
is asked first.  One that failed `limits.upstream_failures` times in a row is passed over until a
question that goes to its group anyway was its trial (`breaker`).

Groups are asked in order: the next one when all of a group are open or have failed, never when
one of them answered, whatever it said.  Where nobody else is left, open ones are asked too: no
question is refused because of a breaker.  All is over within `limits.upstream_timeout_s`, which
the groups share.

Nothing here knows who asks.  Equal questions of one app are asked once by `resolver.query`.  No
environment variable is read, and resolv.conf only where `system` is configured.
"""

import asyncio
import os
import ssl
from collections.abc import Sequence
from time import perf_counter
from typing import cast

from proxy.errors import UpstreamError
from proxy.limits import Limits
from proxy.metrics import Metrics
from proxy.resolver.resolv_conf import HostResolvers
from proxy.resolver.upstream_group import UpstreamGroup
from proxy.resolver.upstream_member import Member, MemberMaker, UpstreamStatus
from proxy.resolver.upstream_query import Entropy, write_question
from proxy.resolver.upstream_race import Race, explain
from proxy.resolver.upstream_url import Group, UpstreamAddress
from rules.decision import Reason
from rules.name import DomainName

type _Step = tuple[UpstreamGroup, Sequence[Member]]


class Upstreams:
    """Groups of upstream resolvers, in the order in which they are asked."""

    def __init__(  # noqa: PLR0913 - the composition root hands every part in
        self,
        upstreams: Sequence[UpstreamAddress] | Sequence[Group],
        limits: Limits,
        metrics: Metrics,
        ssl_context: ssl.SSLContext,
        entropy: Entropy = os.urandom,
        *,
        https_context: ssl.SSLContext | None = None,
        host: HostResolvers | None = None,
        zone: str = "",
    ) -> None:
        """Open nothing yet; a list of addresses is one group.

        The contexts are those of `transport.tls.upstream_context`: `ssl_context` for DoT,
        `https_context` (ALPN h2) for DoH.  `host` is what `system` stands for.
        """
        self.limits = limits
        self.metrics = metrics
        self._zone = zone
        maker = MemberMaker(limits, metrics, entropy, ssl_context, https_context)
        self.groups = [UpstreamGroup(group, maker, host) for group in _as_groups(upstreams)]
        self._races: set[Race] = set()
        self._in_flight = 0
        self._is_closed = False

    @property
    def in_flight(self) -> int:
        """How many questions are under way."""
        return self._in_flight

    @property
    def addresses(self) -> tuple[UpstreamAddress, ...]:
        """Every upstream that is configured."""
        return tuple(address for group in self.groups for address in group.configured)

    def status(self) -> list[UpstreamStatus]:
        """Return how each upstream fares."""
        return [
            member.status(self._zone, number)
            for number, group in enumerate(self.groups, 1)
            for member in group.members
        ]

    async def ask(self, name: DomainName, rtype: int) -> bytes:
        """Return a response to the question, in class IN.

        Its id, question (with the random case that was sent) and source were checked, and its
        question is in lower case again; everything behind the question is as it came.  Its rcode
        is NOERROR or NXDOMAIN, or else what the last upstream said when all say otherwise.

        Raises:
            UpstreamError: CAPACITY, `limits.upstream_in_flight` questions are under way;
                UPSTREAM_TIMEOUT, UPSTREAM_UNREACHABLE, UPSTREAM_TLS or UPSTREAM_MALFORMED, as
                the last upstream failed; the text says how each of them did.
        """
        if self._in_flight >= self.limits.upstream_in_flight:
            self.metrics.bounds.add("upstream_in_flight")
            raise UpstreamError(Reason.CAPACITY, "too many questions to upstreams are under way")
        began = perf_counter()
        self._in_flight += 1
        try:
            return await self._ask(write_question(name, rtype))
        finally:
            self._in_flight -= 1
            self.metrics.upstream_s.observe(perf_counter() - began)

    async def close(self) -> None:
        """Fail what is under way and all that is asked later, and close every socket."""
        self._is_closed = True
        for race in tuple(self._races):
            race.fail(_closed())
        for group in self.groups:
            await group.close()

    async def _ask(self, lowered: bytes) -> bytes:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.limits.upstream_timeout_s
        steps = self._steps(loop.time())
        errors: dict[Member, UpstreamError] = {}
        for at, (group, members) in enumerate(steps):
            if self._is_closed:
                raise _closed()
            self._try_again(group, lowered, loop.time())
            within_s = (deadline - loop.time()) / (len(steps) - at)
            is_last = at == len(steps) - 1
            race = Race(lowered, members, within_s, self.limits, self.metrics, is_last=is_last)
            try:
                return await self._run(race, group)
            except UpstreamError:
                errors |= race.errors
        raise _closed() if self._is_closed else explain(errors)

    async def _run(self, race: Race, group: UpstreamGroup) -> bytes:
        self._races.add(race)
        try:
            race.begin()
            return await race.result
        finally:
            self._races.discard(race)
            race.end()
            if race.winner is not None:
                group.best = race.winner

    def _steps(self, now: float) -> list[_Step]:
        """Return whom to ask, in order: first those that work, then whoever is left.

        Raises:
            UpstreamError: `system` alone is configured, and names nobody.
        """
        for group in self.groups:
            group.refresh(now)
        steps: list[_Step] = [(each, each.working()) for each in self.groups if each.working()]
        # An open one is no better a bet than one of its group that has just failed.
        steps += [
            (each, [*each.working(), *each.others()]) for each in self.groups if each.others()
        ]
        if not steps:
            problem = self.groups[0].problem
            raise UpstreamError(Reason.UPSTREAM_UNREACHABLE, problem)
        return steps

    def _try_again(self, asked: UpstreamGroup, lowered: bytes, now: float) -> None:
        """Let the question be the trial of what is due: in this group, and in those before it.

        Later groups are for when these fail: the question is none of theirs yet.
        """
        for group in self.groups:
            if group is not asked or group.working():
                group.try_again(lowered, now)
            if group is asked:
                return


def _as_groups(upstreams: Sequence[UpstreamAddress] | Sequence[Group]) -> Sequence[Group]:
    if all(isinstance(each, UpstreamAddress) for each in upstreams):
        return (tuple(cast("Sequence[UpstreamAddress]", upstreams)),)
    return cast("Sequence[Group]", upstreams)


def _closed() -> UpstreamError:
    return UpstreamError(Reason.UPSTREAM_UNREACHABLE, "the resolver is closed")
