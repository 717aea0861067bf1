"""Sockets that a launcher hands in for a lease: bound where nobody but its sandbox can be."""

import socket
from collections.abc import Sequence

from proxy.sandbox.lease import LeaseError

SOCKETS = 16  # of one lease: five kinds on both families, DNS on UDP too, are 12
_SO_NETNS_COOKIE = 71  # linux/asm-generic/socket.h, since Linux 5.14; no name in Python 3.13
_COOKIE_OCTETS = 8
_FAMILIES = frozenset({socket.AF_INET, socket.AF_INET6})
_PROTOCOLS = {socket.SOCK_STREAM: socket.IPPROTO_TCP, socket.SOCK_DGRAM: socket.IPPROTO_UDP}


def namespace_of(sock: socket.socket) -> int:
    """Return what the kernel calls the network namespace of a socket, and none other ever.

    Raises:
        LeaseError: it does not say.
    """
    try:
        cookie = sock.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, _COOKIE_OCTETS)
    except OSError as error:
        raise LeaseError(f"no namespace of a socket: {error.strerror}; Linux 5.14 tells") from error
    return int.from_bytes(cookie)


def our_namespace() -> int:
    """Return the same of this process.

    Raises:
        LeaseError: the kernel does not say.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ours:
        return namespace_of(ours)


def check_lent(sockets: Sequence[tuple[str, socket.socket]], taken: Sequence[int]) -> int:
    """Return the one namespace of the `sockets` of a lease, each with its kind of listener.

    `taken` are the namespaces of others, our own among them: whoever is there could come to these
    sockets, too.

    Raises:
        LeaseError: one is not what the kind accepts on, or not of a namespace of its own.
    """
    if not 1 <= len(sockets) <= SOCKETS:
        raise LeaseError(f"a lease has 1 to {SOCKETS} sockets")
    for kind, sock in sockets:
        _check(kind, sock)
    found = {namespace_of(sock) for _, sock in sockets}
    if len(found) > 1 or found & {*taken}:
        raise LeaseError("the sockets of a lease are in one network namespace that is its own")
    return found.pop()


def _check(kind: str, sock: socket.socket) -> None:
    wanted = _PROTOCOLS.get(sock.type)
    is_known = sock.family in _FAMILIES and wanted is not None and sock.proto in {0, wanted}
    if not is_known or sock.getsockopt(socket.SOL_SOCKET, socket.SO_PROTOCOL) != wanted:
        raise LeaseError("a listener is a socket of TCP or UDP")
    if not sock.getsockname()[1]:
        raise LeaseError("a listener is bound to a port")
    if sock.type == socket.SOCK_STREAM:
        if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            raise LeaseError(f"the socket for {kind} does not accept")
    elif kind != "do53":
        raise LeaseError(f"{kind} is not spoken over UDP")
    elif _is_connected(sock):
        raise LeaseError("the socket for do53 is connected to one peer")


def _is_connected(sock: socket.socket) -> bool:
    try:
        sock.getpeername()
    except OSError:
        return False
    return True
