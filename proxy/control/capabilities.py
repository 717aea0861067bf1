"""What may be asked of capability tokens over the control API.

    GET /capabilities   DELETE /capabilities/ID[?why=WORDS]

`ID` is a token's id, or the SHA-256 of its text in hex: a token itself is in no path.  An answer to
DELETE comes once the token, and what was made of it, counts no more, and that is on the disk.
"""

from collections.abc import Awaitable, Callable
from urllib.parse import parse_qs

from msgspec import Struct

from proxy.audit_line import rfc3339
from proxy.capabilities.exchange import Exchange, UnknownCapabilityError
from proxy.capabilities.token import CapabilityToken
from proxy.control.asked import Asked, RefusedError
from proxy.control.identity import Recorder
from proxy.control.revocations import WHY_CHARACTERS


class CapabilityView(Struct, frozen=True, kw_only=True):
    """A token as it is shown: times in RFC 3339; `actors` are those after the subject."""

    id: str
    state: str
    audience: str
    scopes: tuple[str, ...]
    app: str
    subject: str
    actors: tuple[str, ...]
    level: str
    issued: str
    expires: str
    rule: str
    parent: str
    why: str


class CapabilityRoutes:
    """Answers for capability tokens; `exchange` returns None where there are none."""

    def __init__(self, exchange: Callable[[], Exchange | None], record: Recorder) -> None:
        self._exchange = exchange
        self._record = record

    def methods(self, asked: Asked) -> dict[str, Callable[[], Awaitable[object]]]:
        """Return what may be done to the path of `asked`, by method."""
        match asked.path:
            case ("capabilities",):
                return {"GET": self._list}
            case ("capabilities", which):
                return {"DELETE": lambda: self._revoke(asked, which)}
            case _:
                return {}

    def _there(self) -> Exchange:
        exchange = self._exchange()
        if exchange is None:
            raise RefusedError(503, "this appliance keeps no capability tokens")
        return exchange

    async def _list(self) -> object:
        exchange = self._there()
        return [shown(each, stands=exchange.stands(each)) for each in exchange.all()]

    async def _revoke(self, asked: Asked, which: str) -> object:
        why = parse_qs(asked.query).get("why", [""])[0]
        if len(why) > WHY_CHARACTERS:
            raise RefusedError(400, f"`why` has {WHY_CHARACTERS} characters at most")
        exchange = self._there()
        try:
            voided = exchange.revoke(which, why or "revoked by an admin")
        except UnknownCapabilityError as error:
            raise RefusedError(404, str(error)) from None
        if voided:
            ids = [each.id for each in voided]
            self._record(asked.caller, ids[0], "token-revoked", why=voided[0].why, tokens=ids)
        await exchange.settled()
        return [shown(each, stands=False) for each in voided]


def shown(token: CapabilityToken, *, stands: bool) -> CapabilityView:
    """Return a token as it is shown."""
    return CapabilityView(
        id=token.id,
        state="current" if stands else "void",
        audience=token.audience,
        scopes=token.scopes,
        app=token.holder.app,
        subject=token.subject.name,
        actors=tuple(each.name for each in token.parties[1:]),
        level=token.least.name.lower(),
        issued=rfc3339(token.at),
        expires=rfc3339(token.expires),
        rule=token.rule,
        parent=token.parent,
        why=token.why,
    )
