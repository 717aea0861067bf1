"""`sallyport lists`: which deny lists are in force, and how much of each denies."""

import contextlib
import sys
import time
from collections.abc import Iterator

import msgspec
import typer

from proxy.audit_line import printable
from proxy.commands.listing import Column, show
from proxy.commands.reach import ask_if_running, client_of, is_remote
from proxy.commands.say import (
    EXIT_BIND,
    EXIT_RULES,
    ConfigOption,
    JsonOption,
    RulesOption,
    StateOption,
    SystemOption,
    fail,
    report,
    settings_of,
)
from proxy.config import Settings
from proxy.control.lists import ListView, views
from proxy.reload.files import public_suffixes, read_rules
from proxy.reload.lists import load_lists
from proxy.reload.progress import Progress, Seldom, Told, untold
from proxy.reload.table import ListsInForce
from rules.errors import RuleSyntaxError
from rules.ruleset import Ruleset

_COLUMNS = (
    *map(Column, ("list", "format", "names", "skipped", "apps", "loaded", "entry")),
    Column("excepts", is_free=True),
)
_ERASE = "\r\x1b[K"  # ECMA-48, section 8.3.41: erase in line


def lists(
    config: ConfigOption = None,
    rules: RulesOption = None,
    state: StateOption = None,
    *,
    system: SystemOption = False,
    as_json: JsonOption = False,
) -> None:
    """List the deny lists: those in force, or of the rule files where nothing runs."""
    settings = settings_of(config, rules, state, as_json=as_json, system=system)
    found = _running(settings) if rules is None else None
    if found is None:
        found = _read(settings, as_json=as_json)
    if as_json:
        # A list's lines are none of ours, but its name is the admin's and may hold anything.
        sys.stdout.write(printable(msgspec.json.encode(found).decode()) + "\n")
    else:
        show(_COLUMNS, [*map(_row, found)], "the rules name no deny lists")


def lists_of(ruleset: Ruleset, *, system: bool) -> ListsInForce:
    """Return the lists that the rules name, read now; a terminal sees how far that is.

    Raises:
        RuleSyntaxError: with every problem of every list.
    """
    now = time.time()  # noqa: TID251 - a command owns its clock
    with telling() as told:
        return load_lists(ruleset.lists, now, told, system=system)


@contextlib.contextmanager
def telling() -> Iterator[Told]:
    """Show how far a reading is on a line of stderr, if that is a terminal, and erase it."""
    if not sys.stderr.isatty():
        yield untold
        return

    def tell(progress: Progress) -> None:
        sys.stderr.write(_ERASE + printable(progress.text))
        sys.stderr.flush()

    try:
        yield Seldom(tell, time.monotonic)  # noqa: TID251 - a command owns its clock
    finally:
        sys.stderr.write(_ERASE)
        sys.stderr.flush()


def _running(settings: Settings) -> list[ListView] | None:
    client = client_of(settings)
    answer = ask_if_running(client, "GET", "/lists")
    if answer is None and is_remote():
        fail("nobody answers there", EXIT_BIND)
    return None if answer is None else msgspec.convert(answer, list[ListView])


def _read(settings: Settings, *, as_json: bool) -> list[ListView]:
    system = settings.system
    try:
        files = read_rules(settings.rules, 1, public_suffixes(), first_run=False, system=system)
        return [*views(lists_of(files.loaded.ruleset, system=system))]
    except RuleSyntaxError as error:
        report(error.problems, [], as_json=as_json)
        raise typer.Exit(EXIT_RULES) from None


def _row(view: ListView) -> tuple[str, ...]:
    skipped = sum(view.skipped.values())
    return (
        view.file,
        view.format,
        f"{view.names:,}",
        f"{skipped:,}" if skipped else "",
        "all" if view.apps is None else ", ".join(view.apps),
        view.loaded,
        view.place,
        f"{view.excepts}" if view.excepts else "",
    )
