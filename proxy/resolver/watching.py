"""Who is shown every look-up that goes out, and may refuse it: the seam to the tunnel detector."""

from typing import Protocol

from proxy.flow import Flow
from proxy.resolver.response import Response
from proxy.resolver.walk import Walked
from rules.decision import Decision
from rules.facts import Question
from rules.name import DomainName


class Watching(Protocol):
    """Counts what leaves for an app, and what comes back."""

    async def admit(self, flow: Flow, question: Question, decision: Decision, /) -> Decision | None:
        """Count a question that is about to be asked upstream; return why it must not be.

        `decision` allows it, and its `Watch` says how closely to look.  A new block is on the disk
        when this returns.
        """

    def answered(
        self,
        flow: Flow,
        question: Question,
        decision: Decision,
        response: Response,
        walked: Walked,
        /,
    ) -> Decision | None:
        """Learn from an answer; return why it must not be handed on (fast flux, cloaking)."""

    def connected(self, app: str, name: DomainName, /) -> None:
        """Learn that the proxy is about to reach `name`, which it may: it is no mere message."""


class Unwatched:
    """Nobody watches."""

    async def admit(self, *_: object) -> Decision | None:
        """Return None: let it go."""
        return None

    def answered(self, *_: object) -> Decision | None:
        """Return None: hand it on."""
        return None

    def connected(self, *_: object) -> None:
        """Do nothing."""


UNWATCHED = Unwatched()
