"""Binding: all sockets or none, both of DNS on one port, and words for what is in the way."""

import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from proxy import binding
from proxy.binding import Bound, bind_listeners, close_all, listening
from proxy.config import Listen
from proxy.errors import BindError
from proxy.transport.listen import bind_tcp, bind_udp

type Bind = Callable[[str, int], socket.socket]

ROOT = Path(__file__).resolve().parent.parent.parent
FREE = "127.0.0.1:0"
# RFC 3849: no interface of any host holds an address of the documentation's prefix.
NOWHERE_6, NOWHERE_4 = "[2001:db8::1]:0", "192.0.2.1:0"


def listen(
    *do53: str, proxy: tuple[str, ...] = (), metrics: tuple[str, ...] = (), skip: tuple[str, ...]
) -> Listen:
    return Listen(do53, proxy=proxy, metrics=metrics, skippable=frozenset(skip))


@pytest.fixture
def taken() -> Iterator[socket.socket]:
    """A port of 127.0.0.1 that somebody (this process) listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def port_of(sock: socket.socket) -> int:
    port: int = sock.getsockname()[1]
    return port


def test_dns_has_udp_and_tcp_on_the_same_free_port() -> None:
    bound, notes = bind_listeners(listen(FREE, skip=()))
    kinds = [each.socket.type for each in bound]
    close_all(bound)
    assert kinds == [socket.SOCK_DGRAM, socket.SOCK_STREAM]
    assert notes == []


def test_port_0_is_one_port_for_both() -> None:
    bound, _ = bind_listeners(listen(FREE, FREE, skip=()))
    first, second, third, fourth = (each.address for each in bound)
    close_all(bound)
    assert first == second
    assert third == fourth
    assert first != third
    assert first[1] > 0


def test_a_free_port_that_is_taken_on_udp_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def taken_at_first(address: str, port: int) -> socket.socket:
        asked.append(port)
        if len(asked) < 3:
            raise BindError("in use")
        return bind_udp(address, port)

    monkeypatch.setattr(binding, "bind_udp", taken_at_first)
    bound, _ = bind_listeners(listen(FREE, skip=()))
    ports = {each.address[1] for each in bound}
    close_all(bound)
    assert ports == {asked[-1]}
    assert len(asked) == 3


def test_the_search_for_a_free_port_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def never(_: str, port: int) -> socket.socket:
        asked.append(port)
        raise BindError("in use")

    monkeypatch.setattr(binding, "bind_udp", never)
    with pytest.raises(BindError, match="in use"):
        bind_listeners(listen(FREE, skip=()))
    assert len(asked) == binding._FREE_PORT_TRIES


def test_proxy_and_metrics_are_tcp_only() -> None:
    bound, _ = bind_listeners(listen(proxy=(FREE,), metrics=(FREE,), skip=()))
    found = [(each.kind, each.label, each.socket.type) for each in bound]
    close_all(bound)
    assert found == [
        ("proxy", FREE, socket.SOCK_STREAM),
        ("metrics", FREE, socket.SOCK_STREAM),
    ]


def test_listening_shows_real_ports_once_by_kind() -> None:
    bound, _ = bind_listeners(listen(FREE, proxy=(FREE, FREE), skip=()))
    shown = listening(bound)
    ports = [port_of(each.socket) for each in bound]
    close_all(bound)
    assert shown == {
        "do53": [f"127.0.0.1:{ports[0]}"],
        "dot": [],
        "doh": [],
        "proxy": [f"127.0.0.1:{ports[2]}", f"127.0.0.1:{ports[3]}"],
        "metrics": [],
        "proxy_tls": [],
        "control_tls": [],
        "enroll": [],
        "pki": [],
    }


def test_an_ipv6_socket_is_shown_in_brackets() -> None:
    with socket.socket(socket.AF_INET6) as sock:
        bound = Bound("proxy", "[::]:0", sock)
        assert bound.address == (ip_address("::"), 0)
        assert listening([bound])["proxy"] == ["[::]:0"]


def test_nothing_to_bind_is_nothing_bound() -> None:
    assert bind_listeners(listen(skip=())) == ([], [])


def test_a_default_of_ipv6_is_skipped_where_there_is_none() -> None:
    bound, notes = bind_listeners(
        listen(FREE, NOWHERE_6, proxy=(NOWHERE_6,), skip=(FREE, NOWHERE_6))
    )
    close_all(bound)
    assert len(bound) == 2
    assert notes == [
        f"skipped do53 {NOWHERE_6}: this host has no IPv6",
        f"skipped proxy {NOWHERE_6}: this host has no IPv6",
    ]


def test_a_configured_one_is_not_skipped_and_what_was_bound_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[socket.socket] = []

    def kept(bind: Bind) -> Bind:
        def bind_and_keep(address: str, port: int) -> socket.socket:
            made.append(bind(address, port))
            return made[-1]

        return bind_and_keep

    monkeypatch.setattr(binding, "bind_tcp", kept(bind_tcp))
    monkeypatch.setattr(binding, "bind_udp", kept(bind_udp))
    with pytest.raises(BindError, match=r"2001:db8::1 port 0: .*; no interface of this host"):
        bind_listeners(listen(FREE, proxy=(FREE, NOWHERE_6), skip=(FREE,)))
    assert len(made) == 3
    assert [each.fileno() for each in made] == [-1, -1, -1]


def test_a_default_of_ipv4_is_never_skipped() -> None:
    """Without 127.0.0.1 nothing would listen at all, and nobody be told."""
    with pytest.raises(BindError, match=r"192\.0\.2\.1 port 0"):
        bind_listeners(listen(NOWHERE_4, skip=(NOWHERE_4,)))


def test_a_default_whose_port_is_taken_is_never_skipped(taken: socket.socket) -> None:
    label = f"127.0.0.1:{port_of(taken)}"
    with pytest.raises(BindError):
        bind_listeners(listen(label, skip=(label,)))


def test_a_taken_port_names_who_has_it_and_what_to_do(taken: socket.socket) -> None:
    port = port_of(taken)
    with pytest.raises(BindError) as raised:
        bind_listeners(listen(proxy=(f"127.0.0.1:{port}",), skip=()))
    wanted = (
        rf"cannot bind TCP 127\.0\.0\.1 port {port}: .+; end pid {os.getpid()} \(.+\) or choose"
    )
    assert re.match(wanted, str(raised.value))


def test_a_port_that_is_taken_on_udp_only_leaves_no_tcp_socket_behind() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as datagrams:
        with socket.create_server(("127.0.0.1", 0)) as free:  # a port that is free on TCP too
            port = port_of(free)
            datagrams.bind(("127.0.0.1", port))
        with pytest.raises(BindError, match=f"cannot bind UDP 127.0.0.1 port {port}"):
            bind_listeners(listen(f"127.0.0.1:{port}", skip=()))
        socket.create_server(("127.0.0.1", port)).close()


WITHOUT_IPV6 = """
from proxy.binding import bind_listeners, listening
from proxy.config import Listen, Locations, default_listen
from proxy.errors import BindError
bound, notes = bind_listeners(default_listen(Locations("", "")))
print(listening(bound), *notes, sep="\\n")
try:
    bind_listeners(Listen(do53=("[::1]:53",), proxy=(), metrics=(), skippable=frozenset()))
except BindError as error:
    print(error)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make a network namespace")
def test_on_a_host_without_ipv6_the_defaults_are_those_of_ipv4() -> None:
    commands = (
        "ip link set lo up; sysctl -q net.ipv6.conf.all.disable_ipv6=1"
        f"; exec {sys.executable} -c '{WITHOUT_IPV6}'"
    )
    said = subprocess.run(
        ["unshare", "--net", "sh", "-ec", commands],
        cwd=ROOT, capture_output=True, text=True, check=True, timeout=60,
    ).stdout.splitlines()  # fmt: skip
    ports = {"do53": 5300, "dot": 8853, "doh": 8443, "proxy": 3128, "proxy_tls": 3129}
    default = {kind: [f"127.0.0.1:{port}"] for kind, port in (ports | {"metrics": 9153}).items()}
    assert said[0] == str(default | {"control_tls": [], "enroll": [], "pki": []})
    assert said[1:6] == [
        "skipped do53 [::1]:5300: this host has no IPv6",
        "skipped dot [::1]:8853: this host has no IPv6",
        "skipped doh [::1]:8443: this host has no IPv6",
        "skipped proxy [::1]:3128: this host has no IPv6",
        "skipped proxy_tls [::1]:3129: this host has no IPv6",
    ]
    assert said[6].startswith("cannot bind TCP ::1 port 53: ")
