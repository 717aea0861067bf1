"""resolv.conf: its servers and nothing else, read again when it changes, never ourselves."""

import os
from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.resolver.resolv_conf import CHECK_S, SERVERS, HostResolvers, nameservers
from rules.address import Address

LATER = CHECK_S + 0.1


def nobody(_address: Address, _port: int) -> bool:
    return False


def write(file: Path, text: str, mtime_s: int) -> None:
    file.write_text(text)
    os.utime(file, (mtime_s, mtime_s))


def host(folder: Path, text: str, resolved: str | None = None) -> HostResolvers:
    write(folder / "resolv.conf", text, 1)
    if resolved is not None:
        write(folder / "resolved.conf", resolved, 1)
    return HostResolvers(nobody, folder / "resolv.conf", folder / "resolved.conf")


def texts(found: tuple[Address, ...]) -> list[str]:
    return [str(address) for address in found]


def test_reads_nameserver_lines_alone() -> None:
    text = """# nameserver 192.0.2.9
; nameserver 192.0.2.9
domain corp.example
search corp.example nameserver 192.0.2.9
options ndots:5 timeout:1
nameserver 192.0.2.1
nameserver\t2001:db8::1\t
nameserver 192.0.2.1
"""
    assert texts(nameservers(text)) == ["192.0.2.1", "2001:db8::1"]


@pytest.mark.parametrize(
    "line",
    [
        " nameserver 192.0.2.1",  # resolv.conf(5): the keyword must start the line
        "nameservers 192.0.2.1",
        "nameserver=192.0.2.1",
        "Nameserver 192.0.2.1",
        "nameserver",
        "nameserver 192.0.2.1 192.0.2.2",
        "nameserver 192.0.2.1:53",
        "nameserver [2001:db8::1]",
        "nameserver fe80::1%eth0",
        "nameserver 0x7f.1",
        "nameserver 010.0.0.1",
        "nameserver dns.example",
        "nameserver 0.0.0.0",
        "nameserver ::",
        "nameserver 224.0.0.251",
    ],
)
def test_any_other_spelling_says_nothing(line: str) -> None:
    assert nameservers(line) == ()


@given(st.text(st.sampled_from("nameserver 0123456789.:#;%\n\t\x00é"), max_size=80))
def test_every_text_is_read(text: str) -> None:
    for address in nameservers(text):
        assert f"{address}" in text or address.version == 6


def test_no_more_servers_than_the_c_library_uses(tmp_path: Path) -> None:
    lines = "".join(f"nameserver 192.0.2.{n}\n" for n in range(1, 9))
    assert len(host(tmp_path, lines).servers(0.0)) == SERVERS


@pytest.mark.parametrize("stub", ["127.0.0.53", "127.0.0.54"])
def test_behind_the_stub_of_resolved_stand_its_own_servers(tmp_path: Path, stub: str) -> None:
    resolved = "nameserver 192.0.2.1\nnameserver 127.0.0.53\n"
    found = host(tmp_path, f"nameserver {stub}\n", resolved)
    assert texts(found.servers(0.0)) == ["192.0.2.1"]


def test_resolved_is_not_looked_at_without_its_stub(tmp_path: Path) -> None:
    found = host(tmp_path, "nameserver 192.0.2.1\n", "nameserver 192.0.2.2\n")
    assert texts(found.servers(0.0)) == ["192.0.2.1"]


@pytest.mark.parametrize(
    ("text", "resolved", "said"),
    [
        ("", None, "resolv.conf names no resolver"),
        ("search example\n", None, "resolv.conf names no resolver"),
        ("nameserver 127.0.0.53\n", None, "resolved.conf names no resolver"),
        ("nameserver 127.0.0.53\n", "nameserver 127.0.0.53\n", "resolved.conf names no resolver"),
    ],
)
def test_none_is_said_with_what_to_do(
    tmp_path: Path, text: str, resolved: str | None, said: str
) -> None:
    found = host(tmp_path, text, resolved)
    assert found.servers(0.0) == ()
    assert said in found.problem
    assert "resolver.upstreams" in found.problem


@pytest.mark.parametrize("content", [None, b"x" * 65537, "folder"])
def test_a_file_that_cannot_be_read_names_none(tmp_path: Path, content: bytes | str | None) -> None:
    file = tmp_path / "resolv.conf"
    if isinstance(content, bytes):
        file.write_bytes(b"nameserver 192.0.2.1\n" + content)
    elif content == "folder":
        file.mkdir()
    found = HostResolvers(nobody, file, tmp_path / "none")
    assert found.servers(0.0) == ()
    assert "names no resolver" in found.problem


def test_a_fifo_in_its_place_holds_nobody_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "resolv.conf")
    assert HostResolvers(nobody, tmp_path / "resolv.conf", tmp_path / "n").servers(0.0) == ()


def test_our_own_listener_is_never_a_server(tmp_path: Path) -> None:
    """A host that asks us would be asked by us: a circle."""
    write(tmp_path / "resolv.conf", "nameserver 127.0.0.1\nnameserver 192.0.2.1\n", 1)
    ours = ip_address("127.0.0.1")
    found = HostResolvers(
        lambda address, port: (address, port) == (ours, 53), tmp_path / "resolv.conf", tmp_path
    )
    assert texts(found.servers(0.0)) == ["192.0.2.1"]
    write(tmp_path / "resolv.conf", "nameserver 127.0.0.1\n", 2)
    assert found.servers(LATER) == ()
    assert "names none but this appliance" in found.problem


def test_is_read_again_when_it_changed_but_looked_at_seldom(tmp_path: Path) -> None:
    found = host(tmp_path, "nameserver 192.0.2.1\n")
    assert texts(found.servers(0.0)) == ["192.0.2.1"]
    write(tmp_path / "resolv.conf", "nameserver 192.0.2.2\n", 2)
    assert texts(found.servers(CHECK_S - 0.1)) == ["192.0.2.1"]
    assert texts(found.servers(LATER)) == ["192.0.2.2"]
    assert found.problem == ""


def test_a_file_put_in_its_place_is_seen(tmp_path: Path) -> None:
    found = host(tmp_path, "nameserver 192.0.2.1\n")
    found.servers(0.0)
    write(tmp_path / "new", "nameserver 192.0.2.2\n", 1)
    (tmp_path / "new").rename(tmp_path / "resolv.conf")
    assert texts(found.servers(LATER)) == ["192.0.2.2"]
    (tmp_path / "resolv.conf").unlink()
    assert found.servers(2 * LATER) == ()
