"""Identity lines, in order of strength, and what of a connection they are compared with."""

from collections.abc import Iterable

from msgspec import Struct

from proxy.transport.peer import PeerTable, SocketAddress, SocketOwner
from rules.facts import Evidence, Principal
from rules.ruleset import IdentityLine, Ruleset


class Line(Struct, frozen=True):
    """A line and whom it names."""

    principal: Principal
    line: IdentityLine
    rank: tuple[bool, bool, bool, int]
    """Lease beats certificate beats listener beats process; then more keys win."""

    def is_at(self, listener: str) -> bool:
        """Return whether the line is about connections to `listener`: all its keys must match."""
        return self.line.listener in {None, listener}


class OtherEnd:
    """The other end of a connection; the kernel is asked once, and only when a line asks.

    `ends` are the addresses of both ends.  `lease` is the name of the lease whose listener it is
    at: its addresses are of another network namespace, where the kernel is not asked.
    """

    def __init__(
        self,
        peers: PeerTable,
        ends: tuple[SocketAddress, SocketAddress],
        spiffe_id: str | None = None,
        lease: str | None = None,
    ) -> None:
        self._peers = peers
        self._ends = ends
        self._spiffe_id = spiffe_id
        self._lease = lease
        self._owner: list[SocketOwner | None] = [] if lease is None else [None]
        self._digest: list[str | None] = []

    @classmethod
    def known(cls, peers: PeerTable, owner: SocketOwner) -> "OtherEnd":
        """Return the other end of a connection whose owner the kernel has told already."""
        made = cls(peers, (("", 0), ("", 0)))
        made._owner.append(owner)
        return made

    @property
    def owner(self) -> SocketOwner | None:
        """Who owns the socket there; None where that cannot be known."""
        if not self._owner:
            self._owner.append(self._peers.owner(*self._ends))
        return self._owner[0]

    def matches(self, line: IdentityLine) -> bool:
        """Return whether all that `line` asks of it is so; what is absent never is."""
        if line.spiffe not in {None, self._spiffe_id} or line.lease not in {None, self._lease}:
            return False
        return not line.is_process or self._is_process(line)

    def _is_process(self, line: IdentityLine) -> bool:
        owner = self.owner
        if owner is None or line.uid not in {None, owner.uid}:
            return False
        if line.cgroup is not None and not self._peers.is_in_cgroup(owner, line.cgroup):
            return False
        if line.exe_sha256 is None:
            return True
        if not self._digest:
            self._digest.append(self._peers.executable_sha256(owner))
        return self._digest[0] == line.exe_sha256


class Lines:
    """The identity lines of a ruleset, each under the strongest evidence that is asked for first.

    `tokens` holds those with a token, whatever else they ask for, `spiffe` those with a SPIFFE ID,
    `leases` those that a lease names without either; the others are ambient.
    """

    def __init__(self, ruleset: Ruleset) -> None:
        lines = [(app.name, line) for app in ruleset.apps.values() for line in app.identity]
        presented = [each for each in lines if _is_presented(each[1])]
        ambient = [each for each in lines if not _is_presented(each[1])]
        by_certificate = [each for each in presented if each[1].spiffe is not None]
        needs_mtls = any(app.require.mtls for app in ruleset.apps.values())
        self.ask_for_certificates = bool(by_certificate) or needs_mtls
        """Whether rules use certificates, so that TLS listeners are to ask for them."""
        self.any_asks_for_both = any(line.token is not None for _, line in by_certificate)
        """Whether some line asks for a certificate and a token."""
        self.listeners = {
            line.listener: Principal(app, (Evidence.LISTENER,))
            for app, line in ambient
            if line.listener is not None and not line.is_process
        }
        self.processes = _ranked(_line(app, line) for app, line in ambient if line.is_process)
        self.tokens: dict[str, list[Line]] = {}
        self.spiffe: dict[str, list[Line]] = {}
        self.leases: dict[str, list[Line]] = {}
        for each in _ranked(_line(app, line) for app, line in presented):
            line = each.line
            if line.token is not None:
                self.tokens.setdefault(line.token, []).append(each)
            if line.spiffe is not None:
                self.spiffe.setdefault(line.spiffe, []).append(each)
            if line.token is line.spiffe is None:
                self.leases.setdefault(line.lease or "", []).append(each)


def first(lines: Iterable[Line], other: OtherEnd, listener: str) -> Principal | None:
    """Return whom the first of `lines` names that matches; None where none does."""
    for each in lines:
        if each.is_at(listener) and other.matches(each.line):
            return each.principal
    return None


def _is_presented(line: IdentityLine) -> bool:
    return not (line.lease is line.spiffe is line.token is None)


def _ranked(lines: Iterable[Line]) -> list[Line]:
    return sorted(lines, key=lambda each: each.rank, reverse=True)


def _line(app: str, line: IdentityLine) -> Line:
    is_leased, is_certified = line.lease is not None, line.spiffe is not None
    is_bound = line.listener is not None
    kinds = {
        Evidence.LEASE: is_leased,
        Evidence.CERTIFICATE: is_certified,
        Evidence.TOKEN: line.token is not None,
        Evidence.LISTENER: is_bound,
        Evidence.PROCESS: line.is_process,
    }
    keys = sum(key is not None for key in (line.uid, line.cgroup, line.exe_sha256))
    evidence = tuple(kind for kind, is_there in kinds.items() if is_there)
    return Line(Principal(app, evidence), line, (is_leased, is_certified, is_bound, keys))
