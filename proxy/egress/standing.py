"""Whether what was allowed once would be allowed now: of a flow that is open.

Asked when the rules or the tokens have changed.  A flow stands while its asker is who it was,
its origin and request are allowed, its address may be used, and no look is owed that was not
taken.
"""

from msgspec import Struct

from proxy.egress.asker import Asker
from proxy.egress.context import Context
from proxy.egress.dial import endpoint
from proxy.egress.obligations import Passage, read
from rules.address import Address
from rules.decision import Decision, Reason, Verdict
from rules.facts import Connect, Principal, Request

GONE = Decision(Verdict.DENY, Reason.GENERATION_CHANGED)


class Standing(Struct, frozen=True):
    """What a flow stands on: who asked with which credential, and the address in use."""

    asker: Asker
    value: bytes | None
    address: Address


def disowned(standing: Standing, principal: Principal) -> Decision | None:
    """Return why the asker is not `principal` any more; None while it is."""
    now = standing.asker.again(standing.value)
    if isinstance(now, Decision):
        return now
    return None if now == principal else GONE


def withdrawn(
    context: Context, standing: Standing, facts: Connect | Request, passage: Passage | None
) -> Decision | None:
    """Return why a flow may not go on; None if it may.

    `passage` is how a tunnel was opened; None where every request is read.
    """
    gone = disowned(standing, facts.principal)
    if gone is not None:
        return gone
    still = context.authorizer.still
    connect = Connect(facts.principal, facts.host, facts.port)
    decision = still(connect)
    fits = decision.verdict is Verdict.ALLOW and (
        passage is None or _covers(passage, read(decision.obligations))
    )
    if isinstance(facts, Request):
        fits = fits and still(facts).verdict is Verdict.ALLOW
    ends = endpoint(context, connect, standing.address)
    return None if fits and still(ends).verdict is Verdict.ALLOW else GONE


def _covers(taken: Passage, owed: Passage | None) -> bool:
    """Return whether a tunnel that was opened as `taken` could be opened under `owed`."""
    if owed is None or owed.only_readable:
        return False
    if owed.unread:
        return True
    return not taken.unread and (owed.accept_ech or not taken.accept_ech)
