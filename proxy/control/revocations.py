"""What may be asked of revocations over the control API.

    GET /revocations   POST /revocations   DELETE /revocations?what=WHAT[&kind=KIND]

An answer to POST comes once what was revoked is cut, and on the disk.
"""

import contextlib
from collections.abc import Awaitable, Callable, Container
from urllib.parse import parse_qs

from msgspec import Struct

from proxy.audit_line import rfc3339
from proxy.certificates.live import LiveRevocations
from proxy.certificates.meant import meant
from proxy.certificates.revoked import Kind, Revocation, Revocations
from proxy.control.asked import Asked, RefusedError, read_content
from proxy.control.identity import Recorder
from proxy.errors import ConfigError
from proxy.tokens.live import LiveTokens

WHY_CHARACTERS = 1024  # of an admin's words; an audit line is bounded as well


class Cut(Struct, frozen=True):
    """What a revocation cut: so many flows and resting connections, in so many seconds."""

    flows: int = 0
    within_s: float = 0.0


class Revoking(Struct, frozen=True):
    """Revocations, as the appliance carries them out.

    `cut` returns what the last one has cut, once it has; `apps` are those that the rules speak of.
    """

    revocations: LiveRevocations
    cut: Callable[[], Awaitable[Cut]]
    apps: Callable[[], Container[str]]


class RevocationWanted(Struct, frozen=True, forbid_unknown_fields=True):
    """What is to be revoked: `kind` is spiffe-id, serial, app or token, where `what` is not clear.

    `why` are words for audit; agents are not told.
    """

    what: str
    kind: str | None = None
    why: str = ""


class RevocationView(Struct, frozen=True, kw_only=True):
    """A revocation as it is shown; times in RFC 3339.  `cut` is told of a new one."""

    kind: str
    value: str
    at: str
    why: str
    by_uid: int
    until: str | None = None
    cut: int | None = None
    cut_s: float | None = None


class RevocationRoutes:
    """Answers for revocations; `revoking` returns None where there are none."""

    def __init__(
        self, revoking: Callable[[], Revoking | None], tokens: LiveTokens, record: Recorder
    ) -> None:
        self._revoking = revoking
        self._tokens = tokens
        self._record = record

    def methods(self, asked: Asked) -> dict[str, Callable[[], Awaitable[object]]]:
        """Return what may be done to the path of `asked`, by method."""
        if asked.path != ("revocations",):
            return {}
        return {
            "GET": self._list,
            "POST": lambda: self._revoke(asked),
            "DELETE": lambda: self._restore(asked),
        }

    def _there(self) -> Revoking:
        revoking = self._revoking()
        if revoking is None:
            raise RefusedError(503, "this appliance keeps no revocations")
        return revoking

    async def _list(self) -> object:
        return [shown(each) for each in self._there().revocations.list()]

    async def _revoke(self, asked: Asked) -> object:
        wanted = read_content(asked.content, RevocationWanted)
        if len(wanted.why) > WHY_CHARACTERS:
            raise RefusedError(400, f"`why` has {WHY_CHARACTERS} characters at most")
        revoking = self._there()
        kind, value = meant(wanted.what, wanted.kind, revoking.apps())
        if kind == "token":
            return [await self._revoke_token(asked, value, wanted.why, revoking)]
        uid = asked.caller.said().get("by_uid")
        by_uid = uid if isinstance(uid, int) else -1
        is_new = revoking.revocations.revocations.get(kind, value) is None
        try:
            made = await revoking.revocations.revoke(kind, value, why=wanted.why, by_uid=by_uid)
        finally:
            # What could not be written is in force as well, and told of.
            known = revoking.revocations.revocations.get(kind, value)
            cut = await revoking.cut() if is_new and known is not None else None
            if known is not None and cut is not None:
                self._tell(asked, known, cut)
        return [shown(made, cut)]

    def _tell(self, asked: Asked, made: Revocation, cut: Cut) -> None:
        said = {"kind": made.kind, "why": made.why, "revoked_at": rfc3339(made.at)}
        counts = {"cut": cut.flows, "cut_s": cut.within_s}
        self._record(asked.caller, made.value, "revoked", **said, **counts)

    async def _revoke_token(
        self, asked: Asked, which: str, why: str, revoking: Revoking
    ) -> RevocationView:
        [token] = await self._tokens.revoke(which)
        cut = await revoking.cut()
        at = rfc3339(token.revoked or 0.0)
        said = {"kind": "token", "why": why, "revoked_at": at}
        counts = {"cut": cut.flows, "cut_s": cut.within_s}
        self._record(asked.caller, token.id, "revoked", **said, **counts)
        return RevocationView(
            kind="token", value=token.id, at=at, why=why, by_uid=-1, cut=cut.flows,
            cut_s=cut.within_s,
        )  # fmt: skip

    async def _restore(self, asked: Asked) -> object:
        query = parse_qs(asked.query)
        what, kind = query.get("what", [""])[0], query.get("kind", [None])[0]
        revoking = self._there()
        restored = await restore_meant(revoking.revocations, what, kind, revoking.apps())
        self._record(asked.caller, restored.value, "restored", kind=restored.kind)
        return [shown(restored)]


async def restore_meant(
    revocations: LiveRevocations, what: str, kind: str | None, apps: Container[str]
) -> Revocation:
    """Let what is meant by `what` count again; return what was its revocation.

    Raises:
        ConfigError: it is not revoked, or a token, or not clear.
        BindError: the file cannot be written.
    """
    found = _standing(revocations.revocations, what) if kind is None else []
    # What is revoked is known by its name, whatever the rules speak of by now.
    named, value = found[0] if len(found) == 1 else meant(what, kind, apps)
    if named == "token":
        raise ConfigError(
            f"the token {value} stays void: `sallyport app token {value.partition('.')[0]}` makes"
            " another"
        )
    return await revocations.restore(named, value)


def _standing(revocations: Revocations, what: str) -> list[tuple[Kind, str]]:
    """Return every revocation that may be meant by `what`."""
    found = []
    for kind in Kind:
        with contextlib.suppress(ConfigError):
            _, value = meant(what, kind, ())
            if revocations.get(kind, value) is not None:
                found.append((kind, value))
    return found


def shown(revocation: Revocation, cut: Cut | None = None) -> RevocationView:
    """Return a revocation as it is shown."""
    until = revocation.until
    return RevocationView(
        kind=revocation.kind,
        value=revocation.value,
        at=rfc3339(revocation.at),
        why=revocation.why,
        by_uid=revocation.by_uid,
        until=None if until is None else rfc3339(until),
        cut=None if cut is None else cut.flows,
        cut_s=None if cut is None else cut.within_s,
    )
