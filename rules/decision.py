"""The answer to every fact, and what comes with it."""

from enum import Enum, StrEnum

from msgspec import Struct

from rules.watch import Detect


class Verdict(StrEnum):
    """Whether the thing asked for may happen; FAIL is an outcome, never a decision of rules."""

    ALLOW = "allow"
    DENY = "deny"
    FAIL = "fail"


class Reason(StrEnum):
    """Why: one closed list for DNS, HTTP, audit and metrics; it grows, never changes meaning."""

    RULE = "rule"
    LOCAL = "local"
    HOST_NOT_LISTED = "host-not-listed"
    LIST = "list"
    TYPE_NOT_ALLOWED = "type-not-allowed"
    ADDRESS_NOT_ALLOWED = "address-not-allowed"
    SPECIAL_USE = "special-use"
    TUNNEL_DETECTED = "tunnel-detected"
    BUDGET = "budget"
    RATE = "rate"
    QUARANTINED = "quarantined"
    IDENTITY_UNKNOWN = "identity-unknown"
    IDENTITY_CONFLICT = "identity-conflict"
    MTLS_REQUIRED = "mtls-required"
    ATTESTATION_REQUIRED = "attestation-required"
    REVOKED = "revoked"
    NAME_MALFORMED = "name-malformed"
    PORT_NOT_ALLOWED = "port-not-allowed"
    METHOD_NOT_ALLOWED = "method-not-allowed"
    PATH_NOT_ALLOWED = "path-not-allowed"
    LITERAL_NOT_ALLOWED = "literal-not-allowed"
    INSPECTION_UNAVAILABLE = "inspection-unavailable"
    APPROVAL_REQUIRED = "approval-required"
    GENERATION_CHANGED = "generation-changed"
    REQUEST_MALFORMED = "request-malformed"
    AUTHORITY_MISMATCH = "authority-mismatch"
    SNI_MISMATCH = "sni-mismatch"
    SNI_MISSING = "sni-missing"
    NOT_TLS = "not-tls"
    ECH = "ech"
    CAPACITY = "capacity"
    AUDIT_QUOTA = "audit-quota"
    AUDIT_UNAVAILABLE = "audit-unavailable"
    INTERNAL_ERROR = "internal-error"
    UPSTREAM_UNREACHABLE = "upstream-unreachable"
    UPSTREAM_TIMEOUT = "upstream-timeout"
    UPSTREAM_TLS = "upstream-tls"
    UPSTREAM_MALFORMED = "upstream-malformed"
    NO_ADDRESS = "no-address"


class Refuse(Enum):
    """How an app wants a refused look-up worded on the DNS plane."""

    NXDOMAIN = "nxdomain"
    NODATA = "nodata"
    REFUSED = "refused"
    SINKHOLE = "sinkhole"  # our own address for it, where something listens there; else NXDOMAIN
    DROP = "drop"  # no answer at all (RPZ: rpz-drop.)


class PeekTls(Struct, frozen=True):
    """Read the ClientHello before anything is tunnelled: its SNI must equal the authority."""

    accept_ech: bool = False


class TunnelUnread(Struct, frozen=True):
    """`tls: false`: tunnel without a look (the server speaks first)."""


class OnlyReadable(Struct, frozen=True):
    """A method or path rule covers this origin: only HTTP that we can read may pass."""


class Resolve(Struct, frozen=True):
    """The proxy's own look-up may ask these record types (of A and AAAA)."""

    types: frozenset[int]


class SvidCertificate(Struct, frozen=True):
    """The app's own X.509-SVID, of the SPIFFE ID `spiffe`: issued to us, to present for it."""

    spiffe: str


class FileCertificate(Struct, frozen=True):
    """A certificate chain and its private key, by the paths of their PEM files."""

    cert: str
    key: str


type ClientCertificate = SvidCertificate | FileCertificate
"""What an origin is shown of the app that asks."""


class UpgradeTls(Struct, frozen=True):
    """`https_upgrade`: plain HTTP from the agent, TLS to the origin; it never goes on in plain.

    `certificate` is presented to an origin that asks for one.  Of a Connect the obligation says
    only that requests may bring it, so that nothing is dialled, nor tunnelled, before one did.
    """

    certificate: ClientCertificate | None = None


_HTTP_PORT, _HTTPS_PORT = 80, 443  # RFC 9110, sections 4.2.1 and 4.2.2


def upgraded_port(port: int) -> int:
    """Return the port that is dialled for an upgraded request to `port`."""
    return _HTTPS_PORT if port == _HTTP_PORT else port


class Watch(Struct, frozen=True):
    """A look-up that goes out is first shown to the detector, which may refuse it.

    `is_named`: an allow names it as it is, so that the choice of the name is the admin's.
    """

    detect: Detect
    is_named: bool = False


type Obligation = PeekTls | TunnelUnread | OnlyReadable | Resolve | UpgradeTls | Watch
"""What the enforcement point must do for an ALLOW to stand; if it cannot, it denies."""


class LocalRecord(Struct, frozen=True):
    """A record of a deny list, in place of the name's own; `rdata` is as on the wire."""

    rtype: int
    ttl_s: int
    rdata: bytes


class Decision(Struct, frozen=True):
    """A verdict, its reason, the rule that gave it, and its obligations.

    `rule` is the rule's `name`, or `file:line`.  `text` is what the admin wrote for a deny.
    `refuse` and `empty` word a refused Question: `empty` says that another type of the name,
    or a name below it, is allowed, so that NXDOMAIN would be a lie (RFC 8020).  `local` is what a
    deny list has in place of the refused name's records.
    """

    verdict: Verdict
    reason: Reason
    rule: str | None = None
    obligations: tuple[Obligation, ...] = ()
    text: str = ""
    refuse: Refuse = Refuse.NXDOMAIN
    empty: bool = False
    local: tuple[LocalRecord, ...] = ()
