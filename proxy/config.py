"""The configuration: what sallyport.yaml may say, and the settings that it becomes.

`read_config` reports every problem at once, each with its place and cure.  A key of the
reference whose feature this version lacks is an error here ("not in this version"): the
operator asked for something that would not happen.  Paths come in and go out plain; the
command line has expanded the variables before.
"""

import difflib
import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from msgspec import Struct, structs

from proxy.audit import AuditSettings
from proxy.config_attestation import AttestationSettings, read_attestation
from proxy.config_identity import IdentitySettings, read_identity
from proxy.config_keys import (
    AttestationKeys,
    AuditKeys,
    ConfigKeys,
    EgressKeys,
    IdentityKeys,
    ListenKeys,
    ResolverKeys,
    SinkholeKeys,
)
from proxy.config_sinkhole import SinkholeSettings, read_sinkhole
from proxy.errors import ConfigError
from proxy.limits import Limits
from proxy.resolver.upstream_url import parse_groups, parse_upstream, parse_zones
from proxy.units import read_count, read_octets, read_seconds
from rules.address import Address, parse_address
from rules.errors import MalformedAddressError, Problem, Severity
from rules.node import MappingNode, Report, SequenceNode
from rules.text import SourceText, compose, read

DO53 = ("127.0.0.1:5300", "[::1]:5300")
DOT = ("127.0.0.1:8853", "[::1]:8853")
DOH = ("127.0.0.1:8443", "[::1]:8443")
PROXY = ("127.0.0.1:3128", "[::1]:3128")
PROXY_TLS = ("127.0.0.1:3129", "[::1]:3129")
METRICS = ("127.0.0.1:9153",)
SOCKETS = (
    *("do53", "dot", "doh", "proxy", "proxy_tls", "metrics", "control_tls", "enroll", "pki"),
)
"""The kinds of listeners that have a port."""
SYSTEM = {
    kind: (f"127.0.0.1:{port}", f"[::1]:{port}")
    for kind, port in {"do53": 53, "dot": 853, "doh": 443}.items()
}
"""Under --system the standards' ports: libc knows no other port of a resolver."""
UPSTREAMS = ("tls://9.9.9.9#dns.quad9.net", "tls://149.112.112.112#dns.quad9.net")

type Upstreams = tuple[str | tuple[str, ...], ...]
"""One group of upstreams, or groups in the order in which they are asked."""

_PASSWORD = re.compile(r"(?<=//)[^/@\s]*(?=@)")  # the userinfo of a URL: RFC 3986, section 3.2.1
_MOST_UDP_OCTETS = 4096  # RFC 6891, section 6.2.5


class Listen(Struct, frozen=True):
    """Where we listen, each `ADDRESS:PORT`; `skippable` ones may lack their address family."""

    do53: tuple[str, ...] = DO53
    dot: tuple[str, ...] = ()
    doh: tuple[str, ...] = ()
    proxy: tuple[str, ...] = PROXY
    proxy_tls: tuple[str, ...] = ()
    metrics: tuple[str, ...] = METRICS
    skippable: frozenset[str] = frozenset({*DO53, *PROXY, *METRICS})
    control: str = ""
    """The control socket's path; empty for none."""
    control_group: str | None = None
    """The group whose members may use it besides ourselves and root."""
    control_tls: tuple[str, ...] = ()
    """The same for admins elsewhere, who show a client certificate."""
    workload: str = ""
    """The path of the socket of the SPIFFE Workload API; empty for none."""
    ext_authz: str = ""
    """The path of the socket where Envoy asks for decisions; empty for none."""
    enroll: tuple[str, ...] = ()
    """Where devices enrol, over HTTPS (EST, device flow)."""
    pki: tuple[str, ...] = ()
    """Where others read the CRL, ask by OCSP and fetch the bundle, over HTTP."""

    @property
    def agents(self) -> frozenset[str]:
        """Every `ADDRESS:PORT` that agents use."""
        return frozenset({*self.do53, *self.dot, *self.doh, *self.proxy, *self.proxy_tls})

    @property
    def tls(self) -> tuple[str, ...]:
        """Every `ADDRESS:PORT` where the server's certificate is shown."""
        return (*self.dot, *self.doh, *self.proxy_tls, *self.control_tls, *self.enroll)


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

    upstreams: Upstreams = UPSTREAMS
    """Resolvers to ask: one group of equal policy, or groups in their order."""

    zones: dict[str, Upstreams] = {}
    """Resolvers that are asked for the names of a suffix, and for no other."""

    upstream_ca: str | None = None
    """PEM file that replaces the system's trust anchors for upstream resolvers."""

    egress_ca: str | None = None
    """PEM file that replaces the system's trust anchors for what the proxy dials with TLS."""

    upstream_proxy: str | None = None
    """A parent proxy through which every connection is made."""

    identity: IdentitySettings = IdentitySettings()
    """The trust domain, and whom else to believe."""

    attestation: AttestationSettings = AttestationSettings()
    """How long a proof counts, and whose TPMs are believed."""

    sinkhole: SinkholeSettings = SinkholeSettings()
    """The addresses that denied names are pointed at."""

    limits: Limits = Limits()
    """Every bound."""

    first_run: bool = False
    """Whether an absent rule folder is filled with the first rules."""

    json: bool = False
    """Whether stdout gets the ready event instead of the table."""

    config_file: str | None = None
    """Where the configuration was read; None for the embedded defaults."""

    system: bool = False
    """Whether we run for the whole host: rules are root's, state is ours alone."""

    @property
    def egress_anchors(self) -> Path | None:
        """The file of `egress_ca`."""
        return None if self.egress_ca is None else Path(self.egress_ca)

    @property
    def enforcement(self) -> str:
        """What confinement is claimed: advisory, or system."""
        return "system" if self.system else "advisory"


class Locations(Struct, frozen=True):
    """The plain paths that defaults stand on; `system` as in `Settings`."""

    config: str
    state: str
    runtime: str = ""
    system: bool = False


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
        return [_without_password(each) for each in self._report.problems(Severity.ERROR)]

    def settings(self, locations: Locations) -> Settings:
        keys = self._keys
        resolver = keys.resolver or ResolverKeys()
        state = keys.state or locations.state
        listen = self._listen(locations)
        return Settings(
            state=state,
            rules=tuple(keys.rules or (f"{locations.config}/rules",)),
            audit=self._audit(state),
            listen=listen,
            upstreams=self._upstreams(resolver.upstreams),
            zones=self._zones(resolver.zones or {}),
            upstream_ca=resolver.upstream_ca,
            egress_ca=(keys.egress or EgressKeys()).upstream_ca,
            upstream_proxy=(keys.egress or EgressKeys()).upstream_proxy,
            identity=read_identity(keys.identity or IdentityKeys(), self._problem),
            attestation=read_attestation(keys.attestation or AttestationKeys(), self._problem),
            sinkhole=self._sinkhole(listen),
            limits=self._limits(),
            first_run=keys.rules is None and not locations.system,
            config_file=self._file,
            system=locations.system,
        )

    def _problem(self, key: str, message: str, cure: str) -> None:
        node = self._root
        path, _, last = key.partition("\0")  # behind it a key that may hold dots
        for name in [*path.split("."), *([last] if last else [])]:
            if isinstance(node, MappingNode) and name in node.entries:
                node = node.value(name)
            elif isinstance(node, SequenceNode) and name.isdigit():
                node = node.items[int(name)]
        self._report.error(
            node or MappingNode(1, 1, {}), f"{key.replace('\0', '.')}: {message}", cure
        )

    def _upstreams(self, texts: list[str | list[str]] | None) -> Upstreams:
        key = "resolver.upstreams"
        for at, text in enumerate(texts or ()):
            for inner, upstream in enumerate([text] if isinstance(text, str) else text):
                place = f"{key}.{at}" if isinstance(text, str) else f"{key}.{at}.{inner}"
                self._try(place, partial(parse_upstream, upstream))
        if texts and not any(self._report.problems(Severity.ERROR)):
            self._try(key, partial(parse_groups, texts))
        return _frozen(texts or UPSTREAMS)

    def _zones(self, zones: dict[str, list[str | list[str]]]) -> dict[str, Upstreams]:
        for suffix, texts in zones.items():
            self._try(f"resolver.zones\0{suffix}", partial(parse_zones, {suffix: texts}))
        if not any(self._report.problems(Severity.ERROR)):
            self._try("resolver.zones", partial(parse_zones, zones))  # one named twice
        return {suffix: _frozen(texts) for suffix, texts in zones.items()}

    def _try(self, key: str, parse: Callable[[], object]) -> None:
        try:
            parse()
        except ConfigError as error:
            self._problem(key, str(error), "see docs/upstreams.md")

    def _listen(self, locations: Locations) -> Listen:
        keys = self._keys.listen or ListenKeys()
        default = default_listen(locations)
        asked: dict[str, list[str] | None] = {kind: getattr(keys, kind) for kind in SOCKETS}
        found = {
            key: getattr(default, key) if value is None else self._sockets(f"listen.{key}", value)
            for key, value in asked.items()
        }
        if self._keys.identity is not None and self._keys.identity.workload_api is not None:
            for key in ("enroll", "pki"):
                if found[key]:  # better said than not done
                    cure = "take it away, or identity.workload_api"
                    self._problem(f"listen.{key}", "SPIRE issues: nothing is served here", cure)
        kept = {each for key, value in asked.items() if value is None for each in found[key]}
        return Listen(
            **found,
            skippable=frozenset(kept),
            control=default.control if keys.control is None else keys.control,
            control_group=keys.control_group,
            workload=default.workload if keys.workload is None else keys.workload,
            ext_authz=keys.ext_authz or "",
        )

    def _sinkhole(self, listen: Listen) -> SinkholeSettings:
        keys = self._keys.sinkhole or SinkholeKeys()
        taken = [read_socket(each)[0] for kind in SOCKETS for each in getattr(listen, kind)]
        return read_sinkhole(keys.v4, keys.v6, taken, self._problem)

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


def _without_password(problem: Problem) -> Problem:
    """Return `problem` with its line as it may stand in a log; the caret stays where it points."""
    excerpt = _PASSWORD.sub(lambda found: "*" * len(found[0]), problem.excerpt)
    return structs.replace(problem, excerpt=excerpt)


def _frozen(texts: Sequence[str | Sequence[str]]) -> Upstreams:
    return tuple(text if isinstance(text, str) else tuple(text) for text in texts)


def default_listen(locations: Locations) -> Listen:
    """Return where we listen when nobody says otherwise."""
    kinds: dict[str, Any] = {
        "do53": DO53,
        "dot": DOT,
        "doh": DOH,
        "proxy": PROXY,
        "proxy_tls": PROXY_TLS,
        "metrics": METRICS,
    }
    if locations.system:
        kinds |= SYSTEM
    control = f"{locations.runtime}/control.sock" if locations.runtime else ""
    skippable = frozenset(each for sockets in kinds.values() for each in sockets)
    workload = f"{locations.runtime}/workload.sock" if locations.runtime else ""
    return Listen(**kinds, skippable=skippable, control=control, workload=workload)


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
