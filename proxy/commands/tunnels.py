"""`sallyport tunnels`: suffixes that an app leaked through, and what is counted of its look-ups.

Through the control socket, where an appliance runs.  Else on the file: what is cleared there holds
no more when the appliance next starts.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import msgspec
import typer

from proxy.audit_line import printable
from proxy.commands.listing import Column, show
from proxy.commands.reach import ask_if_running, client_of
from proxy.commands.say import (
    EXIT_BIND,
    EXIT_FINDINGS,
    EXIT_USAGE,
    ConfigOption,
    JsonOption,
    StateOption,
    SystemOption,
    fail,
    say,
    settings_of,
)
from proxy.commands.tokens import write_json
from proxy.config import Settings
from proxy.control.asked import RefusedError
from proxy.control.tunnels import NOTHING, name_of
from proxy.detection.live import FILE_NAME, Ground, LiveDetection
from proxy.detection.shown import TunnelView
from proxy.errors import BindError
from proxy.held import Held
from proxy.metrics import Metrics
from proxy.reload.files import public_suffixes
from rules.decision import Decision, Reason, Verdict
from rules.name import DomainName
from rules.window import WINDOWS

app = typer.Typer(
    name="tunnels",
    help="What leaks through look-ups: see it, and let go of what was blocked.",
    no_args_is_help=True,
)

AppArgument = Annotated[str, typer.Argument(metavar="APP", help="The app.")]
SuffixArgument = Annotated[
    str, typer.Argument(metavar="SUFFIX", help="The suffix, as `list` shows it; . for all of APP.")
]

_COLUMNS = (
    *(Column("app"), Column("suffix"), Column("state"), Column("tier")),
    *(Column("2m"), Column("1h"), Column("24h"), Column("names")),
    *(Column("since"), Column("rule"), Column("samples", is_free=True)),
)
_COUNTED = frozenset({"names", "queries"})  # of the evidence, which stand above it already
_SAMPLES = 3  # of a list's row; `show` has all

type _Work = Callable[[LiveDetection, str, DomainName], Coroutine[Any, Any, TunnelView | None]]
"""Does on the file what the appliance is asked to."""


@app.command("list")
def list_(
    config: ConfigOption = None,
    state: StateOption = None,
    *,
    everything: Annotated[
        bool, typer.Option("--all", help="Everything that is counted, not only what was found.")
    ] = False,
    system: SystemOption = False,
    as_json: JsonOption = False,
) -> None:
    """List what is held, and what has leaked enough to be told of: octets of names by window."""
    settings = settings_of(config, None, state, system=system)
    answer = ask_if_running(client_of(settings), "GET", f"/tunnels?all={int(everything)}")
    if answer is not None:
        views = msgspec.convert(answer, list[TunnelView])
    else:
        views = _done(settings, lambda live: live.list(everything=everything))
    if as_json:
        write_json(views)
        return
    show(_COLUMNS, [_row(each) for each in views], "nothing was found")


@app.command("show")
def show_(
    of: AppArgument,
    suffix: SuffixArgument,
    config: ConfigOption = None,
    state: StateOption = None,
    *,
    system: SystemOption = False,
    as_json: JsonOption = False,
) -> None:
    """Show what is known of a suffix: octets, evidence, and names that were asked for."""
    settings = settings_of(config, None, state, system=system)
    view = _asked(settings, "GET", of, suffix, LiveDetection.show)
    if as_json:
        write_json(view)
        return
    rows = [(name, text) for name, text in _details(view) if text]
    show((Column("what"), Column("value", is_free=True)), rows, "")


@app.command()
def clear(
    of: AppArgument,
    suffix: SuffixArgument,
    config: ConfigOption = None,
    state: StateOption = None,
    *,
    system: SystemOption = False,
    as_json: JsonOption = False,
) -> None:
    """Let go of a suffix: it is counted anew, and APP may look it up again."""
    settings = settings_of(config, None, state, system=system)
    view = _asked(settings, "DELETE", of, suffix, LiveDetection.clear)
    if as_json:
        write_json(view)
        return
    now = "is not held" if view.state == "held" else "is counted anew"
    more = " any more" if view.state == "held" else ""
    say(f"{printable(view.suffix)} {now} for {printable(view.app)}{more}")


def _asked(settings: Settings, method: str, of: str, suffix: str, work: _Work) -> TunnelView:
    """Return what the appliance, or else `work` on the file, says of a suffix."""
    try:
        name = name_of(suffix)
    except RefusedError as error:
        fail(str(error), EXIT_USAGE)
    target = f"/tunnels/{quote(of, safe='')}/{quote(name, safe='')}"
    answer = ask_if_running(client_of(settings), method, target)
    if answer is not None:
        return msgspec.convert(answer, TunnelView)
    found = _done(settings, lambda live: work(live, of, name))
    if found is None:
        fail(NOTHING.format(app=printable(of), suffix=name), EXIT_FINDINGS)
    return found


def _done[T](settings: Settings, work: Callable[[LiveDetection], Coroutine[Any, Any, T]]) -> T:
    """Return what `work` returns of the file; nothing is made where there is none."""

    async def run() -> T:
        path = Path(settings.state) / FILE_NAME
        live = LiveDetection(path, _ground(settings), time.time)  # noqa: TID251 - a command is its own root
        try:
            if path.exists(follow_symlinks=False):
                await live.read()
            return await work(live)
        finally:
            await live.close()

    try:
        return asyncio.run(run())
    except BindError as error:
        fail(str(error), EXIT_BIND)


def _ground(settings: Settings) -> Ground:
    return Ground(
        limits=settings.limits,
        metrics=Metrics(),
        suffixes=public_suffixes(),
        held=Held(),
        still=lambda _: Decision(Verdict.DENY, Reason.INTERNAL_ERROR),  # nothing is looked up here
        tell=lambda _: "",
    )


def _row(view: TunnelView) -> tuple[str, ...]:
    octets = (str(view.octets.get(each, "")) for each in WINDOWS)
    since = "" if view.since is None else view.since.partition(".")[0] + "Z"
    samples = " ".join(view.samples[:_SAMPLES])
    names = str(view.names)
    return (view.app, view.suffix, view.state, view.tier, *octets, names, since, view.rule, samples)


def _details(view: TunnelView) -> list[tuple[str, str]]:
    reached = "" if view.reached is None else f"{view.reached} octets, at most {view.limit}"
    counted = (("octets", view.octets), ("answers", view.answers), ("choice", view.choice))
    return [
        *(("app", view.app), ("suffix", view.suffix), ("state", view.state), ("tier", view.tier)),
        *(("since", view.since or ""), ("rule", view.rule), ("reached", reached)),
        ("audit line", view.id or ""),
        *((f"{name} in {window}", str(n)) for name, of in counted for window, n in of.items()),
        *(("names", str(view.names)), ("queries", str(view.queries))),
        *((name, f"{value:g}") for name, value in view.evidence.items() if name not in _COUNTED),
        *(("sample", each) for each in view.samples),
    ]
