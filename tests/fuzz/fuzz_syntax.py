"""Rule files: `RuleSyntaxError` is allowed, with a place, a message and a cure for each problem."""

from pathlib import Path

from rules.errors import Problem, RuleSyntaxError
from rules.syntax import load
from rules.text import SourceText
from tests.rules.files import PACKS, SUFFIXES
from tests.rules.test_document import REFERENCE

_VECTORS = Path(__file__).resolve().parents[1] / "vectors" / "rules"
SEEDS: tuple[bytes, ...] = (
    REFERENCE.encode(),
    *(path.read_bytes() for path in sorted(_VECTORS.glob("*.yaml"))),
)


def target(data: bytes) -> None:
    """A file loads the same twice, or every problem of it can be shown at a line of the file."""
    text = data.decode(errors="surrogateescape")
    problems = _load(text)
    assert _load(text) == problems  # the order of sets shows nowhere
    for problem in problems:
        assert problem.place.line >= 1
        assert problem.place.column >= 1
        assert problem.message
        assert problem.cure
        assert problem.excerpt.isprintable()
        assert problem.render().count("\n") <= 3


def _load(text: str) -> tuple[Problem, ...]:
    try:
        return load([SourceText("fuzz.yaml", text)], SUFFIXES, 1, PACKS).warnings
    except RuleSyntaxError as error:
        return error.problems
