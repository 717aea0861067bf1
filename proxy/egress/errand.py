"""What one client connection wants of one origin: the facts that every request to it shares."""

from msgspec import Struct
from msgspec.structs import replace

from proxy.audit_fold import Repeats
from proxy.egress.known import Route
from proxy.egress.obligations import Passage
from proxy.egress.origin import OriginKey
from proxy.flow import Flow
from proxy.wire.fields import Fields
from rules.decision import UpgradeTls
from rules.facts import Connect, Request

NO_PREFIX = b"\0"  # begins no target


class Errand(Struct):
    """An origin in use.  `prefix` and `host_value` are how the client last spelled it.

    A request whose target begins with the same `prefix`, and whose Host field is the same, is
    for the same origin without parsing either again.  `host_field` is our own spelling.
    `passage` is what the Connect was allowed under `generation`; it is asked again under another.
    `repeats` counts the line of the last request, `repeated`, until `repeats_until`.
    `written` is what the last request's `fields` became, for clients that repeat themselves.
    `secured` is the key of the last request that went on over TLS.
    """

    flow: Flow
    connect: Connect
    key: OriginKey
    route: Route | None = None
    host_field: bytes = b""
    prefix: bytes = NO_PREFIX
    host_value: bytes | None = None
    passage: Passage | None = None
    generation: int = 0
    fields: Fields | None = None
    written: bytes = b""
    repeats: Repeats | None = None
    repeats_until: float = 0.0
    repeated: Request | None = None
    secured: OriginKey | None = None

    def way(self, upgrade: UpgradeTls | None) -> OriginKey:
        """Return the key of connections for what must go on like this: plain ones for None."""
        if upgrade is None:
            return self.key
        if self.secured is None or self.secured.secure != upgrade:
            self.secured = replace(self.key, secure=upgrade)
        return self.secured
