"""Evidence to principal: which app asks.

Order of strength: lease, certificate, token, listener, process.  The last two are ambient: they
name the app only when nothing is *presented*, and never conflict.  Two presented credentials
that name different apps are a refusal, and so is one that is not known: it is never a fall-back
to ambient evidence.
"""

from collections.abc import Iterable

from msgspec import Struct

from proxy.tokens.known import Purpose, Tokens
from proxy.transport.peer import PeerTable, SocketAddress, SocketOwner
from proxy.wire.credential import Credential
from rules.decision import Reason
from rules.facts import UNKNOWN_APP, Evidence, Principal
from rules.ruleset import IdentityLine, Ruleset

UNKNOWN = Principal(UNKNOWN_APP)
"""Nothing proves who asks."""

_PRESENTED_UNKNOWN = Principal(UNKNOWN_APP, (Evidence.TOKEN,))


_STRONGER = (Evidence.LEASE, Evidence.CERTIFICATE)
_AMBIENT = frozenset({Evidence.LISTENER, Evidence.PROCESS})


class _Line(Struct, frozen=True):
    principal: Principal
    line: IdentityLine
    rank: tuple[bool, int]  # listener beats process; then more keys win

    def is_at(self, listener: str) -> bool:
        """Return whether the line is about connections to `listener`: all its keys must match."""
        return self.line.listener in {None, listener}


class _Peer:
    """The other end of a connection; the kernel is asked once, and only when a line asks."""

    def __init__(self, peers: PeerTable, peer: SocketAddress, local: SocketAddress) -> None:
        self._peers = peers
        self._ends = (peer, local)
        self._owner: list[SocketOwner | None] = []
        self._digest: list[str | None] = []

    @property
    def owner(self) -> SocketOwner | None:
        if not self._owner:
            self._owner.append(self._peers.owner(*self._ends))
        return self._owner[0]

    def matches(self, line: IdentityLine) -> bool:
        """Return whether the process keys of `line` match; what is absent never does."""
        if not line.is_process:
            return True
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


class Identifier:
    """Maps sockets to principals by the identity lines of the rules."""

    def __init__(self, ruleset: Ruleset, peers: PeerTable, tokens: Tokens | None = None) -> None:
        self._peers = peers
        self._tokens = tokens
        self._uses = 0
        self.use(ruleset)

    def use(self, ruleset: Ruleset) -> None:
        """Take the identity lines of `ruleset` from now on."""
        self._uses += 1
        lines = [
            (app.name, line)
            for app in ruleset.apps.values()
            for line in app.identity
            if line.lease is line.spiffe is None  # no such evidence in this version: never a match
        ]
        ambient = [(app, line) for app, line in lines if line.token is None]
        self._listeners = {
            line.listener: Principal(app, (Evidence.LISTENER,))
            for app, line in ambient
            if line.listener is not None and not line.is_process
        }
        self._processes = _ranked(_line(app, line) for app, line in ambient if line.is_process)
        self._token_lines: dict[str, list[_Line]] = {}
        for each in _ranked(_line(app, line) for app, line in lines if line.token is not None):
            self._token_lines.setdefault(each.line.token or "", []).append(each)

    @property
    def epoch(self) -> int:
        """Changes with everything that may change an answer of `presented`.

        A plane that keeps a connection's principal asks again when it differs.
        """
        return self._uses + (0 if self._tokens is None else self._tokens.epoch)

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
        asker = _Peer(self._peers, peer, local)
        if asker.owner is None:
            return UNKNOWN
        return _first(self._processes, asker, listener) or UNKNOWN

    def presented(
        self,
        credential: Credential,
        ambient: Principal,
        peer: SocketAddress,
        local: SocketAddress,
        listener: str,
    ) -> Principal | Reason:
        """Return who `credential` names on a connection from `peer` to `local` at `listener`.

        `ambient` is what `tcp` said of the connection; of it only a lease or a certificate
        counts, which are presented too: they name the same app, or it is IDENTITY_CONFLICT.  So
        it is where the user of Basic is neither empty nor the token's nor the app's name.  A
        token that is bound to another user, or that no identity line names here, is
        IDENTITY_UNKNOWN, as one that nobody made; REVOKED is said of one that was.
        """
        if self._tokens is None:
            return Reason.IDENTITY_UNKNOWN
        token = self._tokens.find(credential.secret, self._tokens.now())
        if isinstance(token, Reason):
            return token
        asker = _Peer(self._peers, peer, local)
        bound = token.bind_uid
        if token.purpose is not Purpose.APP:
            return Reason.IDENTITY_UNKNOWN
        if bound is not None and (asker.owner is None or asker.owner.uid != bound):
            return Reason.IDENTITY_UNKNOWN
        named = _first(self._token_lines.get(token.name, ()), asker, listener)
        if named is None:
            return Reason.IDENTITY_UNKNOWN
        if credential.user not in {"", token.name, named.app}:
            return Reason.IDENTITY_CONFLICT
        return _agreed(named, ambient)

    def explain(self, credential: Credential | None) -> str:
        """Return what there is to say of a credential that `presented` refused; no secret."""
        if credential is None:
            return "the credential is neither Basic nor Bearer"
        if self._tokens is None:
            return "no such token; ask the admin for one"
        return self._tokens.explain(credential.secret, self._tokens.now())

    def wants_token(self, principal: Principal) -> bool:
        """Return whether a refusal of `principal` asks for a credential (407; DoH: 401).

        So it does where some app has a token, and nothing that was presented named an app.
        """
        if self._tokens is None or self._tokens.names.isdisjoint(self._token_lines):
            return False
        return principal.app == UNKNOWN_APP or _AMBIENT.issuperset(principal.evidence)

    def presented_unknown(self) -> Principal:
        """Return the principal of a credential that nobody here issued."""
        return _PRESENTED_UNKNOWN


def _first(lines: Iterable[_Line], asker: _Peer, listener: str) -> Principal | None:
    for each in lines:
        if each.is_at(listener) and asker.matches(each.line):
            return each.principal
    return None


def _agreed(named: Principal, ambient: Principal) -> Principal | Reason:
    """Return `named` with the presented evidence of `ambient`, if both name one app."""
    others = tuple(kind for kind in ambient.evidence if kind in _STRONGER)
    if not others:
        return named
    if ambient.app != named.app:
        return Reason.IDENTITY_CONFLICT
    return Principal(named.app, (*others, *named.evidence))


def _ranked(lines: Iterable[_Line]) -> list[_Line]:
    return sorted(lines, key=lambda each: each.rank, reverse=True)


def _line(app: str, line: IdentityLine) -> _Line:
    is_bound = line.listener is not None
    kinds = {
        Evidence.TOKEN: line.token is not None,
        Evidence.LISTENER: is_bound,
        Evidence.PROCESS: line.is_process,
    }
    keys = sum(key is not None for key in (line.uid, line.cgroup, line.exe_sha256))
    evidence = tuple(kind for kind, is_there in kinds.items() if is_there)
    return _Line(Principal(app, evidence), line, (is_bound, keys))
