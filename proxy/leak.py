"""A registered secret in a name that an app asks for: the seam to `proxy.canaries`, which looks."""

from typing import Protocol

from msgspec import Struct

from rules.facts import Facts
from rules.name import DomainName


class Leak(Struct, frozen=True):
    """`secret` is the name that it was registered under; `how` the form that it was found in."""

    secret: str
    how: str


class Leaks(Protocol):
    """Looks for registered secrets in names, of refused look-ups as well."""

    def __bool__(self) -> bool:
        """Return whether any secret is registered."""

    def found(self, app: str, name: DomainName, /) -> Leak | None:
        """Return the secret that `name`, or the last names of `app` together, give away."""

    def redacted(self, facts: Facts, /) -> Facts:
        """Return the facts of a leak as they may be written down: without what leaks."""

    def purged(self, text: str, /) -> str:
        """Return `text`, which an app sent and no fact was made of, as it may be written down."""


class NoLeaks:
    """No secret is registered."""

    def __bool__(self) -> bool:
        """Return False."""
        return False

    def found(self, *_: object) -> Leak | None:
        """Return None."""
        return None

    def redacted(self, facts: Facts, /) -> Facts:
        """Return them as they are."""
        return facts

    def purged(self, text: str, /) -> str:
        """Return it as it is."""
        return text


NO_LEAKS = NoLeaks()
