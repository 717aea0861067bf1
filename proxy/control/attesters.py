"""What may be asked of the TPMs that are enrolled, over the control API.

GET /attesters   DELETE /attesters/NAME
"""

from collections.abc import Awaitable, Callable

from msgspec import Struct

from proxy.attested.attester import Attester
from proxy.attested.live import LiveAttested
from proxy.attested.result import Result
from proxy.audit_line import rfc3339
from proxy.control.asked import Asked, RefusedError
from proxy.control.identity import Recorder
from proxy.verifier.parts import Changed

_WHY = "an admin removed the attester"


class Attesting(Struct, frozen=True):
    """Attesters, as the appliance keeps them.

    `void` acts on one that was removed as on one that has changed, once its results are void.
    """

    live: LiveAttested
    void: Callable[[Changed], Awaitable[object]]


class AttesterView(Struct, frozen=True, kw_only=True):
    """An attester as it is shown; times in RFC 3339, None before the first quote."""

    attester: str
    app: str
    spiffe_id: str
    ek_sha256: str
    enrolled_at: str
    quoted_at: str | None
    reset_count: int | None
    restart_count: int | None
    clock_ms: int | None
    firmware: str | None
    results: int


class AttesterRoutes:
    """Answers for attesters; `attesting` returns None where there are none."""

    def __init__(self, attesting: Callable[[], Attesting | None], record: Recorder) -> None:
        self._attesting = attesting
        self._record = record

    def methods(self, asked: Asked) -> dict[str, Callable[[], Awaitable[object]]]:
        """Return what may be done to the path of `asked`, by method."""
        match asked.path:
            case ("attesters",):
                return {"GET": self._list}
            case ("attesters", name):
                return {"DELETE": lambda: self._remove(asked, name)}
            case _:
                return {}

    def _there(self) -> Attesting:
        attesting = self._attesting()
        if attesting is None:
            raise RefusedError(503, "this appliance attests nobody")
        if attesting.live.problem is not None:
            raise RefusedError(503, attesting.live.problem)
        return attesting

    async def _list(self) -> object:
        live = self._there().live
        results = live.attestations.all()
        return [shown(each, results) for each in live.attesters()]

    async def _remove(self, asked: Asked, name: str) -> object:
        """Forget an attester, and void what it has proven; what was is answered."""
        attesting = self._there()
        live = attesting.live
        found = [each for each in live.attesters() if each.name == name]
        if not found:
            text = "no such attester; GET /attesters lists them"
            raise RefusedError(404, text)
        views = [shown(each, live.attestations.all()) for each in found]
        live.remove(name)
        voided = live.attestations.void(lambda each: each.attester == name)
        for each in found:
            said = {"attester": name, "voided": len(voided)}
            self._record(asked.caller, each.app, "attester-removed", **said)
        for each in found:
            own = tuple(result for result in voided if result.app == each.app)
            await attesting.void(Changed(own, each.app, name, _WHY))
        await live.settled()
        return views


def shown(attester: Attester, results: tuple[Result, ...]) -> AttesterView:
    """Return an attester as it is shown, with how many of `results` are its own."""
    has_quoted = attester.used_at > 0
    own = [each for each in results if (each.attester, each.app) == (attester.name, attester.app)]
    return AttesterView(
        attester=attester.name,
        app=attester.app,
        spiffe_id=attester.spiffe_id,
        ek_sha256=attester.ek_sha256,
        enrolled_at=rfc3339(attester.enrolled_at),
        quoted_at=rfc3339(attester.used_at) if has_quoted else None,
        reset_count=attester.reset_count if has_quoted else None,
        restart_count=attester.restart_count if has_quoted else None,
        clock_ms=attester.clock_ms if has_quoted else None,
        firmware=f"{attester.firmware:016x}" if has_quoted else None,
        results=len(own),
    )
