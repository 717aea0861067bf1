"""TLS towards origins: what is verified of them, and what each is shown of the app that asks.

A context is made once per certificate: to read the trust anchors of a system takes 50 ms, in a
thread, and 0.8 MB.  An SVID is asked of the issuer, goes into the context by a file of memory
and is kept until half of its life is over; its private key is in no other place of ours.
"""

import asyncio
import errno
import os
import ssl
import stat
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import assert_never

from msgspec import Struct
from msgspec.structs import replace

from proxy.channel import Signed
from proxy.errors import ConfigError, UpstreamError
from proxy.limits import Limits
from proxy.metrics import Metrics
from proxy.transport.tls import upstream_context
from rules.decision import (
    ClientCertificate,
    Decision,
    FileCertificate,
    Reason,
    SvidCertificate,
    Verdict,
)

ALPN = ("http/1.1",)  # RFC 7301; RFC 9112: what we speak to origins
REVOKED = Decision(Verdict.DENY, Reason.REVOKED)

_FILE_OCTETS = 1 << 20  # a chain of hundreds; the configuration of Kubernetes holds as much
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK

_NEVER = float("inf")
_AGAIN_S = 30.0  # between attempts to renew what is still valid; SPIRE's agent retries in 5 to 60

type Sign = Callable[[str], Awaitable[Signed]]
"""Issues an SVID of a SPIFFE ID, to be presented by us; a `problem` where there is none."""

type _Stamps = tuple[tuple[int, int, int], ...]
"""What tells of two files that they were changed or replaced."""


class _Held(Struct, frozen=True):
    """A context, when to make it anew and when it is of no use any more (Unix time)."""

    context: ssl.SSLContext
    until: float = _NEVER
    ends: float = _NEVER
    stamps: _Stamps = ()
    serial: str = ""


class IdentityContexts:
    """Contexts by what they present.  At `identity_contexts` the one used longest ago makes room.

    `anchors` (PEM) or the system's verify origins.  `is_revoked` is asked with the app and the
    SPIFFE ID before anything is presented; where the serial number alone of an SVID is void, by
    `is_void`, another SVID is fetched.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - the composition root hands every part in
        self,
        limits: Limits,
        metrics: Metrics,
        wall: Callable[[], float],
        anchors: Path | None = None,
        sign: Sign | None = None,
        is_revoked: Callable[[str, str], bool] = lambda _app, _spiffe: False,
        is_void: Callable[[str], bool] = lambda _serial: False,
    ) -> None:
        self._limits = limits
        self._metrics = metrics
        self._wall = wall
        self._anchors = anchors
        self._sign = sign
        self._is_revoked = is_revoked
        self._is_void = is_void
        self._held: dict[ClientCertificate | None, _Held] = {}
        self._making: dict[ClientCertificate | None, asyncio.Task[_Held]] = {}

    def __len__(self) -> int:
        """Return how many contexts are kept."""
        return len(self._held)

    def revoked(self, app: str, certificate: ClientCertificate | None) -> bool:
        """Return whether `certificate` may not be presented for `app` any more."""
        if not isinstance(certificate, SvidCertificate):
            return False
        is_so = self._is_revoked(app, certificate.spiffe)
        if is_so:
            self._held.pop(certificate, None)  # its key is forgotten, too
        return is_so

    async def context_for(
        self, app: str, certificate: ClientCertificate | None
    ) -> ssl.SSLContext | Decision:
        """Return the context of a connection to an origin, or why there is none.

        The reason is REVOKED, UPSTREAM_TLS, or CAPACITY where too many are being made.
        """
        if self.revoked(app, certificate):
            return REVOKED
        try:
            held = self._usable(certificate) or await self._made(certificate)
        except UpstreamError as error:
            return Decision(Verdict.FAIL, error.reason, text=str(error))
        # It may have been revoked while the issuer was asked.
        return REVOKED if self.revoked(app, certificate) else held.context

    def forget(self) -> None:
        """Fetch every SVID anew that is presented from now on."""
        for certificate in [each for each in self._held if isinstance(each, SvidCertificate)]:
            del self._held[certificate]

    def close(self) -> None:
        """Fetch no more certificates, and forget the keys."""
        for making in list(self._making.values()):
            making.cancel()
        self._held.clear()

    def _usable(self, certificate: ClientCertificate | None) -> _Held | None:
        held = self._held.pop(certificate, None)
        if held is None or (held.serial and self._is_void(held.serial)):
            return None
        if self._wall() >= held.until or held.stamps != _stamps(certificate):
            if self._wall() < held.ends:
                self._held[certificate] = held  # until there is a better one
            return None
        self._held[certificate] = held  # used last
        return held

    async def _made(self, certificate: ClientCertificate | None) -> _Held:
        """Make a context, once for all who wait for the same.

        Raises:
            UpstreamError: why there is none.
        """
        making = self._making.get(certificate)
        if making is None:
            if len(self._making) >= self._limits.identity_contexts:
                self._metrics.bounds.add("identity_contexts")
                raise UpstreamError(Reason.CAPACITY, "too many certificates are being fetched")
            making = asyncio.get_running_loop().create_task(self._make(certificate))
            self._making[certificate] = making
            making.add_done_callback(lambda task: self._done(certificate, task))
        return await asyncio.shield(making)  # who gives up leaves it to the others

    def _done(self, certificate: ClientCertificate | None, task: asyncio.Task[_Held]) -> None:
        del self._making[certificate]
        if task.cancelled() or task.exception() is not None:
            return
        self._held.pop(certificate, None)
        if len(self._held) >= self._limits.identity_contexts:
            self._metrics.bounds.add("identity_contexts")
            del self._held[next(iter(self._held))]
        self._held[certificate] = task.result()

    async def _make(self, certificate: ClientCertificate | None) -> _Held:
        match certificate:
            case None:
                return _Held(await asyncio.to_thread(_context, self._anchors))
            case FileCertificate():
                stamps = _stamps(certificate)
                context = await asyncio.to_thread(_with_files, self._anchors, certificate)
                return _Held(context, stamps=stamps)
            case SvidCertificate():
                return await self._renewed(certificate)
            case _:
                assert_never(certificate)

    async def _renewed(self, certificate: SvidCertificate) -> _Held:
        spiffe, now = certificate.spiffe, self._wall()
        if self._sign is None:
            raise _blame(f"no issuer gives us the SVID of {spiffe}")
        signed = await self._sign(spiffe)
        if signed.problem or signed.not_after <= now:
            before = self._held.get(certificate)
            if before is not None and now < before.ends:
                return replace(before, until=min(now + _AGAIN_S, before.ends))
            raise _blame(f"no SVID of {spiffe}: {signed.problem or 'it has ended already'}")
        context = await asyncio.to_thread(_with_svid, self._anchors, signed)
        ends = float(signed.not_after)
        return _Held(context, now + (ends - now) / 2, ends, serial=signed.serial)


def _context(anchors: Path | None) -> ssl.SSLContext:
    try:
        return upstream_context(anchors, ALPN)
    except ConfigError as error:  # the file was there when we began
        raise _blame(str(error)) from None


def _with_files(anchors: Path | None, certificate: FileCertificate) -> ssl.SSLContext:
    context = _context(anchors)
    try:
        # OpenSSL would wait for who writes to a FIFO, and hold a thread for ever.
        with _kept(_content(certificate.cert)) as chain, _kept(_content(certificate.key)) as key:
            context.load_cert_chain(chain, key, _no_passphrase)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        words = error.strerror if isinstance(error, OSError) else str(error)
        raise _blame(f"client_certificate {certificate.cert}: {words}") from None
    return context


def _with_svid(anchors: Path | None, signed: Signed) -> ssl.SSLContext:
    context = _context(anchors)
    with _kept(f"{signed.chain}\n{signed.key}".encode()) as file:
        try:
            context.load_cert_chain(file)
        except ssl.SSLError as error:
            raise _blame(f"the issuer's SVID cannot be used: {error.reason}") from None
    return context


@contextmanager
def _kept(octets: bytes) -> Iterator[str]:
    """Yield a file that is on no disk: OpenSSL's Python takes a chain and a key from files only."""
    with os.fdopen(os.memfd_create("svid", os.MFD_CLOEXEC), "wb", buffering=0) as file:
        file.write(octets)
        yield f"/proc/self/fd/{file.fileno()}"


def _content(path: str) -> bytes:
    with os.fdopen(os.open(path, _READ), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "no regular file")
        octets = file.read(_FILE_OCTETS + 1)
    if len(octets) > _FILE_OCTETS:
        raise OSError(errno.EFBIG, f"over {_FILE_OCTETS} octets")
    return octets


def _no_passphrase() -> str:
    # Without this OpenSSL would ask on the terminal, and everything would wait.
    raise ValueError("the key is encrypted; name one that is not, readable by us alone")


def _stamps(certificate: ClientCertificate | None) -> _Stamps:
    if not isinstance(certificate, FileCertificate):
        return ()
    found = []
    for path in (certificate.cert, certificate.key):
        try:
            status = Path(path).stat()
        except OSError:
            return ()
        found.append((status.st_mtime_ns, status.st_ino, status.st_size))
    return tuple(found)


def _blame(text: str) -> UpstreamError:
    return UpstreamError(Reason.UPSTREAM_TLS, text)
