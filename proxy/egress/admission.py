"""Room for a client connection: counted per listener and per app from accept to the end."""

import asyncio

from proxy.egress.context import Context
from proxy.transport.listen import Listener

_SPARE = 8  # a bound and an eighth: beyond that nobody is told why any more


class Admission:
    """One connection's place; `release` gives it back once, whoever owns the transport then."""

    __slots__ = ("_app", "_context", "_listener", "_transport")

    def __init__(
        self, context: Context, listener: Listener, transport: asyncio.BaseTransport, app: str
    ) -> None:
        self._context = context
        self._listener = listener
        self._transport: asyncio.BaseTransport | None = transport
        self._app = app

    def enter(self) -> bool:
        """Count the connection; False where the listener or the app is at its bound."""
        context, app = self._context, self._app
        assert self._transport is not None  # noqa: S101 - for the type checker
        used = context.connections.get(app, 0) + 1
        context.connections[app] = used
        has_share = used <= context.limits.proxy_connections_per_app
        if not has_share:
            context.metrics.bounds.add("proxy_connections_per_app")
        room = self._listener.admit(self._transport, has_share=has_share)
        context.metrics.connections.add("proxy", "accepted" if room else "refused")
        return room

    @property
    def is_flooded(self) -> bool:
        """Whether so many are over the bound that telling each why would be one more."""
        used = self._context.connections.get(self._app, 0)
        listener = self._listener
        return used > _most(
            self._context.limits.proxy_connections_per_app
        ) or listener.connections > _most(listener.limit)

    def release(self) -> None:
        """Give the place back."""
        if self._transport is None:
            return
        self._listener.release(self._transport)
        self._transport = None
        left = self._context.connections[self._app] - 1
        if left:
            self._context.connections[self._app] = left
        else:
            del self._context.connections[self._app]


def _most(bound: int) -> int:
    return bound + bound // _SPARE + 1
