"""One upstream as its group sees it: how it is reached, how it fares, whether it is asked."""

import ssl
from collections.abc import Sequence

from msgspec import Struct

from proxy.errors import ConfigError, UpstreamError
from proxy.limits import Limits
from proxy.metrics import Metrics, UpstreamOutcome, UpstreamTransport
from proxy.resolver.breaker import Breaker, BreakerState
from proxy.resolver.upstream_query import Entropy, Upstream
from proxy.resolver.upstream_stream import StreamUpstream
from proxy.resolver.upstream_udp import UdpUpstream
from proxy.resolver.upstream_url import Transport, UpstreamAddress
from rules.decision import Reason

_LABEL: dict[Transport, UpstreamTransport] = {
    Transport.UDP: "udp",
    Transport.TCP: "tcp",
    Transport.DOT: "dot",
    Transport.DOH: "doh",
}
_OUTCOME: dict[Reason, UpstreamOutcome] = {
    Reason.UPSTREAM_TIMEOUT: "timeout",
    Reason.UPSTREAM_UNREACHABLE: "unreachable",
    Reason.UPSTREAM_TLS: "tls",
    Reason.UPSTREAM_MALFORMED: "malformed",
}
_RTT_SHARE = 1 / 8  # of the newest time in the smoothed one (RFC 6298, section 2)


class UpstreamStatus(Struct, frozen=True):
    """How an upstream fares, for people; `rtt_s` is smoothed, None before its first answer.

    `zone` is the suffix that it is asked for, empty for the upstreams of all other names;
    `group` counts from 1 in the order in which groups are asked.
    """

    upstream: str
    zone: str
    group: int
    state: BreakerState
    error: str
    rtt_s: float | None


class Member:
    """An upstream of a group."""

    __slots__ = ("_metrics", "address", "breaker", "error", "label", "rtt_s", "upstream")

    def __init__(
        self, address: UpstreamAddress, upstream: Upstream, limits: Limits, metrics: Metrics
    ) -> None:
        self.address = address
        self.upstream = upstream
        self.label = _LABEL[address.transport]
        self._metrics = metrics
        self.breaker = Breaker(
            limits.upstream_failures,
            limits.upstream_open_s,
            limits.upstream_open_most_s,
            self._changed,
        )
        self.error = ""  # of the last failure, though it answered since
        self.rtt_s: float | None = None

    def answered(self, took_s: float, outcome: UpstreamOutcome) -> None:
        """Note an answer of any rcode: it is there, whatever it says."""
        self._metrics.upstream.add(self.label, outcome)
        before_s = took_s if self.rtt_s is None else self.rtt_s
        self.rtt_s = before_s + (took_s - before_s) * _RTT_SHARE
        self.breaker.succeed()

    def failed(self, error: UpstreamError, now: float) -> None:
        """Note that it gave no answer."""
        self._metrics.upstream.add(self.label, _OUTCOME[error.reason])
        self.error = str(error)
        self.breaker.fail(now)

    def status(self, zone: str, group: int) -> UpstreamStatus:
        """Return how it fares."""
        return UpstreamStatus(
            str(self.address), zone, group, self.breaker.state, self.error, self.rtt_s
        )

    def _changed(self, before: BreakerState, after: BreakerState) -> None:
        self._metrics.upstream_states.add(self.label, after.value)
        if BreakerState.CLOSED in (before, after):
            self._metrics.upstreams_open.add(-1 if after is BreakerState.CLOSED else 1)


class MemberMaker(Struct, frozen=True):
    """What every upstream is made with; `https_context` is for DoH, the other one for DoT."""

    limits: Limits
    metrics: Metrics
    entropy: Entropy
    ssl_context: ssl.SSLContext
    https_context: ssl.SSLContext | None = None

    def make(self, address: UpstreamAddress) -> Member:
        """Return the upstream; nothing is opened.

        Raises:
            ConfigError: it speaks HTTPS, and there is no context for that.
        """
        return Member(address, self._upstream(address), self.limits, self.metrics)

    def _upstream(self, address: UpstreamAddress) -> Upstream:
        if address.transport is Transport.DOH:
            return self._https(address)
        context = self.ssl_context if address.transport is Transport.DOT else None
        stream = StreamUpstream(address, self.limits, self.metrics, self.entropy, context)
        if address.transport is Transport.UDP:
            return UdpUpstream(address, stream, self.limits, self.metrics, self.entropy)
        return stream

    def _https(self, address: UpstreamAddress) -> Upstream:
        # Where no such upstream is configured, h2 is never loaded: it costs memory.
        from proxy.resolver.upstream_https import HttpsUpstream  # noqa: PLC0415 - as said above

        if self.https_context is None:
            raise ConfigError(f"upstream {address}: no TLS context for HTTPS")
        return HttpsUpstream(address, self.limits, self.metrics, self.entropy, self.https_context)


def needs_https(groups: Sequence[Sequence[UpstreamAddress]]) -> bool:
    """Return whether any upstream of the groups speaks HTTPS."""
    return any(each.transport is Transport.DOH for group in groups for each in group)
