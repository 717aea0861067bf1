"""What may be asked of registered secrets over the control API.

    GET /secrets   POST /secrets   DELETE /secrets/NAME

The content of POST is `name`, `value` in base64, and `kind`: no value is in a path, an answer, an
audit line or an error.  An answer comes once names are looked at for what is registered then.
"""

from collections.abc import Awaitable, Callable

from msgspec import Struct

from proxy.audit_line import rfc3339
from proxy.canaries.live import LiveSecrets
from proxy.canaries.secret import Secret, UnknownSecretError, WantedSecret
from proxy.control.asked import Asked, RefusedError, read_content
from proxy.control.identity import Recorder

NO_UID = -1
"""In the place of the admin's uid: he came with a certificate."""


class SecretView(Struct, frozen=True, kw_only=True):
    """A secret as it is shown: when it was registered, in RFC 3339, and by whom."""

    name: str
    kind: str
    at: str
    by_uid: int


class SecretRoutes:
    """Answers for registered secrets; `secrets` returns None where none are looked for."""

    def __init__(self, secrets: Callable[[], LiveSecrets | None], record: Recorder) -> None:
        self._secrets = secrets
        self._record = record

    def methods(self, asked: Asked) -> dict[str, Callable[[], Awaitable[object]]]:
        """Return what may be done to the path of `asked`, by method."""
        match asked.path:
            case ("secrets",):
                return {"GET": self._list, "POST": lambda: self._add(asked)}
            case ("secrets", name):
                return {"DELETE": lambda: self._remove(asked, name)}
            case _:
                return {}

    def _there(self) -> LiveSecrets:
        secrets = self._secrets()
        if secrets is None:
            raise RefusedError(503, "this appliance looks for no secrets")
        return secrets

    async def _list(self) -> object:
        return [shown(each) for each in self._there().list()]

    async def _add(self, asked: Asked) -> object:
        wanted = read_content(asked.content, WantedSecret)
        uid = asked.caller.said().get("by_uid")
        made = await self._there().add(wanted, uid if isinstance(uid, int) else NO_UID)
        self._record(asked.caller, f"secret {made.name}", "secret-added", kind=made.kind)
        return shown(made)

    async def _remove(self, asked: Asked, name: str) -> object:
        try:
            removed = await self._there().remove(name)
        except UnknownSecretError as error:
            raise RefusedError(404, str(error)) from None
        self._record(asked.caller, f"secret {removed.name}", "secret-removed", kind=removed.kind)
        return shown(removed)


def shown(secret: Secret) -> SecretView:
    """Return a secret as it is shown."""
    return SecretView(
        name=secret.name, kind=secret.kind, at=rfc3339(secret.at), by_uid=secret.by_uid
    )
