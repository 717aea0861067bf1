"""A request to the API at our own host: its content is read whole, then it is answered.

What reads content for origins reads it here, and all of it has to come within `head_s`, as a head
has to, so that a body that drips holds nothing for long.
"""

import asyncio
from collections.abc import Coroutine
from typing import Protocol

from proxy.agent_api.api import AgentApi
from proxy.agent_api.asked import Answer, Asked
from proxy.agent_api.rendering import CONTINUE, media_type_of, write_http1
from proxy.egress.asker import Asker
from proxy.egress.content import reader_of
from proxy.egress.context import Context
from proxy.egress.origin import OriginKey
from proxy.egress.standing import GONE, Told
from proxy.flow import Flow
from proxy.wire.fields import request_malformed
from proxy.wire.head import BodyKind, RequestHead
from rules.decision import Decision
from rules.facts import Facts, Request

_REFUSED = 400  # RFC 9110, section 15.5: from here on


class Visitor(Protocol):
    """The client's connection, as a request to us needs it."""

    asker: Asker
    context: Context
    transport: asyncio.Transport

    def attend(self, inward: "Inward") -> None:
        """Give what comes to `inward` until its content is whole."""

    def start(self, work: Coroutine[None, None, None]) -> None:
        """Let `work` answer; nothing else is begun meanwhile."""

    def refuse(self, flow: Flow, facts: Facts, decision: Decision, head: RequestHead) -> None:
        """Answer with the reason, and record it."""

    def respond(self, head: RequestHead, octets: bytes, *, is_read: bool = False) -> None:
        """Answer with a response of our own; `is_read`: the content of the request was read."""

    def stay(self) -> None:
        """Last until the request under way is answered, whatever ends the connection meanwhile."""


class Inward:
    """One request of the API; it stands in the place of an exchange while its content comes."""

    __slots__ = (
        "_api", "_client", "_content", "_facts", "_flow", "_head", "_most", "_reader", "_stays",
    )  # fmt: skip

    begun = False  # no part of a response was sent
    key: OriginKey | None = None  # nothing of it goes to an origin

    def __init__(
        self, api: AgentApi, client: Visitor, flow: Flow, facts: Request, head: RequestHead
    ) -> None:
        limits = client.context.limits
        self._api = api
        self._client = client
        self._flow = flow
        self._facts = facts
        self._head = head
        self._content = bytearray()
        self._stays = False
        self._most = limits.agent_api_octets
        self._reader = reader_of(head.body, limits, request_malformed)

    @property
    def sent(self) -> bool:
        """Whether the content is whole."""
        return self._reader.done

    def begin(self) -> None:
        """Answer at once, or let the content come."""
        head = self._head
        if self._reader.done:
            self._client.start(self._answer())
        elif head.body.kind is BodyKind.LENGTH and head.body.octets > self._most:
            self._refuse_length()
        else:
            if head.expect_continue:  # RFC 9110, section 10.1.1
                self._client.transport.write(CONTINUE)
            self._client.attend(self)

    def send(self, data: bytes) -> bytes:
        """Take content; return what follows its end.

        Raises:
            PeerError: the chunked coding is malformed.
        """
        reader = self._reader
        for piece in reader.feed(data):
            self._content += piece
        if len(self._content) > self._most:
            self._refuse_length()
        elif reader.done:
            self._client.start(self._answer())
            return reader.leftover
        return b""

    async def _answer(self) -> None:
        client, head, principal = self._client, self._head, self._facts.principal
        value = client.asker.value
        answer = await self._api.answer(self._asked())
        now = client.asker.again(value)
        if not isinstance(now, Decision) and now.app != principal.app:
            now = GONE
        # What is given is for who asked, and for nobody else.  A refusal gives nothing, and may
        # say why the certificate of who asks was revoked a moment ago.
        if isinstance(now, Decision) and answer.status < _REFUSED:
            client.refuse(self._flow, self._facts, now, head)
        else:
            self._respond(answer, is_read=True)

    def _refuse_length(self) -> None:
        """Answer while more comes: what follows cannot be told from it, so that nothing may."""
        self._respond(self._api.too_long(self._asked()), is_read=False)

    def _respond(self, answer: Answer, *, is_read: bool) -> None:
        head = self._head
        close = self._stays or not (is_read and head.persistent and head.minor)
        octets = write_http1(answer, is_head=head.method == "HEAD", close=close)
        self._client.respond(head, octets, is_read=is_read)

    def _asked(self) -> Asked:
        facts = self._facts
        caller = self._client.asker.caller(facts.principal)
        media_type = media_type_of(self._head.fields)
        content, stay = bytes(self._content), self._stay
        return Asked(facts.method, facts.path, caller, media_type, content, stay=stay)

    def _stay(self) -> None:
        """Let the connection last until this is answered, and no longer."""
        self._stays = True
        self._client.stay()

    # What else is asked of an exchange

    def client_lost(self) -> None:
        """Nothing is held but what goes with the connection."""

    client_full = client_ready = client_lost

    def stale(self) -> Decision | None:
        """Return None: no rule says whether an agent may ask us."""
        return None

    def disowned(self) -> Decision | None:
        """Return why what was presented counts for nobody now; None while it does."""
        now = self._client.asker.again(self._client.asker.value)
        return now if isinstance(now, Decision) else None

    def halt(self, decision: Decision) -> Told | None:  # noqa: ARG002 - its line is written already
        """Drop it; the connection is ended by who says so."""
        return None
