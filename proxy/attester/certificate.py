"""The agent's own certificate: loaded for TLS together with the digest of its key.

Both are of the same files or neither is used: what we sign is bound to the key that TLS shows.
"""

import hashlib
import ssl
from pathlib import Path

from msgspec import Struct

from certs.attester_key import spki_of
from certs.errors import CertsError
from proxy.attested.binding import Binding, Kind
from proxy.attester.errors import UnusableError
from proxy.errors import ConfigError
from proxy.transport.tls import upstream_context

_MOST_OCTETS = 65536  # of a chain in PEM; ours has less than 4 KiB
_TRIES = 3  # a renewal replaces both files within a millisecond

type Stamp = tuple[tuple[int, int, int], ...]


class Presented(Struct, frozen=True):
    """What a connection shows: `context` presents the certificate whose key is `binding`."""

    context: ssl.SSLContext
    binding: Binding


class OwnCertificate(Struct, frozen=True):
    """The files of a certificate and its key, and who is trusted at the other end, PEM."""

    chain: Path
    key: Path
    ca: Path

    def stamp(self) -> Stamp:
        """Return what changes when one of the files is replaced; () where one is missing."""
        try:
            found = [each.stat() for each in (self.chain, self.key)]
        except OSError:
            return ()
        return tuple((each.st_ino, each.st_mtime_ns, each.st_size) for each in found)

    def load(self) -> Presented:
        """Return the certificate for TLS.

        Raises:
            UnusableError: a file cannot be used; which, and what to do.
        """
        why = "they are being replaced all the time"
        for _ in range(_TRIES):
            before = self.stamp()
            try:
                spki = self._spki()
                context = self._context()
            except UnusableError as error:
                why = str(error)
                continue
            if before == self.stamp():
                return Presented(context, Binding(Kind.KEY, hashlib.sha256(spki).hexdigest()))
        raise UnusableError(f"the certificate {self.chain} with {self.key} cannot be used: {why}")

    def _spki(self) -> bytes:
        try:
            with self.chain.open("rb") as opened:
                return spki_of(opened.read(_MOST_OCTETS))
        except OSError as error:
            raise UnusableError(f"{error.strerror}; enrol first, or name --folder") from None
        except CertsError as error:
            raise UnusableError(str(error)) from None

    def _context(self) -> ssl.SSLContext:
        context = trusting(self.ca)
        try:
            context.load_cert_chain(self.chain, self.key, password="")  # never asks at a terminal
        except OSError as error:  # ssl.SSLError is one
            why = getattr(error, "reason", None) or error.strerror or "unusable"
            raise UnusableError(str(why)) from None
        return context


def trusting(ca: Path) -> ssl.SSLContext:
    """Return a context that verifies a server by the file `ca` alone, and its name.

    Raises:
        UnusableError: it is no file of certificates.
    """
    try:
        return upstream_context(ca, ("http/1.1",))
    except ConfigError:
        text = f"{ca} is no file of PEM certificates: `sallyport ca export` prints one"
        raise UnusableError(text) from None
