"""What can be wrong with a rule file, a name or an address, sorted by who must act.

    RuleError
    |-- MalformedNameError      the peer or the admin wrote something that is no domain name
    |-- MalformedAddressError   the same, for an address or a network
    |-- MalformedPathError      the same, for the path of a request or of a rule
    `-- RuleSyntaxError         the admin must mend a file; carries every problem at once

Denial is no error: it is a `rules.decision.Decision`.
"""

from enum import Enum
from typing import override

from msgspec import Struct


class Severity(Enum):
    """Whether a problem stops the rules from loading."""

    ERROR = "error"
    WARNING = "warning"


class Place(Struct, frozen=True, order=True):
    """Where something stands in a file; line and column count from 1."""

    file: str
    line: int
    column: int

    @override
    def __str__(self) -> str:
        """Return `file:line:column`, as editors and compilers print it."""
        return f"{self.file}:{self.line}:{self.column}"


class Problem(Struct, frozen=True):
    """One thing wrong in a file: where, what, and the cure."""

    place: Place
    message: str
    cure: str
    excerpt: str = ""  # the source line, without its line end
    severity: Severity = Severity.ERROR

    def render(self) -> str:
        """Return the lines that a person reads: place, message, excerpt with a caret, cure."""
        head = f"{self.place}: {self.severity.value}: {self.message}"
        caret = (
            f"    {self.excerpt}\n    {' ' * (self.place.column - 1)}^\n" if self.excerpt else ""
        )
        return f"{head}\n{caret}    cure: {self.cure}"


class RuleError(Exception):
    """The root of everything that this package raises."""


class MalformedNameError(RuleError):
    """Not a domain name in the form that every plane agrees on."""


class MalformedAddressError(RuleError):
    """Not an address or network in canonical spelling."""


class MalformedPathError(RuleError):
    """Not a path, or not a path pattern; `cure` says what to write instead."""

    def __init__(self, message: str, cure: str) -> None:
        super().__init__(message)
        self.cure = cure


class RuleSyntaxError(RuleError):
    """Rule files that cannot be loaded; `problems` holds every error of every file."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("\n".join(problem.render() for problem in problems))
        self.problems = problems
