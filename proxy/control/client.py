"""The command line's end of the control API: http.client over AF_UNIX, or over TLS from elsewhere.

Who is at the other end matters when a secret comes back: a socket of another user than
ourselves, root or the folder's owner is not spoken to, and a server only whose certificate is
good for its address.
"""

import http.client
import os
import socket
import ssl
import struct
from pathlib import Path
from typing import Any, override
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

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


class Remote(Struct, frozen=True):
    """An appliance elsewhere: `https://ADDRESS:PORT`, and PEM files.

    `cert` and `key` are the admin's; `ca` is what `sallyport ca export` printed there.
    """

    url: str
    cert: Path
    key: Path
    ca: Path


class ControlClient:
    """Asks the appliance whose control socket is at `where`, or that is `where`."""

    def __init__(self, where: Path | Remote) -> None:
        self._where = where

    def get(self, target: str) -> Any:
        """Return what GET of `target` answers; raises as `ask`."""
        return self.ask("GET", target)

    def ask(self, method: str, target: str, content: object = None) -> Any:
        """Return the JSON that `method` of `target` answers.

        Raises:
            NotRunningError: no appliance is at the socket.
            BindError: it is not ours to ask, or cannot be reached.
            ControlError: the appliance said no.
        """
        body = None if content is None else msgspec.json.encode(content)
        if isinstance(self._where, Remote):
            status, reason, answer = _ask_remote(self._where, method, target, body)
        else:
            status, reason, answer = _ask_socket(self._where, method, target, body)
        if status != http.client.OK:
            detail = answer.get("detail") if isinstance(answer, dict) else None
            raise ControlError(status, str(detail or reason))
        return answer


type _Answer = tuple[int, str, Any]


def _ask_socket(path: Path, method: str, target: str, body: bytes | None) -> _Answer:
    try:
        return _exchanged(_UnixConnection(path), method, target, body)
    except (FileNotFoundError, ConnectionRefusedError):
        raise NotRunningError(
            f"no appliance answers at {path}; start it with `sallyport up`"
        ) from None
    except PermissionError:
        raise BindError(
            f"{path} is not open to you; ask as the appliance's user, as root,"
            " or join its control group"
        ) from None
    except (OSError, http.client.HTTPException) as error:
        raise BindError(f"{path}: {error}; is it the control socket?") from None


def _ask_remote(remote: Remote, method: str, target: str, body: bytes | None) -> _Answer:
    """Ask over TLS; nothing of the key's file is in an error's text."""
    host, port = _place(remote.url)
    try:
        context = _context(remote)
        connection = http.client.HTTPSConnection(host, port, timeout=_TIMEOUT_S, context=context)
        return _exchanged(connection, method, target, body)
    except ssl.SSLCertVerificationError as error:
        text = f"{remote.url}: {error.verify_message}; name its `sallyport ca export` as --ca"
        raise BindError(text) from None
    except ssl.SSLError as error:
        # With TLS 1.3 the answer to our certificate comes after our handshake is over.
        text = f"the handshake failed ({error.reason}); is the certificate one of its admins'?"
        raise BindError(f"{remote.url}: {text}") from None
    except (OSError, http.client.HTTPException) as error:
        raise BindError(f"{remote.url}: {error}; is it listen.control_tls there?") from None


def _exchanged(
    connection: http.client.HTTPConnection, method: str, target: str, body: bytes | None
) -> _Answer:
    try:
        connection.request(method, target, body)
        response = connection.getresponse()
        return response.status, response.reason, _decode(response.read(_MOST_OCTETS))
    finally:
        connection.close()


def _place(url: str) -> tuple[str, int]:
    try:
        parts = urlsplit(url)
        if parts.scheme == "https" and parts.hostname and parts.port and parts.path in {"", "/"}:
            return parts.hostname, parts.port
    except ValueError:
        pass
    raise BindError(f"{url!r} is no place of a control API: write https://ADDRESS:PORT")


def _context(remote: Remote) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    what = "--ca"
    try:
        context.load_verify_locations(remote.ca)
        what = "--cert and --key"
        context.load_cert_chain(remote.cert, remote.key, password="")  # never asks at a terminal
    except OSError as error:  # ssl.SSLError is one
        reason = getattr(error, "reason", None) or error.strerror or "unusable"
        raise BindError(f"{what} cannot be used: {reason}") from None
    return context


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
