"""Check of the upstream resolvers: each is asked for the root's NS records, and nothing else.

The question names nobody: every resolver of the world asks it (RFC 8109), so that no name an
agent may or may not use leaves the host by this.
"""

import asyncio
import ssl
from collections.abc import Iterable, Iterator
from pathlib import Path

from proxy.config import read_socket
from proxy.doctor.patient import Finding, Patient, Severity
from proxy.errors import ConfigError, UpstreamError
from proxy.metrics import Metrics
from proxy.resolver.resolv_conf import HostResolvers
from proxy.resolver.upstream import Upstreams
from proxy.resolver.upstream_url import parse_upstream
from proxy.transport.tls import DOT_ALPN, upstream_context
from rules.decision import Reason
from rules.name import ROOT

DOH_ALPN = ("h2",)  # RFC 8484, section 5.2
NS = 2  # RFC 1035, section 3.2.2

_CURES = {
    Reason.UPSTREAM_UNREACHABLE: "look at the network and the firewall, or name another resolver",
    Reason.UPSTREAM_TIMEOUT: "look at the network and the firewall, or name another resolver",
    Reason.UPSTREAM_TLS: "correct the name behind #, resolver.upstream_ca, or the clock",
    Reason.UPSTREAM_MALFORMED: "name another resolver: what answers there does not speak DNS",
}


def upstreams(patient: Patient) -> Iterator[Finding]:
    """Find upstream resolvers that do not answer; all of them dead is an error."""
    settings = patient.settings
    groups = {"": settings.upstreams, **settings.zones}
    try:
        failures = asyncio.run(_ask_all(patient, dict.fromkeys(_flat(groups.values()))))
    except ConfigError as error:
        yield Finding("error", str(error), "correct `resolver:`")
        return
    for zone, texts in groups.items():
        group = list(_flat(texts))
        dead = [text for text in group if text in failures]
        for text in dead:
            of = f" of the zone {zone}" if zone else ""
            failure = failures[text]
            severity: Severity = "error" if len(dead) == len(group) else "warning"
            cure = _CURES.get(failure.reason, "look at the log")
            yield Finding(severity, f"the upstream{of} {failure} ({failure.reason})", cure)


def _flat(texts: Iterable[object]) -> Iterator[str]:
    """Yield every upstream of a list, or of a list of groups."""
    for each in texts:
        if isinstance(each, str):
            yield each
        elif isinstance(each, Iterable):
            yield from _flat(each)


async def _ask_all(patient: Patient, texts: Iterable[str]) -> dict[str, UpstreamError]:
    ca = patient.settings.upstream_ca
    contexts = [upstream_context(Path(ca) if ca else None, alpn) for alpn in (DOT_ALPN, DOH_ALPN)]
    asked = list(texts)
    found = await asyncio.gather(*(_ask(patient, text, *contexts) for text in asked))
    return {text: error for text, error in zip(asked, found, strict=True) if error is not None}


async def _ask(
    patient: Patient, text: str, dot: ssl.SSLContext, doh: ssl.SSLContext
) -> UpstreamError | None:
    ours = {read_socket(label) for label in patient.settings.listen.do53}
    group = Upstreams(
        [parse_upstream(text)],
        patient.settings.limits,
        Metrics(),
        dot,
        https_context=doh,
        host=HostResolvers(lambda address, port: (address, port) in ours),
    )
    try:
        await group.ask(ROOT, NS)
    except UpstreamError as error:
        return error
    finally:
        await group.close()
    return None
