"""The command line: it parses, and each command is one call.

`up` replaces this process by the appliance, so that nothing of the command line stays in its
memory.  Exit codes: 0 fine, 1 refused or findings, 2 usage, 3 configuration or rules broken,
4 cannot bind or write, 70 a bug of ours.
"""

import datetime as dt
import os
import sys
import time
import traceback
from enum import StrEnum
from itertools import chain
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from proxy.banner import version as our_version
from proxy.commands import agents as cli_agents
from proxy.commands import app as cli_app
from proxy.commands import attest as cli_attest
from proxy.commands import attesters as cli_attesters
from proxy.commands import ca as cli_ca
from proxy.commands import capabilities as cli_capabilities
from proxy.commands import doctor as cli_doctor
from proxy.commands import enroll as cli_enroll
from proxy.commands import exchange as cli_exchange
from proxy.commands import lists as cli_lists
from proxy.commands import metrics as cli_metrics
from proxy.commands import revoke as cli_revoke
from proxy.commands import secrets as cli_secrets
from proxy.commands import status as cli_status
from proxy.commands import svid as cli_svid
from proxy.commands import tunnels as cli_tunnels
from proxy.commands.ca import ensure_server_certificate
from proxy.commands.ca_identity import ensure_trust_domain
from proxy.commands.reach import CaOption, CertOption, ControlOption, KeyOption, reach
from proxy.commands.say import (
    EXIT_BIND,
    EXIT_BUG,
    EXIT_FINDINGS,
    EXIT_RULES,
    EXIT_USAGE,
    ConfigOption,
    JsonOption,
    RulesOption,
    StateOption,
    SystemOption,
    fail,
    report,
    say,
    settings_of,
)
from proxy.commands.status import entry_of
from proxy.config import Settings
from proxy.confinement import notes_of, refuse_breaches
from proxy.doctor.spiffe_lines import with_spiffe_warnings
from proxy.egress.parent import parse_parent
from proxy.errors import BindError, ConfigError, PeerError
from proxy.hardening import close_to_debuggers
from proxy.question import read_facts
from proxy.reload.files import RuleFiles, check_listeners, public_suffixes, read_rules
from proxy.resolver.upstream_url import parse_zones
from proxy.why import as_json as entry_json
from proxy.why import rows
from rules.decision import Decision, Reason, Verdict
from rules.document import json_schema
from rules.errors import RuleError, RuleSyntaxError
from rules.explain import ListAlone, Step, assume, explain
from rules.facts import Evidence, Level
from rules.match import index_rules
from rules.ruleset import Ruleset
from rules.zones import make_zones, with_zones

app = typer.Typer(
    name="sallyport",
    help="A local DNS and egress appliance that confines autonomous AI agents.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


app.add_typer(cli_app.app)
app.add_typer(cli_attesters.app)
app.add_typer(cli_ca.app)
app.add_typer(cli_capabilities.app)
app.add_typer(cli_metrics.app)
app.add_typer(cli_secrets.app)
app.add_typer(cli_tunnels.app)
app.command()(cli_agents.agents)
app.command()(cli_attest.attest)
app.command()(cli_doctor.doctor)
app.command()(cli_enroll.enroll)
app.command()(cli_exchange.exchange)
app.command()(cli_lists.lists)
app.command()(cli_svid.svid)
app.command()(cli_svid.admin)
app.command()(cli_revoke.revoke)
app.command()(cli_revoke.restore)
app.command()(cli_revoke.revoked)
app.command()(cli_status.status)
app.command()(cli_status.reload)


class AttestedLevel(StrEnum):
    """A level of attestation, as it is typed."""

    SOFTWARE = "software"
    LAUNCHED = "launched"
    TPM = "tpm"


def _show_version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"sallyport {our_version()}\n")
        raise typer.Exit


@app.callback()
def sallyport(
    control: ControlOption = "",
    cert: CertOption = None,
    key: KeyOption = None,
    ca: CaOption = None,
    *,
    version: Annotated[  # noqa: ARG001 - its callback acts
        bool,
        typer.Option("--version", help="Print the version.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    """A local DNS and egress appliance that confines autonomous AI agents."""
    reach(control, cert, key, ca)


@app.command()
def up(
    config: ConfigOption = None,
    rules: RulesOption = None,
    state: StateOption = None,
    *,
    system: SystemOption = False,
    as_json: JsonOption = False,
) -> None:
    """Run the appliance in the foreground, until SIGTERM or Ctrl-C."""
    settings = settings_of(config, rules, state, system=system)
    settings = msgspec.structs.replace(settings, json=as_json)
    try:
        if settings.system:
            refuse_breaches(settings, os.geteuid())
            for note in notes_of(os.geteuid()):
                say(note)
        now = dt.datetime.fromtimestamp(time.time(), dt.UTC)  # noqa: TID251 - it owns its clock
        close_to_debuggers()  # what makes keys may hold them
        notes = ensure_server_certificate(settings, now), ensure_trust_domain(settings, now)
        for note in chain.from_iterable(notes):
            say(note)
    except ConfigError as error:
        fail(str(error))
    except BindError as error:
        fail(str(error), EXIT_BIND)
    root = Path(__file__).resolve().parent.parent
    # -P: a folder named `rules` where an agent works must not be imported as ours.
    command = [sys.executable, "-P", "-m", "proxy.appliance", str(_handed_over(settings))]
    sys.stdout.flush()
    os.execve(sys.executable, command, {**os.environ, "PYTHONPATH": str(root)})  # noqa: S606 - no shell is wanted


def _handed_over(settings: Settings) -> int:
    """Return a descriptor of the settings: a parent proxy's password is not for `ps` to show."""
    descriptor = os.memfd_create("sallyport-settings", 0)
    os.write(descriptor, msgspec.json.encode(settings))
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


@app.command()
def check(
    config: ConfigOption = None,
    rules: RulesOption = None,
    *,
    system: SystemOption = False,
    as_json: JsonOption = False,
) -> None:
    """Check the configuration and every rule file: all errors at once, each with its cure."""
    settings = settings_of(config, rules, None, as_json=as_json, system=system)
    try:
        if settings.upstream_proxy is not None:
            parse_parent(settings.upstream_proxy, settings.egress_anchors)
        files = _read(settings)
        listed = cli_lists.lists_of(files.loaded.ruleset, system=settings.system)
    except ConfigError as error:
        fail(str(error))
    except RuleSyntaxError as error:
        report(error.problems, [], as_json=as_json)
        raise typer.Exit(EXIT_RULES) from None
    warnings = (*files.loaded.warnings, *listed.read.warnings)
    report(warnings, list(files.files), as_json=as_json)
    if warnings:
        raise typer.Exit(EXIT_FINDINGS)


@app.command(name="explain")
def explain_command(  # noqa: PLR0913, PLR0917 - one argument an option
    asker: Annotated[str, typer.Argument(metavar="APP", help="The app that would ask.")],
    target: Annotated[str, typer.Argument(metavar="URL-OR-NAME", help="What it would ask for.")],
    rtype: Annotated[str, typer.Option("--type", help="The DNS record type.")] = "A",
    method: Annotated[str, typer.Option("--method", help="The HTTP method.")] = "GET",
    evidence: Annotated[
        list[Evidence] | None,
        typer.Option("--evidence", help="What proves that it is APP; `require` may ask for it."),
    ] = None,
    attested: Annotated[
        AttestedLevel | None, typer.Option("--attested", help="What it has freshly proven.")
    ] = None,
    config: ConfigOption = None,
    rules: RulesOption = None,
    *,
    system: SystemOption = False,
    as_json: JsonOption = False,
) -> None:
    """Show each rule of APP that is tried, why it matches or not, and the decision."""
    try:
        facts = read_facts(asker, target, rtype, method, tuple(evidence or ()))
        settings = settings_of(config, rules, None, as_json=as_json, system=system)
        files = _read(settings)
        listed = cli_lists.lists_of(files.loaded.ruleset, system=settings.system)
    except RuleSyntaxError as error:
        report(error.problems, [], as_json=as_json)
        raise typer.Exit(EXIT_RULES) from None
    except (PeerError, RuleError, ValueError) as error:
        fail(str(error), EXIT_USAGE)
    ruleset = files.loaded.ruleset
    _check_known(asker, ruleset)
    if attested is not None:
        facts = tuple(assume(fact, ruleset, Level[attested.upper()]) for fact in facts)
    rules_there = index_rules(ruleset, listed.lists)
    index = with_zones(rules_there, make_zones(parse_zones(settings.zones)))
    alone = [ListAlone(*each) for each in listed.alone()]
    shown = [(type(fact).__name__, explain(index, fact, alone)) for fact in facts]
    _show_json(shown) if as_json else _show(shown)
    if any(_decision(steps).verdict is Verdict.DENY for _, steps in shown):
        raise typer.Exit(EXIT_FINDINGS)


def _check_known(asker: str, ruleset: Ruleset) -> None:
    if asker not in ruleset.apps:
        known = ", ".join(sorted(ruleset.apps)) or "none"
        say(f"no rule file speaks of the app {asker!r} (known: {known})")


@app.command()
def why(  # noqa: PLR0913 - one argument an option
    unique: Annotated[str | None, typer.Argument(metavar="ID", help="The id of a refusal.")] = None,
    *,
    newest: Annotated[bool, typer.Option("--last", help="The last refusal instead.")] = False,
    of: Annotated[str | None, typer.Option("--app", help="With --last: of this app.")] = None,
    config: ConfigOption = None,
    state: StateOption = None,
    system: SystemOption = False,
    as_json: JsonOption = False,
) -> None:
    """Show the audit line of a refusal: who asked for what, and which rule said no."""
    if newest == (unique is not None) or (of is not None and not newest):
        fail("give an ID, or --last and perhaps --app", EXIT_USAGE)
    settings = settings_of(config, None, state, as_json=as_json, system=system)
    try:
        entry = entry_of(settings, unique, of)
    except BindError as error:
        fail(str(error), EXIT_BIND)
    if entry is None:
        fail("no such refusal in the audit files", EXIT_FINDINGS)
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
    # Its world of servers takes half a second to import, which no other command should wait for.
    from proxy import demo as demonstration  # noqa: PLC0415 - see above

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


def _read(settings: Settings) -> RuleFiles:
    files = read_rules(
        settings.rules, 1, public_suffixes(), first_run=False, system=settings.system
    )
    check_listeners(files.loaded.ruleset, settings.listen.agents)
    return with_spiffe_warnings(files, settings.identity)


def _show(shown: list[tuple[str, tuple[Step, ...]]]) -> None:
    console = Console(soft_wrap=True)
    for name, steps in shown:
        table = Table("rule", "kind", "matches", "why", title=name, title_justify="left")
        for step in steps[:-1]:
            matches = "yes" if step.matched else "no"
            table.add_row(Text(step.rule or ""), step.kind, matches, Text(step.why))
        console.print(table)
        console.print(_verdict(_decision(steps)), markup=False, highlight=False)
        console.print(Text(f"    {steps[-1].why}"))


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
                "why": steps[-1].why,
                "steps": steps[:-1],
            }
        )
    sys.stdout.write(msgspec.json.encode(facts).decode() + "\n")
