"""What may be asked of the rules: one value per question, on every plane.

Facts carry canonical values only (`rules.name`, `rules.address`), so that deciding never
parses.  A fact that is unknown is `None` and never matches a rule that asks for it.
"""

from enum import IntEnum, StrEnum

from msgspec import Struct

from rules.address import Address
from rules.name import DomainName

UNKNOWN_APP = "unknown"


class Evidence(StrEnum):
    """What ties a request to an app, strongest first (docs/identity.md says what each is worth)."""

    LEASE = "lease"
    CERTIFICATE = "certificate"
    TOKEN = "token"  # noqa: S105 - a kind of evidence, not a secret
    LISTENER = "listener"
    PROCESS = "process"


class Level(IntEnum):
    """Strength of an attestation (docs/attestation.md); a greater value is stronger."""

    SOFTWARE = 1
    LAUNCHED = 2
    TPM = 3


class Attestation(Struct, frozen=True):
    """Fresh proof of what asks (RFC 9334): of `level`, and at most `within_s` seconds old.

    `within_s` is the least `max_age` of the rules that its age still meets, so that an attestation
    looks the same from one moment to the next unless a rule could tell the difference.
    """

    level: Level
    within_s: int


class Principal(Struct, frozen=True):
    """Who asks: the app, the evidence that named it, and what was proven of it (one a level)."""

    app: str
    evidence: tuple[Evidence, ...] = ()
    attested: tuple[Attestation, ...] = ()


class Question(Struct, frozen=True):
    """May this name be looked up?  `via` is the allowed name whose chain led here."""

    principal: Principal
    name: DomainName
    rtype: int
    via: DomainName | None = None


class Connect(Struct, frozen=True):
    """May this origin be reached?"""

    principal: Principal
    host: DomainName | Address
    port: int


class Endpoint(Struct, frozen=True):
    """May this address stand for this name?

    `name` is the asked name, never a chain target; None for a literal.  `port` is the one that is
    dialled, None on the DNS plane, where it fits any; `asked` is the one that was asked for, where
    `https_upgrade` dials another.  `own_listener`: a socket of ours accepts there.
    `own_interface`: an interface of this host holds the address.
    """

    principal: Principal
    name: DomainName | None
    address: Address
    port: int | None
    own_listener: bool = False
    own_interface: bool = False
    asked: int | None = None


class Request(Struct, frozen=True):
    """May this HTTP request be sent?  `path` is in the normal form of `rules.path`."""

    principal: Principal
    method: str
    host: DomainName | Address
    port: int
    path: str


type Facts = Question | Connect | Endpoint | Request
