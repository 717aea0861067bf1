"""Suffixes with wider limits: lists that we ship, each with the reason why it may (rules/tiers).

A suffix is of the second tier where its operator alone sees the questions for names below it, so
that nobody who rents something there can be told anything by them.
"""

from collections.abc import Mapping

from msgspec import Struct

from rules.name import DomainName, parse
from rules.suffix import UNDELEGATED

ORDINARY = "ordinary"
POPULAR = "popular"
PRIVATE = "private"


class Tiers(Struct, frozen=True):
    """The list that each suffix of the second tier stands on."""

    lists: dict[DomainName, str]

    def of(self, suffix: DomainName) -> str:
        """Return the list that holds `suffix` or what is above it; `ORDINARY` where none does.

        What the root does not delegate is a private network's own, and its resolver's alone to see:
        search lists put the name of everything below it (RFC 8244, section 4.2.1; RFC 9476).
        """
        if suffix.rpartition(".")[2] in UNDELEGATED:
            return PRIVATE
        lists, dot = self.lists, -1
        while True:
            name = suffix[dot + 1 :]
            if name in lists:
                return lists[DomainName(name)]
            dot = suffix.find(".", dot + 1)
            if dot < 0:
                return ORDINARY


NO_TIERS = Tiers({})


def read_tiers(texts: Mapping[str, str]) -> Tiers:
    """Return the tiers that `texts` spell, by the name of each list: a suffix a line, `#` comments.

    Raises:
        MalformedNameError: a line is no domain name.
    """
    lists: dict[DomainName, str] = {}
    for title, text in texts.items():
        for line in text.splitlines():
            words = line.split("#", 1)[0].strip()
            if words:
                lists.setdefault(parse(words), title)
    return Tiers(lists)
