"""Which addresses and ports are our own: they are refused as destinations in every spelling."""

from ipaddress import IPv4Address, IPv6Address

from rules.address import Address, embedded

_ANY = (IPv4Address(0), IPv6Address(0))


class OwnSockets:
    """The sockets that we accept on and the addresses that this host's interfaces hold.

    All ports of `sinkholes` are ours: whoever is pointed there is to be told why, and no more.
    """

    def __init__(self, listeners: set[tuple[Address, int]], interfaces: set[Address]) -> None:
        self.listeners = listeners
        self.interfaces = interfaces
        self.sinkholes: frozenset[Address] = frozenset()

    def is_interface(self, address: Address) -> bool:
        """Return whether an interface of this host holds `address` or one embedded in it."""
        return any(
            each in self.interfaces or each in self.sinkholes
            for each in (address, *embedded(address))
        )

    def is_listener(self, address: Address, port: int | None) -> bool:
        """Return whether a connection to `address` and `port` would reach one of our sockets.

        Loopback and unspecified destinations reach every local socket of the port that is bound
        to any address of this host; so a port of ours is ours on all of them.
        """
        if self.sinkholes and any(e in self.sinkholes for e in (address, *embedded(address))):
            return True
        if port is None or all(port != ours for _, ours in self.listeners):
            return False
        candidates = (address, *embedded(address))
        local = any(each.is_loopback or each in _ANY for each in candidates)
        return local or any(
            each in self.interfaces or (each, port) in self.listeners for each in candidates
        )
