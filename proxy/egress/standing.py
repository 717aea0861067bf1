"""Whether what was allowed once would be allowed now: of a flow that is open.

Asked when the rules, the tokens or what is proven of its asker have changed.  A flow stands while
its asker is who it was, its origin and request are allowed with what is proven now, its address
may be used, and no look is owed that was not taken.
"""

from collections.abc import Callable

from msgspec import Struct, structs

from proxy.egress.asker import Asker
from proxy.egress.context import Context
from proxy.egress.dial import endpoint, may_lead
from proxy.egress.identity_context import REVOKED
from proxy.egress.obligations import Passage, read
from proxy.egress.origin import OriginKey
from proxy.proven import is_same
from rules.address import Address
from rules.decision import Decision, Reason, UpgradeTls, Verdict
from rules.facts import Connect, Principal, Request
from rules.name import DomainName

type Told = Callable[[], None]
"""Writes the evidence of what was ended a moment ago."""

GONE = Decision(Verdict.DENY, Reason.GENERATION_CHANGED)
_TOLD = frozenset({Reason.REVOKED, Reason.ATTESTATION_REQUIRED})  # as they are, and not as GONE


class Standing(Struct, frozen=True):
    """What a flow stands on: who asked with which credential, and the address in use.

    `secure`: its requests go on over TLS.  `chain` are the aliases that led to the address.
    """

    asker: Asker
    value: bytes | None
    address: Address
    secure: UpgradeTls | None = None
    chain: tuple[DomainName, ...] = ()


def disowned(standing: Standing, principal: Principal) -> Decision | None:
    """Return why the asker is not `principal` any more; None while it is."""
    now = standing.asker.again(standing.value)
    if isinstance(now, Decision):
        return now
    return None if is_same(now, principal) else GONE


def revoked(
    context: Context,
    asker: Asker,
    value: bytes | None,
    principal: Principal,
    key: OriginKey | None = None,
    *,
    apps_only: bool,
) -> Decision | None:
    """Return the decision that ends all that `principal` has open by `asker`; None: it stands.

    With `apps_only` neither a credential was revoked, nor a certificate that we present at the
    other side (`key`): that takes longer to find out.
    """
    decision = context.authorizer.revocation(principal.app)
    if decision is not None or apps_only:
        return decision
    if key is not None and is_revoked(context, key):
        return REVOKED
    now = asker.again(value)
    return now if isinstance(now, Decision) and now.reason is Reason.REVOKED else None


def as_of[F: Connect | Request](facts: F, principal: Principal) -> F:
    """Return `facts` of `principal`: of the same asker, when more or less is proven of it."""
    return facts if facts.principal == principal else structs.replace(facts, principal=principal)


def withdrawn(
    context: Context, standing: Standing, facts: Connect | Request, passage: Passage | None
) -> Decision | None:
    """Return why a flow may not go on; None if it may.

    `passage` is how a tunnel was opened; None where every request is read.
    """
    now = standing.asker.again(standing.value)
    if isinstance(now, Decision):
        return now
    if not is_same(now, facts.principal):
        return GONE
    facts = as_of(facts, now)
    still = context.authorizer.still
    connect = Connect(facts.principal, facts.host, facts.port)
    decision = still(connect)
    if decision.reason in _TOLD:
        return decision
    owed = read(decision.obligations)
    fits = decision.verdict is Verdict.ALLOW and (passage is None or _covers(passage, owed))
    port = facts.port
    if isinstance(facts, Request):
        key = OriginKey(facts.principal, facts.host, facts.port, standing.secure)
        asked = still(facts)
        if asked.reason in _TOLD:
            return asked
        fits = fits and may_go(context, key, asked)
        port = key.dialled
    elif owed is not None and owed.upgrade is not None:
        fits = False  # there only requests pass now
    fits = fits and may_lead(context, connect, standing.chain, standing.address)
    ends = endpoint(context, connect, standing.address, port)
    return None if fits and still(ends).verdict is Verdict.ALLOW else GONE


def changed(context: Context, asker: Asker, facts: Connect | Request) -> Decision:
    """Return why what was dialled for `facts` may not be used, which was allowed before."""
    principal = facts.principal
    revocation = context.authorizer.revocation(principal.app)
    now = asker.still(principal)
    if revocation is not None or now is None:
        return revocation or GONE
    decision = context.authorizer.still(as_of(facts, now))
    return decision if decision.reason in _TOLD else GONE


def may_go(context: Context, key: OriginKey, decision: Decision) -> bool:
    """Return whether `decision` lets a request go on over connections of `key`.

    What is owed TLS never goes on in plain, nor with another certificate.
    """
    passage = read(decision.obligations)
    is_way = passage is not None and passage.upgrade == key.secure
    return decision.verdict is Verdict.ALLOW and is_way and not is_revoked(context, key)


def is_revoked(context: Context, key: OriginKey) -> bool:
    """Return whether the certificate that `key` presents counts for nothing any more."""
    secure = key.secure
    return secure is not None and context.identities.revoked(key.principal.app, secure.certificate)


def _covers(taken: Passage, owed: Passage | None) -> bool:
    """Return whether a tunnel that was opened as `taken` could be opened under `owed`."""
    if owed is None or owed.only_readable:
        return False
    if owed.unread:
        return True
    return not taken.unread and (owed.accept_ech or not taken.accept_ech)
