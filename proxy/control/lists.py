"""What may be asked of deny lists over the control API: `GET /lists`."""

from collections.abc import Awaitable, Callable, Sequence

from msgspec import Struct

from proxy.audit_line import rfc3339
from proxy.control.asked import Asked
from proxy.reload.table import ListsInForce


class ListView(Struct, frozen=True, kw_only=True):
    """A list as it is shown, in the order in which lists decide.

    `place` is that of its entry in the rules, `file` as it is written there; `names` entries deny,
    `skipped` lines are not in force, by why.  `apps` None: every app.  `loaded` is in RFC 3339.
    """

    place: str
    file: str
    path: str
    format: str
    names: int
    skipped: dict[str, int]
    excepts: int
    apps: tuple[str, ...] | None
    refuse: str | None
    loaded: str


type Listed = Callable[[], ListsInForce]
"""Returns the lists in force."""


class ListRoutes:
    """Answers for deny lists."""

    def __init__(self, listed: Listed) -> None:
        self._listed = listed

    def methods(self, asked: Asked) -> dict[str, Callable[[], Awaitable[object]]]:
        """Return what may be done to the path of `asked`, by method."""
        return {"GET": self._list} if asked.path == ("lists",) else {}

    async def _list(self) -> object:
        return views(self._listed())


def views(listed: ListsInForce) -> Sequence[ListView]:
    """Return the lists as they are shown."""
    read = listed.read
    return [
        ListView(
            place=source.place,
            file=source.shown,
            path=source.file,
            format=found.format,
            names=found.names,
            skipped=found.skipped,
            excepts=len(source.excepts),
            apps=None if source.apps is None else tuple(sorted(source.apps)),
            refuse=None if source.refuse is None else source.refuse.value,
            loaded=rfc3339(read.at),
        )
        for source, found in zip(read.sources, read.files, strict=True)
    ]
