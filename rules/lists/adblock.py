"""AdBlock lists, as far as they are about whole domains: `||domain^`, and `@@||domain^` against it.

The other rules (parts of URLs, elements of pages, requests of a certain kind) are for browsers.
"""

import re
from collections.abc import Iterator
from typing import Final

from msgspec.structs import replace

from rules.lists.layout import Deed, Scope
from rules.lists.trigger import (
    PLAIN_NAME,
    Lines,
    Skipped,
    Tally,
    Trigger,
    read_subject,
)
from rules.name import NAME_CHARACTERS

_PLAIN = re.compile(rf"\|\|({PLAIN_NAME})\^\s*")
_DOMAIN = re.compile(r"(@@)?\|\|([^/^$|]+)\^?\|?(?:\$(.*))?")
_COMMENT = ("!", "[", "# ")

# What says no more than "this domain, for whatever request": the rule stands without it.
_HARMLESS: Final = frozenset(
    {"all", "document", "doc", "important", "network", "popup", "third-party", "3p"}
)


def read_adblock(lines: Lines, tally: Tally) -> Iterator[Trigger]:
    """Yield what AdBlock lists deny and exempt."""
    for line, text in lines:
        plain = _PLAIN.fullmatch(text)
        if plain is not None and len(plain[1]) <= NAME_CHARACTERS:
            yield Trigger(line, plain[1].encode(), Scope.BOTH)
            continue
        word = text.strip()
        if not word or word == "#" or word.startswith(_COMMENT):
            continue
        found = _DOMAIN.fullmatch(word)
        if found is None or not _HARMLESS.issuperset(_options(found[3])):
            tally.skip(Skipped.NOT_DNS)
            continue
        trigger = _trigger(line, text, found[2], tally)
        if trigger is not None and found[1]:
            yield replace(trigger, scope=Scope.EXEMPT, deed=Deed.PASSTHRU)
        elif trigger is not None:
            yield trigger


def _options(text: str | None) -> list[str]:
    return text.lower().split(",") if text else []


def _trigger(line: int, text: str, domain: str, tally: Tally) -> Trigger | None:
    below = domain.startswith("*.")
    subject = domain.removeprefix("*.")
    if "*" in subject:
        tally.skip(Skipped.WILDCARD)
        return None
    return read_subject(line, text, subject, Scope.BELOW if below else Scope.BOTH, tally)
