"""What exchanging, asking about and revoking tokens is made of."""

from collections.abc import Callable

from msgspec import Struct

from proxy.agent_api.asked import Record
from proxy.agent_api.issuing import Signer
from proxy.attested.known import Attestations
from proxy.capabilities.live import LiveCapabilities
from proxy.limits import Limits
from proxy.metrics import Metrics
from rules.decision import Reason
from rules.ruleset import Ruleset


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
