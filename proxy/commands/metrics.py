"""`sallyport metrics`: tokens with which a scraper sees metrics by app."""

from typing import Annotated

import typer

from proxy.commands.app import GraceOption, TtlOption
from proxy.commands.say import ConfigOption, JsonOption, StateOption, SystemOption, settings_of
from proxy.commands.tokens import (
    TokensOf,
    grace_of,
    show_list,
    show_secret,
    show_views,
    wanted,
    write_json,
)
from proxy.tokens.known import Purpose

app = typer.Typer(
    name="metrics", help="Tokens with which a scraper sees metrics by app.", no_args_is_help=True
)

_HOW = "give it to the scraper as its bearer token; docs/tokens.md has Prometheus"
_DEFAULT = "scraper"

NameArgument = Annotated[str, typer.Argument(metavar="[NAME]", help="To tell scrapers apart.")]
WhichArgument = Annotated[str, typer.Argument(metavar="[NAME|ID]", help="Which token.")]


@app.command()
def token(
    name: NameArgument = _DEFAULT,
    ttl: TtlOption = None,
    config: ConfigOption = None,
    state: StateOption = None,
    *,
    system: SystemOption = False,
    as_json: JsonOption = False,
) -> None:
    """Make a token for a scraper; its secret is printed once, on stdout."""
    settings = settings_of(config, None, state, system=system)
    told = TokensOf(settings, Purpose.SCRAPE).issue(wanted(name, Purpose.SCRAPE, ttl, None))
    show_secret(told, _HOW, as_json=as_json)


@app.command(name="list")
def list_command(
    config: ConfigOption = None,
    state: StateOption = None,
    *,
    system: SystemOption = False,
    as_json: JsonOption = False,
) -> None:
    """List the tokens of scrapers."""
    tokens = TokensOf(settings_of(config, None, state, system=system), Purpose.SCRAPE).list()
    write_json(tokens) if as_json else show_list(tokens)


@app.command()
def rotate(
    which: WhichArgument = _DEFAULT,
    grace: GraceOption = None,
    config: ConfigOption = None,
    state: StateOption = None,
    *,
    system: SystemOption = False,
    as_json: JsonOption = False,
) -> None:
    """Make the successor of a token; the old one stays good for the grace."""
    settings = settings_of(config, None, state, system=system)
    told = TokensOf(settings, Purpose.SCRAPE).rotate(which, grace_of(grace))
    show_secret(told, _HOW, as_json=as_json)


@app.command()
def revoke(
    which: WhichArgument = _DEFAULT,
    config: ConfigOption = None,
    state: StateOption = None,
    *,
    system: SystemOption = False,
    as_json: JsonOption = False,
) -> None:
    """Void a scraper's token, or every one of a name, at once."""
    settings = settings_of(config, None, state, system=system)
    show_views(TokensOf(settings, Purpose.SCRAPE).revoke(which), as_json=as_json)
