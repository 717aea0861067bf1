"""Where a query came from, and what came."""

from msgspec import Struct

from proxy.metrics import DnsTransport
from proxy.transport.peer import SocketAddress
from rules.facts import Principal

_ENCRYPTED = frozenset({"dot", "doh"})


class Asker(Struct, frozen=True):
    """Where a query came from.  `principal` is None where only TCP can tell who asks."""

    principal: Principal | None
    transport: DnsTransport
    limit_octets: int
    peer: SocketAddress
    listener: str

    @property
    def is_encrypted(self) -> bool:
        """Whether nobody but the asker sees the reply."""
        return self.transport in _ENCRYPTED
