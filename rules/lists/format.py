"""Which format a list is in: by its first lines, where the rules do not say it."""

import re
from collections.abc import Iterable
from typing import Final

from rules.lists.adblock import read_adblock
from rules.lists.hosts import read_hosts
from rules.lists.plain import read_plain
from rules.lists.rpz import read_rpz
from rules.lists.trigger import PLAIN_NAME, Reader, as_network

HEAD_LINES: Final = 1000  # that are looked at; what a list's comments fill is rarely over 100

READERS: Final[dict[str, Reader]] = {
    "hosts": read_hosts,
    "plain": read_plain,
    "adblock": read_adblock,
    "rpz": read_rpz,
}

# One such line is enough: a header, or what a zone begins with.
_SURE = {
    "adblock": re.compile(r"\[(?:Adblock|uBlock|Adguard)", re.IGNORECASE),
    "rpz": re.compile(r"\$(?:ORIGIN|TTL)\s|\S*\s+(?:\w+\s+){0,2}SOA\s", re.IGNORECASE | re.ASCII),
}
_ADBLOCK = re.compile(r"!|\|\||@@|\||.*#[@?$%]*#|.*\^(?:\$|$)")
_RPZ = re.compile(r"\S+\s+(?:\w+\s+){0,2}(?:CNAME|A|AAAA|TXT)\s+\S", re.IGNORECASE | re.ASCII)
_PLAIN = re.compile(rf"(?:\*?\.)?(?:{PLAIN_NAME}|[\w-]+(?:\.[\w-]+)+)\.?", re.IGNORECASE)


def find_format(head: Iterable[str]) -> str | None:
    """Return the format of the most of these lines; None where most are of none.

    Comments that several formats have do not count; a file of such lines alone is a plain list,
    of nothing.
    """
    votes = dict.fromkeys((*READERS, ""), 0)
    for text in map(str.strip, head):
        for name, pattern in _SURE.items():
            if pattern.match(text):
                return name
        words = re.split("[#;]", text, maxsplit=1)[0].split()
        if words:
            votes[_vote(text, words)] += 1
    best, most = max(votes.items(), key=lambda vote: vote[1])
    if not most:
        return "plain"
    return best if best and most * 2 > sum(votes.values()) else None


def _vote(text: str, words: list[str]) -> str:
    if as_network(words[0]) is not None:
        return "hosts" if len(words) > 1 and "/" not in words[0] else "plain"
    if _ADBLOCK.match(text):
        return "adblock"
    if _RPZ.match(text):
        return "rpz"
    return "plain" if len(words) == 1 and _PLAIN.fullmatch(words[0]) else ""
