"""`sallyport status`, `sallyport reload`, and where `sallyport why` looks."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from proxy.audit_line import printable
from proxy.commands.app import show_apps
from proxy.commands.reach import client_of, client_or_fail, is_remote
from proxy.commands.say import (
    EXIT_BIND,
    EXIT_FINDINGS,
    ConfigOption,
    JsonOption,
    StateOption,
    SystemOption,
    fail,
    settings_of,
)
from proxy.commands.tokens import write_json
from proxy.config import Settings
from proxy.control.client import ControlClient, ControlError
from proxy.errors import BindError
from proxy.why import Entry, audit_files, find, last

_FOLD_TRIES, _FOLD_TRY_S = 15, 0.1


def status(
    config: ConfigOption = None,
    state: StateOption = None,
    *,
    system: SystemOption = False,
    as_json: JsonOption = False,
) -> None:
    """Show how the running appliance is; exit code 1 where something is wrong."""
    found = _asked(settings_of(config, None, state, system=system), "GET", "/status")
    if as_json:
        write_json(found)
    else:
        _show(found)
    if found["problems"]:
        raise typer.Exit(EXIT_FINDINGS)


def reload(
    config: ConfigOption = None,
    state: StateOption = None,
    *,
    system: SystemOption = False,
    as_json: JsonOption = False,
) -> None:
    """Have the running appliance read its rules and tokens again."""
    found = _asked(settings_of(config, None, state, system=system), "POST", "/reload")
    if as_json:
        write_json(found)
    else:
        for problem in found["problems"]:
            for line in problem.splitlines():
                _print(line)
        _print(f"{found['outcome']}: generation {found['generation']}")
    if found["problems"]:
        raise typer.Exit(EXIT_FINDINGS)


def entry_of(settings: Settings, unique: str | None, app: str | None) -> Entry | None:
    """Return the audit entry under `unique`, else the last refusal (of `app`); None: no such.

    The appliance is asked where one runs, because it knows what still folds; else the files are
    read.  Repeats fold into a line for a second before it is written, and an agent may ask at
    once: what is not there yet is looked for a little longer than that.  `--last` finds the
    last one that is there; there may always be a newer one.

    Raises:
        BindError: neither can be read.
    """
    ask = _asker(client_of(settings), unique, app)
    files = Path(settings.audit.file)

    def look() -> Entry | None:
        found = ask()
        if found is not None or is_remote():
            return found
        return last(audit_files(files), app) if unique is None else find(audit_files(files), unique)

    for _ in range(_FOLD_TRIES):
        entry = look()
        if entry is not None:
            return entry
        time.sleep(_FOLD_TRY_S)
    return look()


def _asker(
    client: ControlClient | None, unique: str | None, app: str | None
) -> Callable[[], Entry | None]:
    wanted = "" if unique is None else "/" + unique.strip().removeprefix("urn:uuid:")
    query = "" if app is None else f"?app={app}"
    target = f"/why{wanted}{query}"
    if client is None or not all(c.isascii() and (c.isalnum() or c in "/-?=") for c in target):
        return lambda: None

    def ask() -> Entry | None:
        try:
            found: Entry = client.get(target)
        except ControlError:
            return None
        except BindError:
            if is_remote():
                raise
            return None  # the files may be open to us all the same
        return found

    return ask


def _asked(settings: Settings, method: str, target: str) -> Any:
    client = client_or_fail(settings)
    try:
        return client.ask(method, target)
    except BindError as error:
        fail(str(error), EXIT_BIND)
    except ControlError as error:
        _refused(error)


def _refused(error: ControlError) -> NoReturn:
    fail(str(error), EXIT_FINDINGS if error.status < 500 else EXIT_BIND)


def _show(found: Any) -> None:
    table = Table(show_header=False, box=None)
    for name, text in _lines(found):
        table.add_row(name, Text(printable(text)))
    Console(soft_wrap=True).print(table)
    show_apps(found["apps"])


def _lines(found: Any) -> list[tuple[str, str]]:
    up = _span(found["uptime_s"])
    lines = [
        ("sallyport", f"{found['version']}, pid {found['pid']}, up {up}"),
        ("enforcement", found["enforcement"]),
        ("generation", str(found["generation"])),
    ]
    if (reload := found["reload"]) is not None:
        lines.append(("reload", f"{reload['outcome']} at {reload['time']}"))
        problems = (line for problem in reload["problems"] for line in problem.splitlines())
        lines += [("", line) for line in problems]
    if found["reading"]:
        lines.append(("reading", found["reading"]))
    lines += [(kind, ", ".join(each)) for kind, each in found["listen"].items() if each]
    for each in found["upstreams"]:
        zone = f" for {each['zone']}" if each["zone"] else ""
        lines.append(("upstream", f"{each['name']}{zone}: {each['state']} {each['text']}".rstrip()))
    if (certificate := found["certificate"]) is not None:
        left = f"{certificate['days_left']} days left"
        lines.append(("certificate", f"until {certificate['not_after']}, {left}"))
    if (identity := found["identity"]) is not None:
        issuer = "runs" if identity["issuer"] else "starts when it is needed"
        lines.append(("trust domain", f"{identity['trust_domain']}; the issuer {issuer}"))
    if found["revoked"]:
        lines.append(("revoked", f"{found['revoked']}; `sallyport revoked` shows all"))
    counts = ", ".join(f"{count} {state}" for state, count in found["tokens"].items())
    lines.append(("tokens", counts))
    lines += [("", f"{each['id']} expires {each['expires']}") for each in found["tokens_expiring"]]
    audit = found["audit"]
    lines.append(("audit", audit["problem"] or f"{audit['written']} lines, {audit['file']}"))
    lines += [("bound met", f"{name}, {times} times") for name, times in found["bounds"].items()]
    for name, text in found["problems"].items():
        first, *more = text.splitlines()
        lines += [("PROBLEM", f"{name}: {first}"), *(("", each) for each in more)]
    return lines


def _span(seconds: float) -> str:
    minutes, _ = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h {minutes} min" if days else f"{hours} h {minutes} min"


def _print(text: str) -> None:
    Console(soft_wrap=True).print(printable(text), markup=False, highlight=False)
