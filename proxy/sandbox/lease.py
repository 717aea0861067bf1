"""A lease: what a launcher executed, and the listeners that only it can reach."""

from msgspec import Struct

from proxy.errors import ProxyError

_LENT = "lease:"  # no ADDRESS:PORT begins so


class LeaseError(ProxyError):
    """A lease cannot be granted; the text is for who launches."""


class Measured(Struct, frozen=True):
    """SHA-256 digests (hex) of what was executed; empty where there is no such file."""

    file: str
    script: str = ""
    interpreter: str = ""


class Lease(Struct, frozen=True):
    """`id` is unique for ever; `name` is what identity lines call it (`{lease: NAME}`)."""

    id: str
    name: str
    measured: Measured | None = None

    def listener(self, kind: str) -> str:
        """Return what its listeners of a `kind` are called: like none of `listen:`, ever."""
        return f"{_LENT}{self.id}:{kind}"


def is_lent(listener: str) -> bool:
    """Return whether a listener is, or was, a lease's.

    It is in a network namespace of its own: addresses there say nothing of sockets here.
    """
    return listener.startswith(_LENT)
