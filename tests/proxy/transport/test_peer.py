"""What the kernel says of the other end of a loopback connection."""

import hashlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from proxy.limits import Limits
from proxy.transport.peer import PeerTable, SocketAddress, SocketOwner, _cgroup_mount

_CLIENT = """
import socket, sys
held = socket.create_connection((sys.argv[1], int(sys.argv[2])))
print("connected", flush=True)
sys.stdin.read()
"""
_INTERPRETER = Path(sys.executable).resolve()


@contextmanager
def connected(address: str = "127.0.0.1") -> Iterator[tuple[SocketAddress, SocketAddress, int]]:
    """A connection from another process: its address, ours, its pid."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, 0), family=family) as server:
        command = [str(_INTERPRETER), "-c", _CLIENT, address, str(server.getsockname()[1])]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        ) as child:
            accepted, peer = server.accept()
            with accepted:
                assert child.stdout is not None
                child.stdout.readline()
                yield peer, accepted.getsockname(), child.pid
            assert child.stdin is not None
            child.stdin.close()


@pytest.fixture
def table() -> Iterator[PeerTable]:
    made = PeerTable(Limits(), lambda: 4e9, lambda _: None)
    yield made
    made.close()


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_names_uid_and_inode_of_the_peer(table: PeerTable, address: str) -> None:
    with connected(address) as (peer, local, pid):
        owner = table.owner(peer, local)
        held = [str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir()]
    assert owner is not None
    assert owner.uid == os.getuid()
    assert f"socket:[{owner.inode}]" in held


def test_a_socket_that_is_not_there_has_no_owner(table: PeerTable) -> None:
    assert table.owner(("127.0.0.1", 1), ("127.0.0.1", 2)) is None


def test_a_socket_that_its_process_has_closed_has_no_owner(table: PeerTable) -> None:
    """threats.md, Identity: what nobody holds any more would read as uid 0 on many kernels."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        with socket.create_connection(server.getsockname()) as client:
            client.sendall(b"a query")
        accepted, peer = server.accept()
        with accepted:
            assert table.owner(peer, accepted.getsockname()) is None


def test_a_listener_on_the_port_of_a_peer_that_is_gone_is_not_the_peer(table: PeerTable) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        assert table.owner(other.getsockname(), ("127.0.0.1", 9)) is None


def test_an_address_of_the_wrong_family_has_no_owner(table: PeerTable) -> None:
    assert table.owner(("127.0.0.1", 1), ("::1", 2)) is None


def test_without_cgroup_v2_no_cgroup_matches(table: PeerTable) -> None:
    assert not table.is_in_cgroup(SocketOwner(0, 1, None), "/")


def test_a_cgroup_that_does_not_exist_matches_nobody(table: PeerTable) -> None:
    assert not table.is_in_cgroup(SocketOwner(0, 1, 1), "/no/such.scope")


def cgroup_root() -> Path:
    mount = _cgroup_mount()
    if mount is None:
        pytest.skip("this host has no cgroup v2 hierarchy")
    return mount


def test_the_cgroup_of_the_peer_is_the_one_it_runs_in(table: PeerTable) -> None:
    root = cgroup_root()
    with connected() as (peer, local, pid):
        lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
        path = next(line[3:] for line in lines if line.startswith("0::"))
        owner = table.owner(peer, local)
    assert owner is not None
    assert owner.cgroup == (root / path.lstrip("/")).stat().st_ino
    assert table.is_in_cgroup(owner, path)


def test_the_executable_is_that_of_the_one_process_that_holds_the_socket(
    table: PeerTable,
) -> None:
    cgroup_root()
    with connected() as (peer, local, _):
        owner = table.owner(peer, local)
        assert owner is not None
        digest = table.executable_sha256(owner)
        again = table.executable_sha256(owner)
    assert digest == again == hashlib.sha256(_INTERPRETER.read_bytes()).hexdigest()


def test_a_slow_look_up_for_the_executable_matches_nobody() -> None:
    """threats.md, Identity: a process with 10^6 descriptors as a slow look-up."""
    cgroup_root()
    met: list[str] = []
    table = PeerTable(Limits(process_fds=1), lambda: 4e9, met.append)
    with connected() as (peer, local, _):
        owner = table.owner(peer, local)
        assert owner is not None
        assert table.executable_sha256(owner) is None
    table.close()
    assert met == ["process_fds"]


def test_an_executable_that_is_too_large_matches_nobody() -> None:
    cgroup_root()
    met: list[str] = []
    table = PeerTable(Limits(process_exe_octets=1), lambda: 4e9, met.append)
    with connected() as (peer, local, _):
        owner = table.owner(peer, local)
        assert owner is not None
        assert table.executable_sha256(owner) is None
    table.close()
    assert met == ["process_exe_octets"]


def test_a_file_that_changed_just_now_is_hashed_again(tmp_path: Path) -> None:
    """threats.md, Identity: (inode, mtime) caches beaten by utimensat."""
    program = tmp_path / "program"
    program.write_bytes(b"first")
    just_now = program.stat().st_ctime
    table = PeerTable(Limits(), lambda: just_now, lambda _: None)
    stat = program.stat()
    first = table._digest(program)
    program.write_bytes(b"other")
    os.utime(program, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert table._digest(program) != first
    table.close()


def test_the_memory_of_digests_is_bounded(tmp_path: Path) -> None:
    table = PeerTable(Limits(apps_remembered=2), lambda: 4e9, lambda _: None)
    for number in range(4):
        program = tmp_path / str(number)
        program.write_bytes(bytes([number]))
        assert table._digest(program) == hashlib.sha256(bytes([number])).hexdigest()
    assert len(table._digests) == 2
    table.close()


def test_a_program_that_is_gone_has_no_digest(table: PeerTable, tmp_path: Path) -> None:
    assert table._digest(tmp_path / "gone") is None
