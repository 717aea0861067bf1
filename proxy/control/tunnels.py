"""What may be asked of the tunnel detector over the control API.

    GET /tunnels[?all=1]   GET /tunnels/APP/SUFFIX   DELETE /tunnels/APP/SUFFIX

`SUFFIX` is a domain name, or `.` for an app as a whole.  The first lists what is held or alerting;
with `all`, everything that is counted.  DELETE lets go of a suffix and forgets what was counted of
it; the answer comes once that is in force, and on the disk.
"""

from collections.abc import Awaitable, Callable
from urllib.parse import parse_qs, unquote

from proxy.control.asked import Asked, RefusedError
from proxy.control.identity import Recorder
from proxy.detection.live import LiveDetection
from proxy.detection.shown import TunnelView
from rules.errors import MalformedNameError
from rules.name import ROOT, DomainName, parse

NOTHING = "nothing is known of {suffix} for {app}; `sallyport tunnels list --all` shows what is"


class TunnelRoutes:
    """Answers for the detector; `detection` returns None where there is none."""

    def __init__(self, detection: Callable[[], LiveDetection | None], record: Recorder) -> None:
        self._detection = detection
        self._record = record

    def methods(self, asked: Asked) -> dict[str, Callable[[], Awaitable[object]]]:
        """Return what may be done to the path of `asked`, by method."""
        match asked.path:
            case ("tunnels",):
                return {"GET": lambda: self._list(asked)}
            case ("tunnels", app, suffix):
                return {
                    "GET": lambda: self._show(unquote(app), unquote(suffix)),
                    "DELETE": lambda: self._clear(asked, unquote(app), unquote(suffix)),
                }
            case _:
                return {}

    def _there(self) -> LiveDetection:
        detection = self._detection()
        if detection is None:
            raise RefusedError(503, "this appliance has no tunnel detector")
        return detection

    async def _list(self, asked: Asked) -> object:
        everything = parse_qs(asked.query).get("all", ["0"])[0] == "1"
        return await self._there().list(everything=everything)

    async def _show(self, app: str, suffix: str) -> object:
        return _found(await self._there().show(app, name_of(suffix)), app, suffix)

    async def _clear(self, asked: Asked, app: str, suffix: str) -> object:
        name = name_of(suffix)
        detection = self._there()
        view = _found(await detection.show(app, name), app, suffix)
        said = {"rule": view.rule, "cleared": view.id, "octets": view.octets}
        self._record(asked.caller, f"{app} {name}", "tunnel-cleared", **said)
        return _found(await detection.clear(app, name), app, suffix)


def name_of(suffix: str) -> DomainName:
    """Return the suffix that is meant.

    Raises:
        RefusedError: it is no domain name, and not `.`.
    """
    if suffix == ROOT:
        return ROOT
    try:
        return parse(suffix)
    except MalformedNameError as error:
        raise RefusedError(400, str(error)) from None


def _found(view: TunnelView | None, app: str, suffix: str) -> TunnelView:
    if view is None:
        raise RefusedError(404, NOTHING.format(app=app, suffix=suffix))
    return view
