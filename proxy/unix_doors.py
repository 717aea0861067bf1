"""The unix sockets that we accept on, bound before anything is served."""

from collections.abc import Iterable
from pathlib import Path

from msgspec import Struct

from proxy.binding import Bound
from proxy.config import Settings
from proxy.control.place import (
    EXT_AUTHZ,
    OPEN_WORKLOAD,
    WORKLOAD,
    ControlSocket,
    bind_control,
    bind_door,
)
from proxy.workload.doors import Handed, Sockets

ISSUERS = frozenset({"enroll", "pki"})
"""The kinds of TCP listeners on which the issuer itself accepts."""


class Doors(Struct, frozen=True):
    """Those that are configured."""

    control: ControlSocket | None
    workload: ControlSocket | None
    ext_authz: ControlSocket | None

    def sockets(self, bound: Iterable[Bound]) -> Sockets:
        """Return what the issuer serves: of these, and of the TCP sockets `bound`."""
        handed = (
            Handed(each.kind, each.label, each.socket) for each in bound if each.kind in ISSUERS
        )
        return Sockets(self.workload, self.ext_authz, tuple(handed))


def bind_doors(settings: Settings) -> Doors:
    """Return the listening sockets; that of control is first: it knows whether we run already.

    Raises:
        ConfigError: there is no such group.
        BindError: one of them cannot be had, or an appliance runs already.
    """
    listen = settings.listen
    control = bind_control(Path(listen.control), listen.control_group) if listen.control else None
    # Under --system agents are other users; else only our own could reach the folder anyway.
    kind = OPEN_WORKLOAD if settings.system else WORKLOAD
    workload = bind_door(kind, Path(listen.workload)) if listen.workload else None
    path, group = listen.ext_authz, listen.control_group
    ext_authz = bind_door(EXT_AUTHZ, Path(path), group) if path else None
    return Doors(control, workload, ext_authz)
