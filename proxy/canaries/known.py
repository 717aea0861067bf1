"""Registered secrets in the names that apps ask for: in one name, or over several.

A secret may be cut into pieces, one a query.  So the ends of what an app asked for are remembered,
`proxy.canaries.trail`.  A name that an app has just asked for adds nothing: its answer is in a
cache, and nobody hears of it again.
"""

from collections.abc import Callable
from typing import Literal

from proxy.canaries.redacted import redacted
from proxy.canaries.trail import Trail
from proxy.leak import Leak
from proxy.limits import Limits
from rules.facts import Facts
from rules.name import DomainName
from rules.secret_scan import Hit, SecretTable

_MARKS = b"-_."
_NO_TABLE = SecretTable(b"", {})


class KnownSecrets:
    """Implements `proxy.leak.Leaks`; for the loop's thread only.

    `count` is called with the form of each leak, and whether it stood in one name or in several.
    """

    def __init__(
        self,
        limits: Limits,
        hit_bound: Callable[[str], object] = lambda _: None,
        count: Callable[[str, Literal["one", "several"]], object] = lambda *_: None,
    ) -> None:
        self._table = _NO_TABLE
        self._most = limits.apps_remembered
        self._hit_bound = hit_bound
        self._count = count
        self._trails: dict[str, Trail] = {}

    def __bool__(self) -> bool:
        """Return whether any secret is registered."""
        return bool(self._table)

    def use(self, table: SecretTable) -> None:
        """Look for what `table` has from now on; what was asked for before is forgotten."""
        self._table = table
        self._trails.clear()

    def found(self, app: str, name: DomainName, /) -> Leak | None:
        """Return the secret that `name`, or the last names of `app` together, give away.

        The piece that completes a secret is refused again and again, and so is the next one: it
        is remembered as if it had been sent, and of an app that was found once every window is
        looked at.
        """
        if not self._table:
            return None
        trail = self._trails.get(app) or self._begin(app)
        if name in trail.recent:
            return None
        hit = self._table.find(name.encode().translate(None, _MARKS))
        if hit is not None:
            return self._told(hit, "one")
        hit = trail.refused.get(name)
        if hit is not None:
            return self._told(hit, "several")
        look, around = self._table.find, None
        if trail.refused:
            look, around = self._table.search, self._table.least - 1
        step = trail.step(name, around)
        for text in step.texts if step is not None else ():
            hit = look(text)
            if hit is not None and step is not None:
                trail.refuse(name, step, hit, self._table.least)
                return self._told(hit, "several")
        trail.take(name, step)
        return None

    def redacted(self, facts: Facts, /) -> Facts:
        """Return `facts`, which were refused for a leak, as they may be told of."""
        return redacted(
            facts, lambda name: self._table.holds(name.encode().translate(None, _MARKS))
        )

    def purged(self, text: str, /) -> str:
        """Return `text`; or what it is, where a secret stands in it."""
        squeezed = text.lower().encode().translate(None, _MARKS)
        return "(a registered secret)" if self._table.holds(squeezed) else text

    def _told(self, hit: Hit, names: Literal["one", "several"]) -> Leak:
        self._count(hit.how, names)
        return Leak(hit.secret, hit.how if names == "one" else f"{hit.how}, over several names")

    def _begin(self, app: str) -> Trail:
        """Return a new trail; at the bound the app that came first begins anew."""
        if len(self._trails) >= self._most:
            self._hit_bound("apps_remembered")
            del self._trails[next(iter(self._trails))]
        trail = self._trails[app] = Trail(self._table.reach)
        return trail
