"""The command line: it parses, and each command is one call.

`up` replaces this process by the appliance, so that nothing of the command line stays in its
memory.  Exit codes: 0 fine, 1 refused or findings, 2 usage, 3 configuration or rules broken,
4 cannot bind or write, 70 a bug of ours.
"""

import os
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, NoReturn

import msgspec
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from proxy import demo as demonstration
from proxy.banner import version as our_version
from proxy.config import Settings
from proxy.errors import BindError, ConfigError, PeerError
from proxy.locations import read_settings
from proxy.question import read_facts
from proxy.reload import RuleFiles, check_listeners, public_suffixes, read_rules
from proxy.why import Entry, audit_files, find, last, rows
from proxy.why import as_json as entry_json
from rules.decision import Decision, Reason, Verdict
from rules.document import json_schema
from rules.errors import Problem, RuleError, RuleSyntaxError, Severity
from rules.explain import Step, explain
from rules.match import index_rules

EXIT_FINDINGS, EXIT_USAGE, EXIT_RULES, EXIT_BIND, EXIT_BUG = 1, 2, 3, 4, 70
_FOLD_TRIES, _FOLD_TRY_S = 15, 0.1

app = typer.Typer(
    name="sallyport",
    help="A local DNS and egress appliance that confines autonomous AI agents.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

ConfigOption = Annotated[Path | None, typer.Option("--config", help="The configuration.")]
RulesOption = Annotated[
    list[Path] | None,
    typer.Option("--rules", help="A folder of rule files, instead of all others."),
]
StateOption = Annotated[Path | None, typer.Option("--state", help="Our folder for audit.")]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]


def _show_version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"sallyport {our_version()}\n")
        raise typer.Exit


@app.callback()
def sallyport(
    *,
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    """A local DNS and egress appliance that confines autonomous AI agents."""


@app.command()
def up(
    config: ConfigOption = None,
    rules: RulesOption = None,
    state: StateOption = None,
    *,
    system: Annotated[bool, typer.Option("--system", help="Not in this version.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Run the appliance in the foreground, until SIGTERM or Ctrl-C."""
    if system:
        _fail("--system is not in this version: run without it, in advisory enforcement")
    settings = msgspec.structs.replace(_settings(config, rules, state), json=as_json)
    root = Path(__file__).resolve().parent.parent
    # -P: a folder named `rules` where an agent works must not be imported as ours.
    command = [
        sys.executable,
        "-P",
        "-m",
        "proxy.appliance",
        msgspec.json.encode(settings).decode(),
    ]
    sys.stdout.flush()
    os.execve(sys.executable, command, {**os.environ, "PYTHONPATH": str(root)})  # noqa: S606 - no shell is wanted


@app.command()
def check(
    config: ConfigOption = None, rules: RulesOption = None, *, as_json: JsonOption = False
) -> None:
    """Check the configuration and every rule file: all errors at once, each with its cure."""
    settings = _settings(config, rules, None, as_json=as_json)
    try:
        files = _read(settings)
    except RuleSyntaxError as error:
        _report(error.problems, [], as_json=as_json)
        raise typer.Exit(EXIT_RULES) from None
    _report(files.loaded.warnings, list(files.files), as_json=as_json)
    if files.loaded.warnings:
        raise typer.Exit(EXIT_FINDINGS)


@app.command(name="explain")
def explain_command(  # noqa: PLR0913 - one argument an option
    asker: Annotated[str, typer.Argument(metavar="APP", help="The app that would ask.")],
    target: Annotated[str, typer.Argument(metavar="URL-OR-NAME", help="What it would ask for.")],
    rtype: Annotated[str, typer.Option("--type", help="The DNS record type.")] = "A",
    method: Annotated[str, typer.Option("--method", help="The HTTP method.")] = "GET",
    config: ConfigOption = None,
    rules: RulesOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Show each rule of APP that is tried, why it matches or not, and the decision."""
    try:
        facts = read_facts(asker, target, rtype, method)
        files = _read(_settings(config, rules, None, as_json=as_json))
    except RuleSyntaxError as error:
        _report(error.problems, [], as_json=as_json)
        raise typer.Exit(EXIT_RULES) from None
    except (PeerError, RuleError, ValueError) as error:
        _fail(str(error), EXIT_USAGE)
    index = index_rules(files.loaded.ruleset)
    if asker not in files.loaded.ruleset.apps:
        known = ", ".join(sorted(files.loaded.ruleset.apps)) or "none"
        _say(f"no rule file speaks of the app {asker!r} (known: {known})")
    shown = [(type(fact).__name__, explain(index, fact)) for fact in facts]
    _show_json(shown) if as_json else _show(shown)
    if any(_decision(steps).verdict is Verdict.DENY for _, steps in shown):
        raise typer.Exit(EXIT_FINDINGS)


@app.command()
def why(
    unique: Annotated[str | None, typer.Argument(metavar="ID", help="The id of a refusal.")] = None,
    *,
    newest: Annotated[bool, typer.Option("--last", help="The last refusal instead.")] = False,
    of: Annotated[str | None, typer.Option("--app", help="With --last: of this app.")] = None,
    config: ConfigOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the audit line of a refusal: who asked for what, and which rule said no."""
    if newest == (unique is not None) or (of is not None and not newest):
        _fail("give an ID, or --last and perhaps --app", EXIT_USAGE)
    file = Path(_settings(config, None, state, as_json=as_json).audit.file)
    try:
        if unique is None:
            entry = _found(lambda: last(audit_files(file), of))
        else:
            entry = _found(lambda: find(audit_files(file), unique))
    except BindError as error:
        _fail(str(error), EXIT_BIND)
    if entry is None:
        _fail("no such refusal in the audit files", EXIT_FINDINGS)
    if as_json:
        sys.stdout.write(entry_json(entry) + "\n")
        return
    table = Table(show_header=False, box=None)
    for name, value in rows(entry):
        table.add_row(name, Text(value))
    Console(soft_wrap=True).print(table)


@app.command()
def demo(*, as_json: JsonOption = False) -> None:
    """Show an allowed and a refused request, and a rebinding attempt; needs no internet."""
    raise typer.Exit(demonstration.run(as_json=as_json))


@app.command()
def schema() -> None:
    """Print the JSON Schema of rule files, for editors."""
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(json_schema())).decode() + "\n")


def main(argv: list[str] | None = None) -> None:
    """Run the command line `argv` (default: of this process); exits."""
    try:
        app(args=argv, prog_name="sallyport")
    except Exception:  # noqa: BLE001 - whatever is not expected is a bug, and its own exit code
        traceback.print_exc()
        sys.stderr.write("sallyport: a bug of ours; please report it\n")
        sys.exit(EXIT_BUG)


def _say(text: str) -> None:
    Console(stderr=True, soft_wrap=True).print(text, markup=False, highlight=False)


def _fail(text: str, code: int = EXIT_RULES) -> NoReturn:
    _say(f"sallyport: {text}")
    raise typer.Exit(code)


def _found(look: Callable[[], Entry | None]) -> Entry | None:
    """Return what `look` finds, also where it is about to be written.

    Repeats fold into a line for a second before it is written, and an agent that was refused may
    ask at once: what is not there yet is looked for a little longer than that.  `--last` finds
    the last one that is there; there may always be a newer one.
    """
    for _ in range(_FOLD_TRIES):
        entry = look()
        if entry is not None:
            return entry
        time.sleep(_FOLD_TRY_S)
    return look()


def _settings(
    config: Path | None, rules: list[Path] | None, state: Path | None, *, as_json: bool = False
) -> Settings:
    try:
        settings, problems = read_settings(os.environ, config, rules, state)
    except ConfigError as error:
        _fail(str(error))
    if problems:
        _report(tuple(problems), [], as_json=as_json)
        raise typer.Exit(EXIT_RULES)
    return settings


def _read(settings: Settings) -> RuleFiles:
    files = read_rules(settings.rules, 1, public_suffixes(), first_run=False)
    check_listeners(files.loaded.ruleset, {*settings.listen.do53, *settings.listen.proxy})
    return files


def _report(problems: tuple[Problem, ...], files: list[str], *, as_json: bool) -> None:
    errors = sum(problem.severity is Severity.ERROR for problem in problems)
    if as_json:
        report = {"files": files, "errors": errors, "problems": problems}
        sys.stdout.write(msgspec.json.encode(report).decode() + "\n")
        return
    for problem in problems:
        _say(problem.render())
    summary = f"{errors} errors, {len(problems) - errors} warnings"
    _say(f"{len(files)} rule files, {summary}" if files else summary)


def _show(shown: list[tuple[str, tuple[Step, ...]]]) -> None:
    console = Console(soft_wrap=True)
    for name, steps in shown:
        table = Table("rule", "kind", "matches", "why", title=name, title_justify="left")
        for step in steps[:-1]:
            matches = "yes" if step.matched else "no"
            table.add_row(Text(step.rule or ""), step.kind, matches, Text(step.why))
        console.print(table)
        console.print(_verdict(_decision(steps)), markup=False, highlight=False)


def _decision(steps: tuple[Step, ...]) -> Decision:
    """Return the decision, which stands in the last step."""
    return steps[-1].decision or Decision(Verdict.DENY, Reason.INTERNAL_ERROR)


def _verdict(decision: Decision) -> str:
    by = f" by {decision.rule}" if decision.rule else ""
    return f"{decision.verdict}: {decision.reason}{by}"


def _show_json(shown: list[tuple[str, tuple[Step, ...]]]) -> None:
    facts = []
    for name, steps in shown:
        decision = _decision(steps)
        facts.append(
            {
                "fact": name.lower(),
                "verdict": decision.verdict,
                "reason": decision.reason,
                "rule": decision.rule,
                "steps": steps[:-1],
            }
        )
    sys.stdout.write(msgspec.json.encode(facts).decode() + "\n")
