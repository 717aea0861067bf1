"""`sallyport doctor`: every check, what it found and the cure, as a table or as JSON."""

import contextlib
import os
import pwd
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from proxy.commands.say import (
    EXIT_FINDINGS,
    ConfigOption,
    JsonOption,
    RulesOption,
    StateOption,
    SystemOption,
    settings_of,
)
from proxy.config import Settings
from proxy.confinement import USER
from proxy.doctor.examine import Result, examine, is_healthy
from proxy.doctor.patient import Patient
from proxy.doctor.ports import running_pid

_MARKS = {"fine": "ok", "info": "info", "warning": "warning", "error": "ERROR"}


def patient_of(settings: Settings, proc: Path = Path("/proc")) -> Patient:
    """Return what is to be examined: these settings, on this host, now."""
    pid = running_pid(settings, proc)
    return Patient(
        settings=settings,
        environ=dict(os.environ),
        now=time.time(),  # noqa: TID251 - the command line owns its clock
        uid=_uid(settings, pid, proc),
        pid=pid,
        proc=proc,
    )


def doctor(
    config: ConfigOption = None,
    rules: RulesOption = None,
    state: StateOption = None,
    *,
    system: SystemOption = False,
    as_json: JsonOption = False,
) -> None:
    """Look for what is wrong with this installation, and say the cure of each finding."""
    settings = settings_of(config, rules, state, as_json=as_json, system=system)
    raise typer.Exit(run(settings, as_json=as_json))


def run(settings: Settings, *, as_json: bool) -> int:
    """Examine, print, and return the exit code: 1 on errors or warnings, else 0."""
    patient = patient_of(settings)
    results = examine(patient)
    if as_json:
        print(report(results, patient))  # noqa: T201 - the document is our output
    else:
        show(results, patient)
    return 0 if is_healthy(results) else EXIT_FINDINGS


def report(results: Sequence[Result], patient: Patient) -> str:
    """Return the document of --json (docs/doctor.md)."""
    document = {
        "healthy": is_healthy(results),
        "running": patient.pid,
        "enforcement": patient.settings.enforcement,
        "checks": [
            {"check": each.check, "outcome": each.outcome, "findings": each.findings}
            for each in results
        ],
    }
    return msgspec.json.encode(document).decode()


def show(results: Sequence[Result], patient: Patient) -> None:
    """Print a line for each check, and the cure under each finding."""
    table = Table("", "check", "finding and cure", box=None, pad_edge=False)
    for each in results:
        first = True
        for finding in each.findings:
            text = Text(finding.message)
            text.append(f"\ncure: {finding.cure}", style="dim")
            table.add_row(_MARKS[finding.severity], each.check if first else "", text)
            first = False
        if first:
            table.add_row(_MARKS["fine"], each.check, Text(each.title))
    console = Console(soft_wrap=False)
    console.print(table)
    running = f"pid {patient.pid}" if patient.pid else "not running"
    found = sum(each.outcome in {"warning", "error"} for each in results)
    verdict = "nothing to do" if not found else f"{found} of {len(results)} checks found something"
    console.print(f"\n{running}; {verdict}", markup=False, highlight=False)


def _uid(settings: Settings, pid: int | None, proc: Path) -> int:
    """Return who runs the appliance, or will: root asks for another under --system."""
    places = [] if pid is None else [proc / str(pid)]
    if settings.system:
        places.append(Path(settings.state))
    for place in places:
        with contextlib.suppress(OSError):
            return place.stat().st_uid
    if settings.system:
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(USER).pw_uid
    return os.geteuid()
