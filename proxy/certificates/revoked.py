"""What was revoked, as the planes see it: a certificate or an app comes in, a revocation out.

A SPIFFE ID and an app stay revoked until they are restored: a new certificate, token or process
changes nothing.  A serial number stays so as well, or until the certificate has ended, where that
is known.  Tokens are revoked in their own file (`proxy.tokens`).
"""

from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from math import inf
from types import MappingProxyType

from msgspec import Struct

from proxy.certificates.svid import Svid
from proxy.errors import ConfigError

FILE_NAME = "revoked.sqlite"
"""In the folder of state."""


class Kind(StrEnum):
    """What a revocation is about."""

    SPIFFE_ID = "spiffe-id"
    SERIAL = "serial"
    APP = "app"


class Revocation(Struct, frozen=True):
    """One thing that counts for nothing since `at`, and until `until`, None: until restored.

    `value` is a SPIFFE ID, a serial number in lower-case hex without leading zeros, or the name of
    an app.  `why` are the words of the admin `by_uid`: for audit, never for agents.  Times are Unix
    time in seconds.
    """

    kind: Kind
    value: str
    at: float
    why: str = ""
    by_uid: int = 0
    until: float | None = None

    @property
    def key(self) -> tuple[Kind, str]:
        """What it is about; there is one revocation of it at most."""
        return self.kind, self.value

    def stands(self, now: float) -> bool:
        """Return whether it has not ended by itself at `now`."""
        return self.until is None or now < self.until


class Change(Struct, frozen=True):
    """What is revoked since a moment ago, and what no more.

    `is_ours`: whoever asked this process for it tells audit of it; else nobody else does.
    """

    revoked: tuple[Revocation, ...]
    restored: tuple[Revocation, ...]
    is_ours: bool = False

    @property
    def kinds(self) -> frozenset[Kind]:
        """What kinds are among it."""
        return frozenset(each.kind for each in (*self.revoked, *self.restored))


class UnknownRevocationError(ConfigError):
    """Nothing that is revoked, or more than one thing, is meant by what was written."""


def full(most: int) -> ConfigError:
    """Return what to say where there is no room: no standing one is forgotten for another."""
    return ConfigError(
        f"there are {most} revocations already; restore what is out of use"
        " (`sallyport revoked` shows all), or raise limits.revocations"
    )


def serial_text(number: int) -> str:
    """Return a certificate's serial number as revocations and `Svid` write it."""
    return format(number, "x")


class Revocations:
    """Everything that is revoked now; ask it from the loop's thread only.

    `epoch` changes with everything that may change an answer: who keeps an answer asks again when
    it has changed.
    """

    def __init__(self) -> None:
        self.epoch = 0
        self._known: dict[tuple[Kind, str], Revocation] = {}
        self._apps: dict[str, Revocation] = {}
        self._callbacks: list[Callable[[Change], object]] = []
        self._next = inf  # when the first of them ends by itself

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._known)

    @property
    def apps(self) -> Mapping[str, Revocation]:
        """The apps that are revoked; another mapping after each change, and never changed."""
        return MappingProxyType(self._apps)

    def app(self, name: str) -> Revocation | None:
        """Return the revocation of the app `name`; None while it is not revoked."""
        return self._apps.get(name)

    def of(self, svid: Svid) -> Revocation | None:
        """Return why `svid` counts for nothing: its serial number, else its SPIFFE ID."""
        if not self._known:
            return None
        return self.get(Kind.SERIAL, svid.serial) or self.get(Kind.SPIFFE_ID, svid.spiffe_id)

    def get(self, kind: Kind, value: str) -> Revocation | None:
        """Return the revocation of `value`; None where there is none."""
        return self._known.get((kind, value))

    def all(self) -> tuple[Revocation, ...]:
        """Return every one of them, the oldest first."""
        return tuple(sorted(self._known.values(), key=lambda each: (each.at, each.key)))

    def on_change(self, callback: Callable[[Change], object]) -> None:
        """Call `callback` with what changed, once `epoch` has: before the change is acknowledged.

        Callbacks run in the order in which they were given, and must not raise.
        """
        self._callbacks.append(callback)

    def use(self, known: Iterable[Revocation], *, is_ours: bool = False) -> Change:
        """Know exactly these from now on, and tell of what changed by it."""
        before, self._known = self._known, {each.key: each for each in known}
        change = Change(_without(self._known, before), _without(before, self._known), is_ours)
        if before == self._known:
            return change
        self._apps = {each.value: each for each in self._known.values() if each.kind is Kind.APP}
        self._next = min((each.until for each in self.all() if each.until is not None), default=inf)
        self.epoch += 1
        for callback in self._callbacks:
            callback(change)
        return change

    def look(self, now: float) -> None:
        """Forget what has ended by itself, the certificate with it; to be called now and then."""
        if now < self._next:
            return
        self._known = {key: each for key, each in self._known.items() if each.stands(now)}
        self._next = min((each.until for each in self.all() if each.until is not None), default=inf)


def _without(
    some: Mapping[tuple[Kind, str], Revocation], others: Mapping[tuple[Kind, str], Revocation]
) -> tuple[Revocation, ...]:
    return tuple(each for key, each in some.items() if key not in others)
