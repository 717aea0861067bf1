"""A flood of refused names: beside one that was refused, the next is refused by its octets.

Beyond `limits.refusals_a_second` an app's refusals share one audit line and one id (`audit_fold`),
so that the replies to names below one parent differ in the question alone.  What the first one
was answered with is the pattern of all; `rules.siblings` says which names it holds for.
"""

import re
from typing import override

from proxy.audit_fold import Repeats
from proxy.resolver.message import Query, room_octets
from proxy.resolver.tally import Tally
from rules.name import NAME_CHARACTERS, ROOT
from rules.siblings import Siblings

_HEAD_OCTETS = 12
_LABEL_OCTETS = 63  # RFC 1035, section 2.3.4
# As `rules.name` has it, in either case.
LABEL = re.compile(rb"[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?")


class Flood(Repeats):
    """How the siblings of one refused name are refused, until `until` of the resolver's clock."""

    __slots__ = ("_below", "_end", "_head", "_longest", "_named", "_tail", "_tally", "until")

    def __init__(self, tally: Tally, siblings: Siblings) -> None:
        """Make one that answers nothing yet."""
        super().__init__()
        self._tally = tally
        self._named = siblings.named
        self._below = f".{siblings.parent}"
        self._head = self._tail = b""
        self._longest = 0
        self._end: int | None = None
        self.until = 0.0

    def copy(self, wire: bytes, query: Query, reply: bytes, limit_octets: int) -> bool:
        """Take `reply` to `query` as the pattern; return False where it can be none.

        The query stands in `wire`; its reply is told by the audit line of `fold`.
        """
        end = _HEAD_OCTETS + len(query.question)
        fold, edns = self.fold, query.edns
        if fold is None or reply[_HEAD_OCTETS:end] != query.question:
            return False
        if edns is not None and (edns.padded or edns.others or fold.id.encode() not in reply):
            return False  # its length depends on the name's; seldom comes twice; had no room
        room = room_octets(query, limit_octets) - len(reply)
        label_octets = wire[_HEAD_OCTETS]
        self._longest = min(
            *(_LABEL_OCTETS, label_octets + room),
            label_octets + NAME_CHARACTERS - len(query.name),
        )
        self._head, self._tail = reply[2:_HEAD_OCTETS], reply[end:]
        self._end = end - len(wire) or None
        return room >= 0 and query.name != ROOT

    def key(self, wire: bytes) -> bytes:
        """Return what the queries that it answers have in common: all but id and first label."""
        return wire[2:_HEAD_OCTETS] + wire[_HEAD_OCTETS + 1 + wire[_HEAD_OCTETS] :]

    def answer(self, wire: bytes) -> bytes | None:
        """Return the reply to the query `wire` of its key, counted; None where it is no sibling."""
        octets = wire[12]
        label = wire[13 : 13 + octets]
        if octets > self._longest or not (label.isalnum() or LABEL.fullmatch(label)):
            return None
        if self._named:
            name = label.decode().lower() + self._below
            for names in self._named:
                if name in names:
                    return None
        self.count += 1
        return wire[:2] + self._head + wire[12 : self._end] + self._tail

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
