"""The configuration: what sallyport.yaml may say, and the settings that it becomes.

`read_config` reports every problem at once, each with its place and cure.  A key of the
reference whose feature this version lacks is an error here ("not in this version"): the
operator asked for something that would not happen.  Paths come in and go out plain; the
command line has expanded the variables before.
"""

import difflib
from collections.abc import Iterable

from msgspec import Struct, structs

from proxy.audit import AuditSettings
from proxy.config_keys import AuditKeys, ConfigKeys, EgressKeys, ListenKeys, ResolverKeys
from proxy.errors import ConfigError
from proxy.limits import Limits
from proxy.resolver.upstream_url import parse_upstream
from proxy.units import read_count, read_octets, read_seconds
from rules.address import Address, parse_address
from rules.errors import MalformedAddressError, Problem, Severity
from rules.node import MappingNode, Report, SequenceNode
from rules.text import SourceText, compose, read

DO53 = ("127.0.0.1:5300", "[::1]:5300")
PROXY = ("127.0.0.1:3128", "[::1]:3128")
METRICS = ("127.0.0.1:9153",)
UPSTREAMS = ("tls://9.9.9.9#dns.quad9.net", "tls://149.112.112.112#dns.quad9.net")
LATER = "not in this version"
_MOST_UDP_OCTETS = 4096  # RFC 6891, section 6.2.5


class Listen(Struct, frozen=True):
    """Where we listen, each `ADDRESS:PORT`; `skippable` ones may lack their address family."""

    do53: tuple[str, ...] = DO53
    proxy: tuple[str, ...] = PROXY
    metrics: tuple[str, ...] = METRICS
    skippable: frozenset[str] = frozenset({*DO53, *PROXY, *METRICS})


class Settings(Struct, frozen=True, kw_only=True):
    """Everything that the appliance is told."""

    state: str
    """Folder of ours, 0700: audit and what must survive a restart."""

    rules: tuple[str, ...]
    """Folders whose *.yaml are the rules."""

    audit: AuditSettings
    """Where evidence goes."""

    listen: Listen = Listen()
    """Sockets to accept on."""

    upstreams: tuple[str, ...] = UPSTREAMS
    """Resolvers to ask: one group of equal policy."""

    upstream_ca: str | None = None
    """PEM file that replaces the system's trust anchors for upstream resolvers."""

    limits: Limits = Limits()
    """Every bound."""

    first_run: bool = False
    """Whether an absent rule folder is filled with the first rules."""

    json: bool = False
    """Whether stdout gets the ready event instead of the table."""

    config_file: str | None = None
    """Where the configuration was read; None for the embedded defaults."""

    enforcement: str = "advisory"
    """What confinement is claimed: advisory, or system."""


class Locations(Struct, frozen=True):
    """The plain paths that defaults stand on."""

    config: str
    state: str


def read_config(source: SourceText | None, locations: Locations) -> tuple[Settings, list[Problem]]:
    """Return the settings that `source` asks for (None: the defaults), and every problem."""
    reader = _Reader(source)
    return reader.settings(locations), reader.problems()


class _Reader:
    """Turns keys into settings and reports what is wrong with them, where it stands."""

    def __init__(self, source: SourceText | None) -> None:
        self._file = None if source is None else source.file
        text = SourceText("", "") if source is None else source
        self._report = Report(text.file, text.text)
        self._root = compose(text, self._report)
        self._keys = read(self._root, ConfigKeys, self._report) or ConfigKeys()

    def problems(self) -> list[Problem]:
        return list(self._report.problems(Severity.ERROR))

    def settings(self, locations: Locations) -> Settings:
        keys = self._keys
        self._refuse_later_keys()
        resolver = keys.resolver or ResolverKeys()
        state = keys.state or locations.state
        return Settings(
            state=state,
            rules=tuple(keys.rules or (f"{locations.config}/rules",)),
            audit=self._audit(state),
            listen=self._listen(),
            upstreams=self._upstreams(resolver.upstreams),
            upstream_ca=resolver.upstream_ca,
            limits=self._limits(),
            first_run=keys.rules is None,
            config_file=self._file,
        )

    def _problem(self, key: str, message: str, cure: str) -> None:
        node = self._root
        for name in key.split("."):
            if isinstance(node, MappingNode) and name in node.entries:
                node = node.value(name)
            elif isinstance(node, SequenceNode) and name.isdigit():
                node = node.items[int(name)]
        self._report.error(node or MappingNode(1, 1, {}), f"{key}: {message}", cure)

    def _refuse_later_keys(self) -> None:
        listen = self._keys.listen or ListenKeys()
        egress = self._keys.egress or EgressKeys()
        resolver = self._keys.resolver or ResolverKeys()
        asked = {
            "listen.dot": listen.dot,
            "listen.doh": listen.doh,
            "listen.proxy_tls": listen.proxy_tls,
            "listen.control": listen.control,
            "resolver.zones": resolver.zones,
            "egress.upstream_ca": egress.upstream_ca,
            "egress.upstream_proxy": egress.upstream_proxy,
        }
        for key, value in asked.items():
            if value:
                self._problem(key, LATER, "remove the key")

    def _upstreams(self, texts: list[str] | None) -> tuple[str, ...]:
        for at, text in enumerate(texts or ()):
            try:
                parse_upstream(text)
            except ConfigError as error:
                self._problem(f"resolver.upstreams.{at}", str(error), "see docs/configuration.md")
        return tuple(texts or UPSTREAMS)

    def _listen(self) -> Listen:
        keys = self._keys.listen or ListenKeys()
        default = Listen()
        asked = {"do53": keys.do53, "proxy": keys.proxy, "metrics": keys.metrics}
        found = {
            key: getattr(default, key) if value is None else self._sockets(f"listen.{key}", value)
            for key, value in asked.items()
        }
        kept = {each for key, value in asked.items() if value is None for each in found[key]}
        return Listen(**found, skippable=frozenset(kept))

    def _sockets(self, key: str, texts: list[str]) -> tuple[str, ...]:
        found = []
        for at, text in enumerate(texts):
            try:
                found.append(write_socket(*read_socket(text)))
            except ValueError as error:
                cure = 'write "127.0.0.1:5300" or "[::1]:5300"'
                self._problem(f"{key}.{at}", str(error), cure)
        return tuple(found)

    def _audit(self, state: str) -> AuditSettings:
        keys = self._keys.audit or AuditKeys()
        if keys.on_failure not in ("deny", "allow"):
            self._problem("audit.on_failure", f"{keys.on_failure!r} is unknown", "deny or allow")
        if keys.keep < 1:
            self._problem("audit.keep", "at least one file is kept", "write 1 or more")
        rotate = self._number("audit.rotate", keys.rotate, "octets", 64 << 20)
        return AuditSettings(
            file=keys.file or f"{state}/audit.jsonl",
            rotate=int(rotate),
            keep=max(keys.keep, 1),
            on_failure="allow" if keys.on_failure == "allow" else "deny",
        )

    def _limits(self) -> Limits:
        known = {field.name: field.default for field in structs.fields(Limits)}
        found: dict[str, float] = {}
        for name, value in (self._keys.limits or {}).items():
            if name not in known:
                cure = f"did you mean {name_like(name, known)}? docs/limits.md lists them"
                self._problem(f"limits.{name}", "no such limit", cure)
                continue
            kind = "octets" if name.endswith("_octets") else "s" if name.endswith("_s") else "count"
            number = self._number(f"limits.{name}", value, kind, known[name])
            found[name] = number if isinstance(known[name], float) else int(number)
        if found.get("dns_udp_octets", 0) > _MOST_UDP_OCTETS:
            cure = f"write {_MOST_UDP_OCTETS} or less; 1232 passes every path"
            self._problem("limits.dns_udp_octets", "larger answers come in fragments", cure)
        return structs.replace(Limits(), **found)

    def _number(self, key: str, value: float | str, kind: str, default: float) -> float:
        try:
            number = _read_as(kind, value)
        except ValueError as error:
            self._problem(key, str(error), "see docs/configuration.md")
            return default
        if number <= 0:
            self._problem(key, "a bound of zero admits nothing", "write a positive number")
        return number


def name_like(word: str, known: Iterable[str]) -> str:
    """Return the known name that is most like `word`, or how many there are."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return close[0] if close else "another"


def _read_as(kind: str, value: float | str) -> float:
    if kind == "s":
        return read_seconds(value)
    if isinstance(value, float):
        raise ValueError(f"{value!r} is no whole number")  # noqa: TRY004 - one error for all kinds
    if kind == "octets":
        return read_octets(value)
    return read_count(value)


def read_socket(text: str) -> tuple[Address, int]:
    """Return the address and port that `ADDRESS:PORT` spells; port 0 asks for a free one.

    Raises:
        ValueError: not of that form.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"{text!r} is not ADDRESS:PORT")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    try:
        address = parse_address(bare)
    except MalformedAddressError as error:
        raise ValueError(str(error)) from None
    if (address.version == 6) != host.startswith("["):
        raise ValueError(f"{text!r}: write an IPv6 address in brackets")
    return address, int(port)


def write_socket(address: Address, port: int) -> str:
    """Return `ADDRESS:PORT` in canonical spelling."""
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"
