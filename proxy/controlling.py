"""The control API behind both of its doors: the unix socket, and TLS for admins elsewhere."""

from collections.abc import Iterable

from proxy.binding import Bound
from proxy.control.admins import Admins
from proxy.control.listener import Control
from proxy.control.place import ControlSocket
from proxy.control.remote import AdminTls, RemoteControl
from proxy.control.status import Sources
from proxy.limits import Limits
from proxy.metrics import Metrics

KIND = "control_tls"


class Controlling:
    """Serves it; one for the life of an appliance."""

    def __init__(self, limits: Limits, metrics: Metrics) -> None:
        self._limits = limits
        self._metrics = metrics
        self._control: Control | None = None
        self._remote: RemoteControl | None = None

    @property
    def problem(self) -> str | None:
        """What is wrong; None where nothing is."""
        return None if self._control is None else self._control.problem

    async def start(self, sources: Sources, door: ControlSocket | None) -> None:
        """Answer at the unix socket from now on, where there is one."""
        self._control = Control(sources, self._limits, self._metrics)
        await self._control.start(door)

    async def start_remote(
        self, bound: Iterable[Bound], admins: Admins, tls: AdminTls | None
    ) -> None:
        """Answer on sockets of `listen.control_tls` from now on; `start` came before."""
        if tls is None or self._control is None:
            return
        routes = self._control.routes
        self._remote = RemoteControl(routes, admins, tls, self._limits, self._metrics)
        for each in bound:
            if each.kind == KIND:
                await self._remote.start(each.socket, each.label)

    async def close(self) -> None:
        """Answer nobody any more."""
        for each in (self._remote, self._control):
            if each is not None:
                await each.close()
