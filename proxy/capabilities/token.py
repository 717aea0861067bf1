"""A capability token as it is kept; its text is not, only the digest of that."""

from hashlib import sha256

from msgspec import Struct

from proxy.attested.binding import Binding
from rules.facts import Level


class Party(Struct, frozen=True):
    """One of those who acted: `name` is the SPIFFE ID, or `sallyport:app:NAME` of a lease.

    `serial` is of the certificate that was presented, empty for a lease.
    """

    app: str
    name: str
    serial: str = ""

    @property
    def spiffe_id(self) -> str:
        """The SPIFFE ID, empty where there is none."""
        return self.name if self.name.startswith("spiffe://") else ""


def name_of(app: str) -> str:
    """Return the URI by which an app is named, which is one for an audience as well."""
    return f"sallyport:app:{app}"


def party_of(app: str, spiffe_id: str, serial: str = "") -> Party:
    """Return who acted; `spiffe_id` and `serial` may be empty."""
    return Party(app, spiffe_id or name_of(app), serial)


class CapabilityToken(Struct, frozen=True, kw_only=True):
    """What was granted, to whom, and until when; times are Unix time in whole seconds.

    `id` is the token's `jti`, `token_sha256` the digest of its text (hex).  The first of `parties`
    is on whose behalf, the last who may use it.  `level` was proven of the last, `least` of the
    weakest of them.  `thumbprint` (SHA-256 of the DER, hex) is of the certificate it is bound to,
    empty for a lease; `attester` and `result` are those of the attestation result.  `rule` granted
    it, `parent` is the id of the token that was passed on.  `void_at` is when it was voided, and
    `why` why.
    """

    id: str
    token_sha256: str
    parties: tuple[Party, ...]
    audience: str
    scopes: tuple[str, ...]
    level: Level
    least: Level
    binding: Binding
    attester: str
    result: str
    rule: str
    at: int
    expires: int
    thumbprint: str = ""
    parent: str = ""
    void_at: float | None = None
    why: str = ""

    @property
    def subject(self) -> Party:
        """On whose behalf it is."""
        return self.parties[0]

    @property
    def holder(self) -> Party:
        """Who may use it."""
        return self.parties[-1]


def digest(token: str) -> str:
    """Return by what the text of a token is known: its SHA-256, in hex."""
    return sha256(token.encode("utf-8", "replace")).hexdigest()
