"""A name that gave a secret away, as it may stand in audit and in what is remembered of it."""

from collections.abc import Callable

from msgspec import structs

from proxy.canaries.trail import below
from rules.facts import Connect, Facts, Question
from rules.name import ROOT, DomainName, parent


def redacted(facts: Facts, holds: Callable[[DomainName], bool]) -> Facts:
    """Return `facts` with `*` for the labels below the zone, which stays: whose it is matters.

    A zone that `holds` a part of a secret goes as well.  To be described, not to be decided.
    """
    if isinstance(facts, Question):
        return structs.replace(facts, name=_redacted(facts.name, holds))
    if isinstance(facts, Connect) and isinstance(facts.host, str):
        return structs.replace(facts, host=_redacted(facts.host, holds))
    return facts


def _redacted(name: DomainName, holds: Callable[[DomainName], bool]) -> DomainName:
    sub_name = below(name)
    kept = DomainName(name[len(sub_name) + 1 :]) if sub_name else parent(name)
    while kept != ROOT and holds(kept):
        kept = parent(kept)
    return DomainName("*") if kept == ROOT else DomainName(f"*.{kept}")
