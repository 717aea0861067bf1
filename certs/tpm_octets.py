"""Octets of a TPM's structures, read once from front to back (TPM 2.0, part 2, section 4)."""

from typing import Never

from certs.errors import EvidenceError


class Octets:
    """The octets of one structure, `what`, and where in them we are; numbers are big-endian."""

    def __init__(self, what: str, octets: bytes, most: int) -> None:
        self._what, self._octets, self._at = what, octets, 0
        if len(octets) > most:
            self.refuse(f"has more than {most} octets")

    def refuse(self, why: str) -> Never:
        """Say that the structure is none that we take.

        Raises:
            EvidenceError: always.
        """
        raise EvidenceError(f"the {self._what} {why}")

    def take(self, count: int) -> bytes:
        """Return the next `count` octets.

        Raises:
            EvidenceError: there are fewer.
        """
        end = self._at + count
        if end > len(self._octets):
            self.refuse("ends too early: send all of it, without the size before it")
        taken, self._at = self._octets[self._at : end], end
        return taken

    def number(self, octets: int) -> int:
        """Return the number in the next `octets` octets.

        Raises:
            EvidenceError: there are fewer.
        """
        return int.from_bytes(self.take(octets))

    def sized(self, most: int) -> bytes:
        """Return what a TPM2B holds: its size in two octets, then as many.

        Raises:
            EvidenceError: it is cut off, or has more than `most` octets.
        """
        size = self.number(2)
        if size > most:
            self.refuse(f"has a part of {size} octets where {most} are the most")
        return self.take(size)

    def end(self) -> None:
        """Check that all was read.

        Raises:
            EvidenceError: something is left.
        """
        left = len(self._octets) - self._at
        if left:
            self.refuse(f"has {left} octets more than it should")
