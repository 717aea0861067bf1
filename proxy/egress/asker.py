"""Who asks over one client connection: its certificate or ambient evidence, or what is presented.

A credential is presented per request (RFC 9110, section 11.7.2), and so is the principal per
request.  What was found of one is kept for as long as nothing changes that could change it.
"""

from proxy.certificates.known import Chain
from proxy.identify import Identifier
from proxy.transport.peer import SocketAddress
from proxy.wire.credential import read_credential
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
        "_base", "_chain", "_epoch", "_fields", "_identifier", "_local", "_peer", "_shown",
        "_shown_at", "_values", "ambient", "listener", "refused",
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

    def again(self, value: bytes | None) -> Principal | Decision:
        """Return who presents `value` (None: nothing) by the rules and tokens of now."""
        self._refresh()
        return self.ambient if value is None else self._present(value)

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
            self._shown = self._present(values[0]) if len(values) == 1 else _TWO

    def _refresh(self) -> None:
        """Look at the connection anew where the rules have changed since."""
        epoch = self._identifier.epoch
        if self._epoch != epoch:
            self._epoch = epoch
            self.ambient = self._identifier.connected(
                self._peer, self._local, self.listener, self._chain
            )

    def _present(self, value: bytes) -> Principal | Decision:
        credential = read_credential(value)
        if credential is None:
            return _UNREADABLE
        return self._identifier.presented(
            credential, self.ambient, self._peer, self._local, self.listener, self._chain
        )
