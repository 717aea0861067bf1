"""Who asks over one client connection: its certificate or ambient evidence, or what is presented.

A credential is presented per request (RFC 9110, section 11.7.2), and so is the principal per
request.  What was found of one is kept for as long as nothing changes that could change it.
"""

from proxy.agent_api.asked import Caller
from proxy.attested.binding import Binding
from proxy.certificates.known import Chain
from proxy.flow import Plane
from proxy.identify import Identifier
from proxy.proven import is_result, is_same
from proxy.transport.peer import SocketAddress
from proxy.wire.credential import Credential, read_credential
from proxy.wire.fields import Fields
from rules.decision import Decision, Reason, Verdict
from rules.facts import Principal

_FIELD = b"proxy-authorization"
_TWO = Decision(
    Verdict.DENY, Reason.IDENTITY_UNKNOWN, text="send one Proxy-Authorization field"
)  # RFC 9110, section 11.7.2: it is no list
_UNREADABLE = Decision(
    Verdict.DENY, Reason.IDENTITY_UNKNOWN, text="the credential is neither Basic nor Bearer"
)


class Asker:
    """The other end of a connection from `peer` to our socket `local`, bound as `listener`.

    `chain` are the verified certificates that were presented when it began.  `ambient` is who it
    is without any token; a denial, where its certificate names nobody.
    """

    __slots__ = (
        "_base", "_bindings", "_chain", "_epoch", "_fields", "_identifier", "_local", "_named_at",
        "_peer", "_shown", "_shown_at", "_values", "ambient", "listener", "refused",
    )  # fmt: skip

    def __init__(
        self,
        identifier: Identifier,
        peer: SocketAddress,
        local: SocketAddress,
        listener: str,
        chain: Chain = (),
    ) -> None:
        """Identify before the first octet is read: the peer's socket may be gone later."""
        self._identifier = identifier
        self._peer = peer
        self._local = local
        self._chain = chain
        self.listener = listener
        self.ambient = identifier.connected(peer, local, listener, chain)
        self.refused = 0  # credentials that were presented in vain
        self._epoch = self._shown_at = identifier.epoch  # of `ambient`, of `_shown`
        self._named_at = identifier.naming_epoch
        self._bindings: tuple[Binding, ...] = ()
        self._fields: Fields = ()
        self._values: tuple[bytes, ...] = ()  # of Proxy-Authorization
        self._base: tuple[bytes, ...] = ()  # of the CONNECT that the requests are inside of
        self._shown: Principal | Decision = self.ambient

    def of(self, fields: Fields) -> Principal | Decision:
        """Return who sends a request with these fields, or why its credential counts for none."""
        if fields is not self._fields or self._shown_at != self._identifier.epoch:
            self._look(fields)
        shown = self._shown
        if isinstance(shown, Decision):
            self.refused += 1
        return shown

    def stay(self) -> None:
        """Let what the last request presented stand for those that present nothing."""
        self._base = self._values

    @property
    def principal(self) -> Principal:
        """Who it is without any token, even where nobody is to be told so."""
        ambient = self.ambient
        return self.stranger(has_token=False) if isinstance(ambient, Decision) else ambient

    def stranger(self, *, has_token: bool | None = None) -> Principal:
        """Return the principal of what was presented, where it counts for nobody."""
        shown = bool(self._values) if has_token is None else has_token
        return self._identifier.presented_unknown(chain=self._chain, has_token=shown)

    @property
    def shown(self) -> Principal | Decision:
        """Who sent the last request, by the rules and tokens of then."""
        return self._shown

    @property
    def value(self) -> bytes | None:
        """What the last request presented."""
        return self._values[0] if self._values else None

    def caller(self, principal: Principal) -> Caller:
        """Return what the API is told of a request of `principal`."""
        svid, binding = self._identifier.binding(self.listener, self._chain)
        return Caller(principal, Plane.HTTP, self.listener, svid, binding)

    @property
    def bindings(self) -> tuple[Binding, ...]:
        """Everything that what is proven of it may be bound to, for as long as it lasts."""
        if not self._bindings:
            self._bindings = self._identifier.bindings(self.listener, self._chain)
        return self._bindings

    def again(self, value: bytes | None) -> Principal | Decision:
        """Return who presented `value` (None: nothing) by the rules and tokens of now.

        An attestation result gave the connection nothing that it has not without it: that a newer
        one took its place ends nothing.
        """
        self._refresh()
        credential = None if value is None else read_credential(value)
        if value is None or (credential is not None and is_result(credential)):
            return self.ambient
        return self._present(credential)

    def still(self, principal: Principal) -> Principal | None:
        """Return `principal` with what is proven of it by now; None where it is not it any more."""
        now = self.again(self.value)
        return now if isinstance(now, Principal) and is_same(now, principal) else None

    def _look(self, fields: Fields) -> None:
        values = tuple([value for name, value in fields if name == _FIELD]) or self._base
        self._fields = fields
        if values == self._values and self._shown_at == self._identifier.epoch:
            return
        self._refresh()
        self._shown_at = self._epoch
        self._values = values
        if not values:
            self._shown = self.ambient
        else:
            self._shown = self._present(read_credential(values[0])) if len(values) == 1 else _TWO

    def _refresh(self) -> None:
        """Look at the connection anew where the rules, or what is proven, have changed since."""
        identifier = self._identifier
        if self._epoch == identifier.epoch:
            return
        self._epoch = identifier.epoch
        if self._named_at == identifier.naming_epoch:  # it is who it was: the kernel is not asked
            self.ambient = identifier.again(self.ambient, self.listener, self._chain)
            return
        self._named_at = identifier.naming_epoch
        self.ambient = identifier.connected(self._peer, self._local, self.listener, self._chain)

    def _present(self, credential: Credential | None) -> Principal | Decision:
        if credential is None:
            return _UNREADABLE
        return self._identifier.presented(
            credential, self.ambient, self._peer, self._local, self.listener, self._chain
        )
