"""The server's side of one HTTP/2 connection (RFC 9113): octets in, requests out, and back.

Pure: `receive` takes octets, the `Application` is asked for the reply to each whole request,
`take` gives what is to be sent.  The usual request, one HEADERS frame whose block was read
before, is answered in the loop of `go_on` without an object of its own.

What a peer can make us do or hold is bounded: streams, blocks, content, replies that its windows
hold back, and frames that are no request.  Each bound has its name among the limits.
"""

from collections.abc import Callable

from proxy.limits import Limits
from proxy.wire.h2_block import BlockMemory
from proxy.wire.h2_budget import Budget
from proxy.wire.h2_frame import (
    HEAD,
    HEAD_OCTETS,
    PREFACE,
    SETTINGS_ACK,
    WINDOW_OCTETS,
    ErrorCode,
    Flag,
    H2Error,
    Kind,
    Setting,
    check_octets,
    read_head,
    read_increment,
    read_settings,
    write_frame,
    write_goaway,
    write_reset,
    write_settings,
    write_window_update,
)
from proxy.wire.h2_reply import Reply
from proxy.wire.h2_sending import Sending
from proxy.wire.h2_streams import CONNECTION_WINDOW, STREAM_WINDOW, Application, Heard, Streams

TURN = 32  # requests of known heads a turn of the loop; the others wait for less than a millisecond
_READ = 6  # a frame that has to be read takes as long as so many, and one more each 256 octets
TURN_OCTETS = 262144  # written in a turn, and half a MiB of replies that are one frame each
_HEADERS = int(Kind.HEADERS)
_WHOLE = int(Flag.END_STREAM | Flag.END_HEADERS)  # a request in one frame, as clients send a GET


class H2Connection[T: Heard]:
    """One connection, from the preface on; `is_over` once a GOAWAY was written that ends it."""

    def __init__(
        self, app: Application[T], memory: BlockMemory[T], limits: Limits, now: float
    ) -> None:
        """`memory` is that of the app that connected; `now` is monotonic, in seconds."""
        self.is_over = False
        self._app = app
        self._budget = Budget(limits.doh_control_frames, limits.doh_control_frames_a_second, now)
        self._sending = Sending()
        self._streams = Streams(app, memory, limits, self._sending, self._spend)
        self._data, self._at, self._now = b"", 0, now
        self._credited = 0  # replies that the budget knows of
        self._has_preface = self._has_settings = self._is_leaving = False
        self._takers: dict[int, Callable[[int, int, bytes], None]] = {
            Kind.DATA: self._streams.take_data,
            Kind.HEADERS: self._streams.take_headers,
            Kind.PRIORITY: self._take_priority,
            Kind.RST_STREAM: self._take_reset,
            Kind.SETTINGS: self._take_settings,
            Kind.PUSH_PROMISE: self._take_push,
            Kind.PING: self._take_ping,
            Kind.GOAWAY: self._take_goaway,
            Kind.WINDOW_UPDATE: self._take_window_update,
            Kind.CONTINUATION: self._streams.take_continuation,
        }
        ours = {
            Setting.HEADER_TABLE_SIZE: 0,
            Setting.MAX_CONCURRENT_STREAMS: limits.doh_streams,
            Setting.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
            Setting.MAX_HEADER_LIST_SIZE: limits.doh_head_octets,
        }
        self._sending.write(write_settings(ours))
        self._sending.write(write_window_update(0, CONNECTION_WINDOW - WINDOW_OCTETS))

    @property
    def replies(self) -> int:
        """How many requests were answered."""
        return self._streams.replies

    @property
    def is_waited_for(self) -> bool:
        """Whether the peer waits for a reply that is not there yet."""
        return self._streams.is_waiting

    @property
    def is_done(self) -> bool:
        """Whether nothing more is to be said, so that the connection can be closed."""
        is_empty = self._streams.is_empty and not self._sending.unsent
        return self.is_over or (self._is_leaving and is_empty)

    def take(self) -> bytes:
        """Return what is to be sent now."""
        return self._sending.take()

    def receive(self, data: bytes, now: float) -> bool:
        """Take octets; return whether some of them wait for another turn (`go_on`)."""
        self._data = self._data[self._at :] + data if self._at < len(self._data) else data
        self._at = 0
        return self.go_on(now)

    def go_on(self, now: float) -> bool:
        """Take a turn's frames; return whether some wait for another."""
        self._now = now
        if self.is_over or not (self._has_preface or self._read_preface()):
            return False
        data, at, end, left = self._data, self._at, len(self._data), TURN
        streams, sending, read = self._streams, self._sending, HEAD.unpack_from
        while left > 0 and sending.octets < TURN_OCTETS:
            start = at + HEAD_OCTETS
            if start > end:
                break
            octets_and_kind, flags, stream = read(data, at)
            stop = start + (octets_and_kind >> 8)
            if stop > end:
                self._at = at
                self._take_frame(data, at, None)  # what is too long is not waited for
                return False
            if octets_and_kind & 255 == _HEADERS and flags == _WHOLE:
                # Empty unless blocks are stateless: see `h2_block`.
                known = streams.known.get(data[start:stop])
                if known is not None and streams.ask(stream, data[start - 4 : start], known):
                    at = stop
                    left -= 1
                    continue
            self._take_frame(data, at, stop)
            at = stop
            left -= _READ + (octets_and_kind >> 16)
        self._at = at
        return end - at >= HEAD_OCTETS and not self.is_over

    def reply(self, stream: int, reply: Reply) -> None:
        """Answer a request that `serve` had no reply to at once; one that was reset is dropped."""
        self._streams.reply(stream, reply)

    def leave(self) -> None:
        """Tell the peer to ask elsewhere; what it asked already is answered (section 6.8)."""
        if not self._is_leaving:
            self._is_leaving = True
            self._streams.leave()
            self._sending.write(write_goaway(self._streams.last, ErrorCode.NO_ERROR))

    def fail(self, code: ErrorCode, text: str) -> None:
        """End the connection, and tell the peer why (RFC 9113, section 5.4.1)."""
        self.is_over = True
        self._sending.write(write_goaway(self._streams.last, code, text))
        self._streams.drop_all()

    def _read_preface(self) -> bool:
        data = self._data
        if data[: len(PREFACE)] != PREFACE:
            if not PREFACE.startswith(data):  # RFC 9113, section 3.4
                self.fail(ErrorCode.PROTOCOL_ERROR, "no HTTP/2 preface")
            return False
        self._has_preface = True
        self._at = len(PREFACE)
        return True

    def _take_frame(self, data: bytes, at: int, stop: int | None) -> None:
        """Take one frame, or judge the head of one that is not there yet."""
        if self.is_over:
            return
        try:
            _, kind, flags, stream = read_head(data, at)
            self._check_order(kind, flags, stream)
            if stop is None:
                return
            taker = self._takers.get(kind)
            if taker is None:  # RFC 9113, section 4.1: ignored
                self._spend()
            else:
                taker(flags, stream, data[at + HEAD_OCTETS : stop])
        except H2Error as error:
            self._blame(error)

    def _blame(self, error: H2Error) -> None:
        if error.stream:
            self._sending.write(write_reset(error.stream, error.code))
            self._streams.drop(error.stream)
            try:
                self._spend()
            except H2Error as calm:
                error = calm
        if not error.stream:
            self.fail(error.code, str(error))

    def _check_order(self, kind: int, flags: int, stream: int) -> None:
        if not self._has_settings and (kind != Kind.SETTINGS or flags & Flag.ACK):
            raise H2Error(ErrorCode.PROTOCOL_ERROR, "SETTINGS come first")  # section 3.4
        due = self._streams.due
        if due is not None and (kind != Kind.CONTINUATION or stream != due):
            raise H2Error(ErrorCode.PROTOCOL_ERROR, "CONTINUATION is due")  # section 6.2

    def _spend(self) -> None:
        """Count a frame that is no request."""
        replies = self._streams.replies
        gained, self._credited = replies - self._credited, replies
        if not self._budget.spend(self._now, gained):
            self._app.hit_bound("doh_control_frames")
            raise H2Error(ErrorCode.ENHANCE_YOUR_CALM, "too many frames that ask nothing")

    def _take_priority(self, _flags: int, stream: int, payload: bytes) -> None:
        self._check_stream(stream)
        self._spend()
        check_octets(payload, 5, stream)

    def _take_reset(self, _flags: int, stream: int, payload: bytes) -> None:
        self._check_stream(stream)
        check_octets(payload, 4)
        if stream > self._streams.seen:  # RFC 9113, section 6.4
            raise H2Error(ErrorCode.PROTOCOL_ERROR, "RST_STREAM of a stream that is idle")
        self._streams.drop(stream)
        self._spend()

    def _take_settings(self, flags: int, stream: int, payload: bytes) -> None:
        self._check_connection(stream)
        self._spend()
        if flags & Flag.ACK:
            check_octets(payload, 0)
            self._streams.obeyed()
            return
        self._has_settings = True
        windows = None
        for setting, value in read_settings(payload):
            if setting == Setting.INITIAL_WINDOW_SIZE:
                windows = value
            elif setting == Setting.HEADER_TABLE_SIZE:
                self._sending.shrink_table(value)
        # RFC 9113, section 6.5: the last one counts.  Each moves every stream's window, and a
        # frame has room for 2730 of them (CVE-2020-11080).
        if windows is not None:
            self._sending.begin_with(windows)
        self._sending.write(SETTINGS_ACK)

    def _take_push(self, _flags: int, _stream: int, _payload: bytes) -> None:
        raise H2Error(ErrorCode.PROTOCOL_ERROR, "PUSH_PROMISE of a client")  # section 8.4

    def _take_ping(self, flags: int, stream: int, payload: bytes) -> None:
        self._check_connection(stream)
        self._spend()
        check_octets(payload, 8)
        if not flags & Flag.ACK:
            self._sending.write(write_frame(Kind.PING, Flag.ACK, 0, payload))

    def _take_goaway(self, _flags: int, stream: int, _payload: bytes) -> None:
        self._check_connection(stream)
        self._spend()  # its sender opens no stream any more, and closes when it has its replies

    def _take_window_update(self, _flags: int, stream: int, payload: bytes) -> None:
        self._spend()
        octets = read_increment(payload, stream)
        if stream > self._streams.seen:  # RFC 9113, section 5.1
            raise H2Error(ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE of a stream that is idle")
        if not stream or self._streams.has(stream) or stream in self._sending.unsent:
            self._sending.widen(stream, octets)

    def _check_stream(self, stream: int) -> None:
        if not stream:
            raise H2Error(ErrorCode.PROTOCOL_ERROR, "a frame of streams on stream 0")

    def _check_connection(self, stream: int) -> None:
        if stream:
            raise H2Error(ErrorCode.PROTOCOL_ERROR, "a frame of connections on a stream")
