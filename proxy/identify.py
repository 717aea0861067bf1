"""Evidence to principal: which app asks.

Order of strength: lease, certificate, token, listener, process.  The last two are ambient: they
name the app only when nothing is *presented*, and never conflict.  Two presented credentials
that name different apps are a refusal, and so is one that is not known: it is never a fall-back
to ambient evidence.
"""

from typing import NamedTuple, Protocol

from proxy.attested.binding import Binding, Kind, of_key
from proxy.attested.known import Attestations
from proxy.certificates.known import Certificates, Chain
from proxy.certificates.svid import Svid
from proxy.identity_lines import Lines, OtherEnd, first
from proxy.proven import is_result, marked, shown
from proxy.sandbox.lease import is_lent
from proxy.sandbox.leases import Leases
from proxy.tokens.known import Purpose, Tokens
from proxy.transport.peer import PeerTable, SocketAddress, SocketOwner
from proxy.wire.credential import Credential
from rules.decision import Decision, Reason, Verdict
from rules.facts import UNKNOWN_APP, Evidence, Principal
from rules.freshness import thresholds
from rules.ruleset import Ruleset

UNKNOWN = Principal(UNKNOWN_APP)
"""Nothing proves who asks."""

_BY_LEASE = Principal(UNKNOWN_APP, (Evidence.LEASE,))
_BY_TOKEN = Principal(UNKNOWN_APP, (Evidence.TOKEN,))
_BY_CERTIFICATE = Principal(UNKNOWN_APP, (Evidence.CERTIFICATE,))
_BY_BOTH = Principal(UNKNOWN_APP, (Evidence.CERTIFICATE, Evidence.TOKEN))

_STRONGER = (Evidence.LEASE, Evidence.CERTIFICATE)
_AMBIENT = frozenset({Evidence.LISTENER, Evidence.PROCESS})


_NO_ENDS: tuple[SocketAddress, SocketAddress] = (("", 0), ("", 0))


class _Moving(Protocol):
    @property
    def epoch(self) -> int: ...


class _Still(NamedTuple):
    epoch: int = 0


_STILL = _Still()  # what is not asked never changes


class Identifier:
    """Maps connections to principals by the identity lines of the rules."""

    def __init__(
        self,
        ruleset: Ruleset,
        peers: PeerTable,
        tokens: Tokens | None = None,
        certificates: Certificates | None = None,
        attestations: Attestations | None = None,
        leases: Leases | None = None,
    ) -> None:
        self._peers = peers
        self._tokens = tokens
        self._certificates = certificates
        self._attestations = attestations
        self._leases = leases
        names = (tokens, certificates, leases)
        one, two, three = [_STILL if each is None else each for each in names]
        self._sources: tuple[_Moving, _Moving, _Moving] = one, two, three
        self._proof: _Moving = _STILL if attestations is None else attestations
        self._uses = 0
        self.use(ruleset)

    def use(self, ruleset: Ruleset) -> None:
        """Take the identity lines of `ruleset` from now on."""
        self._uses += 1
        self._lines = lines = Lines(ruleset)
        self.asks_for_certificates = lines.ask_for_certificates
        """Whether rules use certificates, so that TLS listeners are to ask for them."""
        if self._attestations is not None:
            self._attestations.use(thresholds(ruleset))

    @property
    def naming_epoch(self) -> int:
        """Changes with everything that may change which app a connection is, or whether it is."""
        tokens, certificates, leases = self._sources
        return self._uses + tokens.epoch + certificates.epoch + leases.epoch

    @property
    def epoch(self) -> int:
        """Changes with everything that may change an answer of `presented`.

        A plane that keeps a connection's principal asks again when it differs; where
        `naming_epoch` does not, `again` is enough.
        """
        tokens, certificates, leases = self._sources  # asked for each request: a call less
        names = self._uses + tokens.epoch + certificates.epoch + leases.epoch
        return names + self._proof.epoch

    def udp(self, listener: str) -> Principal | None:
        """Return who asks over UDP at `listener`; None where only TCP can tell.

        Local users can forge each other's UDP source addresses (IP_PKTINFO), so that process
        evidence is none there: the answer is TC=1 (RFC 7766, section 5), decided over TCP.
        Nobody but a lease's sandbox reaches its listeners, whatever address it writes.
        """
        principal = self._lines.listeners.get(listener)
        if principal is not None:
            return principal
        if is_lent(listener):
            found = self._leased(listener)
            return _BY_LEASE if isinstance(found, Decision) else self._marked(found, listener, ())
        in_play = any(process.is_at(listener) for process in self._lines.processes)
        return None if in_play else UNKNOWN

    def tcp(self, peer: SocketAddress, local: SocketAddress, listener: str) -> Principal:
        """Return who connected from `peer` to our socket `local`, by ambient evidence alone."""
        principal = self._lines.listeners.get(listener)
        if principal is not None or not self._lines.processes:
            return principal or UNKNOWN
        asker = OtherEnd(self._peers, (peer, local))
        if asker.owner is None:
            return UNKNOWN
        return first(self._lines.processes, asker, listener) or UNKNOWN

    def connected(
        self, peer: SocketAddress, local: SocketAddress, listener: str, chain: Chain = ()
    ) -> Principal | Decision:
        """Return who connected, `chain` being the verified certificates that were presented.

        At a lease's listener that is whom the lease names; elsewhere, without certificates, what
        `tcp` says.  A certificate that names nobody is a denial, with the reason for the agent,
        and never a fall-back to ambient evidence; one that disagrees with the lease is, too.
        """
        if is_lent(listener):
            found = self._in_lease((peer, local), listener, chain)
        elif chain:
            found = self._certified((peer, local), listener, chain)
        else:
            return self.tcp(peer, local, listener)
        return self.again(found, listener, chain)

    def again(
        self, found: Principal | Decision, listener: str, chain: Chain = ()
    ) -> Principal | Decision:
        """Return what `connected` or `presented` found, with what is proven of it by now."""
        if isinstance(found, Decision):
            return found
        return self._marked(found, listener, chain)

    def binding(self, listener: str, chain: Chain = ()) -> tuple[Svid | None, Binding | None]:
        """Return the certificate of a connection that counts, and what a result can be bound to.

        That is the lease, else the key of the certificate; None on a plain connection.
        """
        svid = self._judge(chain) if chain else None
        if isinstance(svid, Decision):
            svid, chain = None, ()
        bindings = self.bindings(listener, chain)
        return svid, bindings[0] if bindings else None

    def bindings(self, listener: str, chain: Chain = ()) -> tuple[Binding, ...]:
        """Return everything that a result of a connection is bound to, the lease first.

        Of a certificate only what it says is asked, not whether it counts.
        """
        found: tuple[Binding, ...] = ()
        if is_lent(listener) and self._leases is not None:
            lease = self._leases.at(listener)
            found = () if lease is None else (Binding(Kind.LEASE, lease.id),)
        if chain and self._certificates is not None:
            svid = self._certificates.read(chain)
            if svid is not None:
                found = (*found, of_key(svid))
        return found

    def _marked(self, principal: Principal, listener: str, chain: Chain) -> Principal:
        if not (chain or is_lent(listener)):
            return principal
        return marked(self._attestations, principal, self.bindings(listener, chain))

    def vouched(self, spiffe_id: str) -> Principal | Decision:
        """Return whom a SPIFFE ID names that somebody else has verified, as Envoy does for us."""
        known = self._certificates
        revoked = None if known is None else known.vouched(spiffe_id)
        if revoked is not None:
            return revoked
        for each in self._lines.spiffe.get(spiffe_id, ()):
            line = each.line
            if line.listener is line.token is line.lease is None and not line.is_process:
                return each.principal
        return _unknown(f"no identity line names {spiffe_id}")

    def of_process(self, owner: SocketOwner) -> Principal:
        """Return whom the process at the other end of a unix socket is, by uid and cgroup."""
        asker = OtherEnd.known(self._peers, owner)
        return first(self._lines.processes, asker, "") or UNKNOWN

    def _judge(self, chain: Chain) -> Svid | Decision:
        if self._certificates is None:
            return _unknown("certificates are not taken here")
        return self._certificates.judge(chain)

    def _certified(
        self, ends: tuple[SocketAddress, SocketAddress], listener: str, chain: Chain
    ) -> Principal | Decision:
        svid = self._judge(chain)
        if isinstance(svid, Decision):
            return svid
        return self._named(svid.spiffe_id, self._other(ends, listener, svid), listener)

    def _in_lease(
        self, ends: tuple[SocketAddress, SocketAddress], listener: str, chain: Chain
    ) -> Principal | Decision:
        leased = self._leased(listener)
        if isinstance(leased, Decision) or not chain:
            return leased
        certified = self._certified(ends, listener, chain)
        if isinstance(certified, Decision):
            return certified
        rest = [] if Evidence.LEASE in certified.evidence else [Evidence.LEASE]
        return _agreed(certified, leased, rest)

    def _leased(self, listener: str) -> Principal | Decision:
        """Return whom the lease alone names."""
        lease = None if self._leases is None else self._leases.at(listener)
        if lease is None:
            return _unknown("the lease of this listener has ended")
        asker = OtherEnd(self._peers, _NO_ENDS, lease=lease.name)
        return first(self._lines.leases.get(lease.name, ()), asker, listener) or _BY_LEASE

    def _other(
        self, ends: tuple[SocketAddress, SocketAddress], listener: str, svid: Svid | None
    ) -> OtherEnd:
        lease = None
        if is_lent(listener):
            granted = None if self._leases is None else self._leases.at(listener)
            lease = "" if granted is None else granted.name
        return OtherEnd(self._peers, ends, None if svid is None else svid.spiffe_id, lease)

    def _named(self, spiffe_id: str, asker: OtherEnd, listener: str) -> Principal | Decision:
        lines = self._lines.spiffe.get(spiffe_id, ())
        named = first((each for each in lines if each.line.token is None), asker, listener)
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
        A JWT is an attestation result of this very connection, or ATTESTATION_REQUIRED.
        """
        if is_result(credential):
            bindings = self.bindings(listener, chain)
            return shown(self._attestations, credential.secret, ambient, bindings)
        found = self._presented(credential, ambient, (peer, local), listener, chain)
        if isinstance(found, Reason):
            return Decision(Verdict.DENY, found, text=self.explain(credential))
        return self.again(found, listener, chain)

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
        asker = self._other(ends, listener, svid)
        bound = token.bind_uid
        if token.purpose is not Purpose.APP:
            return Reason.IDENTITY_UNKNOWN
        if bound is not None and (asker.owner is None or asker.owner.uid != bound):
            return Reason.IDENTITY_UNKNOWN
        named = first(self._lines.tokens.get(token.name, ()), asker, listener)
        if named is None:
            return Reason.IDENTITY_UNKNOWN
        if credential.user not in {"", token.name, named.app}:
            return Reason.IDENTITY_CONFLICT
        return self._agreed(named, ambient, asker, svid, listener)

    def _agreed(
        self,
        named: Principal,
        ambient: Principal | Decision,
        asker: OtherEnd,
        svid: Svid | None,
        listener: str,
    ) -> Principal | Decision:
        """Return `named`, by a token, where all else that was presented names the same app."""
        there = {*(() if isinstance(ambient, Decision) else ambient.evidence)}
        there |= {Evidence.LEASE} if is_lent(listener) else set()
        there |= {Evidence.CERTIFICATE} if svid is not None else set()
        rest = [kind for kind in _STRONGER if kind in there and kind not in named.evidence]
        if rest == [Evidence.LEASE] and is_lent(listener):
            ambient = self._leased(listener)  # the line is about the certificate, too
        elif rest == [Evidence.CERTIFICATE] and svid is not None and is_lent(listener):
            ambient = self._named(svid.spiffe_id, asker, listener)
        return _agreed(named, ambient, rest)

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
        if self._tokens is None or self._tokens.names.isdisjoint(self._lines.tokens):
            return False
        if principal is _BY_CERTIFICATE:
            return self._lines.any_asks_for_both
        return principal.app == UNKNOWN_APP or _AMBIENT.issuperset(principal.evidence)

    def presented_unknown(self, *, chain: Chain = (), has_token: bool = True) -> Principal:
        """Return the principal of what was presented and names nobody here."""
        if not chain:  # of what presents nothing, only a lease can be in vain
            return _BY_TOKEN if has_token else _BY_LEASE
        return _BY_BOTH if has_token else _BY_CERTIFICATE


def _unknown(text: str) -> Decision:
    return Decision(Verdict.DENY, Reason.IDENTITY_UNKNOWN, text=text)


def _agreed(
    named: Principal, ambient: Principal | Decision, rest: list[Evidence]
) -> Principal | Decision:
    """Return `named` with the evidence `rest` of `ambient`, if both name one app."""
    if not rest:
        return named
    if isinstance(ambient, Decision):  # a certificate that names nobody
        return ambient
    if ambient.app == UNKNOWN_APP:
        return _unknown(f"no identity line names the {rest[0]}")
    if ambient.app != named.app:
        other = named.evidence[0]
        text = f"the {rest[0]} and the {other} name different apps; present one"
        return Decision(Verdict.DENY, Reason.IDENTITY_CONFLICT, text=text)
    kinds = {*rest, *named.evidence}
    return Principal(named.app, tuple(kind for kind in Evidence if kind in kinds))
