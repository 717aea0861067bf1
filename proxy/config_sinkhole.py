"""`sinkhole:` as settings: the pair of addresses that denied names are pointed at."""

from collections.abc import Callable, Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from msgspec import Struct

from rules.address import Address, parse_address
from rules.errors import MalformedAddressError

_LOOPBACK = IPv4Network("127.0.0.0/8")  # RFC 1122, section 3.2.1.3: never seen on a network
_LOCALHOST = IPv4Address("127.0.0.1")  # what every other server of this host listens on
_ENDS = (_LOOPBACK.network_address, _LOOPBACK.broadcast_address)
_ULA = IPv6Network("fc00::/7")  # RFC 4193, section 3.1
_CURE_V4 = "write one of 127.0.0.0/8 that nothing else uses, as 127.53.53.53"
_CURE_V6 = 'write a unique local one that nothing else uses, as "fd53::53"'

type Tell = Callable[[str, str, str], None]


class SinkholeSettings(Struct, frozen=True):
    """The sinkhole's addresses, as text; without one there is none of that family."""

    v4: str | None = None
    v6: str | None = None

    @property
    def addresses(self) -> tuple[Address, ...]:
        """Those that are configured."""
        return tuple(parse_address(each) for each in (self.v4, self.v6) if each is not None)


def read_sinkhole(
    v4: str | None, v6: str | None, taken: Iterable[Address], problem: Tell
) -> SinkholeSettings:
    """Return the settings of `sinkhole:`; `problem(key, text, cure)` is told what is wrong.

    `taken` are the addresses of our listeners.
    """
    used = frozenset(taken)
    first = _read("sinkhole.v4", v4, _flaw_v4, _CURE_V4, used, problem)
    second = _read("sinkhole.v6", v6, _flaw_v6, _CURE_V6, used, problem)
    return SinkholeSettings(
        str(first) if isinstance(first, IPv4Address) else None,
        str(second) if isinstance(second, IPv6Address) else None,
    )


def _read(
    key: str,
    text: str | None,
    flaw: Callable[[Address], str],
    cure: str,
    used: frozenset[Address],
    problem: Tell,
) -> Address | None:
    if text is None:
        return None
    try:
        address = parse_address(text)
    except MalformedAddressError as error:
        problem(key, str(error), cure)
        return None
    said = flaw(address) or (f"{address} is that of a listener" if address in used else "")
    if said:
        problem(key, said, cure)
        return None
    return address


def _flaw_v4(address: Address) -> str:
    if address not in _LOOPBACK:
        return f"{address} is not in {_LOOPBACK}"
    if address == _LOCALHOST:
        return f"{address} is what every other server listens on"
    return f"{address} is no host's address" if address in _ENDS else ""


def _flaw_v6(address: Address) -> str:
    return "" if address in _ULA else f"{address} is not in {_ULA}"
