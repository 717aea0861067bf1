"""What narrows a rule: ports, types, addresses, methods, paths, and what must be proven."""

import re
from collections.abc import Callable, Iterable, Sequence
from ipaddress import IPv4Network, IPv6Network

from msgspec import UNSET, UnsetType

from rules import document, rtype
from rules.address import Network, parse_network
from rules.errors import MalformedAddressError, MalformedPathError
from rules.facts import Level
from rules.node import MappingNode, MistakeError, Node, Report, at, one_or_more, quote
from rules.required import NOTHING, union
from rules.ruleset import Requirements
from rules.shape import suggest

DEFAULT_PORTS = frozenset({443})
DEFAULT_TYPES = frozenset({rtype.A, rtype.AAAA, rtype.CNAME, rtype.HTTPS})
DEFAULT_MAX_AGE_S = 300  # of an attestation (reference.md)

# Where a dial ends on this host itself (RFC 1122, section 3.2.1.3; RFC 4291, section 2.5.3); to
# connect to the unspecified address is to connect to loopback on Linux.
_LOOPBACK: tuple[Network, ...] = (
    IPv4Network("127.0.0.0/8"),
    IPv4Network("0.0.0.0/32"),
    IPv6Network("::/127"),
    IPv6Network("::ffff:127.0.0.0/104"),
    IPv6Network("::ffff:0.0.0.0/128"),
)
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}", re.ASCII)  # RFC 9110, section 5.6.2
_DURATION = re.compile(r"([1-9]\d{0,8})([smhd])", re.ASCII)
_UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def read_each[T](
    texts: Iterable[str], node: Node, read: Callable[[str], T], report: Report
) -> list[T]:
    """Return what `read` makes of each text; what is wrong is reported at its item of `node`."""
    values = []
    for text, item in zip(texts, one_or_more(node), strict=True):
        try:
            values.append(read(text))
        except (MistakeError, MalformedPathError) as mistake:
            report.error(item, str(mistake), mistake.cure)
    return values


def read_type(text: str) -> int:
    """Return the number of a DNS record type.

    Raises:
        MistakeError: an unknown mnemonic.
    """
    number = rtype.number(text)
    if number is None:
        cure = suggest(text.upper(), rtype.BY_MNEMONIC, "write a mnemonic such as TXT, or TYPE123")
        raise MistakeError(f"{quote(text)} is no DNS record type", cure)
    return number


def read_network(text: str) -> Network:
    """Return the network that `text` spells.

    Raises:
        MistakeError: no address in canonical spelling, or host bits that are set.
    """
    try:
        return parse_network(text)
    except MalformedAddressError as error:
        cure = "write an address or ADDRESS/LENGTH, such as 10.1.2.0/24 or 2001:db8::/32"
        raise MistakeError(str(error), cure) from None


def read_method(text: str) -> str:
    """Return an HTTP method.

    Raises:
        MistakeError: no token, or one with lower-case letters: methods are case-sensitive.
    """
    if not _TOKEN.fullmatch(text):
        raise MistakeError(f"{quote(text)} is no HTTP method", "write GET, HEAD, POST, ...")
    if text != text.upper():  # RFC 9110, section 9.1
        raise MistakeError(
            f"the HTTP method {quote(text)} is in lower case", f"write {text.upper()}"
        )
    return text


def read_seconds(value: int | str) -> int:
    """Return a duration in seconds.

    Raises:
        MistakeError: less than a second, or no whole number with a unit.
    """
    if isinstance(value, int) and 0 < value < 10**9:
        return value
    match = _DURATION.fullmatch(str(value))
    if match is None:
        raise MistakeError(f"{quote(str(value))} is no duration", "write 300, 300s, 5m, 1h or 1d")
    return int(match[1]) * _UNIT_S[match[2]]


def reaches_loopback(networks: Iterable[Network]) -> bool:
    """Return whether any of `networks` holds an address of this host's loopback."""
    return any(_overlaps(network, block) for network in networks for block in _LOOPBACK)


def require_of(
    entries: Sequence[document.Requirement] | UnsetType, node: MappingNode, report: Report
) -> Requirements:
    """Return the `require` of what stands at `node`."""
    return NOTHING if entries is UNSET else read_require(entries, node.value("require"), report)


def read_require(
    entries: Sequence[document.Requirement], node: Node, report: Report
) -> Requirements:
    """Return the requirements of a `require` list."""
    total = NOTHING
    for entry, item in zip(entries, one_or_more(node), strict=True):
        if isinstance(entry, str):
            attested = document.Attested()
            one = Requirements(mtls=True) if entry == "mtls" else _attested(attested, item, report)
        else:
            one = _attested(entry.attested, item, report)
        total = union(total, one)
    return total


def _attested(entry: document.Attested, item: Node, report: Report) -> Requirements:
    level = Level.SOFTWARE if entry.level is UNSET else Level[entry.level.upper()]
    max_age_s = DEFAULT_MAX_AGE_S
    if entry.max_age is not UNSET:
        try:
            max_age_s = read_seconds(entry.max_age)
        except MistakeError as mistake:
            report.error(at(item, "attested", "max_age"), str(mistake), mistake.cure)
    return Requirements(attested=level, max_age_s=max_age_s)


def _overlaps(one: Network, other: Network) -> bool:
    # overlaps() of different versions is a TypeError
    return one.version == other.version and one.overlaps(other)
