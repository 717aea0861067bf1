"""The issuer that all services share: keys, what was issued, revocations, and whom to believe.

It decides nothing about entitlement: the appliance says what a caller may have.  What was revoked
is refused here as well, whoever asks.
"""

import datetime as dt
import logging
from collections.abc import Callable
from functools import partial

from msgspec import Struct

from certs.crl import Revoked
from certs.csr import Csr
from certs.errors import CertsError
from certs.jwt_svid import Claims
from certs.profile import JWT_TTL_S
from certs.svid import IssuedSvid
from certs.trust_domain import TrustDomain
from proxy.certificates.revoked import Kind, Revocation, Revocations
from proxy.channel import Event, Named, Sign, Signed, Whose
from proxy.config import Settings
from proxy.issuing.authority import Known
from proxy.issuing.bounds import Bounds
from proxy.issuing.bundles import Bundles
from proxy.issuing.calls import Calls, UnansweredError
from proxy.issuing.issued import Issued, IssuedLog
from proxy.issuing.refusing import BusyError, DeniedError
from proxy.rates import Rates

logger = logging.getLogger(__name__)

_NOT_AGAIN = "it is issued again once it was restored"
_SHOWN = 256  # characters of audiences in an audit line


class Shared(Struct, frozen=True):
    """What the parts of the process have in common; the clocks give seconds.

    `wall` is Unix time, `monotonic` that of the loop.
    """

    settings: Settings
    send: Callable[[Struct], None]
    calls: Calls
    bounds: Bounds
    bundles: Bundles
    wall: Callable[[], float]
    monotonic: Callable[[], float]


class Issuer:
    """Issues what callers are entitled to; fulfils `proxy.issuing.authority.Authority`."""

    def __init__(
        self, shared: Shared, domain: TrustDomain, issued: IssuedLog, revocations: Revocations
    ) -> None:
        limits = shared.settings.limits
        self.shared = shared
        self.issued = issued
        self._revocations = revocations
        self._void: tuple[tuple[int, Revoked], ...] = ()
        self._rates = Rates(limits.svids, limits.svids_every_s, limits.apps_remembered)
        self._domain = domain
        shared.bundles.own(domain)

    @property
    def settings(self) -> Settings:
        """The settings of the appliance."""
        return self.shared.settings

    @property
    def domain(self) -> TrustDomain:
        """The trust domain; another object after a rotation."""
        return self._domain

    @property
    def bundles(self) -> Bundles:
        """Whom to believe."""
        return self.shared.bundles

    @property
    def log(self) -> logging.Logger:
        """Where what is no audit event is told."""
        return logger

    def wall(self) -> float:
        """Return Unix time in seconds."""
        return self.shared.wall()

    def use(self, domain: TrustDomain) -> None:
        """Issue with the keys of `domain` from now on; streams get its bundle."""
        self._domain = domain
        self.bundles.own(domain)

    def svid(
        self, spiffe_id: str, app: str, how: str, *, profile: str = "svid", ttl_s: int = 0
    ) -> IssuedSvid:
        """Issue an X.509-SVID with a new key, remember it, and tell audit of it.

        Raises:
            DeniedError: the SPIFFE ID or the app is revoked.
            BusyError: the app had too many, or they cannot be written fast enough.
            CertsError: it cannot be issued; the text says what to do.
        """
        return self._issue(spiffe_id, app, how, profile=profile, ttl_s=ttl_s)

    async def sign_request(self, csr: Csr, spiffe_id: str, app: str, how: str) -> IssuedSvid:
        """Issue an SVID for the key of `csr`; as `svid` otherwise."""
        return self._issue(spiffe_id, app, how, csr=csr)

    def jwt(self, spiffe_id: str, app: str, audience: tuple[str, ...]) -> str:
        """Issue a JWT-SVID, and tell audit of it; raises as `svid`."""
        self.check(spiffe_id, app)
        self._spend(app)
        token = self._domain.jwt(spiffe_id, audience, self._now(), JWT_TTL_S)
        detail: dict[str, str | int] = {"audience": ", ".join(audience)[:_SHOWN]}
        self.event(Event("issued-jwt", app, spiffe_id, detail=detail))
        return token

    def check_jwt(self, token: str, audience: str) -> Claims:
        """Return what a JWT-SVID says.

        Raises:
            SpiffeError: it is not to be believed.
            DeniedError: its SPIFFE ID is revoked.
        """
        claims = self._domain.check_jwt(token, audience, self._now(), self.bundles.others)
        self.check(claims.spiffe_id, "")
        return claims

    def check(self, spiffe_id: str, app: str) -> None:
        """See that neither is revoked.

        Raises:
            DeniedError: one is.
        """
        if app and self._revocations.app(app) is not None:
            raise DeniedError(f"the app {app} was revoked; {_NOT_AGAIN}", "revoked")
        if self._revocations.get(Kind.SPIFFE_ID, spiffe_id) is not None:
            raise DeniedError(f"{spiffe_id} was revoked; {_NOT_AGAIN}", "revoked")

    def sign(self, asked: Sign) -> Signed:
        """Return what the appliance asked for itself, or what keeps us from it."""
        try:
            svid = self.svid(asked.spiffe_id, "", "sign", profile=asked.profile, ttl_s=asked.ttl_s)
        except CertsError as error:
            return Signed(asked.call, problem=str(error))
        return Signed(asked.call, svid.chain_pem, svid.key_pem, svid.serial, svid.not_after)

    async def named(self, app: str) -> tuple[str, ...]:
        """Return the SPIFFE IDs of an app; none where the appliance knows no such app."""
        timeout_s = self.settings.limits.ext_authz_s
        try:
            answer = await self.shared.calls.ask(partial(_whose, app), Named, timeout_s)
        except (UnansweredError, ValueError) as error:
            logger.warning("whose %r is cannot be told: %s", app, error)
            return ()
        return answer.ids if answer.app == app else ()

    async def known(self, serial: int) -> Known | None:
        """Return what is remembered of a certificate of ours; None where there is none."""
        found = await self.issued.of_serial(f"{serial:x}")
        if found is None:
            return None
        return Known(
            serial=serial,
            spiffe_id=found.spiffe_id,
            app=found.app,
            spki_sha256=found.spki_sha256,
            not_after=found.not_after,
            how=found.how,
        )

    def revoked_serials(self) -> tuple[Revoked, ...]:
        """Return our certificates that have not ended and are revoked, by whatever way."""
        now = self.wall()
        return tuple(revoked for not_after, revoked in self._void if not_after > now)

    async def look(self) -> None:
        """Find what is revoked by now among what was issued; streams look again as well."""
        void: dict[str, tuple[int, Revoked]] = {}
        for each in self._revocations.all():
            at = dt.datetime.fromtimestamp(each.at, dt.UTC)
            for found in await self._of(each):
                revoked = Revoked(int(found.serial, 16), at)
                void.setdefault(found.serial, (found.not_after, revoked))
        self._void = tuple(void.values())
        self.bundles.stir()

    def event(self, event: Event) -> None:
        """Have the appliance write an audit line."""
        self.shared.send(event)

    async def _of(self, revocation: Revocation) -> list[Issued]:
        now, value = self.wall(), revocation.value
        match revocation.kind:
            case Kind.SERIAL:
                found = await self.issued.of_serial(value)
                return [] if found is None else [found]
            case Kind.SPIFFE_ID:
                return await self.issued.valid(now, spiffe_id=value)
            case Kind.APP:
                return await self.issued.valid(now, app=value)

    def _issue(
        self,
        spiffe_id: str,
        app: str,
        how: str,
        *,
        csr: Csr | None = None,
        profile: str = "svid",
        ttl_s: int = 0,
    ) -> IssuedSvid:
        self.check(spiffe_id, app)
        self._spend(app)
        svid = self._domain.issue(
            spiffe_id,
            self._now(),
            ttl_s or self.settings.identity.svid_ttl_s,
            spki=None if csr is None else csr.spki,
            profile=profile,
        )
        digest = "" if csr is None else csr.spki_sha256
        self.issued.add(
            Issued(svid.serial, spiffe_id, app, digest, svid.not_before, svid.not_after, how)
        )
        detail: dict[str, str | int] = {
            "serial": svid.serial,
            "not_after": svid.not_after,
            "how": how,
        }
        self.event(Event("issued", app, spiffe_id, detail=detail))
        return svid

    def _spend(self, app: str) -> None:
        if self.issued.is_full:
            self.shared.bounds.hit(app, "issued_queue")
            raise BusyError("certificates cannot be written down fast enough: try again")
        if app and not self._rates.take(app, self.shared.monotonic()):
            self.shared.bounds.hit(app, "svids")
            raise BusyError(f"the app {app} has had too many certificates: keep those it has")

    def _now(self) -> dt.datetime:
        return dt.datetime.fromtimestamp(self.wall(), dt.UTC)


def _whose(app: str, call: int) -> Whose:
    return Whose(call, app)
