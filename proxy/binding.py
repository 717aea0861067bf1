"""Every socket that we accept on, bound before anything is served."""

import errno
import socket
from ipaddress import ip_address

from msgspec import Struct

from proxy.config import SOCKETS, Listen, read_socket, write_socket
from proxy.errors import BindError
from proxy.transport.listen import bind_tcp, bind_udp
from rules.address import Address

_FREE_PORT_TRIES = 8  # a free TCP port may be taken on UDP


class Bound(Struct, frozen=True):
    """One socket: its kind of listener, and `label`, the `ADDRESS:PORT` that `listen:` says."""

    kind: str
    label: str
    socket: socket.socket

    @property
    def address(self) -> tuple[Address, int]:
        """The address and port that the socket really has."""
        host, port = self.socket.getsockname()[:2]
        return ip_address(host), port


def bind_listeners(listen: Listen) -> tuple[list[Bound], list[str]]:
    """Return every socket of `listen`, and notes on default ones that this host cannot have.

    Raises:
        BindError: a socket that was asked for cannot be had; those bound before are closed.
    """
    bound: list[Bound] = []
    notes: list[str] = []
    for kind in SOCKETS:
        for label in getattr(listen, kind):
            try:
                bound += _bind(kind, label)
            except BindError as error:
                if label in listen.skippable and _lacks_ipv6(label, error):
                    notes.append(f"skipped {kind} {label}: this host has no IPv6")
                    continue
                close_all(bound)
                raise
    return bound, notes


def close_all(bound: list[Bound]) -> None:
    """Close every socket."""
    for each in bound:
        each.socket.close()


def listening(bound: list[Bound]) -> dict[str, list[str]]:
    """Return the real `ADDRESS:PORT` of every listener by kind."""
    found: dict[str, list[str]] = {kind: [] for kind in SOCKETS}
    for each in bound:
        where = write_socket(*each.address)
        if where not in found[each.kind]:
            found[each.kind].append(where)
    return found


def _bind(kind: str, label: str) -> list[Bound]:
    address, port = read_socket(label)
    if kind != "do53":
        return [Bound(kind, label, bind_tcp(str(address), port))]
    return [Bound(kind, label, each) for each in _bind_both(str(address), port)]


def _bind_both(address: str, port: int) -> tuple[socket.socket, socket.socket]:
    """Return a UDP and a TCP socket on one port: a server has both (RFC 7766, section 5)."""
    tries = 1 if port else _FREE_PORT_TRIES
    while True:
        stream = bind_tcp(address, port)
        try:
            return bind_udp(address, stream.getsockname()[1]), stream
        except BindError:
            stream.close()
            tries -= 1
            if not tries:
                raise


def _lacks_ipv6(label: str, error: BindError) -> bool:
    if not label.startswith("["):
        return False
    cause = error.__cause__
    missing = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
    return isinstance(cause, OSError) and cause.errno in missing
