"""What exchanging, asking about and revoking tokens is made of."""

from collections.abc import Callable, Mapping
from typing import Protocol

from msgspec import Struct

from proxy.agent_api.issuing import Signer
from proxy.attested.known import Attestations
from proxy.capabilities.live import LiveCapabilities
from proxy.limits import Limits
from proxy.metrics import Metrics
from rules.decision import Reason, Verdict
from rules.ruleset import Ruleset


class Record(Protocol):
    """Writes the audit line of what an agent has changed, or was refused."""

    def __call__(
        self,
        app: str,
        change: str,
        verdict: Verdict,
        reason: Reason,
        target: str,
        detail: Mapping[str, object],
    ) -> object:
        """Write it; `target` is what it is about.  No token stands in it."""


class Parts(Struct, frozen=True, kw_only=True):
    """Everything that the composition root hands in.

    `is_revoked` takes an app, a SPIFFE ID and a serial number, the last two empty where there is
    none; `admits` says why no audit line of an app can be written, None: one can.  `issuer` is the
    trust domain, `wall` returns Unix time, `entropy(n)` n random octets.
    """

    live: LiveCapabilities
    attestations: Attestations
    signer: Signer
    ruleset: Callable[[], Ruleset]
    is_revoked: Callable[[str, str, str], bool]
    record: Record
    admits: Callable[[str], Reason | None]
    metrics: Metrics
    limits: Limits
    wall: Callable[[], float]
    entropy: Callable[[int], bytes]
    issuer: str
