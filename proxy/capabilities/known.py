"""The capability tokens that a running appliance knows: bounded, and none forgotten for another."""

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from msgspec import structs

from proxy.attested.ages import SKEW_S
from proxy.attested.binding import Binding
from proxy.capabilities.token import CapabilityToken, digest
from proxy.limits import Limits


class FullError(Exception):
    """There is no room for another token, of this key or lease, of this app, or at all."""


class Capabilities:
    """Every token that has not expired, void or not; for the loop's thread only.

    `hit_bound` is called with the name of a limit that was met.
    """

    def __init__(self, limits: Limits, hit_bound: Callable[[str], object]) -> None:
        self._limits = limits
        self._hit_bound = hit_bound
        self._by_id: dict[str, CapabilityToken] = {}
        self._by_digest: dict[str, str] = {}
        self._children: dict[str, set[str]] = {}
        self._of: Counter[str | Binding] = Counter()  # an app, a binding: held, and about to be
        self._under_way = 0
        self._void = 0
        self._ends: list[tuple[int, str]] = []

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._by_id)

    @property
    def current(self) -> int:
        """How many are neither void nor expired, as of the last `look`."""
        return len(self) - self._void

    def get(self, which: str) -> CapabilityToken | None:
        """Return the token whose id, or the digest of whose text, is `which`."""
        return self._by_id.get(self._by_digest.get(which, which))

    def find(self, text: str) -> CapabilityToken | None:
        """Return the token of that text."""
        return self.get(digest(text))

    def all(self) -> tuple[CapabilityToken, ...]:
        """Return every one of them."""
        return tuple(self._by_id.values())

    def stands(self, token: CapabilityToken, now: float) -> bool:
        """Return whether `token` is neither void nor expired at `now`."""
        known = self._by_id.get(token.id)
        return (
            known is not None and known.void_at is None and known.at - SKEW_S <= now < known.expires
        )

    def lineage(self, token: CapabilityToken) -> tuple[CapabilityToken | None, ...]:
        """Return `token` and all that it was made of; None stands for what is not known."""
        found: list[CapabilityToken | None] = [token]
        while token.parent:
            parent = self._by_id.get(token.parent)
            found.append(parent)
            if parent is None:
                break
            token = parent
        return tuple(found)

    @contextmanager
    def room(self, app: str, binding: Binding) -> Iterator[None]:
        """Keep room for one token of `app`, bound so, until the block has ended.

        Raises:
            FullError: there is none; none is forgotten for another, which would void it.
        """
        for limit, held in (
            ("capabilities_per_binding", self._of[binding]),
            ("capabilities_per_app", self._of[app]),
            ("capabilities", len(self) + self._under_way),
        ):
            if held >= getattr(self._limits, limit):
                self._hit_bound(limit)
                raise FullError(f"limits.{limit}")
        self._of.update((app, binding))
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1
            self._let_go(app, binding)

    def add(self, token: CapabilityToken) -> None:
        """Know `token` from now on; `room` is for who asks for one."""
        if token.id in self._by_id:
            return
        self._by_id[token.id] = token
        self._by_digest[token.token_sha256] = token.id
        self._of.update((token.holder.app, token.binding))
        self._void += token.void_at is not None
        if token.parent:
            self._children.setdefault(token.parent, set()).add(token.id)
        heapq.heappush(self._ends, (token.expires, token.id))

    def void(self, ids: Iterable[str], now: float, why: str) -> tuple[CapabilityToken, ...]:
        """Let these count for nothing, and all that was made of them; return what did until now."""
        voided = []
        waiting = list(ids)
        while waiting:
            unique = waiting.pop()
            waiting.extend(self._children.get(unique, ()))
            token = self._by_id.get(unique)
            if token is not None and token.void_at is None:
                token = structs.replace(token, void_at=now, why=why)
                self._by_id[unique] = token
                voided.append(token)
        self._void += len(voided)
        return tuple(voided)

    def look(self, now: float) -> None:
        """Forget what has expired; to be called now and then."""
        while self._ends and self._ends[0][0] <= now:
            _, unique = heapq.heappop(self._ends)
            token = self._by_id.pop(unique)
            del self._by_digest[token.token_sha256]
            self._let_go(token.holder.app, token.binding)
            self._void -= token.void_at is not None
            self._children.pop(unique, None)
            siblings = self._children.get(token.parent)
            if siblings is not None:
                siblings.discard(unique)

    def _let_go(self, *keys: str | Binding) -> None:
        for key in keys:
            self._of[key] -= 1
            if not self._of[key]:
                del self._of[key]
