"""Pins: the addresses that a name was answered with, which alone may be dialled for it.

A pin is committed before the reply is written, so that no second look-up can differ from the
one that was decided on (DNS rebinding).  It counts only under the generation of the rules that
decided it, and only for the app that asked; after a reload it is decided again when it is next
asked for.
"""

from msgspec import Struct
from msgspec.structs import replace

from proxy.limits import Limits
from proxy.metrics import Metrics
from proxy.resolver.answer import Answer
from proxy.resolver.cache import Key
from rules.address import Address
from rules.name import DomainName


class Pin(Struct, frozen=True):
    """Addresses for a name, until `expires` (seconds of the caller's clock).

    `flow` is the errand whose answer pinned them, `chain` the names that it went through.
    `is_whole`: nothing was taken out of the answer, which other rules might leave in.
    """

    addresses: tuple[Address, ...]
    expires: float
    generation: int
    flow: str
    chain: tuple[DomainName, ...] = ()
    is_whole: bool = False


class Pins:
    """The pins of every app: `limits.pins` each, `limits.apps_remembered` apps.

    At either bound the oldest makes room, which is counted.  A and AAAA are asked apart and so
    are pinned apart: the answer to one does not undo the other.
    """

    def __init__(self, limits: Limits, metrics: Metrics) -> None:
        self._limits = limits
        self._metrics = metrics
        self._apps: dict[str, dict[Key, Pin]] = {}

    def pin(
        self,
        key: Key,
        answer: Answer,
        now: float,
        generation: int,
        flow: str,
        *,
        is_whole: bool = False,
    ) -> None:
        """Pin the addresses of `answer`, in place of an older pin of `key`.

        A pin lives as long as its answer, but not less than `limits.pin_s`: applications keep
        addresses for longer than a short TTL says.  An answer without addresses pins nothing
        and leaves what was pinned.
        """
        if not answer.addresses:
            return
        pins = self._pins(key[0])
        expires = now + max(answer.ttl, self._limits.pin_s)
        pins.pop(key, None)  # the end of a dict is the newest
        pins[key] = Pin(answer.addresses, expires, generation, flow, answer.chain, is_whole)
        self._metrics.pins.add("pinned")
        if len(pins) > self._limits.pins:
            del pins[next(iter(pins))]
            self._metrics.bounds.add("pins")
            self._metrics.pins.add("evicted")

    def get(self, key: Key, now: float, generation: int) -> Pin | None:
        """Return the pin of `key`; None when none holds under `generation`."""
        pin = self._apps.get(key[0], {}).get(key)
        if pin is None or now >= pin.expires or pin.generation != generation:
            return None
        return pin

    def take(self, key: Key, now: float) -> Pin | None:
        """Take out what other rules pinned for `key`, to be decided again and then `renew`ed.

        None where nothing is pinned, or it cannot be decided again.
        """
        pin = self._apps.get(key[0], {}).pop(key, None)
        return pin if pin is not None and now < pin.expires and pin.is_whole else None

    def renew(self, key: Key, pin: Pin, generation: int) -> Pin:
        """Put back what was taken out: the rules of `generation` decide it alike."""
        renewed = self._pins(key[0])[key] = replace(pin, generation=generation)
        self._metrics.pins.add("renewed")
        return renewed

    def _pins(self, app: str) -> dict[Key, Pin]:
        pins = self._apps.pop(app, {})
        self._apps[app] = pins
        if len(self._apps) > self._limits.apps_remembered:
            del self._apps[next(iter(self._apps))]
            self._metrics.bounds.add("apps_remembered")
        return pins
