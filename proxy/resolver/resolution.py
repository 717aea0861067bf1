"""What a look-up on behalf of the proxy yields: addresses that were decided on, or why none."""

from msgspec import Struct

from rules.address import Address
from rules.decision import Decision
from rules.name import DomainName


class Resolution(Struct, frozen=True):
    """Addresses that may be dialled for a name, in the order in which to try them.

    Each was decided as an `Endpoint` (port unknown) under `generation`.  `failure` is set when
    there is none: a DENY or FAIL with its reason.  `flow` is the errand that pinned them, `chain`
    the names that led to them.
    """

    addresses: tuple[Address, ...]
    generation: int
    failure: Decision | None = None
    flow: str = ""
    chain: tuple[DomainName, ...] = ()
