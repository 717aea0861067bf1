"""One errand of an agent: what stays true from its first octet to its last."""

from enum import StrEnum

from msgspec import Struct

from rules.facts import Principal

_VERSION_AND_VARIANT = (0x7 << 76) | (0x2 << 62)
_RANDOM_A_MASK = 0xFFF << 64
_RANDOM_B_MASK = (1 << 62) - 1


class Plane(StrEnum):
    """Which plane an errand is on."""

    DNS = "dns"
    HTTP = "http"
    CONTROL = "control"


class Flow(Struct):
    """An errand: the question, its answer, the connection and the requests share `id`.

    `peer` is `ADDRESS:PORT` of the agent; `listener` the `ADDRESS:PORT` of ours that it came to.
    """

    id: str
    principal: Principal
    plane: Plane
    peer: str = ""
    listener: str = ""


def new_id(now: float, entropy: bytes) -> str:
    """Return a UUIDv7 as 32 hex digits (RFC 9562, section 5.7).

    `now` is Unix time in seconds; `entropy` is ten random octets.
    """
    random = int.from_bytes(entropy[:10])
    value = int(now * 1000) << 80 | _VERSION_AND_VARIANT
    return f"{value | random & _RANDOM_B_MASK | (random >> 4) & _RANDOM_A_MASK:032x}"
