"""Which sockets may be a lease's."""

import socket
from collections.abc import Iterator
from contextlib import suppress

import pytest

from proxy.sandbox.lease import LeaseError
from proxy.sandbox.lent import SOCKETS, check_lent, namespace_of, our_namespace
from tests.launcher import LOCAL, inside_of, sockets_inside

OURS = 1  # stands for the namespace of others


@pytest.fixture
def lent() -> Iterator[list[tuple[str, socket.socket]]]:
    made = inside_of(lambda: sockets_inside(["do53", "proxy"]))
    yield made
    for _, sock in made:
        with suppress(OSError):
            sock.close()


def test_sockets_of_a_namespace_of_its_own_are_a_leases(
    lent: list[tuple[str, socket.socket]],
) -> None:
    found = check_lent(lent, [our_namespace()])
    assert found != our_namespace()
    assert {namespace_of(sock) for _, sock in lent} == {found}


def test_sockets_of_our_own_or_anothers_namespace_are_refused(
    lent: list[tuple[str, socket.socket]],
) -> None:
    """threats.md, "Identity": sockets of the host namespace passed as listeners."""
    with socket.create_server((LOCAL, 0)) as ours:
        for sockets in ([("proxy", ours)], [*lent, ("proxy", ours)]):
            with pytest.raises(LeaseError, match="one network namespace that is its own"):
                check_lent(sockets, [our_namespace()])
    taken = namespace_of(lent[0][1])
    with pytest.raises(LeaseError, match="its own"):
        check_lent(lent, [our_namespace(), taken])


def unix() -> socket.socket:
    return socket.socket(socket.AF_UNIX)


def raw() -> socket.socket:
    return socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)  # IPPROTO_MPTCP


def unbound() -> socket.socket:
    return socket.socket(socket.AF_INET, socket.SOCK_STREAM)


def silent() -> socket.socket:
    sock = unbound()
    sock.bind((LOCAL, 0))
    return sock


def datagrams() -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((LOCAL, 0))
    return sock


def connected() -> socket.socket:
    sock = datagrams()
    sock.connect((LOCAL, 9))
    return sock


@pytest.mark.parametrize(
    ("kind", "make", "text"),
    [
        ("proxy", unix, "TCP or UDP"),
        ("proxy", raw, "TCP or UDP"),
        ("proxy", unbound, "bound to a port"),
        ("proxy", silent, "does not accept"),
        ("proxy", datagrams, "not spoken over UDP"),
        ("do53", connected, "connected to one peer"),
    ],
)
def test_a_socket_that_is_no_listener_of_its_kind_is_refused(
    kind: str, make: object, text: str
) -> None:
    assert callable(make)
    sock = inside_of(make)
    with sock, pytest.raises(LeaseError, match=text):
        check_lent([(kind, sock)], [OURS])


def test_a_lease_has_some_sockets_and_not_many(lent: list[tuple[str, socket.socket]]) -> None:
    for sockets in ([], lent * SOCKETS):
        with pytest.raises(LeaseError, match=f"1 to {SOCKETS}"):
            check_lent(sockets, [])


def test_a_kernel_that_does_not_tell_namespaces_lends_nothing() -> None:
    sock = datagrams()
    sock.close()
    with pytest.raises(LeaseError, match=r"Linux 5\.14"):
        namespace_of(sock)
