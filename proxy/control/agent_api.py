"""The agent-facing API on the control API: the same routes, for whoever may ask here.

Over the unix socket the kernel says who asks, and there is no key to bind anything to.  An admin
elsewhere has the key of his certificate; where rules name an app by it he is that app, too.
"""

from collections.abc import Callable

from proxy.agent_api.api import AgentApi
from proxy.agent_api.asked import ADMIN, Answer, Asked, Caller
from proxy.attested.binding import of_key
from proxy.control.admins import Admin
from proxy.control.asked import Asked as AskedHere
from proxy.control.asked import Asker
from proxy.flow import Plane
from rules.decision import Decision
from rules.facts import Principal

type Vouched = Callable[[str], Principal | Decision]
"""Returns whom a SPIFFE ID names that somebody has verified: `Identifier.vouched`."""

_LISTENER = "control"


class MountedApi:
    """Answers requests of the control API that are the agent-facing one's."""

    def __init__(self, api: AgentApi, vouched: Vouched) -> None:
        self._api = api
        self._vouched = vouched

    def takes(self, asked: AskedHere) -> bool:
        """Return whether a request is for it."""
        return self._api.takes(_path(asked))

    async def answer(self, asked: AskedHere) -> Answer:
        """Return its answer; never raises."""
        caller = self._caller(asked.caller)
        return await self._api.answer(
            Asked(asked.method, _path(asked), caller, asked.media_type, asked.content)
        )

    def _caller(self, asker: Asker) -> Caller:
        if not isinstance(asker, Admin):
            return Caller(ADMIN, Plane.CONTROL, _LISTENER, is_admin=True)
        svid = asker.svid
        named = self._vouched(svid.spiffe_id)
        if isinstance(named, Decision):
            return Caller(ADMIN, Plane.CONTROL, _LISTENER, svid, is_admin=True)
        return Caller(named, Plane.CONTROL, _LISTENER, svid, of_key(svid), is_admin=True)


def _path(asked: AskedHere) -> str:
    return "/" + "/".join(asked.path)
