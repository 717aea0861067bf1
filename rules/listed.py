"""What deny lists say of a name or an address: the seam between deciding and the tables.

A table holds a million names and comes in from outside as octets (`rules.denylist`); deciding asks
it, and gets what a list says with the very line that said it.
"""

from enum import Enum
from typing import Protocol

from msgspec import Struct

from rules.address import Address
from rules.decision import LocalRecord, Refuse
from rules.name import DomainName


class Action(Enum):
    """What a list says to do (RPZ: draft-vixie-dnsop-dns-rpz, section 3)."""

    DENY = "deny"  # as the list's or the app's `refuse` says
    NXDOMAIN = "nxdomain"
    NODATA = "nodata"
    DROP = "drop"
    LOCAL = "local"
    PASSTHRU = "passthru"  # shields from what follows in the same list


class Listed(Struct, frozen=True):
    """A list denies it: `list` is the file as the rules name it, `line` counts from 1.

    `refuse` None: as the app says.  `trigger` is what stands on that line.
    """

    list: str
    line: int
    trigger: str
    refuse: Refuse | None = None
    local: tuple[LocalRecord, ...] = ()

    @property
    def id(self) -> str:
        """The rule's id in audit and refusals: file:line."""
        return f"{self.list}:{self.line}"


class Lists(Protocol):
    """All deny lists in force; the first list that denies decides."""

    @property
    def covers_all(self) -> bool:
        """Whether some list covers every app, those without rules too."""

    def covers(self, app: str, /) -> bool:
        """Return whether any list covers `app`."""

    def find(self, app: str, name: DomainName, /) -> Listed | None:
        """Return what denies `name` to `app`; None: nothing does."""

    def find_address(
        self, app: str, address: Address, name: DomainName | None = None, /
    ) -> Listed | None:
        """Return what denies `app` an answer with `address` (RPZ: rpz-ip); None: nothing does.

        What lets `name` pass in a list shields it from that list's addresses.
        """

    def find_server(
        self, app: str, server: DomainName, name: DomainName | None = None, /
    ) -> Listed | None:
        """Return what denies `app` names of a name server (RPZ: rpz-nsdname), as above."""


class NoLists:
    """No list is in force."""

    covers_all = False

    def covers(self, *_: object) -> bool:
        """Return False."""
        return False

    def find(self, *_: object) -> Listed | None:
        """Return None."""
        return None

    def find_address(self, *_: object) -> Listed | None:
        """Return None."""
        return None

    def find_server(self, *_: object) -> Listed | None:
        """Return None."""
        return None


NO_LISTS = NoLists()
