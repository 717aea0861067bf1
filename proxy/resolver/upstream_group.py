"""A group of upstreams of equal policy: who is in it now, and who of them is asked.

`system` stands for the servers that the host is configured with, which come and go while we run;
one that comes back is the same member again, with its connection and its breaker.
"""

import asyncio

from proxy.errors import UpstreamError
from proxy.resolver.resolv_conf import PORT, SERVERS, HostResolvers
from proxy.resolver.upstream_member import Member, MemberMaker
from proxy.resolver.upstream_race import Trial
from proxy.resolver.upstream_url import SYSTEM, Group, Transport, UpstreamAddress

_REMEMBERED = 4 * SERVERS  # of the servers of networks that the host was in


class UpstreamGroup:
    """The members, in the order of the configuration; `best` answered last."""

    def __init__(self, configured: Group, maker: MemberMaker, host: HostResolvers | None) -> None:
        """Open nothing; `host` says what `system` stands for."""
        self.configured = configured
        self.best: Member | None = None
        self._maker = maker
        self._host = host if SYSTEM in configured else None
        self._fixed = {each: maker.make(each) for each in configured if each != SYSTEM}
        self._found: dict[UpstreamAddress, Member] = {}  # of the host, the latest used last
        self._present: tuple[UpstreamAddress, ...] = ()  # of those, the ones configured now
        self._trials: set[Trial] = set()
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def members(self) -> list[Member]:
        """Everyone who is in the group now."""
        members: list[Member] = []
        for address in self.configured:
            if address == SYSTEM:
                members += [self._found[each] for each in self._present]
            else:
                members.append(self._fixed[address])
        return members

    @property
    def problem(self) -> str:
        """Why the group is empty, and what to do."""
        return self._host.problem if self._host is not None else "no upstream is configured"

    def refresh(self, now: float) -> None:
        """Look at what the host is configured with, where `system` is in the group."""
        if self._host is None:
            return
        servers = self._host.servers(now)
        wanted = tuple(UpstreamAddress(Transport.UDP, each, PORT) for each in servers)
        # One that is configured by its address too is not asked twice.
        wanted = tuple(each for each in wanted if each not in self._fixed)
        if wanted == self._present:
            return
        for address in wanted:
            known = address in self._found
            self._found[address] = self._found.pop(address) if known else self._maker.make(address)
        self._present = wanted
        while len(self._found) > _REMEMBERED:
            self._forget(next(iter(self._found)))

    def working(self) -> list[Member]:
        """Return who is asked, in order: the one that answered last is the first."""
        members = [member for member in self.members if member.breaker.is_closed]
        if self.best in members:
            at = members.index(self.best)
            return members[at:] + members[:at]
        return members

    def others(self) -> list[Member]:
        """Return who is passed over as long as anybody works, the least bad one first."""
        members = [member for member in self.members if not member.breaker.is_closed]
        return sorted(members, key=lambda member: member.breaker.retry_at)

    def try_again(self, lowered: bytes, now: float) -> None:
        """Let the question be the trial of each member that is due for one."""
        for member in self.members:
            if member.breaker.is_due(now):
                trial = Trial(member, self._trials.discard)
                self._trials.add(trial)
                try:
                    trial.begin(lowered, self._maker.limits.upstream_try_s)
                except UpstreamError:  # the breaker knows
                    self._trials.discard(trial)

    async def close(self) -> None:
        """Close every socket; attempts were given up before."""
        for trial in tuple(self._trials):
            trial.give_up()
        self._trials.clear()
        for member in (*self._fixed.values(), *self._found.values()):
            await member.upstream.close()
        await asyncio.gather(*self._closing)

    def _forget(self, address: UpstreamAddress) -> None:
        member = self._found.pop(address)
        member.breaker.succeed()  # it is counted as open no more
        closing = asyncio.get_running_loop().create_task(member.upstream.close())
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)
