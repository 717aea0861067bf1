"""Answers that were walked, kept per app until their TTL ends (RFC 2308 for negative ones).

Per app, so that no app can tell by the time an answer takes what another one asked.  An entry
holds only under the generation of the rules that decided it: `CachedAnswer.generation`.  After a
reload it is decided again when it is next asked for, and stamped anew in place or forgotten; so
whoever keeps an entry compares that number, and a reload is no herd of look-ups.
"""

from msgspec import Struct

from proxy.limits import Limits
from proxy.metrics import Metrics
from proxy.resolver.answer import Answer
from proxy.resolver.message import Sections, write_sections
from rules.address import Address
from rules.name import DomainName

type Key = tuple[str, DomainName, int]
"""The app, the asked name and the asked type."""


class CachedAnswer(Struct):
    """An answer, and from and until when it holds, in seconds of the caller's clock.

    `flow` is the errand that it was looked up for.  `judged` are all addresses that were decided
    on, hints of service bindings among them; None where something was taken out of the answer,
    which other rules might leave in.  Its octets change once a second, with its TTLs, and are kept
    until then.
    """

    answer: Answer
    stored: float
    expires: float
    generation: int
    flow: str
    judged: tuple[Address, ...] | None = None
    _written: Sections | None = None
    _written_age_s: int = 0

    def sections(self, name: DomainName, question_octets: int, now: float) -> Sections:
        """Return its sections as of `now`, behind the question for `name` that it answers."""
        age_s = self.age_s(now)
        if self._written is None or self._written_age_s != age_s:
            records, authority = self.answer.records, self.answer.authority
            self._written = write_sections(name, question_octets, records, authority, age_s)
            self._written_age_s = age_s
        return self._written

    def age_s(self, now: float) -> int:
        """Return for how many whole seconds the answer has been kept."""
        return max(int(now - self.stored), 0)


class Caches:
    """A cache for each app: `limits.cache_entries` answers each, `limits.apps_remembered` apps.

    At either bound the least lately used makes room, which is counted.
    """

    def __init__(self, limits: Limits, metrics: Metrics) -> None:
        self._limits = limits
        self._metrics = metrics
        self._apps: dict[str, dict[Key, CachedAnswer]] = {}

    def get(self, key: Key, now: float, generation: int) -> CachedAnswer | None:
        """Return what is kept for `key` under `generation`, None when nothing holds any longer."""
        entries = self._apps.get(key[0])
        entry = entries.get(key) if entries else None
        if entries is None or entry is None or entry.generation != generation:
            return None
        del entries[key]
        if now >= entry.expires:
            return None
        entries[key] = entry  # the end of a dict is the latest used
        return entry

    def take(self, key: Key, now: float) -> CachedAnswer | None:
        """Take out what other rules decided for `key`, to be decided again and then `renew`ed.

        None where nothing is kept, or it cannot be decided again.
        """
        entry = self._apps.get(key[0], {}).pop(key, None)
        is_held = entry is not None and now < entry.expires and entry.judged is not None
        return entry if is_held else None

    def renew(self, key: Key, entry: CachedAnswer, generation: int) -> None:
        """Put back what was taken out: the rules of `generation` decide it alike."""
        entry.generation = generation
        self._entries(key[0])[key] = entry
        self._metrics.cache.add("renewed")

    def put(
        self,
        key: Key,
        answer: Answer,
        now: float,
        generation: int,
        flow: str,
        judged: tuple[Address, ...] | None = None,
    ) -> None:
        """Keep `answer` for its TTL, in place of an older one; TTL 0 is not kept.

        RFC 1035, section 3.2.1, on TTL 0; RFC 2308, section 5: negative answers have a bound
        of their own.
        """
        limits = self._limits
        bound_s = limits.negative_ttl_s if answer.is_negative else limits.cache_ttl_s
        ttl = min(answer.ttl, bound_s)
        entries = self._entries(key[0])
        entries.pop(key, None)
        if ttl <= 0:
            return
        entries[key] = CachedAnswer(answer, now, now + ttl, generation, flow, judged)
        if len(entries) > limits.cache_entries:
            del entries[next(iter(entries))]
            self._metrics.bounds.add("cache_entries")
            self._metrics.cache.add("evicted")

    def _entries(self, app: str) -> dict[Key, CachedAnswer]:
        entries = self._apps.pop(app, {})
        self._apps[app] = entries
        if len(self._apps) > self._limits.apps_remembered:
            del self._apps[next(iter(self._apps))]
            self._metrics.bounds.add("apps_remembered")
        return entries
