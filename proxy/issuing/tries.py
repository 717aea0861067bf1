"""How often a peer may be refused: so many times at once, then one more every few seconds.

What is right is never held back: processes of one host share its address, and one of them is not
to lock the others out.  What is refused beyond the bound is answered 429 and leaves no audit line
of its own; the next one that does says how many there were.
"""

from collections import OrderedDict
from collections.abc import Callable

from proxy.limits import Limits


class Tries:
    """Counts refusals by peer; `wall` returns seconds."""

    def __init__(self, limits: Limits, wall: Callable[[], float]) -> None:
        self._most = limits.enroll_refusals
        self._each_s = limits.enroll_refusals_s
        self._peers_most = limits.enroll_peers
        self._wall = wall
        self._peers: OrderedDict[str, _Peer] = OrderedDict()  # the one refused last stands last

    def __len__(self) -> int:
        """Return how many peers are remembered."""
        return len(self._peers)

    def refused(self, peer: str) -> int | None:
        """Count a refusal; return how many were passed over before it, None where this one is."""
        now = self._wall()
        known = self._peers.pop(peer, None) or _Peer(self._most, now)
        self._peers[peer] = known
        if len(self._peers) > self._peers_most:
            self._peers.popitem(last=False)  # the one that was quiet longest
        gained = max(0.0, now - known.at) / self._each_s
        known.left, known.at = min(self._most, known.left + gained), now
        if known.left < 1:
            known.passed_over += 1
            return None
        known.left -= 1
        passed_over, known.passed_over = known.passed_over, 0
        return passed_over


class _Peer:
    def __init__(self, left: float, at: float) -> None:
        self.left = left
        self.at = at
        self.passed_over = 0
