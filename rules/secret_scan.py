"""Registered secrets, looked for in text: of what they are, only digests are here.

A digest costs a microsecond, so that of a text one window in `stride` is looked at.  Of a form all
windows are known: a run of `characters + stride - 1` has one that is looked at, wherever it begins.
"""

from array import array
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from itertools import batched
from struct import Struct as Format
from typing import Final

from msgspec import Struct

from rules.fingerprint import DIGEST_OCTETS, STRIDE, Windows

_SLOTS = 4  # a digest: three of four texts that are nobody's end there
_OWNER_BITS: Final = 16
_NUMBER = Format(">Q").unpack_from  # of `DIGEST_OCTETS`; three times as fast as int.from_bytes


class Hit(Struct, frozen=True):
    """The secret, by the name that it is registered under, and the form that it was found in."""

    secret: str
    how: str


class _Scan(Struct, frozen=True):
    """Windows of one length: their digests in order, and beside each whose it is."""

    characters: int
    stride: int
    mask: int
    slots: bytes
    digests: Sequence[int]
    owners: Sequence[int]

    def owner(self, found: int) -> int | None:
        """Return whose digest `found` is."""
        at = bisect_left(self.digests, found)
        is_there = at < len(self.digests) and self.digests[at] == found
        return self.owners[at] if is_there else None


class SecretTable:
    """Every registered secret: what was fingerprinted under `key`, by its name."""

    def __init__(self, key: bytes, secrets: Mapping[str, Sequence[Windows]]) -> None:
        self._key = key
        self._hits = [Hit(name, each.how) for name, windows in secrets.items() for each in windows]
        assert len(self._hits) < 1 << _OWNER_BITS, "limits.secrets bounds them"  # noqa: S101 - see there
        by_size: dict[int, list[tuple[int, Windows]]] = {}
        every = (each for windows in secrets.values() for each in windows)
        for owner, each in enumerate(every):
            by_size.setdefault(each.characters, []).append((owner, each))
        self._scans = [_scan(size, owned) for size, owned in by_size.items()]
        self.reach = max((each.characters + each.stride - 2 for each in self._scans), default=0)
        """How many characters before a text must be looked at with it; as many of the text do."""
        self.least = min((each.characters for each in self._scans), default=1)
        """In fewer characters nothing is found."""

    def __bool__(self) -> bool:
        """Return whether there is any."""
        return bool(self._scans)

    def holds(self, text: bytes) -> bool:
        """Return whether any window of a secret stands in `text`, which is squeezed; slower."""
        return self.search(text) is not None

    def search(self, text: bytes) -> Hit | None:
        """Return a secret of which any window stands in `text`, which is squeezed; slower."""
        shifted = (self.find(bytes(STRIDE - 1 - at % STRIDE) + text) for at in range(STRIDE))
        return next(filter(None, shifted), None)

    def find(self, text: bytes) -> Hit | None:
        """Return a secret that stands in `text`, which is squeezed."""
        key = self._key
        for scan in self._scans:
            size, slots, mask = scan.characters, scan.slots, scan.mask
            for start in range(scan.stride - 1, len(text) - size + 1, scan.stride):
                (found,) = _NUMBER(blake2b(key + text[start : start + size]).digest())
                if slots[found & mask]:
                    owner = scan.owner(found)
                    if owner is not None:
                        return self._hits[owner]
        return None


def _scan(size: int, owned: Sequence[tuple[int, Windows]]) -> _Scan:
    pairs = sorted(
        int.from_bytes(bytes(digest)) << _OWNER_BITS | owner
        for owner, each in owned
        for digest in batched(each.digests, DIGEST_OCTETS)
    )
    mask = (1 << (_SLOTS * len(pairs)).bit_length()) - 1
    digests = array("Q", (each >> _OWNER_BITS for each in pairs))
    slots = bytearray(mask + 1)
    for each in digests:
        slots[each & mask] = 1
    return _Scan(
        characters=size,
        stride=min(STRIDE, *(each.shortest - size + 1 for _, each in owned)),
        mask=mask,
        slots=bytes(slots),
        digests=digests,
        owners=array("H", (each & ((1 << _OWNER_BITS) - 1) for each in pairs)),
    )
