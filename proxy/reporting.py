"""What the parts of the appliance say of themselves, in the words of `sallyport status`."""

from certs.leaf import Leaf
from proxy.control.status import Certificate, Reloaded, UpstreamState
from proxy.reload.reloader import ReloadStatus
from proxy.resolver.upstream_member import UpstreamStatus


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


def certificate(leaf: Leaf | None) -> Certificate | None:
    """Return until when the certificate of our listeners is good; None where there is none."""
    return None if leaf is None else Certificate(names=leaf.names, not_after=leaf.not_after)
