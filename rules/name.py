"""Domain names in the one form in which they are compared.

A `DomainName` is lower case, without the trailing dot, of letters, digits, hyphens and
underscores (RFC 5890, section 2.3.1; RFC 8553 for the underscore), A-labels where the name
is internationalised.  The root is ".".  Names are made by `parse` and `from_labels` and
nowhere else, so that two equal names are equal strings.
"""

import re
from collections.abc import Iterator, Sequence
from typing import NewType

from rules.errors import MalformedNameError

DomainName = NewType("DomainName", str)

ROOT = DomainName(".")
LABEL_OCTETS = 63  # RFC 1035, section 2.3.4
NAME_CHARACTERS = 253  # RFC 1035, section 2.3.4: 255 octets, less the first length and the root

_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_WIRE_NAME = re.compile(_NAME.pattern.encode())


def parse(text: str) -> DomainName:
    """Return the canonical form of `text`; case is folded and one trailing dot dropped.

    Raises:
        MalformedNameError: an octet outside letters, digits, hyphen and underscore, an empty
            label, a label over 63 octets, a name over 253 characters.
    """
    lowered = text.lower()
    name = lowered.removesuffix(".")
    # str.lower() turns some non-ASCII letters into ASCII ones (U+212A KELVIN SIGN): refuse those.
    if len(name) > NAME_CHARACTERS or not text.isascii() or not _NAME.fullmatch(name):
        shown = text[: NAME_CHARACTERS + 2]
        raise MalformedNameError(f"{shown!r} is not a domain name: {_blame(text)}")
    return DomainName(name)


def from_labels(labels: Sequence[bytes]) -> DomainName:
    """Return the canonical name of wire labels (without the root's empty one).

    A label may hold any octet on the wire (RFC 2181, section 11); one that holds a dot, a NUL
    or anything else outside the canonical alphabet is an error here, never an escape.

    Raises:
        MalformedNameError: as for `parse`.
    """
    if not labels:
        return ROOT
    name = b".".join(labels).lower()  # of octets, lower() folds ASCII alone
    if len(name) > NAME_CHARACTERS:
        raise MalformedNameError("a name is longer than 255 octets")
    # As many dots as joints: none of them stood inside a label.
    if name.count(b".") != len(labels) - 1 or not _WIRE_NAME.fullmatch(name):
        raise MalformedNameError("a label holds octets outside letters, digits, hyphen, underscore")
    return DomainName(name.decode("ascii"))


def ancestors(name: DomainName) -> Iterator[DomainName]:
    """Yield the parents of `name`, nearest first, without the root."""
    dot = name.find(".")
    while 0 <= dot < len(name) - 1:
        yield DomainName(name[dot + 1 :])
        dot = name.find(".", dot + 1)


def parent(name: DomainName) -> DomainName:
    """Return the name one label up; the root for a single label and for the root."""
    return next(ancestors(name), ROOT)


def is_below(name: DomainName, base: DomainName) -> bool:
    """Return whether `name` is strictly below `base`, by whole labels."""
    return base == ROOT != name or name.endswith("." + base)


def _blame(text: str) -> str:
    if not text.isascii():
        return "write international names as A-labels (xn--...)"
    for label in text.lower().removesuffix(".").split("."):
        if not label:
            return "an empty label"
        if len(label) > LABEL_OCTETS:
            return f"a label of {len(label)} octets, more than {LABEL_OCTETS}"
        if not re.fullmatch(_LABEL, label):
            return "labels hold letters, digits, underscores and inner hyphens"
    return f"more than {NAME_CHARACTERS} characters"
