"""What must be proven before an allow counts, and what of it was not.

What is said of it holds as long as the decision does: no clock, no age.
"""

from collections.abc import Iterable
from typing import Final

from msgspec import Struct

from rules.decision import Reason
from rules.facts import Attestation, Evidence, Level, Principal
from rules.ruleset import Requirements

NOTHING: Final = Requirements()
ON_A_PLAIN_PORT: Final = (
    "on a plain port nothing counts: use proxy_tls or DoH with your certificate"
)

_BOUND = frozenset({Evidence.CERTIFICATE, Evidence.LEASE})
"""What an attestation can be bound to: the key of a TLS client, or a lease (RFC 7800)."""


class Lack(Struct, frozen=True):
    """Something that is required and was not proven; `text` is for who asks."""

    reason: Reason
    text: str = ""


def union(one: Requirements, other: Requirements) -> Requirements:
    """Return what satisfies both: the highest level and the smallest age."""
    return total((one, other))


def total(requirements: Iterable[Requirements]) -> Requirements:
    """Return what satisfies all of them."""
    demanding = [one for one in requirements if one.mtls or one.attested is not None]
    if len(demanding) < 2:  # as for most requests
        return demanding[0] if demanding else NOTHING
    level: Level | None = None
    age_s: int | None = None
    for one in demanding:
        if one.attested is not None and (level is None or one.attested > level):
            level = one.attested
        if one.max_age_s is not None and (age_s is None or one.max_age_s < age_s):
            age_s = one.max_age_s
    return Requirements(any(one.mtls for one in demanding), level, age_s)


def lack(require: Requirements, principal: Principal) -> Lack | None:
    """Return what `principal` has not proven of what is required; None where nothing lacks."""
    if require.mtls and Evidence.CERTIFICATE not in principal.evidence:
        return Lack(Reason.MTLS_REQUIRED)
    if require.attested is None:
        return None
    level, most_s = require.attested, require.max_age_s
    for one in principal.attested:
        if one.level >= level and (most_s is None or one.within_s <= most_s):
            return None
    return Lack(Reason.ATTESTATION_REQUIRED, _unproven(level, most_s, principal))


def describe(require: Requirements) -> str:
    """Return in words what is required; nothing where nothing is."""
    parts = ["mtls"] if require.mtls else []
    if require.attested is not None:
        age = "" if require.max_age_s is None else f", at most {require.max_age_s} s ago"
        parts.append(f"attested (level {word(require.attested)}{age})")
    return " and ".join(parts)


def describe_proven(attested: tuple[Attestation, ...]) -> str:
    """Return in words what was proven."""
    each = (f"level {word(one.level)} at most {one.within_s} s ago" for one in attested)
    return ", ".join(each) or "nothing"


def word(level: Level) -> str:
    """Return a level as rule files write it."""
    return level.name.lower()


def _unproven(level: Level, most_s: int | None, principal: Principal) -> str:
    if _BOUND.isdisjoint(principal.evidence):
        return ON_A_PLAIN_PORT
    if not principal.attested:
        return f"nothing fresh is proven, level {word(level)} is needed"
    best = max(one.level for one in principal.attested)
    if best < level:
        return f"proven is level {word(best)}, needed is {word(level)}"
    return f"proven more than {most_s} s ago, the most here"
