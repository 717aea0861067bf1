"""The connections of the Workload API that are open: whose they are, and what they may have.

Bounded in all and per uid, so that no user shuts out the others; and who is entitled to nothing has
half of the room at most, however many users he can be.  A connection is the caller's:
when his process ends it is entitled to nothing, whoever holds its other end by then.
"""

import asyncio
import socket
from collections.abc import Callable, Iterator

from proxy.limits import Limits
from proxy.workload.callers import Caller
from proxy.workload.entitle import NOTHING, Entitlement


class Connection:
    """One connection; `socket` is None once the issuer has it."""

    def __init__(
        self, number: int, caller: Caller, entitlement: Entitlement, sock: socket.socket
    ) -> None:
        self.number = number
        self.caller = caller
        self.entitlement = entitlement
        self.socket: socket.socket | None = sock


class Connections:
    """All of them; `on_change` is called with one whose entitlement has become another."""

    def __init__(self, limits: Limits, on_change: Callable[[Connection], object]) -> None:
        self._limits = limits
        self._on_change = on_change
        self._open: dict[int, Connection] = {}
        self._of_uid: dict[int, int] = {}
        self._next_looked = 0

    def __len__(self) -> int:
        """Return how many are open."""
        return len(self._open)

    def __iter__(self) -> Iterator[Connection]:
        """Go through those that are open now."""
        return iter(tuple(self._open.values()))

    def met(self, uid: int) -> str | None:
        """Return the name of the limit that keeps a further one of `uid` out; None: there is room.

        The newest is kept out: those that are open hold streams that workloads live on.
        """
        if len(self._open) >= self._limits.workload_connections:
            return "workload_connections"
        if self._of_uid.get(uid, 0) >= self._limits.workload_connections_per_uid:
            return "workload_connections_per_uid"
        return None

    def is_for(self, entitlement: Entitlement) -> bool:
        """Return whether there is room for one who is entitled to this."""
        most = self._limits.workload_connections // 2
        if entitlement.ids or len(self._open) < most:
            return True
        return sum(not each.entitlement.ids for each in self._open.values()) < most

    def add(self, connection: Connection) -> None:
        """Keep it until it is dropped; its caller's end is watched."""
        caller = connection.caller
        self._open[connection.number] = connection
        self._of_uid[caller.uid] = self._of_uid.get(caller.uid, 0) + 1
        if caller.pidfd is not None:
            loop = asyncio.get_running_loop()
            loop.add_reader(caller.pidfd, self._caller_ended, connection)

    def entitle(self, connection: Connection, entitlement: Entitlement) -> None:
        """Entitle its caller to this from now on."""
        if connection.entitlement != entitlement and connection.number in self._open:
            connection.entitlement = entitlement
            self._on_change(connection)

    def drop(self, number: int) -> None:
        """Forget a connection that has ended; an unknown number is one that was dropped."""
        connection = self._open.pop(number, None)
        if connection is None:
            return
        caller = connection.caller
        left = self._of_uid.pop(caller.uid) - 1
        if left:
            self._of_uid[caller.uid] = left
        self._unwatch(caller)
        caller.close()
        if connection.socket is not None:
            connection.socket.close()

    def close(self) -> None:
        """Drop all of them."""
        for number in tuple(self._open):
            self.drop(number)

    def some(self, most: int) -> list[Connection]:
        """Return the next `most` of them in turn, so that each is looked at sooner or later."""
        numbers = [each for each in self._open if each > self._next_looked][:most]
        self._next_looked = numbers[-1] if len(numbers) == most else -1
        return [self._open[each] for each in numbers]

    def _caller_ended(self, connection: Connection) -> None:
        self._unwatch(connection.caller)
        self.entitle(connection, NOTHING)

    def _unwatch(self, caller: Caller) -> None:
        if caller.pidfd is not None:
            asyncio.get_running_loop().remove_reader(caller.pidfd)
