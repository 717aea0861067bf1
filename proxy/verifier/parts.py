"""What the verifier is made of, and how it refuses."""

from collections.abc import Awaitable, Callable
from enum import StrEnum

from msgspec import Struct

from proxy.agent_api.asked import Record
from proxy.agent_api.issuing import EvidenceVerifier
from proxy.attested.binding import Binding
from proxy.attested.live import LiveAttested
from proxy.attested.result import Result
from proxy.certificates.revoked import Revocations
from proxy.limits import Limits
from proxy.metrics import Metrics
from proxy.sandbox.lease import Lease
from rules.decision import Reason
from rules.ruleset import Ruleset


class Changed(Struct, frozen=True):
    """What is no more what it was: the `attester` of `app`, and `why`.

    `results` were voided with it; there may be none that stood.  `serial` is of the certificate
    that presents the evidence, and `until` its notAfter (Unix time); empty and 0 where none does.
    """

    results: tuple[Result, ...]
    app: str
    attester: str
    why: str
    serial: str = ""
    until: int = 0


class Parts(Struct, frozen=True):
    """What the verifier works with.

    `leases` finds a lease that is in force by its id.  `void` acts on what has changed, once its
    results are void: it ends the capability tokens that were made of them, revokes the
    certificates that they were bound to, and the one that shows the change, and cuts.  `failed`
    ends the capability tokens of a binding whose evidence failed, and is told why.  `admits` says
    why no audit line of an app can be written, None: one can.  `wall` returns Unix time and
    `clock` monotonic time, in seconds; `entropy(n)` returns n random octets.
    """

    live: LiveAttested
    issuer: EvidenceVerifier
    ruleset: Callable[[], Ruleset]
    leases: Callable[[str], Lease | None]
    revocations: Revocations
    record: Record
    void: Callable[[Changed], Awaitable[object]]
    failed: Callable[[Binding, str], Awaitable[object]]
    metrics: Metrics
    limits: Limits
    wall: Callable[[], float]
    clock: Callable[[], float]
    entropy: Callable[[int], bytes]
    trust_domain: str
    ttl_s: int = 300
    admits: Callable[[str], Reason | None] = lambda _: None


class Outcome(StrEnum):
    """What came of an attestation; the value is the metric's label."""

    ATTESTED = "attested"
    MALFORMED = "malformed"  # no evidence at all: nothing is voided
    LIMITED = "limited"  # as above
    UNAVAILABLE = "unavailable"  # as above
    UNKNOWN = "unknown"  # an AK that is not enrolled: as above
    FAILED = "failed"  # what is proven of the binding is void
    CHANGED = "changed"  # everything that the attester has proven is void
    WITHDRAWN = "withdrawn"  # revoked, or ended, while it was verified


class RefusedError(Exception):
    """Evidence, or an enrolment, is refused; the text and `how` are for the agent.

    `attester` is set where what it attests has changed.
    """

    def __init__(
        self, outcome: Outcome, reason: Reason, text: str, how: str, attester: str = ""
    ) -> None:
        super().__init__(text)
        self.outcome = outcome
        self.reason = reason
        self.how = how
        self.attester = attester


class StaleError(RefusedError):
    """A nonce that does not count: it says nothing of who attests, and capability tokens stand."""
