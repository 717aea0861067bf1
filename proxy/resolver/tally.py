"""What the repeats of one reply add to the metrics, whenever they are told."""

from msgspec import Struct

from proxy.authorize import Authorizer
from proxy.metrics import DnsOutcome, DnsTransport, Metrics
from rules.decision import Decision, Verdict

OUTCOME: dict[Verdict, DnsOutcome] = {
    Verdict.ALLOW: "answered",
    Verdict.DENY: "refused",
    Verdict.FAIL: "failed",
}


class Tally(Struct, frozen=True):
    """Questions of one app over one transport that are decided and answered alike.

    `is_cached`: from the cache of answers.  `is_flood`: beyond `limits.refusals_a_second`.
    """

    authorizer: Authorizer
    metrics: Metrics
    app: str
    transport: DnsTransport
    decision: Decision
    is_cached: bool = False
    is_flood: bool = False

    def add(self, counted: int) -> None:
        """Count so many of them."""
        metrics = self.metrics
        self.authorizer.repeated(self.app, self.decision, counted)
        metrics.dns_queries.add(self.transport, OUTCOME[self.decision.verdict], n=counted)
        metrics.cache.add("hit", n=counted * self.is_cached)
        metrics.bounds.add("refusals_a_second", n=counted * self.is_flood)
