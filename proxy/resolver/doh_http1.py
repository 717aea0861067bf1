"""DoH over HTTP/1.1: requests one after the other, pipelined ones answered in their order.

RFC 9112, section 9.3.2.  A request whose answer is awaited stops the reading of those behind it.
"""

import asyncio
from collections.abc import Callable

from msgspec import Struct

from proxy.errors import PeerError
from proxy.limits import Limits
from proxy.resolver.doh_answer import PHRASES, Answer, Message, dns_answer, http_refusal
from proxy.resolver.doh_exchange import Calling, Exchange
from proxy.resolver.doh_request import DohRequest, HttpRefusal, read_doh
from proxy.resolver.query import Miss
from proxy.wire.body import ChunkedReader
from proxy.wire.fields import Field
from proxy.wire.head import BodyKind, RequestHead, read_request, write_response
from proxy.wire.section import SectionMemory
from rules.decision import Reason

_TURN = 16  # requests a turn of the loop, as Do53 over TCP
_CHUNKS_OCTETS = 512  # of chunks a step: one octet each, they take 6 us a chunk
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_SCHEME = b"https://"


class _Reading(Struct):
    """A request whose content comes: `chunks` reads it, or so many octets are `left`."""

    head: RequestHead
    request: DohRequest
    content: bytearray
    left: int
    chunks: ChunkedReader | None


class Http1:
    """One connection; `wake` is called when an answer came that was waited for."""

    def __init__(
        self,
        exchange: Exchange,
        limits: Limits,
        hit_bound: Callable[[str], None],
        wake: Callable[[], None],
    ) -> None:
        self.replies = 0
        self._exchange = exchange
        self._limits = limits
        self._hit_bound = hit_bound
        self._wake = wake
        self._memory = SectionMemory(b"host")
        self._buffer = bytearray()
        self._out: list[bytes] = []
        self._reading: _Reading | None = None
        self._pending: asyncio.Task[None] | None = None
        self._is_closing = False

    @property
    def is_waited_for(self) -> bool:
        """Whether the peer waits for a reply that is not there yet."""
        return self._pending is not None

    @property
    def is_full(self) -> bool:
        """Whether no more should be read now."""
        return self._pending is not None

    @property
    def is_done(self) -> bool:
        """Whether nothing more is to be said."""
        return self._is_closing and self._pending is None

    def take(self) -> bytes:
        """Return what is to be sent now."""
        octets = b"".join(self._out)
        self._out.clear()
        return octets

    def receive(self, data: bytes, now: float) -> bool:
        """Take octets; return whether some of them wait for another turn."""
        self._buffer += data
        return self.go_on(now)

    def go_on(self, _now: float) -> bool:
        """Take a turn's requests; return whether some wait for another."""
        for _ in range(_TURN):
            if self._is_closing or self._pending is not None or not self._step():
                return False
        return bool(self._buffer)

    def leave(self) -> None:
        """Close after the answer that is due; what was not read is for another connection."""
        self._is_closing = True

    def end(self) -> None:
        """Drop what nobody waits for any more."""
        if self._pending is not None:
            self._pending.cancel()

    def _step(self) -> bool:
        """Read one request or a part of its content; return whether there may be more."""
        try:
            if self._reading is not None:
                return self._read_content(self._reading)
            return self._read_head()
        except PeerError as error:
            is_long = self._reading is None and len(self._buffer) >= self._limits.head_octets
            if is_long:
                self._hit_bound("head_octets")
            self._refuse(HttpRefusal(431 if is_long else 400, str(error)))
            return False

    def _read_head(self) -> bool:
        read = read_request(self._buffer, self._limits, self._memory)
        if read is None:
            return False
        head, octets = read
        del self._buffer[:octets]
        body = head.body
        declared = body.octets if body.kind is BodyKind.LENGTH else None
        authority, target = _origin_form(head)
        request = read_doh(
            head.method, authority, target, head.fields, declared, self._exchange.is_call
        )
        if body.kind is BodyKind.NONE:
            self._serve(head, request, b"")
            return True
        if request.is_final:  # what follows is not read, so that nothing can follow it
            self._serve(head, request, b"", is_last=True)
            return False
        chunks = ChunkedReader(self._limits) if body.kind is BodyKind.CHUNKED else None
        self._reading = _Reading(head, request, bytearray(), body.octets, chunks)
        if head.expect_continue:  # RFC 9110, section 10.1.1
            self._out.append(_CONTINUE)
        return True

    def _read_content(self, reading: _Reading) -> bool:
        if not self._buffer:
            return False
        if reading.chunks is None:
            part = self._buffer[: reading.left]
            reading.content += part
            reading.left -= len(part)
            del self._buffer[: len(part)]
            is_whole = not reading.left
        else:
            part = self._buffer[:_CHUNKS_OCTETS]
            del self._buffer[: len(part)]
            for piece in reading.chunks.feed(bytes(part)):
                reading.content += piece
            self._buffer[:0] = reading.chunks.leftover
            is_whole = reading.chunks.done
        if len(reading.content) > self._limits.doh_body_octets:
            self._hit_bound("doh_body_octets")
            self._serve(reading.head, reading.request, None, is_last=True)
            return False
        if is_whole:
            self._reading = None
            self._serve(reading.head, reading.request, bytes(reading.content))
        return True

    def _serve(
        self,
        head: RequestHead,
        request: DohRequest,
        content: bytes | None,
        *,
        is_last: bool = False,
    ) -> None:
        answer = self._exchange.answer(request, content)
        if isinstance(answer, Miss | Calling):
            loop = asyncio.get_running_loop()
            self._pending = loop.create_task(self._finish(answer, head, request))
            return
        if isinstance(answer, Message):
            answer = dns_answer(answer, is_head=request.is_head)
        self._write(answer, head, is_last=is_last)

    async def _finish(self, waits: Miss | Calling, head: RequestHead, request: DohRequest) -> None:
        answer = await self._exchange.finish(waits, is_head=request.is_head)
        self._pending = None
        if isinstance(answer, Message):
            answer = dns_answer(answer, is_head=request.is_head)
        self._write(answer, head, is_last=self._is_closing)
        self._wake()

    def _refuse(self, refusal: HttpRefusal) -> None:
        """Answer what is no request; nothing after it can be read (RFC 9112, section 9.6)."""
        self._write(http_refusal(refusal), None, is_last=True)

    def _write(self, answer: Answer, head: RequestHead | None, *, is_last: bool) -> None:
        is_kept = head is not None and head.persistent and not is_last
        more: list[Field] = []
        if not is_kept:
            self._is_closing = True
            more.append((b"connection", b"close"))
        elif head is not None and not head.minor:  # RFC 9112, section 9.3
            more.append((b"connection", b"keep-alive"))
        self.replies += 1
        phrase = answer.phrase or PHRASES[answer.status]
        self._out.append(write_response(answer.status, phrase, (*answer.fields, *more)))
        self._out.append(answer.content)


def _origin_form(head: RequestHead) -> tuple[bytes | None, bytes]:
    """Return authority and target; an absolute-form is taken too (RFC 9112, section 3.2.2).

    Raises:
        PeerError: its authority is not that of Host.
    """
    target = head.target
    if target[: len(_SCHEME)].lower() != _SCHEME:
        return head.host, target
    authority, _, path = target[len(_SCHEME) :].partition(b"/")
    if authority != head.host:
        raise PeerError(Reason.AUTHORITY_MISMATCH, "Host is not the authority of the target")
    return authority, b"/" + path
