"""How closely an app's look-ups are watched for what leaks through them."""

from enum import IntEnum

from msgspec import Struct


class Mode(IntEnum):
    """What comes of a finding; a greater value is stricter, and includes the lesser ones."""

    OFF = 0
    OBSERVE = 1  # counted and listed
    ALERT = 2  # and told in audit, once
    BLOCK = 3  # and refused, until an admin clears it


class Detect(Struct, frozen=True, order=True):
    """What is done about tunnels, fast flux and CNAME cloaking (docs/detection.md)."""

    mode: Mode = Mode.BLOCK
    flux: Mode = Mode.OBSERVE
    cloaking: Mode = Mode.OBSERVE
