"""Evidence to principal: which app asks.

Order of strength: lease, certificate, token, listener, process.  The last two are ambient: they
name the app only when nothing is *presented*, and never conflict.  Two presented credentials
that name different apps are a refusal, and so is one that is not known: it is never a fall-back
to ambient evidence.
"""

from collections.abc import Iterable

from msgspec import Struct

from proxy.certificates.known import Certificates, Chain
from proxy.certificates.svid import Svid
from proxy.tokens.known import Purpose, Tokens
from proxy.transport.peer import PeerTable, SocketAddress, SocketOwner
from proxy.wire.credential import Credential
from rules.decision import Decision, Reason, Verdict
from rules.facts import UNKNOWN_APP, Evidence, Principal
from rules.ruleset import IdentityLine, Ruleset

UNKNOWN = Principal(UNKNOWN_APP)
"""Nothing proves who asks."""

_BY_TOKEN = Principal(UNKNOWN_APP, (Evidence.TOKEN,))
_BY_CERTIFICATE = Principal(UNKNOWN_APP, (Evidence.CERTIFICATE,))
_BY_BOTH = Principal(UNKNOWN_APP, (Evidence.CERTIFICATE, Evidence.TOKEN))

_STRONGER = (Evidence.LEASE, Evidence.CERTIFICATE)
_AMBIENT = frozenset({Evidence.LISTENER, Evidence.PROCESS})


class _Line(Struct, frozen=True):
    principal: Principal
    line: IdentityLine
    rank: tuple[bool, bool, int]  # certificate beats listener beats process; then more keys win

    def is_at(self, listener: str) -> bool:
        """Return whether the line is about connections to `listener`: all its keys must match."""
        return self.line.listener in {None, listener}


class _Peer:
    """The other end of a connection; the kernel is asked once, and only when a line asks."""

    def __init__(
        self,
        peers: PeerTable,
        peer: SocketAddress,
        local: SocketAddress,
        spiffe_id: str | None = None,
    ) -> None:
        self._peers = peers
        self._ends = (peer, local)
        self._spiffe_id = spiffe_id
        self._owner: list[SocketOwner | None] = []
        self._digest: list[str | None] = []

    @classmethod
    def known(cls, peers: PeerTable, owner: SocketOwner) -> "_Peer":
        """Return the other end of a connection whose owner the kernel has told already."""
        made = cls(peers, ("", 0), ("", 0))
        made._owner.append(owner)
        return made

    @property
    def owner(self) -> SocketOwner | None:
        if not self._owner:
            self._owner.append(self._peers.owner(*self._ends))
        return self._owner[0]

    def matches(self, line: IdentityLine) -> bool:
        """Return whether its certificate and process match `line`; what is absent never does."""
        if line.spiffe not in {None, self._spiffe_id}:
            return False
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
    """Maps connections to principals by the identity lines of the rules."""

    def __init__(
        self,
        ruleset: Ruleset,
        peers: PeerTable,
        tokens: Tokens | None = None,
        certificates: Certificates | None = None,
    ) -> None:
        self._peers = peers
        self._tokens = tokens
        self._certificates = certificates
        self._uses = 0
        self.use(ruleset)

    def use(self, ruleset: Ruleset) -> None:
        """Take the identity lines of `ruleset` from now on."""
        self._uses += 1
        apps = ruleset.apps.values()
        lines = [
            (app.name, line)
            for app in apps
            for line in app.identity
            if line.lease is None  # no such evidence in this version: never a match
        ]
        by_certificate = [each for each in lines if each[1].spiffe is not None]
        ambient = [(app, line) for app, line in lines if line.token is line.spiffe is None]
        self.asks_for_certificates = bool(by_certificate) or any(app.require.mtls for app in apps)
        """Whether rules use certificates, so that TLS listeners are to ask for them."""
        self._listeners = {
            line.listener: Principal(app, (Evidence.LISTENER,))
            for app, line in ambient
            if line.listener is not None and not line.is_process
        }
        self._processes = _ranked(_line(app, line) for app, line in ambient if line.is_process)
        self._token_lines: dict[str, list[_Line]] = {}
        for each in _ranked(_line(app, line) for app, line in lines if line.token is not None):
            self._token_lines.setdefault(each.line.token or "", []).append(each)
        self._any_asks_for_both = any(line.token is not None for _, line in by_certificate)
        self._spiffe_lines: dict[str, list[_Line]] = {}
        for each in _ranked(_line(app, line) for app, line in by_certificate):
            self._spiffe_lines.setdefault(each.line.spiffe or "", []).append(each)

    @property
    def epoch(self) -> int:
        """Changes with everything that may change an answer of `presented`.

        A plane that keeps a connection's principal asks again when it differs.
        """
        tokens, certificates = self._tokens, self._certificates
        epoch = self._uses if tokens is None else self._uses + tokens.epoch
        return epoch if certificates is None else epoch + certificates.epoch

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

    def connected(
        self, peer: SocketAddress, local: SocketAddress, listener: str, chain: Chain = ()
    ) -> Principal | Decision:
        """Return who connected, `chain` being the verified certificates that were presented.

        Without any this is what `tcp` says.  A certificate that names nobody is a denial, with
        the reason for the agent, and never a fall-back to ambient evidence.
        """
        if not chain:
            return self.tcp(peer, local, listener)
        svid = self._judge(chain)
        if isinstance(svid, Decision):
            return svid
        asker = _Peer(self._peers, peer, local, svid.spiffe_id)
        return self._named(svid.spiffe_id, asker, listener)

    def vouched(self, spiffe_id: str) -> Principal | Decision:
        """Return whom a SPIFFE ID names that somebody else has verified, as Envoy does for us."""
        known = self._certificates
        revoked = None if known is None else known.vouched(spiffe_id)
        if revoked is not None:
            return revoked
        for each in self._spiffe_lines.get(spiffe_id, ()):
            if each.line.listener is each.line.token is None and not each.line.is_process:
                return each.principal
        return _unknown(f"no identity line names {spiffe_id}")

    def of_process(self, owner: SocketOwner) -> Principal:
        """Return whom the process at the other end of a unix socket is, by uid and cgroup."""
        asker = _Peer.known(self._peers, owner)
        return _first(self._processes, asker, "") or UNKNOWN

    def _judge(self, chain: Chain) -> Svid | Decision:
        if self._certificates is None:
            return _unknown("certificates are not taken here")
        return self._certificates.judge(chain)

    def _named(self, spiffe_id: str, asker: _Peer, listener: str) -> Principal | Decision:
        lines = self._spiffe_lines.get(spiffe_id, ())
        named = _first((each for each in lines if each.line.token is None), asker, listener)
        if named is not None:
            return named
        if not lines:
            return _unknown(f"no identity line names {spiffe_id}")
        if any(each.is_at(listener) and asker.matches(each.line) for each in lines):
            return _unknown(f"{spiffe_id} names an app together with a token: send it too")
        return _unknown(f"{spiffe_id} names no app at this listener or for this process")

    def presented(
        self,
        credential: Credential,
        ambient: Principal | Decision,
        peer: SocketAddress,
        local: SocketAddress,
        listener: str,
        chain: Chain = (),
    ) -> Principal | Decision:
        """Return who `credential` names on a connection from `peer` to `local` at `listener`.

        `ambient` is what `connected` said of the connection and of `chain`; of it only a lease or
        a certificate counts, which are presented too: they name the same app, or it is
        IDENTITY_CONFLICT.  So it is where the user of Basic is neither empty nor the token's nor
        the app's name.  A token that is bound to another user, or that no identity line names
        here, is IDENTITY_UNKNOWN, as one that nobody made; REVOKED is said of one that was.
        """
        found = self._presented(credential, ambient, (peer, local), listener, chain)
        if isinstance(found, Reason):
            return Decision(Verdict.DENY, found, text=self.explain(credential))
        return found

    def _presented(
        self,
        credential: Credential,
        ambient: Principal | Decision,
        ends: tuple[SocketAddress, SocketAddress],
        listener: str,
        chain: Chain,
    ) -> Principal | Decision | Reason:
        svid = self._judge(chain) if chain else None
        if isinstance(svid, Decision):
            return svid
        if self._tokens is None:
            return Reason.IDENTITY_UNKNOWN
        token = self._tokens.find(credential.secret, self._tokens.now())
        if isinstance(token, Reason):
            return token
        asker = _Peer(self._peers, *ends, None if svid is None else svid.spiffe_id)
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
        A certificate that names nobody needs another one, unless some line asks for both.
        """
        if self._tokens is None or self._tokens.names.isdisjoint(self._token_lines):
            return False
        if principal is _BY_CERTIFICATE:
            return self._any_asks_for_both
        return principal.app == UNKNOWN_APP or _AMBIENT.issuperset(principal.evidence)

    def presented_unknown(self, *, chain: Chain = (), has_token: bool = True) -> Principal:
        """Return the principal of what was presented and names nobody here."""
        if not chain:
            return _BY_TOKEN
        return _BY_BOTH if has_token else _BY_CERTIFICATE


def _unknown(text: str) -> Decision:
    return Decision(Verdict.DENY, Reason.IDENTITY_UNKNOWN, text=text)


def _first(lines: Iterable[_Line], asker: _Peer, listener: str) -> Principal | None:
    for each in lines:
        if each.is_at(listener) and asker.matches(each.line):
            return each.principal
    return None


def _agreed(named: Principal, ambient: Principal | Decision) -> Principal | Decision:
    """Return `named` with the presented evidence of `ambient`, if both name one app."""
    if Evidence.CERTIFICATE in named.evidence:  # its line is about the certificate, too
        return named
    if isinstance(ambient, Decision):  # a certificate that names nobody
        return ambient
    others = tuple(kind for kind in ambient.evidence if kind in _STRONGER)
    if not others:
        return named
    if ambient.app != named.app:
        text = f"the {others[0]} and the token name different apps; present one"
        return Decision(Verdict.DENY, Reason.IDENTITY_CONFLICT, text=text)
    return Principal(named.app, (*others, *named.evidence))


def _ranked(lines: Iterable[_Line]) -> list[_Line]:
    return sorted(lines, key=lambda each: each.rank, reverse=True)


def _line(app: str, line: IdentityLine) -> _Line:
    is_bound, is_certified = line.listener is not None, line.spiffe is not None
    kinds = {
        Evidence.CERTIFICATE: is_certified,
        Evidence.TOKEN: line.token is not None,
        Evidence.LISTENER: is_bound,
        Evidence.PROCESS: line.is_process,
    }
    keys = sum(key is not None for key in (line.uid, line.cgroup, line.exe_sha256))
    evidence = tuple(kind for kind, is_there in kinds.items() if is_there)
    return _Line(Principal(app, evidence), line, (is_certified, is_bound, keys))
