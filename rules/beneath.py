"""A tree of names that no rule touches: whatever is asked for in it is refused alike.

Nothing is decided here.  Beside `rules.siblings`, which speaks of one parent, this finds the
topmost ancestor of a refused name at and below which nothing is named by a rule, by the public
suffix list or by the registry of special names; every other such tree below the same base has
the same outcome.  So a flood whose parents change with every name is as cheap as one that has one.
"""

from collections.abc import Container, Iterable
from functools import lru_cache

from msgspec import Struct

from rules.decision import Decision
from rules.facts import Question
from rules.match import AppIndex, HostTable, RuleIndex
from rules.name import ROOT, DomainName, ancestors, parent
from rules.ruleset import DenyRule
from rules.siblings import UNTOUCHED, joined
from rules.special import SPECIAL_NAMES, special_use
from rules.suffix import PublicSuffixes

_FEW = 32  # names of denies whose ancestors are gathered each time; with more there is no tree


def _with_ancestors(names: Iterable[str]) -> frozenset[str]:
    found = set(names)
    for name in tuple(found):
        found.update(ancestors(DomainName(name)))
    return frozenset(found)


_SPECIAL = _with_ancestors(SPECIAL_NAMES)


class Beneath(Struct, frozen=True):
    """Every name below `base`, but those at or below a child of it that is in any of `touched`.

    For each of them the decision is the same.  The registrable domain is `apex`, or where that
    is None the last `apex_labels` labels of the name; the name itself where it has no more.
    """

    base: DomainName
    touched: tuple[Container[str], ...]
    apex: DomainName | None
    apex_labels: int


def beneath(
    index: RuleIndex, suffixes: PublicSuffixes, question: Question, decision: Decision
) -> Beneath | None:
    """Return for which trees of names the `decision` on `question` holds as well.

    None where a rule had a part in it, or has something to say at or below the name.
    """
    name = question.name
    is_untouched = decision.reason in UNTOUCHED and not decision.empty and question.via is None
    if not is_untouched or name == ROOT or special_use(name) is not None:
        return None
    if index.lists.covers(question.principal.app):
        return None  # any name may be listed
    app = index.apps.get(question.principal.app)
    touched = _touched(app, suffixes, name)
    if touched is None:
        return None
    bases = [
        base
        for child in (name, *ancestors(name))
        if not any(child in some for some in touched)
        and not _has_children((base := parent(child)), app)
    ]
    if not bases:
        return None
    base = bases[-1]
    if base in suffixes.icann.wild or base in suffixes.private.wild:
        return None  # each child is a public suffix of its own
    apex = None if base == ROOT else suffixes.registrable(base)
    labels = 0 if base == ROOT else base.count(".") + 1
    # Without a rule in the list the suffix is the last label ("*", says its format).
    return Beneath(base, touched, apex, max(labels + 1, 2))


def _touched(
    app: AppIndex | None, suffixes: PublicSuffixes, name: DomainName
) -> tuple[Container[str], ...] | None:
    """Return which names are touched themselves or below; None where that cannot be told."""
    icann, private = suffixes.icann, suffixes.private
    listed = (icann.exact, icann.wild, icann.exceptions, private.exact, private.wild)
    lists = (*listed, private.exceptions, _above_icann(suffixes), suffixes.above_private, _SPECIAL)
    if app is None:
        return lists
    if any(level.questions for level in app.denies.levels(name)):
        return None
    denied = _denied(app.denies)
    if denied is None:
        return None
    return (joined(app.ancestors.shards), joined(app.allows.exact), denied, *lists)


def _has_children(base: DomainName, app: AppIndex | None) -> bool:
    """Return whether a rule is about whatever stands one label below `base`."""
    if app is None:
        return False
    return base in joined(app.allows.child) or base in joined(app.denies.child)


def _denied(denies: HostTable[DenyRule]) -> frozenset[str] | None:
    tables = (*denies.exact, *denies.child, *denies.below)
    if sum(map(len, tables)) > _FEW:
        return None
    return _with_ancestors(name for table in tables for name in table)


@lru_cache(maxsize=1)
def _above_icann(suffixes: PublicSuffixes) -> frozenset[str]:
    icann = suffixes.icann
    names = icann.exact | icann.wild | icann.exceptions
    return frozenset(up for name in names for up in ancestors(DomainName(name)) if up not in names)
