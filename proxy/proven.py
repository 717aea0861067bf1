"""What was proven of who asks: principals with their attestation, and results that are presented.

An attestation belongs to the key of a client's certificate or to a lease, so that a connection has
it without presenting anything more.  A result that is presented proves nothing further: it only
has to be one of ours, and of this connection.
"""

from functools import lru_cache

from proxy.attested.binding import Binding, Kind
from proxy.attested.known import Attestations
from proxy.wire.credential import Credential
from rules.decision import Decision, Reason, Verdict
from rules.facts import UNKNOWN_APP, Attestation, Evidence, Level, Principal

_PRINCIPALS = 1024  # as limits.apps_remembered; beyond it equal ones are made anew
_NOTHING: tuple[Attestation, ...] = ()

_ENDED = "no attestation result of ours, or it has ended: attest again at /attest"
_HERE = "each attests over its own connection, at /attest"
_NO_KEY = "the result is bound to a TLS key, and this connection shows none: use a TLS listener"
_OTHER_KEY = f"the result is bound to another TLS key; {_HERE}"
_NO_LEASE = f"the result is bound to a lease, and this is none of its listeners; {_HERE}"
_OTHER_LEASE = f"the result is bound to another lease; {_HERE}"
_OTHER_APP = f"the result was made for another app; {_HERE}"


def is_result(credential: Credential) -> bool:
    """Return whether a credential looks like a JWT (RFC 7519): a token of ours never does."""
    secret = credential.secret
    return credential.scheme == "bearer" and secret.startswith("eyJ") and secret.count(".") == 2


def is_same(one: Principal, other: Principal) -> bool:
    """Return whether both are one asker, by the same evidence, whatever is proven of it."""
    return (one.app, one.evidence) == (other.app, other.evidence)


def marked(
    attestations: Attestations | None, principal: Principal, bindings: tuple[Binding, ...]
) -> Principal:
    """Return `principal` with what is proven of it now over a connection of `bindings`.

    Equal ones are the same object, so that tables by principal have few keys.
    """
    found = _NOTHING
    if attestations is not None and principal.app != UNKNOWN_APP:
        for binding in bindings:
            more = attestations.of(binding, principal.app)
            found = _merged(found, more) if found and more else found or more
    if found == principal.attested:
        return principal
    return _principal(principal.app, principal.evidence, found)


def shown(
    attestations: Attestations | None,
    token: str,
    ambient: Principal | Decision,
    bindings: tuple[Binding, ...],
) -> Principal | Decision:
    """Return who presents the result `token` over a connection of `bindings`.

    It is `ambient`, who the connection is without it, or a denial: never anybody else.
    """
    if isinstance(ambient, Decision):
        return ambient
    result = None if attestations is None else attestations.find(token)
    if result is None:
        return Decision(Verdict.DENY, Reason.IDENTITY_UNKNOWN, text=_ENDED)
    if result.binding not in bindings:
        is_key = result.binding.kind is Kind.KEY
        has_such = any(each.kind is result.binding.kind for each in bindings)
        other = _OTHER_KEY if is_key else _OTHER_LEASE
        return _wanting(other if has_such else _NO_KEY if is_key else _NO_LEASE)
    return ambient if result.app == ambient.app else _wanting(_OTHER_APP)


def _wanting(text: str) -> Decision:
    return Decision(Verdict.DENY, Reason.ATTESTATION_REQUIRED, text=text)


@lru_cache(maxsize=_PRINCIPALS)
def _principal(
    app: str, evidence: tuple[Evidence, ...], attested: tuple[Attestation, ...]
) -> Principal:
    return Principal(app, evidence, attested)


def _merged(
    one: tuple[Attestation, ...], other: tuple[Attestation, ...]
) -> tuple[Attestation, ...]:
    """Return the freshest of each level, the strongest first."""
    best: dict[Level, Attestation] = {}
    for each in (*one, *other):
        known = best.get(each.level)
        if known is None or each.within_s < known.within_s:
            best[each.level] = each
    return tuple(sorted(best.values(), key=lambda each: -each.level))
