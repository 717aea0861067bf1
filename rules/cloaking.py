"""CNAME cloaking as evidence: a name of one registrable domain that is an alias into another's.

A tracker is given a name below the site that it watches, so that what is meant for the site reaches
it (Dimova et al., "The CNAME of the Game", PETS 2021).  Most aliases into other domains are no such
thing: CDNs and hosts of sites are reached by them.  These are known, by their suffixes
(`rules/known/hosting.txt`) or as hosts of many tenants (the private section of the public suffix
list).  So are some trackers (`rules/known/trackers.txt`).  Any other domain is a finding as well,
with `is_tracker` false: evidence that somebody should look, no proof.
"""

from collections.abc import Iterable, Iterator, Sequence

from msgspec import Struct

from rules.name import DomainName, ancestors, parse
from rules.suffix import PublicSuffixes


class Known(Struct, frozen=True):
    """Suffixes that aliases rightly lead to, and those of trackers; the latter go first."""

    hosting: frozenset[DomainName] = frozenset()
    trackers: frozenset[DomainName] = frozenset()


class CloakFinding(Struct, frozen=True):
    """An alias leads to `target`, of the registrable domain `suffix`.

    `is_tracker`: it is listed as one.  `hop` counts from 1, of `hops` in all; `hosted` of those
    before it are known.
    """

    name: DomainName
    target: DomainName
    suffix: DomainName
    is_tracker: bool
    hop: int
    hops: int
    hosted: int

    @property
    def evidence(self) -> dict[str, float]:
        """The numbers, in the words of audit."""
        return {
            "is_tracker": int(self.is_tracker),
            "hop": self.hop,
            "hops": self.hops,
            "hosted": self.hosted,
            "target_labels": self.target.count(".") + 1,
            "target_octets": len(self.target),
        }


def read_known(hosting: Iterable[str], trackers: Iterable[str]) -> Known:
    """Return the suffixes of two lists: one a line; `#` begins a comment.

    Raises:
        MalformedNameError: a line holds what is no domain name.
    """
    return Known(frozenset(_names(hosting)), frozenset(_names(trackers)))


def cloaked(
    name: DomainName, chain: Sequence[DomainName], suffixes: PublicSuffixes, known: Known
) -> CloakFinding | None:
    """Return where the aliases of `name` lead that is neither its own nor known; None: nowhere.

    `chain` are the targets in their order; a listed tracker in it goes before anything else.
    Leave out targets that the app's own rules allow: they are the admin's choice.
    """
    own = _owner(name, suffixes)
    hosted = 0
    found: CloakFinding | None = None
    for hop, target in enumerate(chain, 1):
        suffix = suffixes.registrable(target) or target
        is_tracker = _covers(known.trackers, target)
        if suffix == own[0] or (not is_tracker and suffix.partition(".")[0] == own[1]):
            continue
        if not is_tracker and (_covers(known.hosting, target) or suffixes.is_shared(target)):
            hosted += 1
        elif found is None or (is_tracker and not found.is_tracker):
            found = CloakFinding(name, target, suffix, is_tracker, hop, len(chain), hosted)
    return found


def _owner(name: DomainName, suffixes: PublicSuffixes) -> tuple[DomainName, str]:
    """Return whose name it is, and by what label: example.co.uk and example.com are one's."""
    own = suffixes.registrable(name) or name
    return own, own.partition(".")[0]


def _covers(listed: frozenset[DomainName], name: DomainName) -> bool:
    return name in listed or not listed.isdisjoint(ancestors(name))


def _names(lines: Iterable[str]) -> Iterator[DomainName]:
    for line in lines:
        if word := line.partition("#")[0].strip():
            yield parse(word)
