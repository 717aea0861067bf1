"""Host patterns of rules: a name, or a wildcard over the names below one."""

from enum import IntEnum
from typing import override

from msgspec import Struct

from rules.name import ROOT, DomainName, is_below, parent


class PatternKind(IntEnum):
    """How a pattern matches; a greater value is more specific."""

    EVERY = 0  # `*` alone, in deny only: every name and literal
    BELOW = 1  # `**.base`: one label or more below the base
    CHILD = 2  # `*.base`: exactly one label below the base
    EXACT = 3


class HostPattern(Struct, frozen=True, order=True, gc=False):  # no cycle; 100,000 of them
    """A pattern in canonical form; `base` is the root for EVERY."""

    kind: PatternKind
    base: DomainName

    def matches(self, name: DomainName) -> bool:
        """Return whether `name` is one of the pattern's."""
        if self.kind is PatternKind.EXACT:
            return name == self.base
        if self.kind is PatternKind.CHILD:
            return is_below(name, self.base) and parent(name) == self.base
        return self.kind is PatternKind.EVERY or is_below(name, self.base)

    @override
    def __str__(self) -> str:
        """Return the pattern as it is written in a rule file."""
        if self.kind is PatternKind.EXACT:
            return self.base
        stars = {PatternKind.CHILD: "*.", PatternKind.BELOW: "**."}.get(self.kind, "*")
        return stars if self.base == ROOT else stars + self.base
