"""How fast an app may attest, and each of its clients: no flood is the whole app's.

A binding has a share of what its app has, 1 of `limits.attestation_shares` of it: of the burst,
which is of 8 at least, and of what comes after.
"""

from typing import Final

from proxy.attested.binding import Binding
from proxy.limits import Limits
from proxy.metrics import Metrics
from proxy.rates import Rates
from proxy.verifier.callers import Attesting
from proxy.verifier.refusing import limited

_LEAST_BURST: Final = 8  # as many attempts of one client at once as it may have nonces


class Pace:
    """Both rates; what is met is counted in `metrics.bounds`."""

    def __init__(self, limits: Limits, metrics: Metrics) -> None:
        burst, every_s = limits.attestation_burst, limits.attestation_every_s
        shares = limits.attestation_shares
        own_burst = max(burst // shares, _LEAST_BURST)
        self._metrics = metrics
        self._of_apps = Rates(burst, every_s, limits.apps_remembered)
        self._of_clients = Rates(own_burst, every_s * shares, limits.attestations)

    def check(self, who: Attesting, now: float) -> None:
        """Take one of his share, and one of his app; `now` is monotonic, in seconds.

        Raises:
            RefusedError: there is none.
        """
        if not self._of_clients.take(_client(who.app, who.binding), now):
            self._metrics.bounds.add("attestation_shares")
            raise limited("this client attests too often")
        if not self._of_apps.take(who.app, now):
            self._metrics.bounds.add("attestation_burst")
            raise limited("this app attests too often")


def _client(app: str, binding: Binding) -> str:
    return f"{binding.kind} {binding.value} {app}"
