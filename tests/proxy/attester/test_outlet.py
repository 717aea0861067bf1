"""Where the token is put: one line, for our own user, and never a part of one."""

import fcntl
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.attester.errors import UnusableError
from proxy.attester.outlet import Descriptor, TokenFile, TokenSocket
from proxy.control import place


@pytest.fixture
def memfd() -> Iterator[int]:
    fd = os.memfd_create("token")
    yield fd
    os.close(fd)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = tmp_path / "run"
    found.mkdir(mode=0o700)
    return found


def asked(path: Path) -> bytes:
    with socket.socket(socket.AF_UNIX) as caller:
        caller.settimeout(5)
        caller.connect(os.fspath(path))
        return caller.makefile("rb").read()


def test_a_descriptor_holds_the_latest_line_alone(memfd: int) -> None:
    outlet = Descriptor(memfd)
    outlet.put("a.long.token")
    assert os.pread(memfd, 100, 0) == b"a.long.token\n"
    outlet.put("short")
    assert os.pread(memfd, 100, 0) == b"short\n"
    assert os.lseek(memfd, 0, os.SEEK_CUR) == 0  # a reader who shares it is not moved


def test_a_descriptor_is_empty_while_no_token_stands(memfd: int) -> None:
    outlet = Descriptor(memfd)
    outlet.put("a.b.c")
    outlet.put("")
    assert os.fstat(memfd).st_size == 0
    outlet.put("a.b.c")
    outlet.close()
    assert os.fstat(memfd).st_size == 0


def test_a_descriptor_that_is_not_open_is_refused(memfd: int) -> None:
    other = os.dup(memfd)
    os.close(other)
    with pytest.raises(UnusableError, match="open it first"):
        Descriptor(other)


def test_a_pipe_is_refused() -> None:
    ends = os.pipe()
    with pytest.raises(UnusableError, match="not a file"):
        Descriptor(ends[1])
    for each in ends:
        os.close(each)


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_WRONLY | os.O_APPEND])
def test_a_file_that_cannot_be_rewritten_is_refused(folder: Path, flags: int) -> None:
    (folder / "token").touch()
    fd = os.open(folder / "token", flags)
    with pytest.raises(UnusableError, match="from its start"):
        Descriptor(fd)
    os.close(fd)


def test_a_descriptor_that_was_closed_since_is_an_error(memfd: int) -> None:
    other = os.dup(memfd)
    outlet = Descriptor(other)
    os.close(other)
    with pytest.raises(UnusableError, match=f"--fd {other}"):
        outlet.put("a.b.c")
    outlet.close()  # nothing can be left behind there


def test_a_line_that_was_cut_short_is_an_error(memfd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk: write(2) takes what fits, and says how much that is."""
    outlet = Descriptor(memfd)
    monkeypatch.setattr(os, "pwrite", lambda _fd, line, _at: len(line) - 1)
    with pytest.raises(UnusableError, match="disk full"):
        outlet.put("a.b.c")


def test_a_file_is_ours_alone_and_replaced_as_a_whole(folder: Path) -> None:
    outlet = TokenFile(folder / "token")
    outlet.put("a.b.c")
    first = (folder / "token").stat()
    assert first.st_mode & 0o777 == 0o600
    with (folder / "token").open() as reading:
        outlet.put("d.e.f")
        assert reading.read() == "a.b.c\n"  # who reads sees one or the other, whole
    assert (folder / "token").read_text() == "d.e.f\n"
    assert [each.name for each in folder.iterdir()] == ["token"]


def test_a_file_is_gone_at_the_end(folder: Path) -> None:
    outlet = TokenFile(folder / "token")
    outlet.put("a.b.c")
    outlet.close()
    outlet.close()
    assert not list(folder.iterdir())


def test_a_file_in_no_folder_is_refused(folder: Path) -> None:
    with pytest.raises(UnusableError, match="--file"):
        TokenFile(folder / "none" / "token").put("a.b.c")


def test_who_locks_the_folder_does_not_hold_a_file_up(folder: Path) -> None:
    """Any user who may list it can: flock(2) asks for no right to write."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH)
        TokenFile(folder / "token").put("a.b.c")
    finally:
        os.close(fd)
    assert (folder / "token").read_text() == "a.b.c\n"


def test_a_file_that_cannot_be_put_in_place_leaves_nothing_behind(folder: Path) -> None:
    (folder / "token").mkdir()
    with pytest.raises(UnusableError, match="--file"):
        TokenFile(folder / "token").put("a.b.c")
    assert [each.name for each in folder.iterdir()] == ["token"]


def test_a_link_where_the_file_is_to_be_is_replaced_not_followed(folder: Path) -> None:
    (folder / "target").write_text("precious")
    (folder / "token").symlink_to(folder / "target")
    TokenFile(folder / "token").put("a.b.c")
    assert (folder / "target").read_text() == "precious"


def test_who_connects_gets_the_current_token(folder: Path) -> None:
    outlet = TokenSocket(folder / "token.sock")
    assert (folder / "token.sock").stat().st_mode & 0o777 == 0o600
    assert asked(folder / "token.sock") == b""
    for token in ("a.b.c", "d.e.f"):
        outlet.put(token)
        assert asked(folder / "token.sock") == f"{token}\n".encode()
    outlet.close()
    assert not (folder / "token.sock").exists()


def test_who_hangs_up_or_says_nothing_stops_nobody(folder: Path) -> None:
    outlet = TokenSocket(folder / "token.sock")
    outlet.put("a.b.c")
    idle = [socket.socket(socket.AF_UNIX) for _ in range(8)]
    for each in idle:
        each.connect(os.fspath(folder / "token.sock"))
    idle.pop().close()
    assert asked(folder / "token.sock") == b"a.b.c\n"
    for each in idle:
        each.close()
    outlet.close()


def test_another_user_gets_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mode keeps him out; where a folder or a mode is changed, the kernel still tells."""
    outlet = TokenSocket(folder / "token.sock")
    outlet.put("a.b.c")
    other = place.Caller(1, os.geteuid() + 1, 1)
    monkeypatch.setattr("proxy.attester.outlet.caller_of", lambda _: other)
    assert asked(folder / "token.sock") == b""
    outlet.close()


def test_many_at_once_get_whole_lines(folder: Path) -> None:
    outlet = TokenSocket(folder / "token.sock")
    tokens = ["a" * 2000, "b" * 1000]
    outlet.put(tokens[0])
    found: list[bytes] = []

    def ask() -> None:
        found.extend(asked(folder / "token.sock") for _ in range(20))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for each in threads:
        each.start()
    for turn in range(200):
        outlet.put(tokens[turn % 2])
    for each in threads:
        each.join()
    outlet.close()
    assert len(found) == 80
    assert set(found) <= {f"{each}\n".encode() for each in tokens}


def test_a_folder_that_others_may_write_is_refused(folder: Path) -> None:
    folder.chmod(0o777)
    with pytest.raises(UnusableError, match="no place for the token socket"):
        TokenSocket(folder / "token.sock")


def test_a_second_one_in_the_same_place_is_refused(folder: Path) -> None:
    outlet = TokenSocket(folder / "token.sock")
    with pytest.raises(UnusableError, match="already running"):
        TokenSocket(folder / "token.sock")
    outlet.close()
