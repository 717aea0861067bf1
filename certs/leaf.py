"""The server's certificate as those see it who have no need of its key, or of X.509.

The appliance reads this and not the certificate: the library for those would be a quarter of its
memory.
"""

import hashlib
from pathlib import Path

import msgspec
from msgspec import Struct

from certs import files


class Leaf(Struct, frozen=True, forbid_unknown_fields=True):
    """Between when (seconds since 1970) and for which names server.pem is good.

    `sha256` is of the file, so that one which was exchanged is never taken for this one.
    """

    not_before: int
    not_after: int
    names: tuple[str, ...]
    sha256: str

    @property
    def renew_at(self) -> float:
        """When a new one is due: at two thirds of its life, so that there is time to fail."""
        return self.not_before + (self.not_after - self.not_before) * 2 / 3

    def is_good(self, names: tuple[str, ...], now: float) -> bool:
        """Return whether it is for exactly these names, valid at `now`, and not yet due."""
        return self.names == names and self.not_before <= now < self.renew_at


def read_leaf(folder: Path) -> Leaf | None:
    """Return what is known of server.pem; None where nothing is, or what is known is of another.

    Raises:
        KeystoreError: a file is there and cannot be read.
    """
    text, certificate = files.read(folder, files.SERVER_JSON), files.read(folder, files.SERVER_PEM)
    if text is None or certificate is None:
        return None
    try:
        leaf = msgspec.json.decode(text, type=Leaf)
    except msgspec.MsgspecError:
        return None
    return leaf if leaf.sha256 == fingerprint(certificate) else None


def fingerprint(octets: bytes) -> str:
    """Return the SHA-256 of a file."""
    return hashlib.sha256(octets).hexdigest()
