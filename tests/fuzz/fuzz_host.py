"""Hosts and authorities: `PeerError` is allowed."""

import socket

from proxy.errors import PeerError
from proxy.wire.host import format_authority, parse_authority

SEEDS: tuple[bytes, ...] = (
    b"example.com:443",
    b"API.example.com.:8080",
    b"192.0.2.7:80",
    b"[2001:db8::7]:443",
    b"[::ffff:192.0.2.7]",
    b"xn--bcher-kva.example",
    b"0x7f.1",
    b"0177.0.0.1:80",
    b"2130706433",
    b"user:password@example.com:80",
    b"[fe80::1%25eth0]:443",
    b"attacker.example\0.example.com:443",
)


def target(data: bytes) -> None:
    """What is taken reads back as itself, and libc takes no name for an address."""
    try:
        host, port = parse_authority(data, 80)
    except PeerError:
        return
    assert parse_authority(format_authority(host, port).encode("ascii"), None) == (host, port)
    if isinstance(host, str):
        try:
            address = socket.inet_aton(host)
        except OSError:
            return
        raise AssertionError(f"{host} is {address.hex()} to inet_aton")
