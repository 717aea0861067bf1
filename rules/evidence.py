"""What speaks for or against a tunnel below a suffix, as numbers for people."""

from itertools import chain, islice

from rules.label_shape import shape
from rules.subname import whole
from rules.tally import Tally

_LABELS = 256  # that are looked at
_SAMPLES = 5


def evidence(tally: Tally) -> dict[str, float]:
    """Return the numbers; shares are of 1."""
    names = [*tally.known.fresh, *tally.known.old]
    labels = islice(chain.from_iterable(name.split(".") for name in names), _LABELS)
    queries = max(tally.queries, 1)
    connected = len(tally.connected or ())
    unreached = 1 - connected / max(len(names), connected, 1) if tally.resolved else 0
    return {
        "names": len(names),
        "queries": tally.queries,
        "nxdomain_share": round(tally.nxdomains / queries, 3),
        "other_types_share": round(tally.others / queries, 3),
        "never_connected_share": round(unreached, 3),
        **shape(labels),
    }


def samples(tally: Tally, *asked: str) -> tuple[str, ...]:
    """Return the name that was `asked`, if any, and the longest ones that are known."""
    names = {whole(sub, tally.suffix) for sub in (*tally.known.fresh, *tally.known.old)}
    longest = sorted(names.difference(asked), key=lambda name: (-len(name), name))
    return (*asked, *longest)[:_SAMPLES]
