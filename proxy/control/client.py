"""The command line's end of the control socket: http.client over AF_UNIX.

Who is at the other end matters when a secret comes back: a socket of another user than
ourselves, root or the folder's owner is not spoken to.
"""

import http.client
import os
import socket
import struct
from pathlib import Path
from typing import Any, override

import msgspec

from proxy.control.place import caller_of
from proxy.errors import BindError, ProxyError

_TIMEOUT_S = 30.0  # a reload of 100,000 rules takes seconds
_MOST_OCTETS = 16 << 20  # of an answer; 1024 tokens are 300 KiB


class NotRunningError(BindError):
    """Nobody answers at the control socket."""


class ControlError(ProxyError):
    """The appliance said no; `status` is that of HTTP."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class ControlClient:
    """Asks the appliance whose control socket is at `path`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def get(self, target: str) -> Any:
        """Return what GET of `target` answers; raises as `ask`."""
        return self.ask("GET", target)

    def ask(self, method: str, target: str, content: object = None) -> Any:
        """Return the JSON that `method` of `target` answers.

        Raises:
            NotRunningError: no appliance is at the socket.
            BindError: it is not ours to ask.
            ControlError: the appliance said no.
        """
        body = None if content is None else msgspec.json.encode(content)
        connection = _UnixConnection(self._path)
        try:
            connection.request(method, target, body)
            response = connection.getresponse()
            answer = _decode(response.read(_MOST_OCTETS))
        except (FileNotFoundError, ConnectionRefusedError):
            raise NotRunningError(
                f"no appliance answers at {self._path}; start it with `sallyport up`"
            ) from None
        except PermissionError:
            raise BindError(
                f"{self._path} is not open to you; ask as the appliance's user, as root,"
                " or join its control group"
            ) from None
        except (OSError, http.client.HTTPException) as error:
            raise BindError(f"{self._path}: {error}; is it the control socket?") from None
        finally:
            connection.close()
        if response.status != http.client.OK:
            detail = answer.get("detail") if isinstance(answer, dict) else None
            raise ControlError(response.status, str(detail or response.reason))
        return answer


class _UnixConnection(http.client.HTTPConnection):
    """An HTTP connection to a socket's path instead of a host and port."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=_TIMEOUT_S)
        self._path = path

    @override
    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # unix(7): where the queue of the socket is full, only a blocking connect waits its turn.
        wait = struct.pack("@ll", int(_TIMEOUT_S), 0)  # struct timeval
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, wait)
        self.sock.connect(os.fspath(self._path))
        self.sock.settimeout(self.timeout)
        owner = self._path.parent.stat().st_uid
        if caller_of(self.sock).uid not in {0, os.geteuid(), owner}:
            raise BindError(f"{self._path} is another user's; it is not asked")


def _decode(octets: bytes) -> Any:
    try:
        return msgspec.json.decode(octets)
    except msgspec.MsgspecError:
        raise http.client.HTTPException("the answer is no JSON") from None
