"""Evidence to principal: which app asks.

Order of strength: lease, certificate, token, listener, process.  In this version only the two
ambient ones exist; they name the app when nothing is *presented*.  A presented credential that
is not known is never a fall-back to ambient evidence (`presented_unknown`).
"""

from msgspec import Struct

from proxy.transport.peer import PeerTable, SocketAddress, SocketOwner
from rules.facts import UNKNOWN_APP, Evidence, Principal
from rules.ruleset import IdentityLine, Ruleset

UNKNOWN = Principal(UNKNOWN_APP)
"""Nothing proves who asks."""

_PRESENTED_UNKNOWN = Principal(UNKNOWN_APP, (Evidence.TOKEN,))


class _ProcessLine(Struct, frozen=True):
    principal: Principal
    line: IdentityLine
    rank: tuple[bool, int]  # listener beats process; then more keys win

    def is_at(self, listener: str) -> bool:
        """Return whether the line is about connections to `listener`: all its keys must match."""
        return self.line.listener in {None, listener}


class Identifier:
    """Maps sockets to principals by the identity lines of the rules."""

    def __init__(self, ruleset: Ruleset, peers: PeerTable) -> None:
        self._peers = peers
        self.use(ruleset)

    def use(self, ruleset: Ruleset) -> None:
        """Take the identity lines of `ruleset` from now on."""
        lines = [
            (app.name, line)
            for app in ruleset.apps.values()
            for line in app.identity
            if line.lease is line.spiffe is line.token is None  # no such evidence: never a match
        ]
        self._listeners = {
            line.listener: Principal(app, (Evidence.LISTENER,))
            for app, line in lines
            if line.listener is not None and not line.is_process
        }
        self._processes = sorted(
            (_process_line(app, line) for app, line in lines if line.is_process),
            key=lambda process: process.rank,
            reverse=True,
        )

    def udp(self, listener: str) -> Principal | None:
        """Return who asks over UDP at `listener`; None where only TCP can tell.

        Local users can forge each other's UDP source addresses (IP_PKTINFO), so that process
        evidence is none there: the answer is TC=1 (RFC 7766, section 5), decided over TCP.
        """
        principal = self._listeners.get(listener)
        if principal is not None:
            return principal
        in_play = any(process.is_at(listener) for process in self._processes)
        return None if in_play else UNKNOWN

    def tcp(self, peer: SocketAddress, local: SocketAddress, listener: str) -> Principal:
        """Return who connected from `peer` to our socket `local`, bound as `listener`."""
        principal = self._listeners.get(listener)
        if principal is not None or not self._processes:
            return principal or UNKNOWN
        owner = self._peers.owner(peer, local)
        return UNKNOWN if owner is None else self._by_process(owner, listener)

    def presented_unknown(self) -> Principal:
        """Return the principal of a credential that nobody here issued."""
        return _PRESENTED_UNKNOWN

    def _by_process(self, owner: SocketOwner, listener: str) -> Principal:
        digest: list[str | None] = []  # looked up once, and only when a line of this uid asks
        for process in self._processes:
            if process.is_at(listener) and self._matches(process.line, owner, digest):
                return process.principal
        return UNKNOWN

    def _matches(self, line: IdentityLine, owner: SocketOwner, digest: list[str | None]) -> bool:
        if line.uid is not None and line.uid != owner.uid:
            return False
        if line.cgroup is not None and not self._peers.is_in_cgroup(owner, line.cgroup):
            return False
        if line.exe_sha256 is None:
            return True
        if not digest:
            digest.append(self._peers.executable_sha256(owner))
        return digest[0] is not None and digest[0] == line.exe_sha256


def _process_line(app: str, line: IdentityLine) -> _ProcessLine:
    is_bound = line.listener is not None
    evidence = (Evidence.LISTENER, Evidence.PROCESS) if is_bound else (Evidence.PROCESS,)
    keys = sum(key is not None for key in (line.uid, line.cgroup, line.exe_sha256))
    return _ProcessLine(Principal(app, evidence), line, (is_bound, keys))
