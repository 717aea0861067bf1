"""Fast flux as evidence: a name that stands for ever more addresses, all over the networks.

A proxy net of infected machines answers each look-up with a few of hundreds of addresses, nearly
every one in another provider's network, and lets nobody keep an answer for long.  All of these are
asked for at once, of what one app saw of one name within a day:

1. the TTL is short (`FluxSizes.ttl_s`); an answer with a longer one is not counted at all;
2. for three addresses there is a network, or more (Perdisci et al., ACSAC 2009, FluxBuster);
3. the flux score of Holz et al. (NDSS 2008), addresses and networks weighted, is above their
   limit after it was multiplied by networks per address (as Zeek's fast-flux script does);
4. the addresses lie in 16 or more of the blocks in which IANA hands out address space.

We have no table of autonomous systems.  A network is a /16 of IPv4, as with Perdisci, or a /32 of
IPv6, the least that a provider is given.  That is finer than an autonomous system (a cloud's
region has hundreds of /16), hence the fourth condition: its addresses lie in a dozen blocks.

So a CDN with many addresses in few networks fails the second condition, a load balancer in a
cloud the fourth, and round robin over a dozen addresses the third and fourth.  What it does not
see: names that are asked once each below a wildcard; these are the tunnel detector's.
"""

from collections import Counter
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address

from msgspec import Struct

from rules.address import Address
from rules.name import DomainName

POOLS = ("pool.ntp.org",)
"""Names of volunteers' machines everywhere, by design; their owner alone answers for them."""

_BELOW_POOLS = tuple(f".{pool}" for pool in POOLS)

_HOUR_S = 3600
_IPV6 = 1 << 128  # marks an address of IPv6 among the integers of both families
_IPV4_SHIFT = 80  # so that a /16 of IPv4 and a /32 of IPv6 are one shift, a /8 and a /24 another
_NETWORK_SHIFT, _BLOCK_SHIFT = 96, 104
_SAMPLES = 8  # addresses in a finding: enough to see the spread, few enough for a line of audit


class FluxSizes(Struct, frozen=True):
    """Every number of this module, with its precedent."""

    ttl_s: int = 1800
    """Zeek's fast-flux script (anomalous-dns) forgets answers that live longer."""
    address_weight: float = 1.32
    network_weight: float = 18.54
    score: float = 142.38
    """Holz et al., section 4: a linear classifier over addresses and autonomous systems."""
    diversity: float = 1 / 3
    """Networks to addresses.  FluxBuster's first filter: 1/3, over /16, there by their entropy."""
    blocks: int = 16
    """/8 of IPv4 (IANA's registry) and /24 of IPv6; the region of a cloud has a dozen."""
    window_hours: int = 24
    """Tens or hundreds of addresses a day (NSA, CISA and others, Fast Flux, April 2025)."""
    addresses: int = 64
    """Kept of a name, the latest; 57 of the least diversity are above the score's limit."""
    names: int = 512
    """Kept of an app, in the manner of Space-Saving (Metwally et al., ICDT 2005)."""
    all_names: int = 2048
    """Kept of all apps."""


class FluxFinding(Struct, frozen=True):
    """What an app saw of a name; `is_first`: at the last answer it was not so yet.

    `samples` are some of the addresses, the latest last.
    """

    app: str
    name: DomainName
    addresses: int
    networks: int
    blocks: int
    score: float
    ttl_s: int
    samples: tuple[str, ...]
    is_first: bool

    @property
    def evidence(self) -> dict[str, float]:
        """The numbers, in the words of audit."""
        return {
            "addresses": self.addresses,
            "networks": self.networks,
            "blocks": self.blocks,
            "score": round(self.score, 2),
            "ttl_s": self.ttl_s,
        }


class _Spread(Struct, frozen=True, gc=False):
    networks: int = 0
    blocks: int = 0
    score: float = 0.0
    is_flux: bool = False


_NARROW = _Spread()


class _Seen:
    """What one app saw of one name: addresses with the hour in which they came last, oldest first.

    `weight` is the count of Space-Saving: of what was inherited, and of each new address since.  It
    says who is evicted; a finding rests on `addresses` alone, which nobody else can add to.
    """

    __slots__ = ("addresses", "hour", "spread", "weight")

    def __init__(self, weight: int) -> None:
        self.addresses: dict[int, int] = {}
        self.hour = 0
        self.spread = _NARROW
        self.weight = weight


class _Names:
    """The names of one app, the one asked last at the end; `classes` are they by weight."""

    __slots__ = ("classes", "seen")

    def __init__(self) -> None:
        self.seen: dict[DomainName, _Seen] = {}
        self.classes: dict[int, dict[DomainName, None]] = {}

    def weigh(self, name: DomainName, seen: _Seen, more: int) -> None:
        """Move `name` up by `more`, from nowhere if it is new."""
        self._leave(name, seen.weight)
        seen.weight += more
        self.classes.setdefault(seen.weight, {})[name] = None

    def drop(self, name: DomainName) -> int:
        """Forget `name`; return its weight."""
        weight = self.seen.pop(name).weight
        self._leave(name, weight)
        return weight

    def evict(self, since_hour: int) -> int:
        """Forget one name; return the weight that its successor inherits.

        One that was not asked within the window leaves nothing; else it is one of the least weight.
        """
        oldest, seen = next(iter(self.seen.items()))
        if seen.hour < since_hour:
            self.drop(oldest)
            return 0
        return self.drop(next(iter(self.classes[min(self.classes)])))

    def _leave(self, name: DomainName, weight: int) -> None:
        if (members := self.classes.get(weight)) is not None:
            members.pop(name, None)
            if not members:
                del self.classes[weight]


class Flux:
    """What each app saw of each name.  It has no clock: `now` is Unix time in seconds.

    `bounds` counts what happened at them: `evicted` names, and `crowded`: addresses forgotten
    because their name had more.
    """

    def __init__(self, sizes: FluxSizes | None = None) -> None:
        self.bounds: Counter[str] = Counter()
        self._sizes = sizes or FluxSizes()
        self._apps: dict[str, _Names] = {}
        self._held = 0
        self._hour = 0

    def answered(
        self, app: str, name: DomainName, addresses: Sequence[Address], ttl_s: int, now: float
    ) -> FluxFinding | None:
        """Count an answer whose least TTL is `ttl_s`; return what makes fast flux of its name.

        It is said at every answer while it is so.
        """
        is_pool = name in POOLS or name.endswith(_BELOW_POOLS)
        if not addresses or ttl_s > self._sizes.ttl_s or is_pool:
            return None
        if (hour := int(now // _HOUR_S)) != self._hour:
            self._hour = hour  # one integer for all the addresses of an hour
        seen = self._touch(app, name)
        was_flux = seen.spread.is_flux
        fresh, changed = self._add(seen, addresses)
        if fresh:
            self._apps[app].weigh(name, seen, fresh)
        if changed:
            seen.spread = self._spread(seen.addresses)
        return _finding(app, name, seen, ttl_s, is_first=not was_flux)

    def clear(self, app: str, name: DomainName) -> bool:
        """Forget what `app` saw of `name`; return whether there was anything."""
        names = self._apps.get(app)
        if names is None or name not in names.seen:
            return False
        names.drop(name)
        self._held -= 1
        return True

    def _touch(self, app: str, name: DomainName) -> _Seen:
        """Return what `app` saw of `name`, as the name asked last; room is made for a new one."""
        names = self._apps.setdefault(app, _Names())
        if (seen := names.seen.pop(name, None)) is None:
            seen = _Seen(self._room(names))
            self._held += 1
        names.seen[name] = seen
        seen.hour = self._hour
        return seen

    def _room(self, names: _Names) -> int:
        """Evict if there is no room; return the weight that a newcomer to `names` begins with.

        An app at its own bound evicts a name of its own.  At the bound of all, the app that has
        most gives way: an app that has few names never loses one to another's.
        """
        sizes = self._sizes
        crowded = len(names.seen) >= sizes.names
        if not crowded and self._held < sizes.all_names:
            return 0
        loser = names if crowded else max(self._apps.values(), key=lambda one: len(one.seen))
        weight = loser.evict(self._hour - sizes.window_hours)
        self._held -= 1
        self.bounds["evicted"] += 1
        return weight if loser is names else 0

    def _add(self, seen: _Seen, addresses: Sequence[Address]) -> tuple[int, bool]:
        """Take in an answer; return how many addresses are new, and whether it changed any."""
        known, fresh, before = seen.addresses, 0, len(seen.addresses)
        for address in addresses:
            key = _key(address)
            fresh += known.pop(key, None) is None
            known[key] = self._hour
        since = self._hour - self._sizes.window_hours
        while known and (len(known) > self._sizes.addresses or known[next(iter(known))] <= since):
            self.bounds["crowded"] += known.pop(next(iter(known))) > since
        return fresh, fresh > 0 or len(known) != before

    def _spread(self, addresses: dict[int, int]) -> _Spread:
        """Return how widely addresses lie, and whether all the conditions on that hold."""
        sizes, count = self._sizes, len(addresses)
        if count < sizes.blocks:
            return _NARROW
        networks = len({key >> _NETWORK_SHIFT for key in addresses})
        diversity = networks / count
        score = diversity * (sizes.address_weight * count + sizes.network_weight * networks)
        if diversity < sizes.diversity or score <= sizes.score:
            return _NARROW
        blocks = len({key >> _BLOCK_SHIFT for key in addresses})
        return _Spread(networks, blocks, score, blocks >= sizes.blocks)


def _finding(
    app: str, name: DomainName, seen: _Seen, ttl_s: int, *, is_first: bool
) -> FluxFinding | None:
    spread = seen.spread
    if not spread.is_flux:
        return None
    return FluxFinding(
        app=app,
        name=name,
        addresses=len(seen.addresses),
        networks=spread.networks,
        blocks=spread.blocks,
        score=spread.score,
        ttl_s=ttl_s,
        samples=tuple(map(_shown, list(seen.addresses)[-_SAMPLES:])),
        is_first=is_first,
    )


def _key(address: Address) -> int:
    """Return an address as an integer: `Address` takes a string apart to hash itself."""
    value = int(address)
    return value << _IPV4_SHIFT if isinstance(address, IPv4Address) else value | _IPV6


def _shown(key: int) -> str:
    return str(IPv6Address(key ^ _IPV6) if key & _IPV6 else IPv4Address(key >> _IPV4_SHIFT))
