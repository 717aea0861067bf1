"""Every metric of the appliance: name, help, labels and their closed value sets.

The planes count through the `Metrics` object that they are given and do not know Prometheus.  No
label names an app but those of `AppCount`, which a scraper's token opens: whoever can reach the
listener may read the rest.
"""

from collections.abc import Callable, Iterator
from typing import Literal

from proxy.exposition import (
    CONTENT_TYPE,
    AppCount,
    Build,
    Count,
    Elsewhere,
    Gauge,
    Gauges,
    Histogram,
    Kind,
    Page,
    Row,
)
from proxy.limits import Limits
from rules.decision import Reason, Verdict
from rules.fingerprint import HOWS

__all__ = ["CONTENT_TYPE", "AppCount", "Metrics", "Row"]

type DnsTransport = Literal["udp", "tcp", "dot", "doh"]
type DnsOutcome = Literal["answered", "refused", "failed", "truncated", "malformed", "dropped"]
type CacheOutcome = Literal["hit", "miss", "evicted", "renewed"]
type UpstreamTransport = Literal["udp", "tcp", "dot", "doh"]
type UpstreamOutcome = Literal[
    "answered",
    "timeout",
    "unreachable",
    "tls",
    "malformed",
    "mismatched",
    "servfail",
    "hedged",
    "retried",
]
type UpstreamState = Literal["closed", "open", "half-open"]
type RequestKind = Literal["connect", "forward", "internal"]
type RequestOutcome = Literal["allowed", "refused", "failed"]
type Direction = Literal["up", "down"]
type ListenerKind = Literal[
    "do53", "dot", "doh", "proxy", "proxy_tls", "metrics", "control", "workload", "ext_authz"
]
type SinkholeOutcome = Literal["http", "tls", "malformed", "silent", "refused"]
type TlsKind = Literal["dot", "doh", "proxy_tls", "control_tls"]
type TlsOutcome = Literal["done", "certificate", "failed", "timeout"]
type ConnectionOutcome = Literal["accepted", "refused"]
type SvidKind = Literal["x509", "jwt"]
type SvidOutcome = Literal["issued", "refused"]
type EnrolmentWay = Literal["join", "oidc", "reenroll", "other"]
type ApiOutcome = Literal["answered", "refused", "busy", "failed"]
type ExchangeOutcome = Literal[
    "granted",
    "malformed",
    "unidentified",
    "unproven",
    "ungranted",
    "full",
    "unsigned",
    "unrecorded",
]
type TokenUse = Literal["active", "inactive"]
type AttestationKind = Literal["software", "tpm", "launched"]
type AttesterOutcome = Literal["enrolled", "refused"]
type DetectOutcome = Literal["alert", "rate", "budget", "block"]
type CountedDirection = Literal["names", "answers", "choice"]
type DetectDirection = Literal["names", "answers", "choice", "flux", "cloaking"]
type PinOutcome = Literal["pinned", "evicted", "renewed"]
type LeakedIn = Literal["one", "several"]
type ReloadOutcome = Literal["changed", "unchanged", "failed"]
type AuditOutcome = Literal["written", "folded", "dropped"]

_CUTS = (*Reason, "idle", "life", "half-closed", "shutdown")


class Metrics:
    """All metrics; one object for the appliance's life, handed to whoever counts."""

    def __init__(self, version: str = "unknown", apps: int = Limits().apps_remembered) -> None:
        """`apps` is how many apps have series of their own."""
        self.decisions: Count[str, Verdict, Reason] = Count(
            "sallyport_decisions_total",
            "Decisions, by what was asked, the verdict and its reason.",
            fact=("question", "connect", "endpoint", "request"),
            verdict=Verdict,
            reason=Reason,
        )
        self._count_resolver()
        self._count_detection()
        self._count_upstreams()
        self._count_egress()
        self._count_evidence()
        self._count_leaks()
        self._count_identity()
        self._count_api()
        self._count_capabilities()
        self._count_attestation()
        self._count_connections()
        self.bounds: Count[str] = Count(
            "sallyport_bounds_total",
            "Times that a limit was met; the label is its name under `limits:`.",
            limit=Limits.__struct_fields__,
        )
        self.generation = Gauge("sallyport_generation", "Generation of the rules in force.")
        self.reloads: Count[ReloadOutcome] = Count(
            "sallyport_reloads_total",
            "Times that rule files were read again, by what came of it.",
            outcome=("changed", "unchanged", "failed"),
        )
        self.rule_problems = Gauge(
            "sallyport_rule_problems",
            "Errors in the rule files; while there are any, the last good rules are in force.",
        )
        self.build = Build("sallyport_build_info", "Always 1; the version is a label.", version)
        self.app_decisions = AppCount(apps, lambda: self.bounds.add("apps_remembered"))
        self._page = Page(self._all)
        self._of_apps = Page(lambda: (self.app_decisions,))

    def _count_api(self) -> None:
        self.agent_api_calls: Count[ApiOutcome] = Count(
            "sallyport_agent_api_calls_total",
            "Calls of the API at sallyport.internal, by how they ended.",
            outcome=("answered", "refused", "busy", "failed"),
        )
        self.agent_api_under_way = Gauge(
            "sallyport_agent_api_under_way",
            "Calls of the API at sallyport.internal that are being answered.",
        )
        self.agents = Gauges(
            "sallyport_agents",
            "Agents that attest or send heartbeats, by their state.",
            "state",
            ("valid", "stale", "revoked", "silent"),
        )
        self.agents_attested = Gauge(
            "sallyport_agents_attested_ratio",
            "The share of those agents whose attestation stands, 0 to 1; 1 while there are none.",
        )

    def _count_capabilities(self) -> None:
        self.capability_exchanges: Count[ExchangeOutcome] = Count(
            "sallyport_capability_exchanges_total",
            "Exchanges of attestation results for capability tokens, by what came of it.",
            outcome=(
                *("granted", "malformed", "unidentified", "unproven", "ungranted"),
                *("full", "unsigned", "unrecorded"),
            ),
        )
        self.capability_introspections: Count[TokenUse] = Count(
            "sallyport_capability_introspections_total",
            "Capability tokens that were asked about, by what was said of them.",
            state=("active", "inactive"),
        )
        self.capabilities = Gauge(
            "sallyport_capabilities", "Capability tokens that are neither expired nor void."
        )
        self.capabilities_voided: Count[()] = Count(
            "sallyport_capabilities_voided_total", "Capability tokens that were voided or revoked."
        )

    def _count_attestation(self) -> None:
        self.attestations: Count[AttestationKind, str] = Count(
            "sallyport_attestations_total",
            "Evidence that was sent, by its kind and by what came of it.",
            level=("software", "tpm", "launched"),
            outcome=(
                *("attested", "malformed", "limited", "unavailable"),
                *("unknown", "failed", "changed", "withdrawn"),
            ),
        )
        self.attestation_s = Histogram(
            "sallyport_attestation_seconds",
            "Time from evidence to its attestation result, that of the issuer within.",
        )
        self.attestation_nonces = Gauge(
            "sallyport_attestation_nonces", "Nonces that were given and not used."
        )
        self.attester_enrolments: Count[AttesterOutcome] = Count(
            "sallyport_attester_enrolments_total",
            "TPMs that were to be enrolled, by what came of it.",
            outcome=("enrolled", "refused"),
        )

    def _count_connections(self) -> None:
        self.connections: Count[ListenerKind, ConnectionOutcome] = Count(
            "sallyport_connections_total",
            "Stream connections to our listeners.",
            listener=(
                *("do53", "dot", "doh", "proxy", "proxy_tls", "metrics", "control"),
                *("workload", "ext_authz"),
            ),
            outcome=("accepted", "refused"),
        )
        self.sinkhole_connections: Count[SinkholeOutcome] = Count(
            "sallyport_sinkhole_connections_total",
            "Connections to the sinkhole, by what they spoke; `refused`: there was no room.",
            outcome=("http", "tls", "malformed", "silent", "refused"),
        )
        self.tls_handshakes: Count[TlsKind, TlsOutcome] = Count(
            "sallyport_tls_handshakes_total",
            "TLS handshakes with our listeners; `certificate`: that of the client did not hold.",
            listener=("dot", "doh", "proxy_tls", "control_tls"),
            outcome=("done", "certificate", "failed", "timeout"),
        )

    def _count_resolver(self) -> None:
        self.dns_queries: Count[DnsTransport, DnsOutcome] = Count(
            "sallyport_dns_queries_total",
            "Queries from agents, by how they ended.",
            transport=("udp", "tcp", "dot", "doh"),
            outcome=("answered", "refused", "failed", "truncated", "malformed", "dropped"),
        )
        self.udp_overflows = Elsewhere(
            "sallyport_dns_udp_overflows_total",
            "Datagrams that the kernel dropped because the queue of a UDP listener was full.",
        )
        self.cache: Count[CacheOutcome] = Count(
            "sallyport_dns_cache_total",
            "Look-ups in the caches of answers, entries evicted, and entries kept over a reload.",
            outcome=("hit", "miss", "evicted", "renewed"),
        )
        self.pins: Count[PinOutcome] = Count(
            "sallyport_pins_total",
            "Addresses pinned to a name for an app, pins evicted, and pins kept over a reload.",
            outcome=("pinned", "evicted", "renewed"),
        )

    def _count_detection(self) -> None:
        self.detect_findings: Count[DetectOutcome, DetectDirection] = Count(
            "sallyport_detect_findings_total",
            "Look-ups and answers in which something was found, by what came of it and by what"
            " was counted.",
            outcome=("alert", "rate", "budget", "block"),
            direction=("names", "answers", "choice", "flux", "cloaking"),
        )
        self.detect_bounds: Count[str] = Count(
            "sallyport_detect_bounds_total",
            "Times that a bound of the detector's tables was met, or a row of its file not read.",
            bound=(
                *("suffixes_evicted", "known_unkept", "popularity_full", "rows_unreadable"),
                *("flux_evicted", "flux_crowded"),
            ),
        )
        self.detect_octets: Count[CountedDirection] = Count(
            "sallyport_detect_octets_total",
            "Octets of look-ups and answers that were counted against budgets and let go.",
            direction=("names", "answers", "choice"),
        )
        self.detect_held = Gauge(
            "sallyport_detect_held_suffixes",
            "Suffixes that are held for an app until an admin clears them.",
        )

    def _count_upstreams(self) -> None:
        self.upstream: Count[UpstreamTransport, UpstreamOutcome] = Count(
            "sallyport_upstream_queries_total",
            "Queries to upstream resolvers, by how they ended.",
            transport=("udp", "tcp", "dot", "doh"),
            outcome=(
                *("answered", "timeout", "unreachable", "tls", "malformed"),
                *("mismatched", "servfail", "hedged", "retried"),
            ),
        )
        self.upstream_s = Histogram(
            "sallyport_upstream_seconds", "Time that upstream resolvers took to answer."
        )
        self.upstreams_open = Gauge(
            "sallyport_upstreams_open",
            "Upstream resolvers that are passed over, or tried again, after failures in a row.",
        )
        self.upstream_states: Count[UpstreamTransport, UpstreamState] = Count(
            "sallyport_upstream_states_total",
            "Times that an upstream resolver came into a state.",
            transport=("udp", "tcp", "dot", "doh"),
            state=("closed", "open", "half-open"),
        )

    def _count_egress(self) -> None:
        self.proxy_requests: Count[RequestKind, RequestOutcome] = Count(
            "sallyport_proxy_requests_total",
            "HTTP requests to the proxy: tunnels, plain requests, and those to ourselves.",
            kind=("connect", "forward", "internal"),
            outcome=("allowed", "refused", "failed"),
        )
        self.tunnels = Gauge("sallyport_tunnels", "Tunnels that are open.")
        self.tunnel_cuts: Count[str] = Count(
            "sallyport_tunnel_cuts_total",
            "Tunnels that were cut by us, by reason or by the limit that ended them.",
            reason=_CUTS,
        )
        self.octets: Count[Direction] = Count(
            "sallyport_octets_total",
            "Octets of payload relayed, from agents (up) and to them (down).",
            direction=("up", "down"),
        )

    def _count_evidence(self) -> None:
        self.audit_lines: Count[AuditOutcome] = Count(
            "sallyport_audit_lines_total",
            "Audit lines written, repeats folded into a line, and lines lost.",
            outcome=("written", "folded", "dropped"),
        )
        self.audit_octets: Count[()] = Count(
            "sallyport_audit_octets_total", "Octets written to the audit file."
        )
        self.audit_available = Gauge(
            "sallyport_audit_available", "1 while audit lines can be written, else 0."
        )
        self.audit_available.set(1)
        self.certificate_not_after = Gauge(
            "sallyport_certificate_not_after_seconds",
            "When the certificate of our TLS listeners ends, in seconds since 1970; 0 without one.",
        )

    def _count_leaks(self) -> None:
        self.leaks: Count[str, LeakedIn] = Count(
            "sallyport_leaks_total",
            "Registered secrets found in names, by their form, and in how many names they stood.",
            form=HOWS,
            names=("one", "several"),
        )
        self.secrets = Gauge("sallyport_secrets", "Secrets and canaries that are registered.")

    def _count_identity(self) -> None:
        self.svids: Count[SvidKind, SvidOutcome] = Count(
            "sallyport_svids_total",
            "SVIDs that were asked for, by what came of it.",
            kind=("x509", "jwt"),
            outcome=("issued", "refused"),
        )
        self.enrolments: Count[EnrolmentWay, SvidOutcome] = Count(
            "sallyport_enrolments_total",
            "Devices that asked to be enrolled, or for a new certificate, by what came of it.",
            how=("join", "oidc", "reenroll", "other"),
            outcome=("issued", "refused"),
        )
        self.revocations: Count[str] = Count(
            "sallyport_revocations_total",
            "What was revoked since we started, by what it is.",
            kind=("spiffe-id", "serial", "app", "token"),
        )
        self.revocation_cut_s = Histogram(
            "sallyport_revocation_cut_seconds",
            "Time from a revocation until the last flow that it is about was cut.",
        )
        self.workload_connections = Gauge(
            "sallyport_workload_connections", "Connections to the Workload API that are open."
        )
        self.issuer_up = Gauge(
            "sallyport_issuer_up", "1 while the process that holds the keys serves, else 0."
        )
        self.issuer_restarts: Count[()] = Count(
            "sallyport_issuer_restarts_total", "Times that the issuer ended and was started again."
        )

    def render(self, *, apps: bool = False) -> bytes:
        """Return the page that a scraper reads, in the media type `CONTENT_TYPE`.

        With `apps` it names apps: that is for who showed a token for it.
        """
        page = self._page.render()
        return page + self._of_apps.render() if apps else page

    def settle_by(self, settle: Callable[[], None]) -> None:
        """Call `settle` before a counter is read: it adds what was counted elsewhere meanwhile.

        The hottest paths count on values of their own, and exactly: nobody can read the difference.
        """
        for metric in vars(self).values():
            if isinstance(metric, Count | AppCount):
                metric.before_read = settle

    def table(self) -> tuple[Row, ...]:
        """Return what the manual lists: every metric, in the order of the page."""
        return (*(metric.row for metric in self._all()), self.app_decisions.row)

    def _all(self) -> Iterator[Kind]:
        for metric in vars(self).values():
            if isinstance(metric, Count | Elsewhere | Gauge | Gauges | Histogram | Build):
                yield metric
