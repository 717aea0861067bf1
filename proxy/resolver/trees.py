"""A flood of refused names whose parents change too: trees of names are refused by their octets.

As `proxy.resolver.refused`, which is for one parent and cheaper: here the labels are walked, and
the owner of the SOA is made of them.  `rules.beneath` says which names a pattern holds for.
"""

from collections.abc import Iterator
from typing import override

from proxy.audit_fold import Repeats
from proxy.resolver.message import Query, room_octets
from proxy.resolver.refused import LABEL
from proxy.resolver.tally import Tally
from proxy.wire.question import write_name
from rules.beneath import Beneath
from rules.name import LABEL_OCTETS, NAME_CHARACTERS, ROOT

_HEAD_OCTETS = 12
_TYPE_AND_CLASS_OCTETS = 4
_NAME_OCTETS = NAME_CHARACTERS + 2  # RFC 1035, section 2.3.4: the first length and the root too
_LABELS = 16  # before those that a pattern is kept under; a longer name is read whole
_QUESTION = b"\xc0\x0c"  # RFC 1035, section 4.1.4: a pointer to the question's name
_TC = 2  # RFC 1035, section 4.1.1, in the third octet


class Tree(Repeats):
    """How every name below a base is refused, until `until` of the resolver's clock."""

    __slots__ = (
        *("_apex", "_base_octets", "_below", "_head", "_labels", "_rest", "_room", "_tally"),
        *("_touched", "until"),
    )

    def __init__(self, tally: Tally, beneath: Beneath) -> None:
        """Make one that answers nothing yet."""
        super().__init__()
        self._tally = tally
        self._touched = beneath.touched
        self._below = "" if beneath.base == ROOT else f".{beneath.base}"
        self._base_octets = len(write_name(beneath.base))
        # Of the labels of a name that the SOA is of, so many stand before the base.
        self._labels = beneath.apex_labels - self._below.count(".")
        self._apex = None if beneath.apex is None else write_name(beneath.apex)
        self._head = self._rest = b""
        self._room = 0
        self.until = 0.0

    def copy(self, wire: bytes, query: Query, reply: bytes, limit_octets: int) -> bytes | None:
        """Take `reply` to `query` as the pattern; return its key, None where it can be none.

        The query stands in `wire`; its reply is told by the audit line of `fold`.
        """
        end = _HEAD_OCTETS + len(query.question)
        name_end = end - _TYPE_AND_CLASS_OCTETS
        fold, edns = self.fold, query.edns
        if fold is None or reply[_HEAD_OCTETS:end] != query.question or reply[2] & _TC:
            return None
        if edns is not None and (edns.padded or edns.others or fold.id.encode() not in reply):
            return None  # as in `refused.Flood.copy`
        if not int.from_bytes(reply[8:10]):
            self._apex = b""  # without a record there is no owner
        starts = list(_starts(wire, name_end - self._base_octets))
        owner = self._owner(wire, starts, name_end)
        if not reply.startswith(owner, end):
            return None
        self._head, self._rest = reply[2:_HEAD_OCTETS], reply[end + len(owner) :]
        self._room = room_octets(query, limit_octets)
        return wire[2:_HEAD_OCTETS] + wire[name_end - self._base_octets :]

    def answer(self, wire: bytes, starts: list[int], at: int) -> bytes | None:
        """Return the reply to the query `wire`, counted; None where the name is none of these.

        Its labels before `at`, where the base stands, begin at `starts`.
        """
        label = b""
        for start in starts:
            label = wire[start + 1 : start + 1 + wire[start]]
            if not (label.isalnum() or LABEL.fullmatch(label)):
                return None
        child = label.decode().lower() + self._below
        for names in self._touched:
            if child in names:
                return None
        name_end = at + self._base_octets
        question = wire[_HEAD_OCTETS : name_end + _TYPE_AND_CLASS_OCTETS]
        owner = self._owner(wire, starts, name_end)
        reply = wire[:2] + self._head + question + owner + self._rest
        if len(reply) > self._room or name_end - _HEAD_OCTETS > _NAME_OCTETS:
            return None
        self.count += 1
        return reply

    def _owner(self, wire: bytes, starts: list[int], name_end: int) -> bytes:
        if self._apex is not None:
            return self._apex
        if len(starts) <= self._labels:
            return _QUESTION
        # A length of a label is never a letter, so that the whole can be folded.
        return wire[starts[-self._labels] : name_end].lower()

    @override
    def settle(self) -> int:
        counted = super().settle()
        if counted:
            self._tally.add(counted)
        return counted

    @override
    def end(self) -> None:
        super().end()
        self.until = 0.0


def _starts(wire: bytes, end: int) -> Iterator[int]:
    at = _HEAD_OCTETS
    while at < end:
        yield at
        at += wire[at] + 1


def find(trees: dict[bytes, Tree], wire: bytes, now: float) -> bytes | None:
    """Return the reply to the query `wire` by one of `trees`; None where it has to be served."""
    head, at, size = wire[2:_HEAD_OCTETS], _HEAD_OCTETS, len(wire)
    starts: list[int] = []
    while at < size and len(starts) <= _LABELS:
        if starts:
            tree = trees.get(head + wire[at:])
            if tree is not None and now < tree.until:
                return tree.answer(wire, starts, at)
        octets = wire[at]
        if not 0 < octets <= LABEL_OCTETS:
            return None
        starts.append(at)
        at += octets + 1
    return None
