"""What is examined, and what may be found: the values that every check takes and gives."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from msgspec import Struct

from proxy.config import SOCKETS, Settings

LISTENERS = SOCKETS
STREAMS = frozenset(SOCKETS) - {"do53"}  # the others are bound on UDP as well

type Severity = Literal["error", "warning", "info"]


class Finding(Struct, frozen=True):
    """One thing that is wrong, and what to do about it.

    An `error` keeps the appliance from its work, a `warning` will or may, and `info` is how
    things are.
    """

    severity: Severity
    message: str
    cure: str


class Patient(Struct, frozen=True):
    """One installation on this host; `now` is seconds since 1970."""

    settings: Settings
    environ: Mapping[str, str]
    now: float
    uid: int
    """Of the appliance: of its process where it runs, else of who asks."""

    pid: int | None = None
    """Of the appliance that runs with this state; None where none does."""

    proc: Path = Path("/proc")
    etc: Path = Path("/etc")

    def listeners(self) -> list[tuple[str, str]]:
        """Return kind and `ADDRESS:PORT` of every configured listener."""
        listen = self.settings.listen
        return [(kind, label) for kind in LISTENERS for label in getattr(listen, kind)]
