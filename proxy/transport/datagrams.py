"""Datagrams by the batch: recvmmsg(2) and sendmmsg(2), many for the price of one system call.

Python's own socket has neither.  They are called through the C library that Python itself is
linked with; what it writes lies in memory that is ours and stays where it is.  Such a call costs
twice that of the socket's own, so that a datagram that comes alone goes through those.
"""

import ctypes
import socket
import struct
import sys
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from proxy.transport.peer import SocketAddress

BATCH = 64  # datagrams a system call: measured best of 1 to 256
ALONE = 16  # wake-ups for one datagram each, until it is seen again whether more wait
_IPV4_OCTETS, _IPV6_OCTETS = 16, 28  # struct sockaddr_in, sockaddr_in6
_DONTWAIT = socket.MSG_DONTWAIT
_SO_TIMESTAMPNS, _SO_MEMINFO = 35, 55  # asm-generic/socket.h
_STAMP = struct.Struct("@qq")  # struct timespec
_CONTROL_OCTETS = 64  # of one control message with a time: 32
_STAMP_AT = 16  # behind struct cmsghdr
_MEMINFO = struct.Struct("@9I")  # linux/sock_diag.h: the last one is SK_MEMINFO_DROPS


class _Piece(ctypes.Structure):
    _fields_: ClassVar[Sequence[Any]] = (("base", ctypes.c_void_p), ("octets", ctypes.c_size_t))


class _Head(ctypes.Structure):
    _fields_: ClassVar[Sequence[Any]] = (
        ("name", ctypes.c_void_p),
        ("name_octets", ctypes.c_uint32),
        ("pieces", ctypes.c_void_p),
        ("piece_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_octets", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Message(ctypes.Structure):
    _fields_: ClassVar[Sequence[Any]] = (("head", _Head), ("octets", ctypes.c_uint))


_STEP = ctypes.sizeof(_Message) // ctypes.sizeof(ctypes.c_uint)
_OCTETS_AT = _Message.octets.offset // ctypes.sizeof(ctypes.c_uint)

type Answer = Callable[[bytes, float], bytes | None]
type IsLost = Callable[[float, bool], bool]
"""Whether what cannot be answered at once is given up; of a batch whose oldest came then.

The other argument is whether the batch was all that waited.
"""


class Datagrams:
    """Reads batches from one UDP socket, and answers what can be answered at once.

    The rest of a datagram of more than `octets` is cut; replies of up to `octets` go by the batch.
    What is left of a batch that `is_lost` says yes to is given up, and counted in `lost`.
    """

    def __init__(
        self, sock: socket.socket, octets: int, is_lost: IsLost = lambda *_: False
    ) -> None:
        self._socket = sock
        self._is_lost = is_lost
        self.lost = 0
        self._fd = sock.fileno()
        self._octets = octets
        self._is_ipv4 = sock.family == socket.AF_INET
        self._name_octets = _IPV4_OCTETS if self._is_ipv4 else _IPV6_OCTETS
        libc = ctypes.CDLL(None)
        self._receive = libc.recvmmsg
        self._receive.argtypes = (
            *(ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, ctypes.c_void_p),
        )
        self._send = libc.sendmmsg
        self._send.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int)
        self._names = bytearray(BATCH * self._name_octets)
        self._in = bytearray(BATCH * octets)
        self._out = bytearray(BATCH * octets)
        self._read = memoryview(self._in)
        self._received, received = self._messages(self._in)
        self._sent, sent = self._messages(self._out)
        self._lengths = memoryview(self._received).cast("B").cast("I")
        self._out_lengths = memoryview(sent).cast("B").cast("P")
        self._kept = received, sent  # what the messages point to
        self._alone = 0  # so many wake-ups more read one datagram only
        self._received_at = ctypes.addressof(self._received)
        self._sent_at = ctypes.addressof(self._sent)
        # The kernel says of the first datagram of a batch, the oldest, when it came.
        sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        self._control = bytearray(_CONTROL_OCTETS)
        self._first = self._received[0].head
        self._first.control = ctypes.addressof(ctypes.c_char.from_buffer(self._control))

    def _messages(self, area: bytearray) -> "tuple[ctypes.Array[_Message], ctypes.Array[_Piece]]":
        """Return a batch of messages whose pieces lie in `area`, and the pieces."""
        pieces, messages = (_Piece * BATCH)(), (_Message * BATCH)()
        octets_at = ctypes.addressof(ctypes.c_char.from_buffer(area))
        names_at = ctypes.addressof(ctypes.c_char.from_buffer(self._names))
        for each in range(BATCH):
            pieces[each] = _Piece(octets_at + each * self._octets, self._octets)
            head = messages[each].head
            head.name, head.name_octets = names_at + each * self._name_octets, self._name_octets
            head.pieces = ctypes.addressof(pieces) + each * ctypes.sizeof(_Piece)
            head.piece_count = 1
        return messages, pieces

    @property
    def overflown(self) -> int:
        """How many datagrams the kernel dropped for want of room."""
        packed = self._socket.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size)
        drops: int = _MEMINFO.unpack(packed)[-1]
        return drops

    def drain(
        self, answer: Answer, now: float, most: int = BATCH
    ) -> list[tuple[bytes, SocketAddress]]:
        """Read one batch and send what `answer` says to each; return those that it is None for.

        `most` datagrams are read.

        After a batch of one, some are of one whatever waits: the socket stays readable then.
        What cannot be sent is lost: the peer may be gone or its buffer full, and UDP promises
        nothing.
        """
        if self._alone:
            self._alone -= 1
            return self._drain_one(answer, now)
        self._first.control_octets = _CONTROL_OCTETS
        count = self._receive(self._fd, self._received_at, most, _DONTWAIT, None)
        left: list[tuple[bytes, SocketAddress]] = []
        if count <= 0:
            return left
        seconds, nanoseconds = _STAMP.unpack_from(self._control, _STAMP_AT)
        is_lost = self._is_lost(seconds + nanoseconds / 1e9, count < most)
        read, lengths, out, out_lengths = self._read, self._lengths, self._out, self._out_lengths
        size_most, first, begun, at = self._octets, _OCTETS_AT, 0, 0
        for each in range(count):
            wire = read[at : at + lengths[first]].tobytes()
            reply = answer(wire, now)
            if reply is None or len(reply) > size_most:
                self._flush(begun, each)
                begun = each + 1
                if reply is None and is_lost:
                    self.lost += 1
                elif reply is None:
                    left.append((wire, self._peer(each)))
                else:
                    self._send_one(reply, self._peer(each))
            else:
                size = len(reply)
                out[at : at + size] = reply
                out_lengths[2 * each + 1] = size
            first += _STEP
            at += size_most
        self._flush(begun, count)
        self._alone = ALONE if count <= 1 else 0
        return left

    def _drain_one(self, answer: Answer, now: float) -> list[tuple[bytes, SocketAddress]]:
        try:
            wire, peer = self._socket.recvfrom(self._octets)
        except OSError:  # nothing there after all, for example a wrong checksum (udp(7))
            return []
        reply = answer(wire, now)
        if reply is None:
            return [(wire, peer)]
        self._send_one(reply, peer)
        return []

    def _send_one(self, reply: bytes, peer: SocketAddress) -> None:
        try:  # noqa: SIM105 - contextlib.suppress costs as much as the rest of this path
            self._socket.sendto(reply, peer)
        except OSError:
            pass

    def _flush(self, begun: int, end: int) -> None:
        """Send the replies from `begun` to before `end`."""
        while begun < end:
            at = self._sent_at + begun * ctypes.sizeof(_Message)
            sent = self._send(self._fd, at, end - begun, _DONTWAIT)
            # An error is that of the first one: it is lost, the others are tried.
            begun += max(sent, 1)

    def _peer(self, index: int) -> SocketAddress:
        at = index * self._name_octets
        name = self._names[at : at + self._name_octets]
        port = int.from_bytes(name[2:4])
        if self._is_ipv4:
            return socket.inet_ntop(socket.AF_INET, name[4:8]), port
        # struct sockaddr_in6: flow label in network order, scope in the host's.
        flow, scope = int.from_bytes(name[4:8]), int.from_bytes(name[24:28], sys.byteorder)
        return socket.inet_ntop(socket.AF_INET6, name[8:24]), port, flow, scope
