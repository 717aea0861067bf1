"""DoH over HTTP/2: the requests of `wire.h2_connection` to the answers of `doh_exchange`.

The usual request is a GET whose header block came before and whose query is a hit: its block
gives the query, the query the reply, and two frame heads are all that is put around it.
"""

import asyncio
from collections.abc import Callable

from proxy.limits import Limits
from proxy.resolver.doh_answer import Answer, Message, dns_answer, dns_fields
from proxy.resolver.doh_exchange import Calling, Exchange
from proxy.resolver.doh_request import DohRequest, Made, read_doh
from proxy.resolver.hits import Hit
from proxy.resolver.query import Miss
from proxy.wire.h2_block import BlockMemory, write_block
from proxy.wire.h2_connection import H2Connection
from proxy.wire.h2_fields import H2Request
from proxy.wire.h2_reply import Reply, whole

_ENDINGS = 4096  # by length and TTL; a hundred octets each
_MADE_OCTETS = 1024  # longer replies are not kept beside the head that asks for them


class Endings:
    """What stands around a DNS message of a certain length and TTL; at the bound all go."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], Reply] = {}

    def of_hit(self, request: DohRequest, wire: bytes, hit: Hit) -> Reply:
        """Return the reply to a request for `wire`, as made for the last one where it is."""
        last, octets = request.last, hit.reply
        if last is not None and last.octets is octets and last.ttl_s == hit.ttl_s:
            return last.reply
        reply = self.around(wire[:2] + octets, hit.ttl_s)
        if request.wire is not None and len(octets) <= _MADE_OCTETS:
            request.last = Made(octets, hit.ttl_s, reply)
        return reply

    def around(self, message: bytes, fresh_s: int) -> Reply:
        """Return the reply that carries a message."""
        key = len(message), fresh_s
        known = self._known.get(key)
        if known is not None:
            return Reply(known.head, known.middle, known.block, message)
        made = whole(write_block(200, dns_fields(*key)), message)
        if len(self._known) >= _ENDINGS:
            self._known.clear()
        self._known[key] = Reply(made.head, made.middle, made.block, b"")
        return made


class Http2:
    """One connection; `wake` is called when an answer came that was waited for."""

    def __init__(
        self,
        exchange: Exchange,
        memory: BlockMemory[DohRequest],
        endings: Endings,
        limits: Limits,
        hit_bound: Callable[[str], None],
        wake: Callable[[], None],
    ) -> None:
        self.hit_bound = hit_bound
        self._exchange = exchange
        self._endings = endings
        self._wake = wake
        self._loop = asyncio.get_running_loop()
        self._pending: dict[int, asyncio.Task[None]] = {}
        self._connection = H2Connection(self, memory, limits, self._loop.time())
        self.take = self._connection.take
        self.leave = self._connection.leave
        self.receive = self._connection.receive
        self.go_on = self._connection.go_on

    @property
    def replies(self) -> int:
        """How many requests were answered."""
        return self._connection.replies

    @property
    def is_waited_for(self) -> bool:
        """Whether the peer waits for a reply that is not there yet."""
        return self._connection.is_waited_for

    @property
    def is_done(self) -> bool:
        """Whether nothing more is to be said."""
        return self._connection.is_done

    @property
    def is_full(self) -> bool:
        """Whether no more should be read now; frames bound themselves."""
        return False

    def end(self) -> None:
        """Drop what nobody waits for any more."""
        for task in self._pending.values():
            task.cancel()

    def hear(self, request: H2Request) -> DohRequest:
        """Return what a head asks for."""
        method, authority, path = request.method, request.authority, request.path
        is_call = self._exchange.is_call
        return read_doh(method, authority, path, request.fields, request.octets, is_call)

    def serve(self, stream: int, request: DohRequest, content: bytes | None) -> Reply | None:
        """Return the reply to a request, or None while it is looked up."""
        if request.is_usual:
            wire = request.wire or content
            if wire and (hit := self._exchange.find(request, wire)) is not None:
                return self._endings.of_hit(request, wire, hit)
        answer = self._exchange.answer(request, content)
        if not isinstance(answer, Miss | Calling):
            return self._rendered(answer, request)
        task = self._loop.create_task(self._finish(stream, answer, request))
        self._pending[stream] = task
        task.add_done_callback(lambda _: self._pending.pop(stream, None))
        return None

    def cancel(self, stream: int) -> None:
        """Stop waiting for the answer on a stream that was reset."""
        task = self._pending.get(stream)
        if task is not None:
            task.cancel()

    async def _finish(self, stream: int, waits: Miss | Calling, request: DohRequest) -> None:
        answer = await self._exchange.finish(waits, is_head=request.is_head)
        self._connection.reply(stream, self._rendered(answer, request))
        self._wake()

    def _rendered(self, answer: Answer | Message, request: DohRequest) -> Reply:
        if isinstance(answer, Message):
            if not request.is_head:
                return self._endings.around(answer.octets, answer.fresh_s)
            answer = dns_answer(answer, is_head=True)
        return whole(write_block(answer.status, answer.fields), answer.content)
