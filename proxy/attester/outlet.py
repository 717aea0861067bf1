"""Where the current token is put: a descriptor, a file or a socket of our own user.

Each holds one line, the token and a newline; nothing while there is no token that stands.
"""

import contextlib
import fcntl
import os
import socket
import stat
import tempfile
import threading
from pathlib import Path
from typing import Protocol

from proxy.attester.errors import UnusableError
from proxy.control.place import Door, bind_door, caller_of
from proxy.errors import ProxyError

_DOOR = Door("--socket", "token socket")
_BACKLOG_S = 1.0  # for a caller whose buffer takes not even a line: then he is let go


class Outlet(Protocol):
    """A place for one token."""

    def put(self, token: str) -> None:
        """Replace what is there; "" where no token stands."""

    def close(self) -> None:
        """Leave no token behind."""


class Descriptor:
    """A memfd or file that another process has open too; rewritten from its start.

    Readers use pread(2), and read the first line.  A line is written by one pwrite(2), and cut
    after it: who reads in between finds the new line first.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        try:
            is_file = stat.S_ISREG(os.fstat(fd).st_mode)
            flags = fcntl.fcntl(fd, fcntl.F_GETFL)
        except OSError as error:
            raise UnusableError(f"--fd {fd}: {error.strerror}; open it first: {fd}<>FILE") from None
        # open(2), BUGS: pwrite(2) appends to what is open for appending.
        if not is_file or flags & os.O_ACCMODE == os.O_RDONLY or flags & os.O_APPEND:
            raise UnusableError(
                f"--fd {fd} is not a file open for writing from its start: write {fd}<>FILE,"
                " or pass a memfd"
            )

    def put(self, token: str) -> None:
        """Replace the line."""
        line = _line(token)
        try:
            if os.pwrite(self._fd, line, 0) != len(line):
                raise UnusableError(f"--fd {self._fd} takes no line; is the disk full?")
            os.ftruncate(self._fd, len(line))
        except OSError as error:
            raise UnusableError(f"--fd {self._fd}: {error.strerror}") from None

    def close(self) -> None:
        """Empty it."""
        with contextlib.suppress(UnusableError):
            self.put("")


class TokenFile:
    """A file of mode 0600, replaced as a whole.

    The folder is not locked: whoever may list it could hold such a lock, and us up for good.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def put(self, token: str) -> None:
        """Replace the file."""
        try:
            self._replace(_line(token))
        except OSError as error:
            text = f"--file {self._path}: {error.strerror}; name one in a folder of your own"
            raise UnusableError(text) from None

    def _replace(self, line: bytes) -> None:
        path = self._path
        fd, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # 0600
        try:
            with open(fd, "wb") as file:  # noqa: PTH123 - it is open already
                file.write(line)
            Path(beside).replace(path)
        except BaseException:  # SIGTERM as well: no token stays behind
            Path(beside).unlink(missing_ok=True)
            raise

    def close(self) -> None:
        """Remove it."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)


class TokenSocket:
    """A unix socket of mode 0600: who connects gets the line.  One caller at a time.

    A thread of its own answers, so that nobody waits while the token is renewed.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._bound = bind_door(_DOOR, path)
        except ProxyError as error:
            raise UnusableError(str(error)) from None
        self._line = b""
        self._bound.socket.setblocking(True)
        self._thread = threading.Thread(target=self._serve, daemon=True, name="token-socket")
        self._thread.start()

    def put(self, token: str) -> None:
        """Replace what callers get."""
        self._line = _line(token)

    def close(self) -> None:
        """Remove the socket."""
        self._line = b""
        with contextlib.suppress(OSError):
            self._bound.socket.shutdown(socket.SHUT_RDWR)  # wakes the thread
        self._thread.join()
        self._bound.close()

    def _serve(self) -> None:
        while True:
            try:
                caller, _ = self._bound.socket.accept()
            except OSError:
                return
            with caller, contextlib.suppress(OSError):
                caller.settimeout(_BACKLOG_S)
                # The mode keeps others out; root, who may pass any mode, may read our files too.
                if caller_of(caller).uid in {0, os.geteuid()}:
                    caller.sendall(self._line)


def _line(token: str) -> bytes:
    return f"{token}\n".encode("ascii") if token else b""
