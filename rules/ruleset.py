"""All rules of one generation, as values: what `syntax` makes and `match` indexes.

An absent restriction is `None` and matches everything; in allow rules the defaults of the
reference are already filled in.  Rules of one app are in no order that matters.

There may be 100,000 rules, and no value of theirs can be part of a cycle: `gc=False` keeps them
out of the cyclic collector's rounds.
"""

from msgspec import Struct

from rules.address import Network
from rules.decision import Refuse, UpgradeTls
from rules.facts import Level
from rules.name import DomainName
from rules.path import PathGlob
from rules.pattern import HostPattern
from rules.watch import Detect


class Requirements(Struct, frozen=True, gc=False):
    """What must be proven before an allow counts."""

    mtls: bool = False
    attested: Level | None = None
    max_age_s: int | None = None


class AllowRule(Struct, frozen=True, gc=False):
    """One allow.  Without `patterns` it is about literals in `addresses`."""

    id: str
    patterns: tuple[HostPattern, ...]
    ports: frozenset[int]
    types: frozenset[int]
    tls: bool = True
    accept_ech: bool = False
    addresses: tuple[Network, ...] = ()
    methods: frozenset[str] | None = None
    paths: tuple[PathGlob, ...] | None = None
    require: Requirements = Requirements()
    from_pack: bool = False
    upgrade: UpgradeTls | None = None
    detect: Detect | None = None  # in place of the app's


class DenyRule(Struct, frozen=True, gc=False):
    """One deny; every restriction that is present must match."""

    id: str
    patterns: tuple[HostPattern, ...] | None
    ports: frozenset[int] | None = None
    types: frozenset[int] | None = None
    addresses: tuple[Network, ...] | None = None
    methods: frozenset[str] | None = None
    paths: tuple[PathGlob, ...] | None = None
    text: str = ""


class IdentityLine(Struct, frozen=True):
    """One line of `identity:`; all keys that are present must match."""

    id: str  # file:line
    lease: str | None = None
    spiffe: str | None = None
    token: str | None = None
    listener: str | None = None  # "ADDRESS:PORT", as `listen:` has it
    uid: int | None = None
    cgroup: str | None = None
    exe_sha256: str | None = None

    @property
    def is_process(self) -> bool:
        """Whether the line is about the peer's process."""
        return not (self.uid is None and self.cgroup is None and self.exe_sha256 is None)


class Launched(Struct, frozen=True):
    """What a launcher may have executed: SHA-256 in hex; None where there is no such file."""

    file: str
    script: str | None = None
    interpreter: str | None = None


class ReferenceValues(Struct, frozen=True):
    """What evidence is compared with (RFC 9334, section 8.3); all digests are SHA-256 in hex.

    `pcrs` are the values that each PCR may have (SHA-256 bank); `tpms` and `keys` are the
    SubjectPublicKeyInfo of endorsement and software keys, None: any.  Without `pcrs` no quote can
    be appraised, without `launched` nothing that was launched.
    """

    pcrs: dict[int, frozenset[str]] = {}
    tpms: frozenset[str] | None = None
    keys: frozenset[str] | None = None
    launched: tuple[Launched, ...] = ()


class Capability(Struct, frozen=True):
    """What an app may have tokens for: `scopes` at `audience`, each for `ttl_s` seconds at most.

    `on_behalf_of` are the apps whose tokens for it the app may pass on in its own name.
    """

    id: str  # file:line
    audience: str
    scopes: frozenset[str]
    ttl_s: int
    on_behalf_of: frozenset[str] = frozenset()
    require: Requirements = Requirements(attested=Level.SOFTWARE, max_age_s=300)


class App(Struct, frozen=True):
    """One app, gathered from every file that speaks of it.

    `introspects` are the audiences whose tokens the app may introspect and revoke.  `max_ages_s`
    are all that its rules name, ascending, gathered when they were read; None: not gathered.
    """

    name: str
    identity: tuple[IdentityLine, ...] = ()
    require: Requirements = Requirements()
    refuse: Refuse = Refuse.NXDOMAIN
    allows: tuple[AllowRule, ...] = ()
    denies: tuple[DenyRule, ...] = ()
    detect: Detect = Detect()
    reference_values: ReferenceValues = ReferenceValues()
    capabilities: tuple[Capability, ...] = ()
    introspects: frozenset[str] = frozenset()
    max_ages_s: tuple[int, ...] | None = None


class ListSource(Struct, frozen=True):
    """One entry of `lists:`, as it is written; `file` is an absolute path, `shown` as written.

    `apps` None: every app.  `format` is auto, hosts, plain, adblock or rpz.  `excepts` are the
    names that it does not deny, each with what is below it; `place` is file:line of the entry.
    """

    place: str
    file: str
    shown: str
    format: str = "auto"
    refuse: Refuse | None = None
    excepts: frozenset[DomainName] = frozenset()
    apps: frozenset[str] | None = None


class Ruleset(Struct, frozen=True):
    """Every app by name, under one generation number (from 1); the deny lists, in their order."""

    generation: int
    apps: dict[str, App]
    lists: tuple[ListSource, ...] = ()
