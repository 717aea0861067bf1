"""The replay of ordinary look-ups, through a cache as each app has one in the product."""

from collections.abc import Callable, Iterator

from msgspec import Struct

from proxy.limits import Limits
from rules.name import DomainName
from scripts.benches.benign_apps import Query, apps
from scripts.benches.benign_names import World

SEED = 20_260_101

type Miss = Callable[[Query], None]


class Counts(Struct):
    """What a replay was."""

    queries: int = 0
    misses: int = 0
    hours: int = 0


class Cache:
    """One app's cache: answers until they expire, the oldest gone when it is full."""

    def __init__(self, limits: Limits) -> None:
        self._entries = limits.cache_entries
        self._ttl_s = limits.cache_ttl_s
        self._until: dict[tuple[DomainName, int], float] = {}

    def has(self, query: Query) -> bool:
        """Return whether the answer is there; if not, keep it from now on."""
        at_s, _, name, rtype, ttl_s, _ = query
        key = (name, rtype)
        if self._until.get(key, 0.0) > at_s:
            return True
        self._until.pop(key, None)
        if len(self._until) >= self._entries:
            del self._until[next(iter(self._until))]
        self._until[key] = at_s + min(ttl_s, self._ttl_s)
        return False


def hours(world: World, length_h: int, seed: int = SEED) -> Iterator[list[Query]]:
    """Yield the queries of all apps, an hour at a time, in order."""
    running = apps(seed, world)
    for number in range(length_h):
        out: list[Query] = []
        for app in running:
            app.hour(number, out)
        out.sort(key=lambda query: query[0])
        yield out


def replay(world: World, length_h: int, miss: Miss, told: Callable[[Counts], None]) -> Counts:
    """Give every query that no cache answers to `miss`; `told` hears of every hour."""
    counts, caches, limits = Counts(), dict[int, Cache](), Limits()
    for out in hours(world, length_h):
        for query in out:
            cache = caches.get(query[1])
            if cache is None:
                cache = caches[query[1]] = Cache(limits)
            if not cache.has(query):
                counts.misses += 1
                miss(query)
        counts.queries += len(out)
        counts.hours += 1
        told(counts)
    return counts
