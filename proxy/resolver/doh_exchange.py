"""Requests of one DoH connection to their answers: who asks, of what, and what DNS says.

The order is that of what may be told: whether the authority is ours, whether a page asks, who
asks, and only then the query.  A token that is presented and names nobody is a 401, such a
certificate a 403; never is there a fall-back to ambient evidence.
"""

from ipaddress import IPv6Address

from msgspec import Struct, structs

from proxy.agent_api.api import AgentApi
from proxy.agent_api.asked import Asked, Caller
from proxy.certificates.known import Chain
from proxy.errors import PeerError
from proxy.flow import Plane
from proxy.identify import Identifier
from proxy.limits import Limits
from proxy.metrics import Metrics
from proxy.problem import Problem, problem
from proxy.refusals import Refusal, Refusals
from proxy.resolver.doh_answer import (
    CHALLENGES,
    Answer,
    Message,
    explained,
    fresh_s,
    http_refusal,
    of_api,
    turned_away,
)
from proxy.resolver.doh_request import Call, DohRequest, HttpRefusal, no_api, too_long
from proxy.resolver.hits import Hit, Table
from proxy.resolver.message import QueryError
from proxy.resolver.query import CHANGED, Asker, Miss, Resolver
from proxy.transport.peer import SocketAddress
from proxy.wire.credential import read_credential
from proxy.wire.host import parse_authority
from rules.address import Address, parse_address
from rules.decision import Decision, Reason, Verdict
from rules.facts import Principal
from rules.name import DomainName
from rules.special import OUR_ZONE

_OURS = frozenset({DomainName("localhost"), DomainName(OUR_ZONE)})
_NO_AUTHORITY = b"\n"  # which no field of HTTP holds
_ANSWER_OCTETS = 65535  # RFC 1035, section 4.2.2
_REFUSED = 400  # RFC 9110, section 15.5: from here on
_TWO = Decision(Verdict.DENY, Reason.IDENTITY_UNKNOWN, text="send one Authorization field")
_UNREADABLE = Decision(
    Verdict.DENY, Reason.IDENTITY_UNKNOWN, text="the credential is neither Basic nor Bearer"
)
_NO_QUERY = HttpRefusal(400, "the content is no DNS query")
_NOT_OURS = HttpRefusal(421, "name the listener by its address, localhost or sallyport.internal")
_UNKNOWN_ID = HttpRefusal(404, "no such refusal of this app, or it is too long ago")


class DohContext(Struct, frozen=True):
    """What every connection works with."""

    resolver: Resolver
    identifier: Identifier
    refusals: Refusals
    limits: Limits
    metrics: Metrics
    api: AgentApi | None = None


class Calling(Struct, frozen=True):
    """A request to the API for agents, to `finish`; `presented` are its values of Authorization."""

    api: AgentApi
    asked: Asked
    presented: tuple[bytes, ...]


class Exchange:
    """One connection from `peer` to our socket `local`, at the listener of that name.

    `chain` are the verified certificates that were presented when it began.
    """

    def __init__(
        self,
        context: DohContext,
        peer: SocketAddress,
        local: SocketAddress,
        listener: str,
        chain: Chain = (),
    ) -> None:
        """Identify before the first octet is read: the peer's socket may be gone later."""
        self._context = context
        self.is_call = no_api if context.api is None else context.api.takes
        """Says of a path whether the API for agents takes it."""
        self._ends = (peer, local)
        self._listener = listener
        self._chain = chain
        self._name = _address(local)
        self._authority = _NO_AUTHORITY  # the last that was ours
        self._presented: tuple[bytes, ...] = ()
        self._named_at = -1  # not yet
        self._ambient: Principal | Decision
        self._shown: Principal | Decision
        self._misses: dict[int, tuple[tuple[bytes, ...], int]] = {}  # what was presented, and when
        self._identify()
        self.begin()

    @property
    def app(self) -> str:
        """The app that it is without any token."""
        return self._principal.app

    def begin(self) -> None:
        """Begin a turn of the loop: look at the clock, at the rules and at the hits."""
        if self._epoch != self._context.identifier.epoch:
            self._identify()
        resolver = self._context.resolver
        self._now = resolver.now()
        # Nothing is ever served to a stranger whose certificate names nobody: nor is it hit.
        self._table: Table = resolver.hits.table(self._principal, "doh")

    def find(self, request: DohRequest, wire: bytes) -> Hit | None:
        """Return what answers the usual `request` for `wire` at once; for this turn only."""
        authority = request.authority
        if authority != self._authority and not self._is_ours(authority):
            return None
        return self._table.find(wire, self._now)

    def answer(
        self, request: DohRequest, content: bytes | None
    ) -> Answer | Message | Miss | Calling:
        """Return the answer, or what to `finish`; `content` is None where it is too long."""
        is_head = request.is_head
        if request.authority != self._authority and not self._is_ours(request.authority):
            return http_refusal(_NOT_OURS, is_head=is_head)
        if request.refusal is not None:
            return http_refusal(request.refusal, is_head=is_head)
        shown = self._who(request.authorization)
        if request.why is not None or request.call is not None:
            return self._tell(shown, request, content)
        if content is None:  # of a GET too: it is not answered while more of it may come
            return http_refusal(too_long(), is_head=is_head)
        wire = content if request.wire is None else request.wire
        if isinstance(shown, Decision):
            return self._turn_away(shown, request, wire)
        reply = self._serve(wire, shown)
        if isinstance(reply, Miss):
            self._misses[id(reply)] = request.authorization, self._epoch
            return reply
        return _message(reply, is_head=is_head)

    async def finish(self, waits: Miss | Calling, *, is_head: bool = False) -> Message | Answer:
        """Return the answer to what `answer` had none for."""
        if isinstance(waits, Calling):
            return await self._finish_call(waits, is_head=is_head)
        return _message(await self._finish_miss(waits), is_head=is_head)

    async def _finish_miss(self, miss: Miss) -> bytes | None:
        resolver = self._context.resolver
        presented, epoch = self._misses.pop(id(miss))
        reply = await resolver.finish(miss)
        if epoch != self._context.identifier.epoch:
            reply = resolver.reconsider(miss, reply, self._who(presented))
        return reply

    def _serve(self, wire: bytes, principal: Principal) -> bytes | Miss | None:
        resolver = self._context.resolver
        table = self._table
        if principal is not self._principal:
            table = resolver.hits.table(principal, "doh")
        return table.answer(wire, self._now) or resolver.serve(wire, self._asker(principal))

    def _asker(self, principal: Principal) -> Asker:
        return Asker(principal, "doh", _ANSWER_OCTETS, self._ends[0], self._listener)

    def _identify(self) -> None:
        identifier = self._context.identifier
        self._epoch = identifier.epoch
        if self._named_at == identifier.naming_epoch:  # it is who it was: the kernel is not asked
            found = identifier.again(self._ambient, self._listener, self._chain)
        else:
            self._named_at = identifier.naming_epoch
            found = identifier.connected(*self._ends, self._listener, self._chain)
        self._ambient = self._shown = found
        self._presented = ()
        self._principal = self._stranger() if isinstance(found, Decision) else found

    def _stranger(self) -> Principal:
        """Return the principal of what was presented, where it counts for nobody."""
        identifier, has_token = self._context.identifier, bool(self._presented)
        return identifier.presented_unknown(chain=self._chain, has_token=has_token)

    def _who(self, values: tuple[bytes, ...]) -> Principal | Decision:
        """Return who presents these values of Authorization; the last is remembered."""
        if self._epoch != self._context.identifier.epoch:
            self._identify()
        if values != self._presented:
            self._presented = values
            self._shown = self._present(values)
        return self._shown

    def _present(self, values: tuple[bytes, ...]) -> Principal | Decision:
        if not values:
            return self._ambient
        if len(values) > 1:  # RFC 9110, section 11.6.2: it is no list
            return _TWO
        credential = read_credential(values[0])
        if credential is None:
            return _UNREADABLE
        return self._context.identifier.presented(
            credential, self._ambient, *self._ends, self._listener, self._chain
        )

    def _turn_away(self, decision: Decision, request: DohRequest, wire: bytes) -> Answer:
        context, is_head = self._context, request.is_head
        nobody = self._stranger()
        try:
            unique = context.resolver.turn_away(wire, self._asker(nobody), decision)
        except QueryError:
            return http_refusal(_NO_QUERY, is_head=is_head)
        found = context.refusals.get(nobody.app, unique)
        assert found is not None  # noqa: S101 - it was remembered just now; for the type checker
        told = _told(found)
        if self._presented or context.identifier.wants_token(nobody):
            told = structs.replace(told, status=401)
        return turned_away(told, unique, is_head=is_head)

    def _tell(
        self, shown: Principal | Decision, request: DohRequest, content: bytes | None
    ) -> Answer | Calling:
        """Answer what is no query of DNS, as `http://sallyport.internal/` does."""
        if isinstance(shown, Decision):
            return self._denied(shown, is_head=request.is_head)
        api = self._context.api
        if request.call is not None and api is not None:
            return self._call(api, shown, request, request.call, content)
        return self._why(shown, request.why or "", is_head=request.is_head)

    def _call(
        self,
        api: AgentApi,
        principal: Principal,
        request: DohRequest,
        call: Call,
        content: bytes | None,
    ) -> Answer | Calling:
        context = self._context
        svid, binding = context.identifier.binding(self._listener, self._chain)
        caller = Caller(principal, Plane.DNS, self._listener, svid, binding)
        asked = Asked(call.method, call.path, caller, call.media_type, content or b"")
        if content is None:
            return of_api(api.too_long(asked), is_head=request.is_head)
        return Calling(api, asked, request.authorization)

    async def _finish_call(self, calling: Calling, *, is_head: bool) -> Answer:
        answer = await calling.api.answer(calling.asked)
        if answer.status >= _REFUSED:  # it gives nothing, and may say why a certificate is revoked
            return of_api(answer, is_head=is_head)
        now = self._who(calling.presented)
        if not isinstance(now, Decision) and now.app != calling.asked.caller.principal.app:
            now = CHANGED
        if isinstance(now, Decision):  # the answer is for who asked, and for nobody else
            return self._denied(now, is_head=is_head)
        return of_api(answer, is_head=is_head)

    def _denied(self, decision: Decision, *, is_head: bool) -> Answer:
        """Answer whose certificate or token counts for nobody, where no query is asked."""
        if self._presented:
            return http_refusal(HttpRefusal(401, decision.text, CHALLENGES), is_head=is_head)
        return http_refusal(HttpRefusal(403, decision.text), is_head=is_head)

    def _why(self, principal: Principal, unique: str, *, is_head: bool) -> Answer:
        """Answer /why/ID: an app's own refusals."""
        found = self._context.refusals.get(principal.app, unique)
        if found is None:
            return http_refusal(_UNKNOWN_ID, is_head=is_head)
        return explained(_told(found), is_head=is_head)

    def _is_ours(self, authority: bytes | None) -> bool:
        """Return whether an authority names this listener; a page of another name may not ask.

        By DNS rebinding a page could reach us under its own name.  Some clients leave the port
        out (kdig); one that is written must be ours.
        """
        if authority is None:
            return False
        port: int = self._ends[1][1]
        try:
            name, written = parse_authority(authority, port)
        except PeerError:
            return False
        if written != port or not (name == self._name or name in _OURS):
            return False
        self._authority = authority
        return True


def _message(reply: bytes | None, *, is_head: bool) -> Message | Answer:
    """Return the response that carries `reply`; what has none was no query."""
    if reply is None:
        return http_refusal(_NO_QUERY, is_head=is_head)
    return Message(reply, fresh_s(reply))


def _told(refusal: Refusal) -> Problem:
    return problem(refusal.reason, refusal.id, refusal.app, refusal.target, refusal.how)


def _address(local: SocketAddress) -> Address:
    address = parse_address(str(local[0]).partition("%")[0])
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped  # an IPv4 client on a socket that takes both
    return address
