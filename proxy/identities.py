"""Everything that says who asks: tokens, certificates, leases, proof, what was revoked.

What is void is noticed here, once a second or in the moment in which it is said; what that ends is
the affair of `proxy.revoking`.
"""

import asyncio
import logging
from collections.abc import Mapping
from pathlib import Path

from certs.errors import CertsError
from certs.known_domain import DOMAIN_JSON, read_domain
from proxy.attested.live import FILE_NAME as ATTESTED
from proxy.attested.live import LiveAttested
from proxy.certificates.known import Certificates
from proxy.certificates.live import LiveRevocations
from proxy.certificates.revoked import FILE_NAME as REVOKED
from proxy.certificates.revoked import Kind
from proxy.certificates.trust import TrustBundles, read_anchors
from proxy.config import Settings
from proxy.control.admins import Admins
from proxy.errors import ConfigError
from proxy.identify import Identifier
from proxy.metrics import Metrics
from proxy.sandbox.leases import Leases
from proxy.tokens.live import LiveTokens
from proxy.transport.peer import PeerTable
from proxy.workload.events import Clock
from rules.ruleset import Ruleset

logger = logging.getLogger(__name__)

FOLDER = "identity"
"""Where in the state the trust domain is."""
_TOKENS = "sallyport.sqlite"
TICK_S = 1.0  # a certificate that has ended opens nothing for longer than that


class Identities:
    """All of it, for the life of an appliance."""

    def __init__(self, settings: Settings, metrics: Metrics, clock: Clock) -> None:
        limits, state = settings.limits, Path(settings.state)
        self._domain = settings.identity.trust_domain
        self._federated = frozenset(settings.identity.federation)
        # Where somebody else issues, his roots are believed, and not what we once made.
        self._folder = None if settings.identity.workload_api else state / FOLDER
        self._stamp: tuple[int, int] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.tokens = LiveTokens(state / _TOKENS, limits, clock.wall, clock.entropy)
        self.revocations = LiveRevocations(state / REVOKED, limits, clock.wall)
        self.trust = TrustBundles()
        self.certificates = Certificates(
            self.trust, self.revocations.revocations, limits, clock.wall, metrics.bounds.add
        )
        self.attested = LiveAttested(state / ATTESTED, limits, clock.wall, metrics.bounds.add)
        self.leases = Leases(limits, metrics.bounds.add)
        self.admins = Admins(settings.identity.admins, self._domain, self.certificates)
        self._bundles: dict[str, str] = {}
        self._own: dict[str, str] = {}
        self.problem = ""
        """What is wrong with whom to believe; empty where nothing is."""

    @property
    def bundle(self) -> str:
        """The roots of our own trust domain, as PEM."""
        return self._bundles.get(self._domain, "")

    def identifier(self, ruleset: Ruleset, peers: PeerTable) -> Identifier:
        """Return what names the askers of every plane."""
        return Identifier(
            ruleset,
            peers,
            self.tokens.tokens,
            self.certificates,
            self.attested.attestations,
            self.leases,
        )

    def is_barred(self, app: str, spiffe_id: str) -> bool:
        """Return whether `app` may not have `spiffe_id`, whatever the rules say."""
        return self.is_revoked(app, spiffe_id) or self.admins.is_reserved(spiffe_id)

    def is_revoked(self, app: str, spiffe_id: str) -> bool:
        """Return whether the app or the SPIFFE ID counts for nothing."""
        revoked = self.revocations.revocations
        return revoked.app(app) is not None or self.certificates.vouched(spiffe_id) is not None

    async def open(self) -> None:
        """Read what is on the disk, and watch it from now on.

        Raises:
            BindError: what was revoked cannot be known.
        """
        self._look_at_domain()
        await self.revocations.open()
        await self.tokens.open()
        await self.attested.open()
        self._tick()

    def is_void(self, serial: str) -> bool:
        """Return whether the certificate of that serial number was revoked."""
        return self.revocations.revocations.get(Kind.SERIAL, serial) is not None

    @property
    def problems(self) -> dict[str, str | None]:
        """What is wrong, by what it is about."""
        return {
            "tokens": self.tokens.problem,
            "revocations": self.revocations.problem,
            "trust": self.problem,
        }

    async def reload(self) -> None:
        """Read the files again."""
        self._stamp = None
        self._look_at_domain()
        await self.tokens.reload()
        await self.revocations.reload()

    async def close(self) -> None:
        """Watch no more."""
        if self._timer is not None:
            self._timer.cancel()
        await self.tokens.close()
        await self.attested.close()
        await self.revocations.close()

    def believe(self, bundles: Mapping[str, str]) -> None:
        """Believe what the issuer tells: PEM by trust domain, our own among them; "": nobody.

        Nothing at all is no news: what was believed stays.  So does what was believed of a trust
        domain whose news cannot be used, and of a federated one that is missing: an issuer that has
        begun anew may not reach it.  Our own roots are those on the disk, once they were read:
        the issuer may not know yet that one is forgotten.
        """
        if not bundles:
            return
        kept = {name: pem for name, pem in self._bundles.items() if name in self._federated}
        news = {**self._own, **kept, **bundles, **self._own}  # ours come first
        wanted = {name: pem for name, pem in news.items() if pem}
        problems: dict[str, str] = {}
        try:
            self.trust.use(wanted)
        except ConfigError:
            wanted, problems = _usable(wanted, self._bundles)
            self.trust.use(wanted)
        self._bundles = wanted
        self._note("; ".join(problems.values()))

    def _tick(self) -> None:
        # First of all: whatever goes wrong below, what ends is noticed a second later.
        self._timer = asyncio.get_running_loop().call_later(TICK_S, self._tick)
        self.certificates.look(self.certificates.now())
        self._look_at_domain()

    def _look_at_domain(self) -> None:
        """Read our own roots where their file has changed."""
        if self._folder is None:
            return
        try:
            found = (self._folder / DOMAIN_JSON).stat()
            stamp = found.st_mtime_ns, found.st_ino
            if stamp == self._stamp:
                return
            known = read_domain(self._folder)
        except (OSError, CertsError) as error:
            self._stamp = None  # the same file may come back
            self._note(f"the trust domain cannot be read: {error}")
            return
        self._stamp = stamp
        if known is None or known.trust_domain != self._domain:
            self._note(f"{self._folder} is not of {self._domain}: see `sallyport ca show`")
            return
        self._own = {self._domain: known.anchors}
        self.believe({**self._bundles, **self._own})
        self.trust.complete(known.intermediates)

    def _note(self, problem: str) -> None:
        if problem and problem != self.problem:
            logger.warning("%s", problem)
        self.problem = problem


def _usable(
    bundles: Mapping[str, str], before: Mapping[str, str]
) -> tuple[dict[str, str], dict[str, str]]:
    """Return what can be used of `bundles`, and why the others cannot: none keeps another from it.

    In the place of one that cannot is the one before.  The first ones have the room.
    """
    usable: dict[str, str] = {}
    problems: dict[str, str] = {}
    known: set[bytes] = set()
    for name, pem in bundles.items():
        for text in (pem, before.get(name, "")):
            try:
                known.update(read_anchors(name, text, known))
            except ConfigError as error:
                problems.setdefault(name, str(error))
            else:
                usable[name] = text
                break
    return usable, problems
