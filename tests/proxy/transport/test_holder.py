"""Who holds a port."""

import os
import socket
from pathlib import Path

from proxy.transport.holder import holder


def test_names_the_process() -> None:
    with socket.create_server(("127.0.0.1", 0)) as bound:
        found = holder(bound.getsockname()[1], socket.SOCK_STREAM)
        assert found.startswith(f"pid {os.getpid()} (")


def test_a_free_port_is_held_by_nobody() -> None:
    with socket.create_server(("127.0.0.1", 0)) as bound:
        port = bound.getsockname()[1]
    assert holder(port, socket.SOCK_STREAM) == ""


def test_reads_both_families_of_udp(tmp_path: Path) -> None:
    net = tmp_path / "net"
    net.mkdir()
    line = "0: 0000:14E9 0000:0000 07 0:0 0:0 0 0 0 4242 2"
    (net / "udp6").write_text(f"header\n{line}\n", encoding="ascii")
    descriptors = tmp_path / "77" / "fd"
    descriptors.mkdir(parents=True)
    (descriptors / "3").symlink_to("socket:[4242]")
    assert holder(5353, socket.SOCK_DGRAM, tmp_path) == "pid 77 (?)"
    (tmp_path / "77" / "comm").write_text("x\x1b[2J\n", encoding="ascii")
    assert holder(5353, socket.SOCK_DGRAM, tmp_path) == "pid 77 (x?[2J)"


def test_other_users_processes_are_no_error(tmp_path: Path) -> None:
    net = tmp_path / "net"
    net.mkdir()
    line = "0: 00000000:0050 00000000:0000 0A 0:0 0:0 0 0 0 4242 1"
    (net / "tcp").write_text(f"header\n{line}\n", encoding="ascii")
    (tmp_path / "77").mkdir()
    assert holder(80, socket.SOCK_STREAM, tmp_path) == ""
