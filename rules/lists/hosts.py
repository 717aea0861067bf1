"""hosts(5) files as deny lists: an address of this host, and the names that shall lead there.

A name is denied as it is: what is below it is not.
"""

import re
from collections.abc import Iterator
from functools import lru_cache

from rules.address import is_this_host, parse_address
from rules.errors import MalformedAddressError
from rules.lists.layout import Scope
from rules.lists.trigger import (
    PLAIN_NAME,
    Lines,
    Skipped,
    Tally,
    Trigger,
    read_name,
)
from rules.name import NAME_CHARACTERS
from rules.node import quote

_PLAIN = re.compile(rf"(?:0\.0\.0\.0|127\.0\.0\.1|::1?)[ \t]+({PLAIN_NAME})\s*(?:#.*)?")
_OWN = frozenset({"localhost.localdomain", "0.0.0.0", "localhost6.localdomain6"})


def read_hosts(lines: Lines, tally: Tally) -> Iterator[Trigger]:
    """Yield what hosts files deny."""
    for line, text in lines:
        plain = _PLAIN.fullmatch(text)
        if plain is not None and plain[1] not in _OWN and len(plain[1]) <= NAME_CHARACTERS:
            yield Trigger(line, plain[1].encode(), Scope.EXACT)
            continue
        address, *names = text.partition("#")[0].split() or [""]
        if not address:
            continue
        here = _is_here(address)
        if here is None or not names:
            message = f"{quote(address)} is no address before names"
            tally.malformed(line, text, address, message, "the line is skipped")
        elif here:
            yield from _names(line, text, names, tally)
        else:
            tally.skip(Skipped.MAPPING)


def _names(line: int, text: str, names: list[str], tally: Tally) -> Iterator[Trigger]:
    for word in names:
        if "." not in word or word.lower() in _OWN:
            tally.skip(Skipped.LOCAL_NAME)
            continue
        name = read_name(line, text, word, tally)
        if name is not None:
            yield Trigger(line, name, Scope.EXACT)


@lru_cache(maxsize=64)
def _is_here(text: str) -> bool | None:
    """Return whether it is an address of this host; None where it is no address."""
    try:
        return is_this_host(parse_address(text.partition("%")[0]))
    except MalformedAddressError:
        return None
