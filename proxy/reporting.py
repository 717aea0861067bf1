"""What the parts of the appliance say of themselves, in the words of `sallyport status`."""

import hashlib
from collections.abc import Iterator

from certs.leaf import Leaf
from proxy.config import Settings
from proxy.control.identity import Anchor, IdentityState, Issuing
from proxy.control.status import Certificate, Reloaded, UpstreamState
from proxy.errors import PeerError
from proxy.identities import Identities
from proxy.reload.progress import Progress
from proxy.reload.reloader import ReloadStatus
from proxy.resolver.upstream_member import UpstreamStatus
from proxy.wire.certificate import read_certificate
from proxy.workload.doors import Workload


def reloaded(status: ReloadStatus) -> Reloaded:
    """Return how the rule files were read the last time."""
    return Reloaded(
        time=status.time,
        generation=status.generation,
        outcome=status.outcome,
        problems=status.told,
    )


def upstream_state(status: UpstreamStatus) -> UpstreamState:
    """Return how an upstream resolver fares."""
    rtt = "" if status.rtt_s is None else f"{status.rtt_s * 1000:.1f} ms"
    text = ", ".join(each for each in (rtt, status.error) if each)
    zone = status.zone or None
    return UpstreamState(name=status.upstream, state=status.state, zone=zone, text=text)


def reading(progress: Progress | None) -> str | None:
    """Return how far deny lists are read; None while none is."""
    return None if progress is None else progress.text


def certificate(leaf: Leaf | None) -> Certificate | None:
    """Return until when the certificate of our listeners is good; None where there is none."""
    return None if leaf is None else Certificate(names=leaf.names, not_after=leaf.not_after)


def issuing(settings: Settings, identities: Identities, workload: Workload) -> Issuing:
    """Return the trust domain as the control API reaches it."""

    def state() -> IdentityState:
        return IdentityState(
            trust_domain=settings.identity.trust_domain,
            anchors=tuple(_anchors(identities)),
            issuer=workload.is_up,
            connections=workload.connections,
            problem=workload.problem or identities.problem,
        )

    return Issuing(
        state,
        workload.look,
        workload.sign,
        lambda: identities.bundle,
        identities.admins.is_admin,
        identities.admins.is_reserved,
    )


def _anchors(identities: Identities) -> Iterator[Anchor]:
    trust = identities.trust
    for anchor in trust.anchors:
        try:
            ends = read_certificate(anchor).not_after
        except PeerError:  # OpenSSL reads it all the same
            ends = 0
        digest = hashlib.sha256(anchor).hexdigest()
        for domain in sorted(trust.domains_of(anchor)):
            yield Anchor(trust_domain=domain, sha256=digest, not_after=ends)
