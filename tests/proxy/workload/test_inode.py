"""The other end of a unix socket, as sock_diag names it."""

import errno
import os
import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.workload.inode import UnixDiag, read_peer


def test_names_the_inode_of_the_other_end() -> None:
    ours, theirs = socket.socketpair()
    diag = UnixDiag()
    with ours, theirs:
        assert diag.peer(ours) == os.fstat(theirs.fileno()).st_ino
        assert diag.peer(theirs) == os.fstat(ours.fileno()).st_ino
    diag.close()
    diag.close()


def test_one_that_is_connected_to_nobody_has_no_other_end() -> None:
    diag = UnixDiag()
    with socket.socket(socket.AF_UNIX) as alone:
        assert diag.peer(alone) == 0
    ours, theirs = socket.socketpair()
    theirs.close()
    with ours:
        assert diag.peer(ours) == 0
    diag.close()


def test_one_of_another_family_has_none() -> None:
    diag = UnixDiag()
    with socket.socket() as other:
        assert diag.peer(other) == 0
    diag.close()


def test_a_kernel_that_does_not_answer_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported() -> socket.socket:
        raise OSError(errno.EPROTONOSUPPORT, "Protocol not supported")

    diag = UnixDiag()
    monkeypatch.setattr(diag, "_opened", unsupported)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert diag.peer(ours) == 0


def reply(inode: int = 5, attributes: bytes = b"", kind: int = 20) -> bytes:
    body = struct.pack("=BBBBIQ", 1, 1, 1, 0, inode, 0) + attributes
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 1, 0) + body


PEER = struct.pack("=HHI", 8, 2, 7)


@pytest.mark.parametrize(
    ("octets", "inode"),
    [
        (reply(attributes=PEER), 7),
        (reply(attributes=struct.pack("=HHI", 5, 6, 0) + PEER), 7),
        (reply(), 0),
        (reply(attributes=struct.pack("=HHI", 0, 6, 0) + PEER), 0),
        (reply(inode=6, attributes=PEER), 0),
        (reply(kind=2, attributes=PEER), 0),
        (struct.pack("=IHHII", 16, 20, 0, 1, 0).ljust(40, b"\0"), 0),
        (b"", 0),
    ],
)
def test_reads_what_the_kernel_says(octets: bytes, inode: int) -> None:
    assert read_peer(octets, 5) == inode


@given(st.binary(max_size=96))
def test_whatever_comes_is_read_without_an_error(octets: bytes) -> None:
    assert read_peer(octets, 5) >= 0
    assert read_peer(reply(attributes=octets), 5) >= 0
