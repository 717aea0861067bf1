"""Saying no to a client: what the answer is like, its evidence, its octets."""

import asyncio

from proxy.egress.asker import Asker
from proxy.egress.context import Context
from proxy.egress.refusal import Answer, may_challenge, printable, refuse
from proxy.flow import Flow
from proxy.metrics import RequestKind
from proxy.target import describe
from proxy.wire.head import BodyKind, RequestHead
from rules.decision import Decision, Verdict
from rules.facts import Connect, Facts, Principal


def answer_for(
    context: Context, asker: Asker, principal: Principal, decision: Decision, head: RequestHead
) -> Answer:
    """Return how a refusal of `principal` goes out in answer to `head`.

    The connection ends where what follows is not a request.  A 407 to CONNECT leaves it open,
    because git sends its second CONNECT there; credentials are not taken for ever.
    """
    is_head, is_request = head.method == "HEAD", head.method != "CONNECT"
    close = head.body.kind is not BodyKind.NONE or not head.persistent or head.minor == 0
    if not (context.identifier.wants_token(principal) and may_challenge(decision)):
        return Answer(is_head, close or not is_request, is_request=is_request)
    if asker.refused >= context.limits.credential_tries:
        context.metrics.bounds.add("credential_tries")
        close = True
    return Answer(is_head, close, challenge=True, is_request=is_request)


def deny(  # noqa: PLR0913, PLR0917 - who, what, why and how
    context: Context,
    transport: asyncio.Transport,
    flow: Flow,
    facts: Facts,
    decision: Decision,
    answer: Answer,
    said: str | None = None,
) -> None:
    """Record a refusal, count it and write it; `said` is a target of which no fact was made."""
    record = context.authorizer.record
    if decision.text:
        recorded = record(flow, facts, decision, target=said, text=decision.text)
    else:
        recorded = record(flow, facts, decision, target=said)
    is_connect = isinstance(facts, Connect) and not answer.is_request
    kind: RequestKind = "connect" if is_connect else "forward"
    failed = decision.verdict is Verdict.FAIL
    context.metrics.proxy_requests.add(kind, "failed" if failed else "refused")
    if not transport.is_closing():
        target = said or describe(facts)[0]
        transport.write(refuse(decision, recorded, flow.principal.app, target, answer))


def as_said(head: RequestHead) -> str:
    """Return the target of a request that names no origin, without userinfo or a query: secrets."""
    target = printable(head.target.partition(b"?")[0].rpartition(b"@")[2])
    return target if head.method == "CONNECT" else f"{head.method} {target}"
