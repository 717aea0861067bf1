"""Attestation, capability tokens and agents, composed; and what is done when proof is void.

What an attester proved is void with it: the tokens that were made of it, the certificates that it
was bound to, and everything that these have open.  Each is in force before the next is looked at,
and on the disk before anybody is answered.
"""

import logging
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct

from certs.profile import MOST_TTL_S
from proxy.agent_api.api import AgentApi
from proxy.agent_api.keys import Published
from proxy.agents.beating import Agents
from proxy.agents.beating import Parts as AgentParts
from proxy.attested.result import Result
from proxy.audit import Audit
from proxy.capabilities.exchange import Exchange
from proxy.capabilities.live import FILE_NAME, LiveCapabilities
from proxy.capabilities.parts import Parts as ExchangeParts
from proxy.certificates.revoked import Change, Kind
from proxy.config import Settings
from proxy.control.attesters import Attesting
from proxy.errors import ConfigError
from proxy.identities import FOLDER, Identities
from proxy.metrics import Metrics
from proxy.telling import Telling
from proxy.verifier.parts import Parts as VerifierParts
from proxy.verifier.verifier import Verifier
from proxy.workload.doors import Workload
from proxy.workload.events import Clock
from rules.ruleset import Ruleset

logger = logging.getLogger(__name__)


class Ground(Struct, frozen=True, kw_only=True):
    """What of the appliance is needed here.

    `ruleset` returns the rules in force, `monotonic` seconds that only grow.
    """

    settings: Settings
    identities: Identities
    workload: Workload
    audit: Audit
    metrics: Metrics
    ruleset: Callable[[], Ruleset]
    clock: Clock
    monotonic: Callable[[], float]


class Proof:
    """All of it, for the life of an appliance; for the loop's thread only."""

    def __init__(self, ground: Ground) -> None:
        settings, clock = ground.settings, ground.clock
        self._ground = ground
        self._live = ground.identities.attested
        self._revocations = ground.identities.revocations
        self._telling = Telling(
            ground.audit,
            lambda: ground.ruleset().generation,
            settings.limits,
            clock.wall,
            clock.entropy,
        )
        self.capabilities = LiveCapabilities(
            Path(settings.state) / FILE_NAME,
            settings.limits,
            clock.wall,
            ground.metrics.bounds.add,
            ground.metrics.capabilities.set,
        )
        self.exchange = Exchange(self._exchange_parts())
        self.agents = Agents(self._agent_parts())
        self.attesting = Attesting(self._live, self.void)
        verifier = Verifier(self._verifier_parts())
        folder = None if settings.identity.workload_api else Path(settings.state) / FOLDER
        published = Published(folder, settings.identity.trust_domain)
        parts = (verifier, self.exchange, self.agents, published)
        routes = (route for part in parts for route in part.routes())
        self.api = AgentApi(routes, settings.limits, ground.metrics)

    async def open(self) -> None:
        """Read what is on the disk; what is wrong with it stands in `problems`."""
        await self.capabilities.open()
        self._revocations.revocations.on_change(self._changed)

    async def close(self) -> None:
        """Write what waits."""
        await self.capabilities.close()

    @property
    def problems(self) -> dict[str, str | None]:
        """What is wrong, by what it is about."""
        return {"attestation": self._live.problem, "capabilities": self.capabilities.problem}

    async def void(self, results: tuple[Result, ...], why: str) -> None:
        """Void what was made of `results` and bound to them: what they were of has changed.

        Raises:
            BindError: it is in force, and not on the disk: that is tried again.
        """
        self.exchange.void(results, why)
        until = self._ground.clock.wall() + MOST_TTL_S  # no certificate of ours lives for longer
        for serial in dict.fromkeys(each.serial for each in results if each.serial):
            try:
                await self._revocations.revoke(Kind.SERIAL, serial, why=why, until=until)
            except ConfigError as error:  # no room: what is proven is void all the same
                logger.error("%s is not revoked: %s", serial, error)  # noqa: TRY400 - for the operator
        await self.exchange.settled()

    def is_revoked(self, app: str, spiffe_id: str, serial: str) -> bool:
        """Return whether an app, its SPIFFE ID or the certificate of a serial counts for nothing.

        The last two are empty where there is none.
        """
        revoked = self._revocations.revocations
        return (
            revoked.app(app) is not None
            or (spiffe_id != "" and revoked.get(Kind.SPIFFE_ID, spiffe_id) is not None)
            or (serial != "" and revoked.get(Kind.SERIAL, serial) is not None)
        )

    def _changed(self, change: Change) -> None:
        """Void what a revoked party holds, for good."""
        if change.revoked:
            self.exchange.void_revoked()

    def _exchange_parts(self) -> ExchangeParts:
        ground = self._ground
        return ExchangeParts(
            live=self.capabilities,
            attestations=self._live.attestations,
            signer=ground.workload.evidence,
            ruleset=ground.ruleset,
            is_revoked=self.is_revoked,
            record=self._telling.record,
            admits=self._telling.admits,
            metrics=ground.metrics,
            limits=ground.settings.limits,
            wall=ground.clock.wall,
            entropy=ground.clock.entropy,
            issuer=ground.settings.identity.trust_domain,
        )

    def _agent_parts(self) -> AgentParts:
        ground = self._ground
        return AgentParts(
            attestations=self._live.attestations,
            is_revoked=self.is_revoked,
            limits=ground.settings.limits,
            metrics=ground.metrics,
            wall=ground.clock.wall,
        )

    def _verifier_parts(self) -> VerifierParts:
        ground = self._ground
        return VerifierParts(
            live=self._live,
            issuer=ground.workload.evidence,
            ruleset=ground.ruleset,
            leases=ground.identities.leases.get,
            revocations=self._revocations.revocations,
            record=self._telling.record,
            admits=self._telling.admits,
            void=self.void,
            metrics=ground.metrics,
            limits=ground.settings.limits,
            wall=ground.clock.wall,
            clock=ground.monotonic,
            entropy=ground.clock.entropy,
            trust_domain=ground.settings.identity.trust_domain,
            ttl_s=ground.settings.attestation.ttl_s,
        )
