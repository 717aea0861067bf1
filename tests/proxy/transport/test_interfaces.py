"""Addresses of this host's interfaces, from the kernel."""

import asyncio
import os
import subprocess
from ipaddress import ip_address

import pytest

from proxy.transport.interfaces import InterfaceWatch, _addresses, _messages, interface_addresses
from rules.address import Address


def test_loopback_is_among_them() -> None:
    assert ip_address("127.0.0.1") in interface_addresses()


def test_on_a_point_to_point_link_only_our_end_is_ours() -> None:
    theirs = b"\x08\x00\x01\x00" + bytes([192, 0, 2, 1])
    ours = b"\x08\x00\x02\x00" + bytes([192, 0, 2, 2])
    assert _addresses(bytes(8) + theirs + ours) == [ip_address("192.0.2.2")]


def test_attributes_that_are_cut_off_end_the_reading() -> None:
    assert _addresses(bytes(8) + b"\x00\x00\x01\x00") == []
    assert _messages(b"\x01") == []


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to add an address to lo")
async def test_a_new_address_is_reported() -> None:
    seen: asyncio.Queue[set[Address]] = asyncio.Queue()
    watch = InterfaceWatch(seen.put_nowait)
    watch.start()
    new = "127.199.7.7"
    try:
        assert ip_address(new) not in await seen.get()
        subprocess.run(["ip", "address", "add", f"{new}/32", "dev", "lo"], check=True)
        async with asyncio.timeout(10):
            while ip_address(new) not in await seen.get():
                pass
    finally:
        subprocess.run(["ip", "address", "del", f"{new}/32", "dev", "lo"], check=False)
        watch.close()
