"""Queries that were read before, by their octets: a client's next one differs in its id only.

Per app, so that no app can tell by the time an answer takes what another one asked.  Nothing is
decided here: what is kept is what `read_query` made of the very same octets.
"""

from collections.abc import Callable

from proxy.limits import Limits
from proxy.metrics import Metrics
from proxy.resolver.message import Query

KNOWN_OCTETS = 320  # a longer query holds options that seldom come twice
_ID_OCTETS = 2

type Read = Callable[[bytes], Query]


class KnownQueries:
    """What was read, for as many apps as the rules name: `limits.known_queries` of each.

    At the bound the oldest makes room, which is counted.
    """

    def __init__(self, read: Read, limits: Limits, metrics: Metrics) -> None:
        self._read = read
        self._limits = limits
        self._metrics = metrics
        self._apps: dict[str, dict[bytes, Query]] = {}

    def read(self, app: str, wire: bytes) -> Query:
        """Return the query that `wire` of `app` holds; raises what `read_query` raises."""
        rest = wire[_ID_OCTETS:]
        known = self._apps.get(app)
        query = known.get(rest) if known is not None else None
        if query is not None:
            unique = int.from_bytes(wire[:_ID_OCTETS])
            return Query(
                unique, query.flags, query.name, query.question, query.rtype, query.edns
            )  # fmt: skip
        return self._read(wire)

    def keep(self, app: str, wire: bytes, query: Query) -> None:
        """Keep `query`, which `wire` of `app` holds: it was allowed and had its answer at hand."""
        rest = wire[_ID_OCTETS:]
        known = self._apps.setdefault(app, {})
        if rest in known or len(rest) > KNOWN_OCTETS:
            return
        # Exact octets are 2^n keys of one name (case, cookies): what is never asked again goes.
        if len(known) >= self._limits.known_queries:
            del known[next(iter(known))]
            self._metrics.bounds.add("known_queries")
        known[rest] = query
