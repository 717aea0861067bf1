"""Signatures that the appliance itself waits for: to present them, or for the admin."""

from proxy.channel import Sign, Signed
from proxy.limits import Limits
from proxy.metrics import Metrics
from proxy.workload.issuer import Issuer
from proxy.workload.questions import Questions, Room


class Signatures:
    """Asks `issuer` for them, each within its time; call it from the loop's thread only."""

    def __init__(self, issuer: Issuer, limits: Limits, metrics: Metrics) -> None:
        most = limits.issuer_signatures
        room = Room(("issuer_signatures", most), ("issuer_signatures", most), most)
        self.questions = Questions(issuer, limits, metrics, room)

    async def sign(self, spiffe_id: str, profile: str, ttl_s: int) -> Signed:
        """Return what the issuer made, or a `problem`; never raises."""
        return await self.questions.ask(lambda call: Sign(call, spiffe_id, profile, ttl_s), Signed)
