"""Rule files written as short literals, for the tests of the parsing side."""

from textwrap import dedent

from rules.errors import Problem, RuleSyntaxError
from rules.ruleset import App
from rules.suffix import read_suffixes
from rules.syntax import Loaded, load
from rules.text import SourceText

SUFFIXES = read_suffixes(
    [
        "com",
        "net",
        "example",
        "uk",
        "co.uk",
        "*.ck",
        "no",
        "bo.nordland.no",
        "// ===BEGIN PRIVATE DOMAINS===",
        "github.io.example",
        "*.tenants.example",
        "eu.cloud.example",
    ]
)
PACK = SourceText(
    "packs/llm.yaml",
    "allow:\n  - {name: one, host: api.one.example}\n"
    "  - {name: two, host: api.two.example, ports: [8443], require: [mtls]}\n",
)
PACKS = {"llm": PACK}


def load_files(*texts: str) -> Loaded:
    """Load files a.yaml, b.yaml, ... of these texts."""
    files = [SourceText(f"{chr(97 + n)}.yaml", dedent(text)) for n, text in enumerate(texts)]
    return load(files, SUFFIXES, 1, PACKS)


def problems_of(*texts: str) -> tuple[Problem, ...]:
    """Return the errors of files a.yaml, b.yaml, ...; none if they load."""
    try:
        load_files(*texts)
    except RuleSyntaxError as error:
        return error.problems
    return ()


def errors_of(*texts: str) -> list[str]:
    """Return the errors as `file:line:column message`."""
    return [f"{problem.place} {problem.message}" for problem in problems_of(*texts)]


def warnings_of(*texts: str) -> list[str]:
    """Return the warnings as `file:line:column message`."""
    return [f"{each.place} {each.message}" for each in load_files(*texts).warnings]


def app_of(*texts: str) -> App:
    """Return the app `me` of the files."""
    return load_files(*texts).ruleset.apps["me"]


def me(body: str) -> str:
    """Return a file whose only app, `me`, has this body, from line 3 and column 5 on."""
    return "apps:\n  me:\n" + "".join(f"    {line}\n" for line in dedent(body).strip().splitlines())
