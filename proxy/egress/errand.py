"""What one client connection wants of one origin: the facts that every request to it shares."""

from msgspec import Struct

from proxy.audit_fold import Repeats
from proxy.egress.known import Route
from proxy.egress.obligations import Passage
from proxy.egress.origin import OriginKey
from proxy.flow import Flow
from proxy.wire.fields import Fields
from rules.facts import Connect, Request

NO_PREFIX = b"\0"  # begins no target


class Errand(Struct):
    """An origin in use.  `prefix` and `host_value` are how the client last spelled it.

    A request whose target begins with the same `prefix`, and whose Host field is the same, is
    for the same origin without parsing either again.  `host_field` is our own spelling.
    `passage` is what the Connect was allowed under `generation`; it is asked again under another.
    `repeats` counts the line of the last request, `repeated`, until `repeats_until`.
    `written` is what the last request's `fields` became, for clients that repeat themselves.
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
