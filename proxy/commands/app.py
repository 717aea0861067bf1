"""`sallyport app`: which apps there are, what each did, and their tokens."""

import contextlib
import os
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from proxy.audit_line import printable
from proxy.commands.reach import client_of, client_or_fail
from proxy.commands.say import (
    EXIT_BIND,
    EXIT_FINDINGS,
    ConfigOption,
    JsonOption,
    RulesOption,
    StateOption,
    SystemOption,
    fail,
    say,
    settings_of,
)
from proxy.commands.tokens import (
    TokensOf,
    check_name,
    grace_of,
    show_list,
    show_secret,
    show_views,
    wanted,
    write_json,
)
from proxy.config import Settings
from proxy.control.client import ControlError
from proxy.errors import BindError, ConfigError
from proxy.locations import read_settings
from proxy.reload.files import public_suffixes, read_rules
from proxy.tokens.known import Purpose
from rules.errors import RuleSyntaxError
from rules.ruleset import Ruleset

app = typer.Typer(
    name="app", help="The apps of the rules, what they did, and their tokens.", no_args_is_help=True
)

_HOW = (
    "give it to the app as its proxy's password: HTTP_PROXY=http://{name}:SECRET@ADDRESS:PORT;"
    " docs/tokens.md has the clients"
)
_JOIN = (
    "on the device: SALLYPORT_JOIN_TOKEN=SECRET sallyport enroll --url https://HOST:PORT --ca FILE"
    " --app {name}; docs/enrolment.md has curl and openssl"
)


def complete_app(incomplete: str) -> list[str]:
    """Return the apps of the rules whose names begin so; none where they cannot be read."""
    try:
        settings, _ = read_settings(os.environ, None, None, None)
        names = _rules(settings).apps
    except (ConfigError, RuleSyntaxError):
        return []
    return [name for name in sorted(names) if name.startswith(incomplete)]


NameArgument = Annotated[
    str,
    typer.Argument(
        metavar="NAME", help="As in `identity: [{token: NAME}]`.", autocompletion=complete_app
    ),
]
WhichArgument = Annotated[
    str,
    typer.Argument(
        metavar="NAME|ID", help="A token's id, or its name.", autocompletion=complete_app
    ),
]
TtlOption = Annotated[
    str | None, typer.Option("--ttl", help="How long it is good: 12h, 30d.  Default 90d.")
]
GraceOption = Annotated[
    str | None, typer.Option("--grace", help="How long the old one stays good.  Default 10m.")
]


@app.command()
def token(  # noqa: PLR0913 - one argument an option
    name: NameArgument,
    ttl: TtlOption = None,
    bind_uid: Annotated[
        int | None, typer.Option("--bind-uid", help="Good for processes of this uid only.")
    ] = None,
    config: ConfigOption = None,
    state: StateOption = None,
    *,
    system: SystemOption = False,
    as_json: JsonOption = False,
) -> None:
    """Make a token for the app; its secret is printed once, on stdout."""
    settings = settings_of(config, None, state, system=system)
    told = TokensOf(settings).issue(wanted(name, Purpose.APP, ttl, bind_uid))
    show_secret(told, _HOW.format(name=name), as_json=as_json)
    _warn_of_unnamed(settings, name)


@app.command()
def join(
    name: NameArgument,
    ttl: Annotated[
        str | None, typer.Option("--ttl", help="How long it is good: 5m, 1h.  Default 10m.")
    ] = None,
    config: ConfigOption = None,
    state: StateOption = None,
    *,
    system: SystemOption = False,
    as_json: JsonOption = False,
) -> None:
    """Make a token with which one device enrols as the app, once (`sallyport enroll`)."""
    settings = settings_of(config, None, state, system=system)
    tokens = TokensOf(settings, Purpose.JOIN)
    told = tokens.issue(wanted(name, Purpose.JOIN, ttl, None))
    show_secret(told, _JOIN.format(name=name), as_json=as_json)
    _warn_of_nameless(settings, name)


@app.command(name="list")
def list_command(
    config: ConfigOption = None,
    rules: RulesOption = None,
    state: StateOption = None,
    *,
    system: SystemOption = False,
    as_json: JsonOption = False,
) -> None:
    """List the apps and their tokens."""
    settings = settings_of(config, rules, state, system=system)
    tokens = [*TokensOf(settings).list(), *TokensOf(settings, Purpose.JOIN).list()]
    apps = _apps(settings)
    if as_json:
        write_json({"apps": apps, "tokens": tokens})
        return
    show_apps(apps)
    show_list(tokens)


@app.command()
def show(
    name: NameArgument,
    config: ConfigOption = None,
    state: StateOption = None,
    *,
    system: SystemOption = False,
    as_json: JsonOption = False,
) -> None:
    """Show an app: identity lines, rules, decisions, when it was last seen, last refusals."""
    check_name(name)
    settings = settings_of(config, None, state, system=system)
    client = client_or_fail(settings)
    try:
        found = client.get(f"/apps/{name}")
    except BindError as error:
        fail(str(error), EXIT_BIND)
    except ControlError as error:
        fail(str(error), EXIT_FINDINGS)
    if as_json:
        write_json(found)
        return
    _show(found)


@app.command()
def rotate(
    which: WhichArgument,
    grace: GraceOption = None,
    config: ConfigOption = None,
    state: StateOption = None,
    *,
    system: SystemOption = False,
    as_json: JsonOption = False,
) -> None:
    """Make the successor of a token; the old one stays good for the grace."""
    settings = settings_of(config, None, state, system=system)
    told = TokensOf(settings).rotate(which, grace_of(grace))
    show_secret(told, _HOW.format(name=told.token.name), as_json=as_json)


@app.command()
def revoke(
    which: WhichArgument,
    config: ConfigOption = None,
    state: StateOption = None,
    *,
    system: SystemOption = False,
    as_json: JsonOption = False,
) -> None:
    """Void a token, or every token of a name, at once."""
    settings = settings_of(config, None, state, system=system)
    show_views(TokensOf(settings).revoke(which), as_json=as_json)


def show_apps(apps: list[Any]) -> None:
    """Print a table of apps, as `GET /apps` answers them."""
    table = Table("app", "evidence", "rules", "allowed", "denied", "failed", "last seen", box=None)
    for each in apps:
        counts = each["decisions"]
        table.add_row(
            Text(each["name"]),
            ", ".join(each["evidence"]),
            str(each["rules"]),
            *(str(counts.get(verdict, "")) for verdict in ("allow", "deny", "fail")),
            each["last_seen"] or "",
        )
    Console(soft_wrap=True).print(table)


def _apps(settings: Settings) -> list[Any]:
    """Return the apps as the appliance tells them, else as the rule files do."""
    client = client_of(settings)
    if client is not None:
        with contextlib.suppress(BindError, ControlError):
            found: list[Any] = client.get("/apps")
            return found
    try:
        apps = _rules(settings).apps
    except RuleSyntaxError:
        say("the rules have errors; `sallyport check` shows them")
        return []
    return [
        {
            "name": name,
            "evidence": [],
            "rules": len(each.allows) + len(each.denies),
            "decisions": {},
            "last_seen": None,
        }
        for name, each in sorted(apps.items())
    ]


def _show(found: Any) -> None:
    console = Console(soft_wrap=True)
    counts = ", ".join(f"{verdict} {count}" for verdict, count in found["decisions"].items())
    table = Table(show_header=False, box=None)
    table.add_row("app", Text(found["name"]))
    table.add_row("rules", f"{found['allows']} allow, {found['denies']} deny")
    table.add_row("decisions", counts)
    table.add_row("last seen", found["last_seen"] or "not since the start")
    for line in found["identity"]:
        keys = ", ".join(f"{key}: {value}" for key, value in line.items() if key != "line")
        table.add_row("identity", Text(printable(f"{keys}  ({line['line']})")))
    for each in found["tokens"]:
        table.add_row("token", f"{each['id']} {each['state']}, expires {each['expires']}")
    for each in found["refusals"]:
        words = (each["time"], each["reason"], each.get("target") or "", each["id"])
        table.add_row("refused", Text(printable("  ".join(words))))
    console.print(table)


def _warn_of_unnamed(settings: Settings, name: str) -> None:
    try:
        apps = _rules(settings).apps.values()
    except RuleSyntaxError:
        return
    if not any(line.token == name for each in apps for line in each.identity):
        say(f"no app has `identity: [{{token: {name}}}]` yet: until one has, it names nobody")


def _warn_of_nameless(settings: Settings, name: str) -> None:
    """Say so where the app has no SPIFFE ID: then no device can enrol as it."""
    try:
        found = _rules(settings).apps.get(name)
    except RuleSyntaxError:
        return
    if found is None or not any(line.spiffe for line in found.identity):
        say(f"the app {name} has no `identity: [{{spiffe: ...}}]` yet: until then nobody enrols")


def _rules(settings: Settings) -> Ruleset:
    files = read_rules(settings.rules, 1, public_suffixes(), first_run=False)
    return files.loaded.ruleset
