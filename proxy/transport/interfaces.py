"""Which addresses this host's interfaces hold, from rtnetlink(7), and word of every change."""

import asyncio
import socket
import struct
from collections.abc import Callable
from ipaddress import ip_address

from rules.address import Address

_RTM_NEWADDR = 20
_RTM_GETADDR = 22
_NLMSG_DONE = 3
_NLM_F_REQUEST_DUMP = 0x301
_RTMGRP_IPV4_IFADDR = 0x10
_RTMGRP_IPV6_IFADDR = 0x100
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_HEADER = struct.Struct("=IHHII")
_IFADDRMSG_OCTETS = 8
_READ_OCTETS = 65536
_TIMEOUT_S = 1.0


def interface_addresses() -> set[Address]:
    """Return every address that an interface of this network namespace holds.

    Raises:
        OSError: the kernel does not answer on rtnetlink.
    """
    found: set[Address] = set()
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as netlink:
        netlink.settimeout(_TIMEOUT_S)
        size = _HEADER.size + _IFADDRMSG_OCTETS
        netlink.send(_HEADER.pack(size, _RTM_GETADDR, _NLM_F_REQUEST_DUMP, 1, 0) + bytes(8))
        while True:
            for kind, body in _messages(netlink.recv(_READ_OCTETS)):
                if kind == _NLMSG_DONE:
                    return found
                if kind == _RTM_NEWADDR:
                    found.update(_addresses(body))


class InterfaceWatch:
    """Calls back with all addresses at once, at start and whenever one comes or goes."""

    def __init__(self, changed: Callable[[set[Address]], None]) -> None:
        self._changed = changed
        self._netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self._netlink.setblocking(False)
        self._netlink.bind((0, _RTMGRP_IPV4_IFADDR | _RTMGRP_IPV6_IFADDR))

    def start(self) -> None:
        """Report once, then watch on the running loop."""
        self._changed(interface_addresses())
        asyncio.get_running_loop().add_reader(self._netlink.fileno(), self._drain)

    def close(self) -> None:
        """Stop watching."""
        asyncio.get_running_loop().remove_reader(self._netlink.fileno())
        self._netlink.close()

    def _drain(self) -> None:
        try:
            while self._netlink.recv(_READ_OCTETS):
                pass
        except BlockingIOError:
            pass
        except OSError:
            pass  # ENOBUFS: changes were lost, and the dump below makes up for them
        self._changed(interface_addresses())


def _messages(data: bytes) -> list[tuple[int, bytes]]:
    found, at = [], 0
    while at + _HEADER.size <= len(data):
        size, kind, _, _, _ = _HEADER.unpack_from(data, at)
        found.append((kind, data[at + _HEADER.size : at + size]))
        at += max((size + 3) & ~3, _HEADER.size)
    return found


def _addresses(body: bytes) -> list[Address]:
    attributes: dict[int, bytes] = {}
    at = _IFADDRMSG_OCTETS
    while at + 4 <= len(body):
        length, kind = struct.unpack_from("=HH", body, at)
        if length < 4:
            break
        attributes[kind] = body[at + 4 : at + length]
        at += (length + 3) & ~3
    # On a point-to-point link IFA_ADDRESS is the other end (rtnetlink(7)).
    ours = attributes.get(_IFA_LOCAL) or attributes.get(_IFA_ADDRESS)
    return [ip_address(ours)] if ours else []
