"""Which generation of a key signs, when the next one is due, and when an old one may go.

Pure: times are Unix time in seconds, `now` is an argument.  Every generation is published before
it signs, and stays published until the last thing that it signed has ended.
"""

from collections.abc import Sequence
from typing import Literal

from certs.known_domain import Generation, Record
from certs.profile import MOST_JWT_TTL_S, MOST_TTL_S, SKEW_S

type What = Literal["root", "intermediate", "jwt"]

JWT_KEY_LIFE_S = 30 * 86400  # replaced after 20 days; SPIRE: a day, since its keys are in memory
JWT_PREPARED_S = 3600  # twelve refreshes of a bundle (`REFRESH_HINT_S`)
ROOT_PREPARED_S = 7 * 86400  # bundles that people carry as files: a week
MOST_GENERATIONS = 8  # of one kind: each is published, and bundles stay below 64 KiB


def signing(generations: Sequence[Generation], now: float) -> Generation | None:
    """Return the one that signs at `now`: the latest whose time has come; None: there is none.

    Where no time has come (all before have ended, or the clock went back), the next one comes
    early.
    """
    valid = [each for each in generations if each.not_before <= now < each.not_after]
    ready = [each for each in valid if each.signs_from <= now]
    if ready:
        return max(ready, key=lambda each: each.signs_from)
    return min(valid, key=lambda each: each.signs_from, default=None)


def due(record: Record, now: float) -> tuple[What, ...]:
    """Return what needs a next generation, in the order in which they are to be made."""
    root = signing(record.roots, now)
    is_root_due = now >= _latest(record.roots, now).renew_at
    latest = _latest(record.intermediates, now)
    # A new root that signs has no intermediate yet; nor has one that replaces a root that ended.
    lacks = is_root_due if root is None else latest.issuer != root.id
    found: list[tuple[What, bool]] = [
        ("root", is_root_due),
        ("intermediate", lacks or now >= latest.renew_at),
        ("jwt", now >= _latest(record.jwt_keys, now).renew_at),
    ]
    return tuple(what for what, is_due in found if is_due)


def pruned(record: Record, now: float) -> Record:
    """Return the record without the generations whose last signature has ended."""
    intermediates = _kept(record.intermediates, now, MOST_TTL_S)
    jwt_keys = _kept(record.jwt_keys, now, MOST_JWT_TTL_S)
    needed = {each.issuer for each in intermediates}
    newest = signing(record.roots, now)
    began = 0 if newest is None else newest.signs_from
    roots = tuple(each for each in record.roots if each.id in needed or each.signs_from >= began)
    return Record(record.trust_domain, record.sequence, roots, intermediates, jwt_keys)


def _latest(generations: Sequence[Generation], now: float) -> Generation:
    """Return the last that has begun: what a clock that was ahead has made replaces nothing yet."""
    begun = [each for each in generations if each.not_before <= now]
    return begun[-1] if begun else generations[-1]


def _kept(
    generations: tuple[Generation, ...], now: float, most_ttl_s: int
) -> tuple[Generation, ...]:
    newest = signing(generations, now)
    if newest is None or now < newest.signs_from + most_ttl_s + SKEW_S:
        return generations
    return tuple(each for each in generations if each.signs_from >= newest.signs_from)
