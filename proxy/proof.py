"""Attestation, capability tokens and agents, composed; and what is done when proof is void.

What an attester proved is void with it: the tokens that were made of it, the certificates that it
was bound to, and everything that these have open.  All of it is in force before anything waits for
the disk, and on the disk before anybody is answered.  What is bound to a lease ends with it, and
no lease outlives the appliance.
"""

import logging
from collections.abc import Callable, Iterable
from pathlib import Path

from msgspec import Struct

from certs.profile import MOST_TTL_S
from proxy.agent_api.api import AgentApi
from proxy.agent_api.keys import Published
from proxy.agents.beating import Agents
from proxy.agents.beating import Parts as AgentParts
from proxy.attested.binding import Binding
from proxy.attested.binding import Kind as BindingKind
from proxy.audit import Audit
from proxy.audit_line import rfc3339
from proxy.capabilities.exchange import Exchange
from proxy.capabilities.live import FILE_NAME, LiveCapabilities
from proxy.capabilities.parts import Parts as ExchangeParts
from proxy.certificates.live import NOBODY
from proxy.certificates.revoked import Change, Kind
from proxy.config import Settings
from proxy.control.attesters import Attesting
from proxy.errors import ConfigError
from proxy.identities import FOLDER, Identities
from proxy.metrics import Metrics
from proxy.sandbox.lease import Lease
from proxy.telling import Telling
from proxy.verifier.contents import level_name
from proxy.verifier.parts import Changed
from proxy.verifier.parts import Parts as VerifierParts
from proxy.verifier.verifier import Verifier
from proxy.verifier.voiding import VOID
from proxy.workload.doors import Workload
from proxy.workload.events import Clock
from rules.decision import Reason, Verdict
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
        self._leases = ground.identities.leases
        self._has_old_leases = True  # on the disk, from before we began
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
            self._counted,
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
        self._leases.on_end(self._lease_ended)
        self._live.attestations.on_void(self.agents.met)
        self._revocations.revocations.on_change(self._changed)

    async def close(self) -> None:
        """Write what waits."""
        await self.capabilities.close()

    @property
    def problems(self) -> dict[str, str | None]:
        """What is wrong, by what it is about."""
        return {"attestation": self._live.problem, "capabilities": self.capabilities.problem}

    async def void(self, changed: Changed) -> None:
        """Void what was made of what has changed, and the certificates that it was bound to.

        Raises:
            BindError: it is in force, and not on the disk: that is tried again.
        """
        why = changed.why
        self.exchange.void(changed.results, why)
        self.exchange.void_attester(changed.app, changed.attester, why)
        serials = self._serials(changed)
        try:
            await self._revocations.revoke_serials(serials, why)
        except ConfigError as error:  # no room: what is proven is void all the same
            logger.error("%s: certificates are not revoked: %s", why, error)  # noqa: TRY400 - for the operator
        finally:
            self._tell_revoked(changed, serials)
            await self.exchange.settled()

    async def failed(self, binding: Binding, why: str) -> None:
        """Void the capability tokens of a binding whose evidence failed.

        Raises:
            BindError: it is in force, and not on the disk: that is tried again.
        """
        if self.exchange.void_binding(binding, why):
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

    def _serials(self, changed: Changed) -> dict[str, float]:
        """Return the certificates to revoke, the one that shows the change first, and until when.

        Who makes his attesters change with one certificate after the other takes no room from
        admins: `limits.revocations_by_evidence` at most are revoked so at once.
        """
        revocations, limits = self._revocations.revocations, self._ground.settings.limits
        until = self._ground.clock.wall() + MOST_TTL_S  # no certificate of ours lives for longer
        wanted = {changed.serial: float(changed.until)} if changed.serial else {}
        for each in changed.results:
            if each.serial:
                wanted.setdefault(each.serial, until)
        new = [serial for serial in wanted if revocations.get(Kind.SERIAL, serial) is None]
        held = sum(each.by_uid == NOBODY for each in revocations.all())
        room = max(limits.revocations_by_evidence - held, 0)
        if len(new) > room:
            self._ground.metrics.bounds.add("revocations_by_evidence")
            logger.error("%d certificates stay: limits.revocations_by_evidence", len(new) - room)
        return {serial: wanted[serial] for serial in new[:room]}

    def _tell_revoked(self, changed: Changed, serials: Iterable[str]) -> None:
        """Tell audit of certificates that are revoked now, whether the disk knows or not."""
        for serial in serials:
            known = self._revocations.revocations.get(Kind.SERIAL, serial)
            if known is not None:
                detail = {"kind": known.kind, "why": known.why, "revoked_at": rfc3339(known.at)}
                self._telling.record(
                    changed.app, "revoked", Verdict.ALLOW, Reason.LOCAL, serial, detail
                )

    def _counted(self, tokens: int) -> None:
        """Take how many capability tokens stand, each second."""
        self._ground.metrics.capabilities.set(tokens)
        if self._has_old_leases and self.capabilities.problem is None:
            self._has_old_leases = False  # what is made from now on is of leases that are in force
            for each in {token.binding for token in self.exchange.all()}:
                if each.kind is BindingKind.LEASE and self._leases.get(each.value) is None:
                    self.exchange.void_binding(each)

    def _lease_ended(self, lease: Lease) -> None:
        """Void what is bound to a lease that ends."""
        binding = Binding(BindingKind.LEASE, lease.id)
        voided = self._live.attestations.void(lambda each: each.binding == binding)
        for each in voided:
            self._telling.record(
                each.app, VOID, Verdict.ALLOW, Reason.LOCAL,
                each.spiffe_id or f"{binding.kind} {binding.value}",
                {"result": each.id, "level": level_name(each.level), "why": "its lease has ended"},
            )  # fmt: skip
        self.exchange.void_binding(binding)

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
            leases=self._leases.get,
            revocations=self._revocations.revocations,
            record=self._telling.record,
            admits=self._telling.admits,
            void=self.void,
            failed=self.failed,
            metrics=ground.metrics,
            limits=ground.settings.limits,
            wall=ground.clock.wall,
            clock=ground.monotonic,
            entropy=ground.clock.entropy,
            trust_domain=ground.settings.identity.trust_domain,
            ttl_s=ground.settings.attestation.ttl_s,
        )
