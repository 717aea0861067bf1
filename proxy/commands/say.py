"""What every command says and how it fails: exit codes, errors for people, the configuration.

Exit codes: 0 fine, 1 refused or findings, 2 usage, 3 configuration or rules broken, 4 cannot bind
or write, 70 a bug of ours.
"""

import os
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import msgspec
import typer
from rich.console import Console

from proxy.config import Settings
from proxy.errors import ConfigError
from proxy.locations import read_settings
from rules.errors import Problem, Severity

EXIT_FINDINGS, EXIT_USAGE, EXIT_RULES, EXIT_BIND, EXIT_BUG = 1, 2, 3, 4, 70

ConfigOption = Annotated[Path | None, typer.Option("--config", help="The configuration.")]
RulesOption = Annotated[
    list[Path] | None,
    typer.Option("--rules", help="A folder of rule files, instead of all others."),
]
StateOption = Annotated[
    Path | None, typer.Option("--state", readable=False, help="Our folder for audit.")
]
SystemOption = Annotated[
    bool, typer.Option("--system", help="For the whole host: rules are root's, state is ours.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]


def say(text: str) -> None:
    """Print `text` on stderr as it is."""
    Console(stderr=True, soft_wrap=True).print(text, markup=False, highlight=False)


def fail(text: str, code: int = EXIT_RULES) -> NoReturn:
    """Print why, and end with `code`."""
    say(f"sallyport: {text}")
    raise typer.Exit(code)


def settings_of(
    config: Path | None = None,
    rules: list[Path] | None = None,
    state: Path | None = None,
    *,
    as_json: bool = False,
    system: bool = False,
) -> Settings:
    """Return the settings that the command line names; ends with 3 where they are broken."""
    try:
        settings, problems = read_settings(os.environ, config, rules, state, system=system)
    except ConfigError as error:
        fail(str(error))
    if problems:
        report(tuple(problems), [], as_json=as_json)
        raise typer.Exit(EXIT_RULES)
    return settings


def report(problems: tuple[Problem, ...], files: list[str], *, as_json: bool) -> None:
    """Print every problem, and how many there are in `files`."""
    errors = sum(problem.severity is Severity.ERROR for problem in problems)
    if as_json:
        result = {"files": files, "errors": errors, "problems": problems}
        sys.stdout.write(msgspec.json.encode(result).decode() + "\n")
        return
    for problem in problems:
        say(problem.render())
    summary = f"{errors} errors, {len(problems) - errors} warnings"
    say(f"{len(files)} rule files, {summary}" if files else summary)
