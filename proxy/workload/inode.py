"""The other end of a connected unix socket, by its inode: sock_diag(7), as for TCP.

/proc names the sockets that a process holds by their inodes, and a connection knows its own only.
"""

import os
import socket
import struct

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLM_F_REQUEST = 1
_SHOW_PEER = 4  # UDIAG_SHOW_PEER, linux/unix_diag.h
_PEER = 2  # UNIX_DIAG_PEER
_ALL_STATES = 0xFFFFFFFF
_NO_COOKIE = b"\xff" * 8
_HEADER = struct.Struct("=IHHII")
_REQUEST = struct.Struct("=BBHIII")
_MESSAGE_OCTETS = 16 + 16  # nlmsghdr and unix_diag_msg; attributes follow
_REPLY_OCTETS = 8192
_TIMEOUT_S = 0.1  # the kernel answers within the send; this only guards against a lost reply


class UnixDiag:
    """Answers which socket is at the other end; holds one netlink socket."""

    def __init__(self) -> None:
        self._netlink: socket.socket | None = None

    def peer(self, connection: socket.socket) -> int:
        """Return the inode of the socket that `connection` is connected to; 0 if not known."""
        inode = os.fstat(connection.fileno()).st_ino & 0xFFFFFFFF
        body = _REQUEST.pack(socket.AF_UNIX, 0, 0, _ALL_STATES, inode, _SHOW_PEER) + _NO_COOKIE
        size = _HEADER.size + len(body)
        try:
            netlink = self._opened()
            netlink.send(_HEADER.pack(size, _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, 1, 0) + body)
            return read_peer(netlink.recv(_REPLY_OCTETS), inode)
        except OSError:  # no unix_diag in this kernel, or it knows no such socket
            return 0

    def close(self) -> None:
        """Close the netlink socket."""
        if self._netlink is not None:
            self._netlink.close()
            self._netlink = None

    def _opened(self) -> socket.socket:
        if self._netlink is None:
            self._netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG)
            self._netlink.settimeout(_TIMEOUT_S)
        return self._netlink


def read_peer(reply: bytes, inode: int) -> int:
    """Return the inode of the peer in `reply`, which is to be about `inode`; 0 if it has none."""
    if len(reply) < _MESSAGE_OCTETS:
        return 0
    size, kind = struct.unpack_from("=IH", reply)
    size = min(size, len(reply))
    if kind != _SOCK_DIAG_BY_FAMILY or size < _MESSAGE_OCTETS:
        return 0
    if struct.unpack_from("=I", reply, 16 + 4) != (inode,):
        return 0
    at = _MESSAGE_OCTETS
    while at + 8 <= size:
        length, attribute = struct.unpack_from("=HH", reply, at)
        if length < 4:
            return 0
        if attribute == _PEER:
            (peer,) = struct.unpack_from("=I", reply, at + 4)
            return int(peer)
        at += (length + 3) & ~3
    return 0
