"""What the appliance and its issuer say to each other: one JSON message a packet.

The issuer is a child process that holds the keys of the trust domain (`proxy.issuing`).  The
appliance names who asks and what they are entitled to (`proxy.workload`); it passes accepted
connections as descriptors, so that what a workload sends is parsed by the issuer alone.  Numbers
of calls and connections are the sender's, and never used twice.
"""

from typing import override

from msgspec import Struct

# From the appliance


class Serve(Struct, frozen=True, tag="serve"):
    """Accept on the listening socket that comes along; `kind` is enroll or pki."""

    kind: str
    label: str


class Adopt(Struct, frozen=True, tag="adopt"):
    """Serve the connection that comes along; `kind` is workload or ext_authz.

    `app` and the SPIFFE IDs `ids` are what its caller is entitled to; none: to nothing.
    """

    connection: int
    kind: str
    app: str = ""
    ids: tuple[str, ...] = ()
    uid: int = -1
    pid: int = -1


class Entitle(Struct, frozen=True, tag="entitle"):
    """The caller of a connection is entitled to this from now on."""

    connection: int
    app: str
    ids: tuple[str, ...]


class Named(Struct, frozen=True, tag="named"):
    """The answer to `Whose`: the SPIFFE IDs of an app; `app` is empty where there is none."""

    call: int
    app: str
    ids: tuple[str, ...]


class Judged(Struct, frozen=True, tag="judged"):
    """The answer to `Judge`; `id` is of the audit line, `status` the HTTP status of a refusal."""

    call: int
    allowed: bool
    app: str
    reason: str
    id: str
    status: int = 403
    how: str = ""


class Sign(Struct, frozen=True, tag="sign"):
    """Issue an X.509-SVID for the appliance itself to present in the name of `spiffe_id`.

    `profile` is svid or admin (`certs.profile`); `ttl_s` of 0 is the configured one.
    """

    call: int
    spiffe_id: str
    profile: str = "svid"
    ttl_s: int = 0


class Look(Struct, frozen=True, tag="look"):
    """Revocations or keys on the disk have changed: read them again."""


type ToIssuer = Serve | Adopt | Entitle | Named | Judged | Sign | Look

# From the issuer


class Ready(Struct, frozen=True, tag="ready"):
    """The issuer has read its keys and serves."""


class Gone(Struct, frozen=True, tag="gone"):
    """An adopted connection has ended."""

    connection: int


class Whose(Struct, frozen=True, tag="whose"):
    """Which SPIFFE IDs is the app `app` entitled to?"""

    call: int
    app: str


class Judge(Struct, frozen=True, tag="judge"):
    """May this request be sent?  Envoy asks, for a client whose certificate it verified."""

    call: int
    spiffe_id: str
    method: str
    scheme: str
    authority: str
    path: str


class Signed(Struct, frozen=True, tag="signed"):
    """The answer to `Sign`: PEM texts; or a `problem`, which says what to do."""

    call: int
    chain: str = ""
    key: str = ""
    serial: str = ""
    not_after: int = 0
    problem: str = ""

    @override
    def __repr__(self) -> str:
        """Return what may stand in a log."""
        return f"Signed({self.call}, serial={self.serial!r}, problem={self.problem!r})"


class Trust(Struct, frozen=True, tag="trust"):
    """Whom to believe from now on: PEM certificates by trust domain, and until when (Unix time).

    `problem` says what is wrong with them where something is.
    """

    bundles: dict[str, str]
    problem: str = ""


class Event(Struct, frozen=True, tag="event"):
    """What audit is to tell of the issuer: `change` is issued, refused, enrolled, rotated, ...

    `spiffe_id` or what else it is about stands as `target`.
    """

    change: str
    app: str
    target: str
    allowed: bool = True
    reason: str = "local"
    detail: dict[str, str | int] = {}


type ToAppliance = Ready | Gone | Whose | Judge | Signed | Trust | Event
