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
    app: str
    line: IdentityLine
    keys: int


class Identifier:
    """Maps sockets to principals by the identity lines of the rules."""

    def __init__(self, ruleset: Ruleset, peers: PeerTable) -> None:
        self._peers = peers
        self.use(ruleset)

    def use(self, ruleset: Ruleset) -> None:
        """Take the identity lines of `ruleset` from now on."""
        lines = [(app, line) for app in ruleset.apps.values() for line in app.identity]
        self._listeners = {
            line.listener: Principal(app.name, (Evidence.LISTENER,))
            for app, line in lines
            if line.listener is not None
        }
        self._processes = sorted(
            (_ProcessLine(app.name, line, _keys(line)) for app, line in lines if line.is_process),
            key=lambda process: -process.keys,
        )

    def udp(self, listener: str) -> Principal | None:
        """Return who asks over UDP at `listener`; None where only TCP can tell.

        Local users can forge each other's UDP source addresses (IP_PKTINFO), so that process
        evidence is none there: the answer is TC=1 (RFC 7766, section 5), decided over TCP.
        """
        principal = self._listeners.get(listener)
        if principal is not None:
            return principal
        return None if self._processes else UNKNOWN

    def tcp(self, peer: SocketAddress, local: SocketAddress, listener: str) -> Principal:
        """Return who connected from `peer` to our socket `local`, bound as `listener`."""
        principal = self._listeners.get(listener)
        if principal is not None or not self._processes:
            return principal or UNKNOWN
        owner = self._peers.owner(peer, local)
        return UNKNOWN if owner is None else self._by_process(owner)

    def presented_unknown(self) -> Principal:
        """Return the principal of a credential that nobody here issued."""
        return _PRESENTED_UNKNOWN

    def _by_process(self, owner: SocketOwner) -> Principal:
        digest: list[str | None] = []  # looked up once, and only when a line of this uid asks
        for process in self._processes:
            if self._matches(process.line, owner, digest):
                return Principal(process.app, (Evidence.PROCESS,))
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


def _keys(line: IdentityLine) -> int:
    return sum(key is not None for key in (line.uid, line.cgroup, line.exe_sha256))
