"""What is known of CONNECTs that are sent again and again, so that it is not worked out anew.

Reading a head is a function of its octets, and a route of principal, host and port: what is kept
here says nothing that asking again would not say.  Decisions are not among it; they are asked of
`proxy.authorize` each time, and addresses hold only on the `Grounds` that they were allowed on.
"""

from typing import override

from msgspec import Struct

from proxy.audit_fold import Repeats
from proxy.egress.allowed import Grounds
from proxy.egress.origin import OriginKey
from proxy.limits import Limits
from proxy.metrics import Metrics
from proxy.wire.clienthello import Likeness
from proxy.wire.head import RequestHead, read_request
from proxy.wire.section import SectionMemory
from rules.address import Address
from rules.facts import Connect, Principal
from rules.name import DomainName

_HEAD_OCTETS = 1024  # longer heads of CONNECT are rare, and read each time

type Target = tuple[Address, str]
"""An address that was decided on, and its text: that text is what is dialled."""


class Closes(Repeats):
    """Repeats of a closing line, with what passed through those tunnels."""

    __slots__ = ("_down", "_duration_s", "_up")

    def __init__(self) -> None:
        super().__init__()
        self._up = 0
        self._down = 0
        self._duration_s = 0.0

    def more(self, up: int, down: int, duration_s: float) -> None:
        """Count one more tunnel that ended, the octets of each direction and its length."""
        self.count += 1
        self._up += up
        self._down += down
        self._duration_s = max(self._duration_s, duration_s)

    @override
    def settle(self) -> int:
        """Add what was counted since the last time to the fold; return how many tunnels."""
        if self.count and self.fold is not None:
            self.fold.gather({
                "octets_up": self._up, "octets_down": self._down,
                "duration": round(self._duration_s, 6),
            })  # fmt: skip
        self._up = self._down = 0
        self._duration_s = 0.0
        return super().settle()


class Route(Struct):
    """An origin in use by one principal.

    `targets` were allowed on `grounds` and may be dialled until `until` (the loop's time); `flow`
    is the errand that looked them up, `chain` the aliases that led to them.  `opens` and `closes`
    count lines that repeat.  `hello` is the last ClientHello.
    """

    connect: Connect
    key: OriginKey
    opens: Repeats
    closes: Closes
    opens_until: float = 0.0
    closes_until: float = 0.0
    targets: tuple[Target, ...] = ()
    grounds: Grounds | None = None
    until: float = 0.0
    flow: str = ""
    chain: tuple[DomainName, ...] = ()
    hello: Likeness | None = None


class KnownHead:
    """The head of a CONNECT, and the route that it last was for: the one of `principal`."""

    __slots__ = ("head", "principal", "route")

    def __init__(self, head: RequestHead) -> None:
        self.head = head
        self.principal: Principal | None = None
        self.route: Route | None = None


class KnownHeads:
    """Heads of CONNECT by their octets; at `known_heads` all are forgotten."""

    def __init__(self, limits: Limits, metrics: Metrics) -> None:
        self._limits = limits
        self._metrics = metrics
        self._heads: dict[bytes, KnownHead] = {}
        self.find = self._heads.get

    def __len__(self) -> int:
        """Return how many are known."""
        return len(self._heads)

    def add(self, octets: bytes, head: RequestHead) -> None:
        """Remember `head`, which `octets` are."""
        if len(octets) > _HEAD_OCTETS:
            return
        if len(self._heads) >= self._limits.known_heads:
            self._metrics.bounds.add("known_heads")
            self._heads.clear()
        self._heads[octets] = KnownHead(head)


class Heads:
    """Reads the heads of one connection; what is the same as before is not read again."""

    __slots__ = ("_known", "_limits", "_memory")

    def __init__(self, known: KnownHeads, limits: Limits) -> None:
        self._known = known
        self._limits = limits
        self._memory: SectionMemory | None = None

    def read(self, buffer: bytes, *, is_connect: bool) -> tuple[RequestHead, int] | None:
        """Return the head that begins `buffer`, and its octets; None while it is incomplete.

        `is_connect`: a CONNECT is taken here.

        Raises:
            PeerError: REQUEST_MALFORMED, as `proxy.wire.head.read_request` says.
        """
        is_connect = is_connect and buffer.startswith(b"CONNECT ")
        if is_connect and (known := self._known.find(buffer)) is not None:
            return known.head, len(buffer)
        if self._memory is None:
            self._memory = SectionMemory(b"host")
        parsed = read_request(buffer, self._limits, self._memory)
        if is_connect and parsed is not None and parsed[1] == len(buffer):
            self._known.add(buffer, parsed[0])
        return parsed


class Routes:
    """Routes by principal, host and port; at `known_routes` the oldest makes room."""

    def __init__(self, limits: Limits, metrics: Metrics) -> None:
        self._limits = limits
        self._metrics = metrics
        self._routes: dict[tuple[Principal, DomainName | Address, int], Route] = {}

    def __len__(self) -> int:
        """Return how many are known."""
        return len(self._routes)

    def get(self, principal: Principal, host: DomainName | Address, port: int) -> Route:
        """Return the route of `principal` to `host` and `port`."""
        key = principal, host, port
        route = self._routes.get(key)
        if route is None:
            if len(self._routes) >= self._limits.known_routes:
                self._metrics.bounds.add("known_routes")
                del self._routes[next(iter(self._routes))]
            route = self._routes[key] = Route(
                Connect(principal, host, port), OriginKey(principal, host, port),
                Repeats(), Closes(),
            )  # fmt: skip
        return route
