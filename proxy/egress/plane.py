"""The HTTP plane as a whole: what the composition root makes, starts and ends."""

import asyncio

from proxy.egress.connection import ClientConnection
from proxy.egress.context import Context
from proxy.transport.listen import Listener


class Egress(Context):
    """The HTTP plane: makes the protocol of each accepted connection."""

    def factory(self, listener: Listener) -> asyncio.Protocol:
        """Return the protocol of one connection that `listener` accepted."""
        return ClientConnection(self, listener)

    async def close(self, grace_s: float) -> None:
        """End what is idle and every tunnel, give requests under way `grace_s`, then end them."""
        self.pool.close()
        self.identities.close()
        await self.deadlines.drain(grace_s)
