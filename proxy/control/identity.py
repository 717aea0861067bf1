"""What may be asked of the trust domain: how it is, and certificates for who cannot ask himself.

    GET /identity   POST /identity/look   POST /svids

The keys are the issuer's: this only passes on what is wanted, and tells audit of it.
"""

from collections.abc import Awaitable, Callable
from typing import Literal, Protocol, override

from msgspec import Struct

from certs.errors import SpiffeError
from certs.spiffe import parse_id
from proxy.channel import Signed
from proxy.control.admins import Admin
from proxy.control.asked import Asked, Asker, RefusedError, read_content


class Anchor(Struct, frozen=True, kw_only=True):
    """A root that is believed: of which trust domain, and until when (Unix time)."""

    trust_domain: str
    sha256: str
    not_after: float


class IdentityState(Struct, frozen=True, kw_only=True):
    """How the trust domain is; `issuer` is whether its process answers."""

    trust_domain: str
    anchors: tuple[Anchor, ...]
    issuer: bool
    connections: int
    problem: str = ""


class Issuing(Struct, frozen=True):
    """The trust domain, as the appliance can reach it.

    `sign(spiffe_id, profile, ttl_s)` asks the issuer; `look` tells it to read its files again;
    `bundle` returns the roots of our own trust domain as PEM; `is_admin` and `is_reserved` are
    those of `proxy.control.admins.Admins`.
    """

    state: Callable[[], IdentityState]
    look: Callable[[], object]
    sign: Callable[[str, str, int], Awaitable[Signed]]
    bundle: Callable[[], str]
    is_admin: Callable[[str], bool]
    is_reserved: Callable[[str], bool]


class SvidWanted(Struct, frozen=True, forbid_unknown_fields=True):
    """A certificate and its key, for a client that cannot ask; `ttl_s` of 0 is the configured."""

    spiffe_id: str
    profile: Literal["svid", "admin"] = "svid"
    ttl_s: int = 0


class SvidMade(Struct, frozen=True, kw_only=True):
    """PEM texts; `not_after` is Unix time, `bundle` what others are to verify it with."""

    spiffe_id: str
    serial: str
    not_after: int
    chain: str
    key: str
    bundle: str

    @override
    def __repr__(self) -> str:
        """Return what may stand in a traceback."""
        return f"SvidMade({self.spiffe_id!r}, {self.serial!r}, ...)"


class Recorder(Protocol):
    """Writes the audit line of a change."""

    def __call__(self, caller: Asker, target: str, change: str, **said: object) -> None:
        """Write that `caller` changed `target`."""


class IdentityRoutes:
    """Answers for the trust domain; `issuing` returns None where there is no issuer."""

    def __init__(self, issuing: Callable[[], Issuing | None], record: Recorder) -> None:
        self._issuing = issuing
        self._record = record

    def methods(self, asked: Asked) -> dict[str, Callable[[], Awaitable[object]]]:
        """Return what may be done to the path of `asked`, by method."""
        match asked.path:
            case ("identity",):
                return {"GET": self._state}
            case ("identity", "look"):
                return {"POST": lambda: self._look(asked)}
            case ("svids",):
                return {"POST": lambda: self._sign(asked)}
            case _:
                return {}

    def _there(self) -> Issuing:
        issuing = self._issuing()
        if issuing is None:
            raise RefusedError(503, "this appliance has no issuer")
        return issuing

    async def _state(self) -> object:
        return self._there().state()

    async def _look(self, asked: Asked) -> object:
        self._there().look()
        self._record(asked.caller, "issuer", "told to look")
        return {}

    async def _sign(self, asked: Asked) -> object:
        wanted = read_content(asked.content, SvidWanted)
        issuing = self._there()
        _check(wanted, asked.caller, issuing)
        signed = await issuing.sign(wanted.spiffe_id, wanted.profile, wanted.ttl_s)
        if signed.problem:
            raise RefusedError(503, signed.problem)
        said = {"serial": signed.serial, "not_after": signed.not_after, "profile": wanted.profile}
        self._record(asked.caller, wanted.spiffe_id, "issued", **said)
        return SvidMade(
            spiffe_id=wanted.spiffe_id,
            serial=signed.serial,
            not_after=signed.not_after,
            chain=signed.chain,
            key=signed.key,
            bundle=issuing.bundle(),
        )


def _check(wanted: SvidWanted, caller: Asker, issuing: Issuing) -> None:
    """Keep admins' names for admins: nobody gets one by the way that apps' come."""
    try:
        parse_id(wanted.spiffe_id)
    except SpiffeError:  # its text would quote what may be anything, a key among that
        raise RefusedError(400, "spiffe_id is no SPIFFE ID: spiffe://TRUST-DOMAIN/PATH") from None
    if wanted.profile == "admin":
        if isinstance(caller, Admin):  # else a stolen certificate would renew itself for ever
            raise RefusedError(403, "certificates of admins are made on the host only")
        if not issuing.is_admin(wanted.spiffe_id):
            raise RefusedError(409, f"{wanted.spiffe_id} is no admin: see identity.admins")
    elif issuing.is_reserved(wanted.spiffe_id):
        raise RefusedError(409, f"{wanted.spiffe_id} is an admin's: use `sallyport admin`")
