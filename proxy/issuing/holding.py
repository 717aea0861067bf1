"""The X.509-SVIDs that one stream has been given, renewed before they end."""

import secrets
from collections.abc import Iterable

from certs.svid import IssuedSvid
from proxy.channel import Event
from proxy.issuing.caller import Caller
from proxy.issuing.issuer import Issuer
from proxy.issuing.refusing import DeniedError

LOOK_S = 60.0  # the longest between looks at the clock: a laptop may have slept meanwhile
_JITTER = 0.1  # of half a life, to either side: streams that began together part
_GRAINS = 1 << 16


class Holding:
    """What the caller of a stream has; `how` is the way it was asked for, as the log has it."""

    def __init__(self, issuer: Issuer, caller: Caller, how: str) -> None:
        self._issuer = issuer
        self._caller = caller
        self._how = how
        self._held: dict[str, tuple[IssuedSvid, float]] = {}

    def entitled(self) -> tuple[str, ...]:
        """Return the SPIFFE IDs that the caller may have now, revoked ones left out.

        Raises:
            DeniedError: there are none.
        """
        return entitled(self._issuer, self._caller)

    def svids(self, ids: Iterable[str]) -> tuple[IssuedSvid, ...]:
        """Return the SVIDs of `ids`, new ones where there is none that is good any more.

        Raises:
            DeniedError: one of them is revoked.
            BusyError: the app had too many.
        """
        kept: dict[str, tuple[IssuedSvid, float]] = {}
        for each in ids:
            held = self._held.get(each)
            if held is None or not self._is_good(*held):
                held = self._new(each)
            else:
                self._issuer.check(each, self._caller.app)
            kept[each] = self._held[each] = held
        self._held = kept
        return tuple(svid for svid, _ in kept.values())

    def wait_s(self) -> float:
        """Return how long there is nothing to renew, in seconds; never more than `LOOK_S`."""
        now = self._issuer.wall()
        renew_at = min((at for _, at in self._held.values()), default=now + LOOK_S)
        return min(max(renew_at - now, 0.0), LOOK_S)

    def _is_good(self, svid: IssuedSvid, renew_at: float) -> bool:
        # A clock that was set back makes it begin later; a root that is forgotten vouches no more.
        in_time = svid.not_before <= self._issuer.wall() < renew_at
        return in_time and self._issuer.domain.vouches_for(svid)

    def _new(self, spiffe_id: str) -> tuple[IssuedSvid, float]:
        svid = self._issuer.svid(spiffe_id, self._caller.app, self._how)
        now = self._issuer.wall()
        half = (svid.not_after - now) / 2
        jitter = (2 * secrets.randbelow(_GRAINS) / _GRAINS - 1) * _JITTER
        return svid, now + half * (1 + jitter)


def entitled(issuer: Issuer, caller: Caller) -> tuple[str, ...]:
    """Return the SPIFFE IDs that `caller` may have now, revoked ones left out.

    Raises:
        DeniedError: there are none; audit is told.
    """
    refused = DeniedError("no SPIFFE ID is yours: see `identity` of your app's rules")
    found = []
    for each in caller.ids or ("",):  # of a revoked app no IDs are told: ask for the app alone
        try:
            issuer.check(each, caller.app)
        except DeniedError as error:
            refused = error
        else:
            found += [each] if each else []
    if not found:
        deny(issuer, caller, refused)
    return tuple(found)


def deny(issuer: Issuer, caller: Caller, error: DeniedError, target: str = "") -> None:
    """Tell audit that `caller` is refused, and raise `error`."""
    target = target or ", ".join(caller.ids) or "workload"
    issuer.event(Event("refused", caller.app, target, allowed=False, reason=error.reason))
    raise error
