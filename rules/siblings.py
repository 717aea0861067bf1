"""The names beside a refused one that are refused alike, so that a flood of them is cheap.

Nothing is decided here.  A decision of `rules.decide` that no rule had a part in holds for every
other name below the same parent, unless some rule names that one: what is returned says which.
"""

from collections.abc import Container, Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import chain

from msgspec import Struct

from rules.decision import Decision, Reason
from rules.facts import Question
from rules.match import RuleIndex
from rules.name import ROOT, DomainName, parent
from rules.special import SPECIAL_NAMES, special_use
from rules.suffix import PublicSuffixes, SuffixRules

UNTOUCHED = frozenset({Reason.HOST_NOT_LISTED, Reason.IDENTITY_UNKNOWN})
"""Why a name is refused that no rule had a part in."""

_FEW = 32  # so many names are looked through once rather than asked for each sibling


def _above(names: Iterable[str]) -> frozenset[str]:
    return frozenset(name.partition(".")[2] for name in names)


_ABOVE_SPECIAL = _above(SPECIAL_NAMES)


class Siblings(Struct, frozen=True):
    """The names one label below `parent`, but those in any of `named`.

    For each of them the decision is the same, and so is the registrable domain; or it is, for
    each of them, the name itself or none.
    """

    parent: DomainName
    named: tuple[Container[str], ...]


def siblings(
    index: RuleIndex, suffixes: PublicSuffixes, question: Question, decision: Decision
) -> Siblings | None:
    """Return for which names beside that of `question` its `decision` holds as well.

    None where a rule had a part in it, or may have in that on a sibling: then each is decided.
    """
    above = parent(question.name)
    is_untouched = decision.reason in UNTOUCHED and not decision.empty and question.via is None
    if not is_untouched or above == ROOT or special_use(above) is not None:
        return None
    if index.lists.covers(question.principal.app):
        return None  # any of them may be listed
    app = index.apps.get(question.principal.app)
    # No allow is about the name at all, else the reason were another: so no wildcard one covers
    # its siblings.  A wildcard deny might, were it of other types.
    if app is not None and any(level.questions for level in app.denies.levels(question.name)):
        return None
    tables = () if app is None else (app.allows.exact, app.denies.exact, app.ancestors.shards)
    named = [joined(table) for table in tables if _may_name(table, above)]
    if above in _ABOVE_SPECIAL:
        named.append(SPECIAL_NAMES)
    if above in _above_listed(suffixes):
        named += [part for each in (suffixes.icann, suffixes.private) for part in _listed(each)]
    return Siblings(above, tuple(named))


class _Divided(Struct, frozen=True):
    """A table in the parts that `rules.match` divides it into."""

    shards: Sequence[Container[str]]

    def __contains__(self, name: object) -> bool:
        """Return whether `name` is in its part."""
        return name in self.shards[hash(name) % len(self.shards)]


def joined(shards: Sequence[Container[str]]) -> Container[str]:
    """Return the parts of one table as a whole."""
    return shards[0] if len(shards) == 1 else _Divided(shards)


def _may_name(shards: Sequence[Mapping[str, object]], above: DomainName) -> bool:
    """Return whether a name of the table may stand directly below `above`."""
    table = shards[0]
    return len(shards) > 1 or len(table) > _FEW or above in _above(table)


def _listed(rules: SuffixRules) -> tuple[frozenset[str], frozenset[str]]:
    return rules.exact, rules.exceptions


@lru_cache(maxsize=1)
def _above_listed(suffixes: PublicSuffixes) -> frozenset[str]:
    parts = (*_listed(suffixes.icann), *_listed(suffixes.private))
    return _above(chain.from_iterable(parts))
