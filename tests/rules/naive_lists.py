"""Deny lists in the plainest form that says the same: dicts, for tests of what asks them."""

from rules.address import Address
from rules.listed import Listed
from rules.name import DomainName, parse


class NaiveLists:
    """Denies `apps` (None: every one) exactly these names, addresses and name servers."""

    def __init__(
        self,
        *names: str,
        addresses: tuple[str, ...] = (),
        servers: tuple[str, ...] = (),
        shielded: tuple[str, ...] = (),
        listed: Listed | None = None,
        apps: tuple[str, ...] | None = None,
    ) -> None:
        self._names = frozenset(map(parse, names))
        self._addresses = frozenset(addresses)
        self._servers = frozenset(map(parse, servers))
        self._shielded = frozenset(map(parse, shielded))
        self._listed = listed or Listed("lists/bad.txt", 7, "bad")
        self._apps = apps
        self.covers_all = apps is None

    def covers(self, app: str) -> bool:
        """Return whether any list covers `app`."""
        return self._apps is None or app in self._apps

    def find(self, app: str, name: DomainName, /) -> Listed | None:
        """Return what denies the name."""
        return self._listed if self.covers(app) and name in self._names else None

    def find_address(
        self, app: str, address: Address, name: DomainName | None = None, /
    ) -> Listed | None:
        """Return what denies the address."""
        is_listed = str(address) in self._addresses and name not in self._shielded
        return self._listed if self.covers(app) and is_listed else None

    def find_server(
        self, app: str, server: DomainName, name: DomainName | None = None, /
    ) -> Listed | None:
        """Return what denies the name server."""
        is_listed = server in self._servers and name not in self._shielded
        return self._listed if self.covers(app) and is_listed else None
