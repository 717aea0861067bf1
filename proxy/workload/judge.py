"""Decisions for Envoy: what it asks by ext_authz, put to the same rules as at our own proxy.

The client is who Envoy verified him to be: his SPIFFE ID, presented to Envoy in a certificate.
Envoy dials itself, so that no `Endpoint` is asked for a name: what it resolves to is Envoy's to
bound (docs/spiffe.md).  A literal address is asked for as it is at our proxy.
"""

import logging
import re
from typing import Any, assert_never

from msgspec import Struct

from proxy.advice import advise
from proxy.authorize import Authorizer
from proxy.channel import Judge, Judged
from proxy.errors import PeerError
from proxy.flow import Flow, Plane
from proxy.problem import STATUS
from proxy.transport.own import OwnSockets
from proxy.wire.host import parse_authority
from proxy.workload.entitle import Names
from proxy.workload.events import Clock
from rules.address import Address
from rules.decision import (
    Decision,
    Obligation,
    OnlyReadable,
    PeekTls,
    Reason,
    Resolve,
    TunnelUnread,
    UpgradeTls,
    Verdict,
    Watch,
)
from rules.errors import MalformedPathError
from rules.facts import UNKNOWN_APP, Connect, Endpoint, Evidence, Facts, Principal, Request
from rules.name import ROOT
from rules.path import normal_path

logger = logging.getLogger(__name__)

VIA = "ext_authz"
CHALLENGED = 407  # RFC 9110, section 15.5.8
_PORTS = {"http": 80, "https": 443}  # RFC 9110, sections 4.2.1 and 4.2.2
_METHOD = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")  # RFC 9110, section 5.6.2: a token
_UNREAD = 0  # with the root as host: the audit line of a request that names no origin
_SHOWN = 256  # characters of what was asked, where no fact could be made of it
_TUNNEL = "CONNECT"
_DOT = re.compile("%2[eE]")
_STRANGER = Principal(UNKNOWN_APP, (Evidence.CERTIFICATE,))
_UNREADABLE = Decision(
    Verdict.DENY,
    Reason.INSPECTION_UNAVAILABLE,
    text="nobody reads what Envoy tunnels: only a rule with `tls: false` allows it there",
)
_UPGRADED = Decision(
    Verdict.DENY,
    Reason.INSPECTION_UNAVAILABLE,
    text="its rule has our own proxy speak TLS to the origin (https_upgrade): ask there",
)
_CREDENTIALS = frozenset({Reason.IDENTITY_UNKNOWN, Reason.MTLS_REQUIRED})
"""What another credential would change: a 407, as our proxy says it."""


_TRACE = Decision(Verdict.DENY, Reason.METHOD_NOT_ALLOWED, text="TRACE is never forwarded")


class Judging(Struct, frozen=True):
    """What a judgement needs."""

    names: Names
    authorizer: Authorizer
    own: OwnSockets
    clock: Clock


class _Facts(Struct, frozen=True):
    """What is asked of the rules about one request; without `request` it is a tunnel."""

    connect: Connect
    endpoint: Endpoint | None
    request: Request | None

    @property
    def main(self) -> Facts:
        return self.request or self.connect


def judge(judging: Judging, asked: Judge) -> Judged:
    """Decide, record, and return the answer.  Never raises: what cannot be decided is denied."""
    try:
        return _judge(judging, asked)
    except Exception:
        # What was asked may hold what must not be logged: its text is not in here.
        logger.exception("no decision for Envoy")
        decision = judging.authorizer.fails(Reason.INTERNAL_ERROR)
        return _judged(asked, _STRANGER, decision, judging.clock.new_id())


def _judge(judging: Judging, asked: Judge) -> Judged:
    named = judging.names.vouched(asked.spiffe_id)
    principal = _STRANGER if isinstance(named, Decision) else named
    flow = Flow(judging.clock.new_id(), principal, Plane.HTTP, listener=VIA)
    target: str | None = None
    fact: Facts = Connect(principal, ROOT, _UNREAD)
    try:
        facts = _read(judging.own, asked, principal)
        fact, decision = (
            (facts.main, named) if isinstance(named, Decision) else _decide(judging, flow, facts)
        )
    except PeerError as error:
        target = _as_said(asked)
        decision = Decision(Verdict.DENY, error.reason, text=str(error))
    said: dict[str, Any] = {"via": VIA, "spiffe_id": asked.spiffe_id[:_SHOWN]}
    if decision.text:
        said["text"] = decision.text
    recorded = judging.authorizer.record(flow, fact, decision, target=target, **said)
    return _judged(asked, principal, decision, recorded)


def _decide(judging: Judging, flow: Flow, facts: _Facts) -> tuple[Facts, Decision]:
    """Return what is refused and why, else the request (or tunnel) and what allows it."""
    authorize = judging.authorizer.authorize
    decision = authorize(flow, facts.connect)
    if decision.verdict is not Verdict.ALLOW:
        return facts.connect, decision
    if not _is_met(decision.obligations, is_tunnel=facts.request is None):
        return facts.connect, _UNREADABLE
    if facts.endpoint is not None:
        allowed = authorize(flow, facts.endpoint)
        if allowed.verdict is not Verdict.ALLOW:
            return facts.endpoint, allowed
    if facts.request is None:
        return facts.connect, decision
    if facts.request.method == "TRACE":
        return facts.request, _TRACE
    decision = authorize(flow, facts.request)
    is_upgraded = any(isinstance(each, UpgradeTls) for each in decision.obligations)
    return facts.request, _UPGRADED if is_upgraded else decision


def _read(own: OwnSockets, asked: Judge, principal: Principal) -> _Facts:
    """Return what is asked.

    Raises:
        PeerError: REQUEST_MALFORMED or NAME_MALFORMED, no request that our own proxy would take.
    """
    is_tunnel = asked.method == _TUNNEL
    port = None if is_tunnel else _PORTS.get(asked.scheme.lower())
    if not _METHOD.fullmatch(asked.method) or (port is None and not is_tunnel):
        raise PeerError(Reason.REQUEST_MALFORMED, "neither a method nor http or https")
    host, port = parse_authority(asked.authority.encode("utf-8", "replace"), port)
    connect = Connect(principal, host, port)
    endpoint = _endpoint(own, principal, host, port) if not isinstance(host, str) else None
    if is_tunnel:
        return _Facts(connect, endpoint, None)
    request = Request(principal, asked.method, host, port, _path(asked))
    return _Facts(connect, endpoint, request)


def _endpoint(own: OwnSockets, principal: Principal, address: Address, port: int) -> Endpoint:
    is_listener, is_interface = own.is_listener(address, port), own.is_interface(address)
    return Endpoint(principal, None, address, port, is_listener, is_interface)


def _path(asked: Judge) -> str:
    """Return the path in normal form: Envoy forwards it as it came, so that no dot may be in it."""
    path = asked.path.partition("?")[0]
    if path == "*" and asked.method == "OPTIONS":
        return path  # RFC 9112, section 3.2.4
    if not {".", ".."}.isdisjoint(_DOT.sub(".", path).split("/")):
        text = "a dot segment in the path: set normalize_path in Envoy"
        raise PeerError(Reason.REQUEST_MALFORMED, text)
    try:
        return normal_path(path)
    except MalformedPathError as error:
        raise PeerError(Reason.REQUEST_MALFORMED, str(error)) from None


def _is_met(obligations: tuple[Obligation, ...], *, is_tunnel: bool) -> bool:
    """Return whether Envoy fulfils them: it reads requests, and no tunnel."""
    is_unread = False
    for obligation in obligations:
        match obligation:
            case TunnelUnread():
                is_unread = True
            case OnlyReadable() | UpgradeTls():  # a request brings the latter again
                if is_tunnel:
                    return False
            case PeekTls() | Resolve() | Watch():
                pass  # of a tunnel, which only `tls: false` allows; of a look-up, which is Envoy's
            case _:
                assert_never(obligation)
    return is_unread or not is_tunnel


def _as_said(asked: Judge) -> str:
    """Return what was asked, without userinfo or a query: they may be secrets."""
    authority = asked.authority.rpartition("@")[2]
    return f"{asked.method} {asked.scheme}://{authority}{asked.path.partition('?')[0]}"[:_SHOWN]


def _judged(asked: Judge, principal: Principal, decision: Decision, recorded: str) -> Judged:
    reason = decision.reason
    return Judged(
        asked.call,
        allowed=decision.verdict is Verdict.ALLOW,
        app=principal.app,
        reason=reason,
        id=recorded,
        status=CHALLENGED if reason in _CREDENTIALS else STATUS[reason],
        how=advise(decision, principal.app),
    )
