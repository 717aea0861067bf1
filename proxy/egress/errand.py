"""What one client connection wants of one origin: the facts that every request to it shares."""

from msgspec import Struct

from proxy.egress.origin import OriginKey
from proxy.flow import Flow
from rules.address import Address
from rules.facts import Connect
from rules.name import DomainName


class Errand(Struct):
    """An origin in use.  `prefix` and `host_value` are how the client last spelled it.

    A request whose target begins with the same `prefix`, and whose Host field is the same, is
    for the same origin without parsing either again.  `host_field` is our own spelling.
    """

    flow: Flow
    connect: Connect
    key: OriginKey
    host_field: bytes
    prefix: bytes
    host_value: bytes | None

    @property
    def host(self) -> DomainName | Address:
        """The origin's host."""
        return self.connect.host

    @property
    def port(self) -> int:
        """The origin's port."""
        return self.connect.port
