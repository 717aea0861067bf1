"""Keeping an attestation fresh: anew before it ends, at once for a new certificate.

Times are those of `clock`, in seconds, which goes on while a laptop sleeps.
"""

from collections.abc import Callable
from typing import Final

from proxy.attester.attester import Attested, Attester
from proxy.attester.errors import AttesterError, RefusedError, UnusableError
from proxy.attester.outlet import Outlet

LATEST, EARLIEST = 0.8, 0.7
"""Parts of a token's life: a thousand agents that began together do not come together.

What the appliance says is the latest: rules may name an age that is less than that life.
"""
BEAT_S: Final = 60.0
_LEAST_BEAT_S, _MOST_BEAT_S = 5.0, 600.0  # whatever the appliance asks for
_LEAST_RENEWAL_S: Final = 1.0  # whatever it says
_LOOK_S: Final = 2.0  # between looks at the certificate's files: two calls of stat(2)
_FIRST_BACKOFF_S, _MOST_BACKOFF_S = 1.0, 60.0  # RFC 8085, section 3.1.3: exponential, with a bound


class Keeper:
    """Attests again and again; `chance` gives numbers from 0 to 1, `tell` says what happens."""

    def __init__(
        self,
        attester: Attester,
        outlet: Outlet | None,
        clock: Callable[[], float],
        chance: Callable[[], float],
        tell: Callable[[str], None],
        *,
        beats: bool = False,
    ) -> None:
        self._attester = attester
        self._outlet = outlet
        self._clock = clock
        self._chance = chance
        self._tell = tell
        self._due = self._beat_due = clock()
        self._ends: float | None = None
        self._was_attested = False
        self._failures = 0
        self._beats = beats
        self._beat_fails = False
        self._stamp = attester.stamp()

    def step(self) -> float:
        """Do what is due; return after how many seconds to come again.

        Raises:
            RefusedError: the first attestation of all was refused.
            UnusableError: it could not be tried, or the outlet takes no token.
        """
        stamp = self._attester.stamp()
        if stamp != self._stamp and stamp:
            self._tell("the certificate is a new one")
            self._stamp, self._due, self._failures = stamp, self._clock(), 0
        if self._clock() >= self._due:
            self._attest()
        if self._ends is not None and self._clock() >= self._ends:
            self._drop("the token has ended")
        if self._beats and self._ends is not None and self._clock() >= self._beat_due:
            self._beat()
        return max(0.0, min(self._due - self._clock(), _LOOK_S))

    def _attest(self) -> None:
        try:
            found = self._attester.attest()
        except AttesterError as error:
            if not self._was_attested and _is_final(error):
                raise
            self._failed(error)
            return
        now = self._clock()
        latest_s = found.expires_in * LATEST
        if found.renew_in:
            latest_s = max(min(latest_s, found.renew_in), _LEAST_RENEWAL_S)
        part = 1.0 - (1.0 - EARLIEST / LATEST) * self._chance()
        self._failures, self._due = 0, now + latest_s * part
        self._ends, self._was_attested = now + found.expires_in, True
        if self._outlet is not None:
            self._outlet.put(found.token)
        self._tell(_said(found))

    def _failed(self, error: AttesterError) -> None:
        wait_s = min(_FIRST_BACKOFF_S * 2.0 ** min(self._failures, 16), _MOST_BACKOFF_S)
        wait_s *= 0.5 + self._chance() / 2
        self._failures += 1
        self._due = self._clock() + wait_s
        self._tell(f"not attested, and tried again in {wait_s:.0f} s: {error}")
        # A failed attestation voids what stood; where nobody answered, the old token may hold.
        if isinstance(error, RefusedError) and error.is_final and self._ends is not None:
            self._drop("the token is void")

    def _drop(self, why: str) -> None:
        self._ends = None
        if self._outlet is not None:
            self._outlet.put("")
        self._tell(why)

    def _beat(self) -> None:
        every_s = BEAT_S
        try:
            heard = self._attester.beat()
        except AttesterError as error:
            if not self._beat_fails:
                self._tell(f"the heartbeat failed: {error}")
            self._beat_fails = True
        else:
            every_s = min(max(heard.next_s, _LEAST_BEAT_S), _MOST_BEAT_S)
            if self._beat_fails:
                self._tell("heartbeats are heard again")
            self._beat_fails = False
            if not heard.attested:
                self._tell("the appliance knows of no attestation that stands")
                self._due = self._clock()
        self._beat_due = self._clock() + every_s * (1.0 - self._chance() / 5)


def _is_final(error: AttesterError) -> bool:
    return isinstance(error, UnusableError) or (isinstance(error, RefusedError) and error.is_final)


def _said(found: Attested) -> str:
    return f"attested as {found.level} for {found.expires_in:.0f} s"
