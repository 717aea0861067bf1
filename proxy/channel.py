"""What the appliance and its issuer say to each other: one JSON message a packet.

The issuer is a child process that holds the keys of the trust domain (`proxy.issuing`).  The
appliance names who asks and what they are entitled to (`proxy.workload`); it passes accepted
connections as descriptors, so that what a workload sends is parsed by the issuer alone.  Numbers
of calls and connections are the sender's, and never used twice.

An answer has a `problem` where something keeps it from being one.  It is `unanswered` where that
says nothing of what was asked: there was no time or no room, or a fault of ours.
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


class Verify(Struct, frozen=True, tag="verify"):
    """Verify evidence (RFC 9334): that `key` signed it over `message`.  Appraising it is not asked.

    `kind` is software (`signature` is ECDSA with SHA-256, in DER, over `message`; `key` a
    SubjectPublicKeyInfo in DER) or tpm (`quote` is a TPMS_ATTEST whose extraData is the SHA-256 of
    `message`, `signature` a TPMT_SIGNATURE, `key` the TPMT_PUBLIC of an enrolled AK).  `pcrs` are
    the values of the SHA-256 bank that the quote is of, in hex, by their index.
    """

    call: int
    kind: str
    message: bytes
    key: bytes
    signature: bytes
    quote: bytes = b""
    pcrs: dict[str, str] = {}


class Challenge(Struct, frozen=True, tag="challenge"):
    """Verify an EK certificate and an AK, and make a credential of `secret` for them.

    `certificates` are DER, that of the EK first; `ak` is a TPMT_PUBLIC.
    """

    call: int
    certificates: tuple[bytes, ...]
    ak: bytes
    secret: bytes

    @override
    def __repr__(self) -> str:
        """Return what may stand in a log."""
        return f"Challenge({self.call}, ...)"


class SignClaims(Struct, frozen=True, tag="sign-claims"):
    """Sign a JWT of `claims`, a JSON object; `typ` stands in its header (RFC 8725, 3.11)."""

    call: int
    claims: bytes
    typ: str


type ToIssuer = (
    Serve | Adopt | Entitle | Named | Judged | Sign | Look | Verify | Challenge | SignClaims
)

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
    unanswered: bool = False

    @override
    def __repr__(self) -> str:
        """Return what may stand in a log."""
        return f"Signed({self.call}, serial={self.serial!r}, problem={self.problem!r})"


class Verified(Struct, frozen=True, tag="verified"):
    """The answer to `Verify`; with a `problem` nothing was verified, and it says why.

    `key_sha256` is of the key's SubjectPublicKeyInfo (hex), `name` the AK's Name (hex).  The rest
    is what a quote says of the TPM (TPM 2.0, part 2, sections 10.11 and 10.12); `pcrs` are values
    that it covers.
    """

    call: int
    problem: str = ""
    key_sha256: str = ""
    name: str = ""
    pcrs: dict[str, str] = {}
    clock_ms: int = 0
    reset_count: int = 0
    restart_count: int = 0
    is_safe: bool = False
    firmware: int = 0
    unanswered: bool = False


class Challenged(Struct, frozen=True, tag="challenged"):
    """The answer to `Challenge`: what only the TPM of that EK can open, if the AK is in it.

    `credential` is a TPM2B_ID_OBJECT, `seed` a TPM2B_ENCRYPTED_SECRET; `name` is the AK's (hex),
    `ek_sha256` the digest of the EK's SubjectPublicKeyInfo (hex).
    """

    call: int
    problem: str = ""
    credential: bytes = b""
    seed: bytes = b""
    name: str = ""
    ek_sha256: str = ""
    unanswered: bool = False


class SignedClaims(Struct, frozen=True, tag="signed-claims"):
    """The answer to `SignClaims`; or a `problem`."""

    call: int
    token: str = ""
    problem: str = ""
    unanswered: bool = False

    @override
    def __repr__(self) -> str:
        """Return what may stand in a log."""
        return f"SignedClaims({self.call}, problem={self.problem!r})"


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


type ToAppliance = (
    Ready | Gone | Whose | Judge | Signed | Trust | Event | Verified | Challenged | SignedClaims
)
