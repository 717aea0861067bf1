"""What a line of a list says, in the one form that all formats come to, and what was skipped."""

import re
from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from typing import Final

from msgspec import Struct

from rules.address import Network, parse_network
from rules.decision import LocalRecord
from rules.errors import MalformedAddressError, Place, Problem, Severity
from rules.hosts import parse_host
from rules.lists.layout import Deed, Scope, key_of_network
from rules.name import NAME_CHARACTERS
from rules.node import EXCERPT_CHARACTERS, MistakeError

PROBLEMS: Final = 20  # of a file shown; clang's -ferror-limit is 19
LINE_CHARACTERS: Final = 4096  # a longer line is no entry; a name has 253 characters

# Canonical already and no literal, for the top label is of letters or an A-label: nearly all.
PLAIN_NAME: Final = (
    r"(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)+(?:[a-z]{2,63}|xn--[a-z0-9-]{0,58}[a-z0-9])"
)
_PLAIN = re.compile(PLAIN_NAME)


class Skipped(StrEnum):
    """Why a line is not in force."""

    MALFORMED = "cannot be read"
    TOO_LONG = "too long"
    LOCAL_NAME = "name of the host itself"
    MAPPING = "maps a name, denies none"
    NOT_DNS = "not for DNS"
    WILDCARD = "a pattern that is no domain"
    INVISIBLE = "a trigger that is not visible here"
    ACTION = "an action that is not supported"
    RECORD = "a record type that is not supported"
    DIRECTIVE = "a directive that is not supported"


class Trigger(Struct, frozen=True, gc=False):
    """One trigger; `line` counts from 1.  `key` is a key of `rules.lists.layout`."""

    line: int
    key: bytes
    scope: Scope
    deed: Deed = Deed.DENY
    record: LocalRecord | None = None


type Lines = Iterable[tuple[int, str]]
"""Lines with their numbers from 1, without what surrounds them."""

type Reader = Callable[[Lines, "Tally"], Iterator[Trigger]]
"""Reads the lines of one format."""


class Tally:
    """Counts what is skipped of one file, and keeps the first problems with their places."""

    def __init__(self, shown: str) -> None:
        self.shown = shown
        self.skipped: dict[Skipped, int] = {}
        self.problems: list[Problem] = []
        self.omitted = 0

    def skip(self, why: Skipped) -> None:
        """Count a line, or a word of one, that is not in force."""
        self.skipped[why] = self.skipped.get(why, 0) + 1

    def malformed(self, line: int, text: str, word: str, message: str, cure: str) -> None:
        """Count a line that cannot be read because of `word`, and warn of it."""
        self.skip(Skipped.MALFORMED)
        self.warn(line, text, word, message, cure)

    def warn(self, line: int, text: str, word: str, message: str, cure: str) -> None:
        """Warn of `word` in a line."""
        if len(self.problems) >= PROBLEMS:
            self.omitted += 1
            return
        place = Place(self.shown, line, max(text.find(word), 0) + 1)
        self.problems.append(Problem(place, message, cure, _excerpt(text), Severity.WARNING))

    def fail(self, message: str, cure: str) -> None:
        """Add an error of the whole file: the list cannot stand."""
        place = Place(self.shown, 1, 1)
        self.problems.insert(0, Problem(place, message, cure))


def is_plain(word: str) -> bool:
    """Return whether `word` is a name in canonical form, as nearly all are."""
    return _PLAIN.fullmatch(word) is not None and len(word) <= NAME_CHARACTERS


def read_name(line: int, text: str, word: str, tally: Tally) -> bytes | None:
    """Return the name that `word` of the line `text` spells; None where it is none, which is said.

    International names become A-labels (UTS 46).
    """
    if is_plain(word):
        return word.encode()
    try:
        return parse_host(word).encode()
    except MistakeError as mistake:
        tally.malformed(line, text, word, str(mistake), "the line is skipped; tell its maintainer")
    return None


def read_subject(line: int, text: str, word: str, scope: Scope, tally: Tally) -> Trigger | None:
    """Return the trigger of a name, or of an address or network, that `word` spells."""
    if is_plain(word):
        return Trigger(line, word.encode(), scope)
    network = as_network(word)
    if network is not None:
        return Trigger(line, key_of_network(network), scope)
    name = read_name(line, text, word, tally)
    if name is None:
        return None
    if b"." not in name:
        cure = "take it out if that is not meant: the last line of half a file looks so"
        tally.warn(line, text, word, f"it is about everything below {name.decode()}", cure)
    return Trigger(line, name, scope)


def as_network(word: str) -> Network | None:
    """Return the address or network that `word` spells; None where it is none."""
    if not word[:1].isalnum() and word[:1] != ":":
        return None
    try:
        return parse_network(word)
    except MalformedAddressError:
        return None


def _excerpt(text: str) -> str:
    shown = text.rstrip("\r\n")
    if len(shown) > EXCERPT_CHARACTERS:
        return ""
    return "".join(char if char.isprintable() else " " for char in shown)
