"""Client certificates as the planes see them: a verified chain comes in, whom it names comes out.

What a chain says is read once.  Whether it counts is asked again whenever `epoch` has changed:
with the trust anchors, with revocations, and when a certificate that somebody presented ends.
"""

import datetime as dt
from collections.abc import Callable

from proxy.certificates.read import end_of, read_svid, trust_domain
from proxy.certificates.revoked import Revocations
from proxy.certificates.svid import Svid, Unfit
from proxy.certificates.trust import TrustBundles
from proxy.errors import PeerError
from proxy.limits import Limits
from rules.decision import Decision, Reason, Verdict

_HORIZON_S = 3600  # a later end is looked at anew by then, so that no more seconds are kept
_AHEAD_S = 60  # of a clock that was set back a little, since OpenSSL looked at it

type Chain = tuple[bytes, ...]


class Certificates:
    """What presented certificates are worth; ask it from the loop's thread only.

    `wall` returns Unix time in seconds and stands as `now`.  `hit_bound` is called with the name
    of a limit each time that it is met.
    """

    def __init__(
        self,
        trust: TrustBundles,
        revocations: Revocations,
        limits: Limits,
        wall: Callable[[], float],
        hit_bound: Callable[[str], None],
    ) -> None:
        self.now = wall
        self.trust = trust
        self._revocations = revocations
        self._limits = limits
        self._hit_bound = hit_bound
        self._read: dict[Chain, tuple[Svid, int] | Unfit] = {}  # with the end; the oldest first
        self._ends: set[int] = set()  # seconds in which something that was presented ends
        self._looked = wall()
        self._voided: list[Callable[[], object]] = []
        self.epoch = 0
        """Changes with everything that may change an answer of `judge`."""
        trust.on_change(self._void)
        revocations.on_change(lambda _: self._move())

    def judge(self, chain: Chain) -> Svid | Decision:
        """Return what a verified `chain` (DER, the leaf first) is, or why it counts for nobody."""
        found = self._said(chain)
        if isinstance(found, Unfit):
            return _unknown(found.text)
        svid, ends = found
        domain = trust_domain(svid)
        if domain not in self.trust.domains_of(chain[-1]):
            return _unknown(f"{svid.spiffe_id} is not vouched for by an authority of {domain}")
        if self._revocations.of(svid) is not None:
            return _revoked(svid.spiffe_id)
        now = self.now()
        if now >= ends:
            return _unknown(f"the certificate of {svid.spiffe_id} {_ended(ends)}; fetch a new one")
        if now < svid.not_before - _AHEAD_S:
            return _unknown(f"the certificate of {svid.spiffe_id} has not begun yet")
        self._ends.add(int(min(ends, now + _HORIZON_S)))
        return svid

    def read(self, chain: Chain) -> Svid | None:
        """Return what a verified `chain` says, whether it counts or not; None: it is no SVID."""
        found = self._said(chain)
        return None if isinstance(found, Unfit) else found[0]

    def vouched(self, spiffe_id: str) -> Decision | None:
        """Return why a SPIFFE ID that somebody else has verified counts for nobody; None if not."""
        is_revoked = self._revocations.of(Svid(spiffe_id, "", 0, 0, "")) is not None
        return _revoked(spiffe_id) if is_revoked else None

    def look(self, now: float) -> None:
        """Notice what has ended meanwhile; to be called about once a second.

        Where the clock was set back, what had ended may count again.
        """
        is_back = now < self._looked
        ended = {each for each in self._ends if is_back or each <= now}
        if ended or is_back:
            self._ends -= ended
            self._void()
        self._looked = now

    def on_void(self, callback: Callable[[], object]) -> None:
        """Call `callback` when a certificate may have ended, or others are believed."""
        self._voided.append(callback)

    def _void(self) -> None:
        self._move()
        for callback in self._voided:
            callback()

    def _move(self) -> None:
        self.epoch += 1

    def _said(self, chain: Chain) -> tuple[Svid, int] | Unfit:
        found = self._read.get(chain)
        return self._remember(chain) if found is None else found

    def _remember(self, chain: Chain) -> tuple[Svid, int] | Unfit:
        if len(self._read) >= self._limits.certificates:
            del self._read[next(iter(self._read))]
            self._hit_bound("certificates")
        found = read_svid(chain)
        if isinstance(found, Svid):
            try:
                known: tuple[Svid, int] | Unfit = (found, end_of(chain))
            except PeerError as error:
                known = Unfit(str(error))
        else:
            known = found
        self._read[chain] = known
        return known


def _ended(ends: int) -> str:
    return f"ended at {dt.datetime.fromtimestamp(ends, dt.UTC):%Y-%m-%d %H:%M:%S} UTC"


def _unknown(text: str) -> Decision:
    return Decision(Verdict.DENY, Reason.IDENTITY_UNKNOWN, text=text)


def _revoked(spiffe_id: str) -> Decision:
    return Decision(Verdict.DENY, Reason.REVOKED, text=f"{spiffe_id} was revoked")
