"""What may be asked of a running appliance over its control socket, and who changed what.

    GET /status   GET /apps   GET /apps/NAME   GET /why/ID   GET /why?app=NAME
    POST /reload  GET /tokens POST /tokens     POST /tokens/ID/rotate   DELETE /tokens/ID
    and what the others of this package answer, and the agent-facing API (`proxy.agent_api`)

Every change leaves an audit line of the plane `control` with the caller: his uid and pid, or the
SPIFFE ID and serial of his certificate.
"""

import asyncio
from collections.abc import Awaitable, Callable

from msgspec import Struct, structs

from proxy.audit import Line
from proxy.audit_line import rfc3339
from proxy.control.admins import NoAdmin
from proxy.control.agents import AgentRoutes
from proxy.control.asked import Asked, Asker, RefusedError
from proxy.control.asked import read_content as _read
from proxy.control.attesters import AttesterRoutes
from proxy.control.capabilities import CapabilityRoutes
from proxy.control.identity import IdentityRoutes
from proxy.control.lists import ListRoutes
from proxy.control.revocations import RevocationRoutes
from proxy.control.secrets import SecretRoutes
from proxy.control.status import LastSeen, Sources, detail, reload_view, status, summaries, view
from proxy.control.tunnels import TunnelRoutes
from proxy.errors import BindError, ConfigError
from proxy.flow import Plane, new_id
from proxy.tokens.known import Issued, Purpose, Token, UnknownTokenError, Wanted
from proxy.why import audit_files, find, last, newest
from rules.decision import Reason, Verdict
from rules.facts import UNKNOWN_APP

OURSELVES = "sallyport"  # stands as the app of a line about a change
_ENTROPY_OCTETS = 10
_REFUSALS_SHOWN = 5


class Rotation(Struct, frozen=True, forbid_unknown_fields=True):
    """How a token is rotated: the old secret lives `grace_s` seconds more, None: the default."""

    grace_s: float | None = None


class Routes:
    """Answers requests; `seen` is kept by whoever calls `LastSeen.look`."""

    def __init__(self, sources: Sources, seen: LastSeen) -> None:
        self._sources = sources
        self._seen = seen
        self._searching = asyncio.Semaphore(1)  # of the audit files: one search at a time
        self._others = (
            IdentityRoutes(sources.issuing, self._record),
            RevocationRoutes(sources.revoking, sources.tokens, self._record),
            AgentRoutes(sources.agents),
            AttesterRoutes(sources.attesting, self._record),
            CapabilityRoutes(sources.exchange, self._record),
            TunnelRoutes(sources.detection, self._record),
            SecretRoutes(sources.secrets, self._record),
            ListRoutes(sources.listed),
        )
        self.now = sources.wall

    async def answer(self, asked: Asked) -> object:
        """Return what JSON is made of, or an answer of the agent-facing API.

        Raises:
            RefusedError: no such thing, or not in this way.
        """
        api = self._sources.agent_api()
        if api is not None and api.takes(asked):
            return await api.answer(asked)
        methods = self._methods(asked)
        if not methods:
            raise RefusedError(404, "no such thing here; docs/control.md lists what there is")
        found = methods.get("GET" if asked.method == "HEAD" else asked.method)
        if found is None:
            allow = ", ".join(methods)
            raise RefusedError(405, f"only {allow} here", allow)
        try:
            return await found()
        except UnknownTokenError as error:
            raise RefusedError(404, str(error)) from None
        except ConfigError as error:
            raise RefusedError(409, str(error)) from None
        except BindError as error:
            raise RefusedError(503, str(error)) from None

    def _methods(self, asked: Asked) -> dict[str, Callable[[], Awaitable[object]]]:
        """Return what may be done to the path of `asked`, by method; nothing: there is no such."""
        methods: dict[str, Callable[[], Awaitable[object]]] = {}
        match asked.path:
            case ("status",):
                methods = {"GET": self._status}
            case ("apps",):
                methods = {"GET": self._apps}
            case ("apps", name):
                methods = {"GET": lambda: self._app(name)}
            case ("why",):
                methods = {"GET": lambda: self._last(asked)}
            case ("why", unique):
                methods = {"GET": lambda: self._why(unique)}
            case ("reload",):
                methods = {"POST": lambda: self._reload(asked)}
            case ("tokens",):
                methods = {"GET": self._tokens, "POST": lambda: self._issue(asked)}
            case ("tokens", which):
                methods = {"DELETE": lambda: self._revoke(asked, which)}
            case ("tokens", which, "rotate"):
                methods = {"POST": lambda: self._rotate(asked, which)}
            case _:
                found = (each.methods(asked) for each in self._others)
                methods = next((each for each in found if each), {})
        return methods

    async def _status(self) -> object:
        self._seen.look(self._sources.wall())
        return status(self._sources, self._seen)

    async def _apps(self) -> object:
        self._seen.look(self._sources.wall())
        return summaries(self._sources, self._seen)

    async def _app(self, name: str) -> object:
        self._seen.look(self._sources.wall())
        if detail(self._sources, self._seen, name, []) is None:
            raise RefusedError(404, f"no rule file speaks of the app {name!r}")
        files = audit_files(self._sources.audit_file)
        async with self._searching:
            refused = await asyncio.to_thread(newest, files, name, _REFUSALS_SHOWN)
        return detail(self._sources, self._seen, name, refused)

    async def _why(self, unique: str) -> object:
        """Look into the files; what still folds is not there yet, and is remembered."""
        wanted = unique.lower().removeprefix("urn:uuid:").replace("-", "")
        files = audit_files(self._sources.audit_file)
        async with self._searching:
            entry = await asyncio.to_thread(find, files, wanted)
        if entry is not None:
            return entry
        for app in (*self._sources.ruleset().apps, UNKNOWN_APP):
            refusal = self._sources.refusals.get(app, wanted)
            if refusal is not None:
                return {**structs.asdict(refusal), "time": rfc3339(refusal.time)}
        raise RefusedError(404, "no such refusal in the audit files, nor remembered")

    async def _last(self, asked: Asked) -> object:
        app = _value(asked.query, "app")
        files = audit_files(self._sources.audit_file)
        async with self._searching:
            entry = await asyncio.to_thread(last, files, app)
        if entry is None:
            raise RefusedError(404, "no refusal in the audit files")
        return entry

    async def _reload(self, asked: Asked) -> object:
        await self._sources.tokens.reload()
        reloaded = await self._sources.reload()
        problems = list(reloaded.problems)
        self._record(asked.caller, "rules", f"reload: {reloaded.outcome}", problems=problems)
        return reload_view(reloaded)

    async def _tokens(self) -> object:
        sources = self._sources
        if sources.tokens.problem is not None:
            raise RefusedError(503, sources.tokens.problem)
        now = sources.wall()
        return [view(each, now) for each in sources.tokens.list()]

    async def _issue(self, asked: Asked) -> object:
        issued = await self._sources.tokens.issue(_read(asked.content, Wanted))
        self._record(asked.caller, f"token {issued.token.id}", "issued", **_said(issued.token))
        return self._told(issued)

    async def _rotate(self, asked: Asked, which: str) -> object:
        rotation = _read(asked.content or b"{}", Rotation)
        purpose = _purpose(asked)
        issued = await self._sources.tokens.rotate(which, rotation.grace_s, purpose)
        replaced = issued.replaced.id if issued.replaced else None
        said = {**_said(issued.token), "replaced": replaced}
        self._record(asked.caller, f"token {issued.token.id}", "rotated", **said)
        return self._told(issued)

    async def _revoke(self, asked: Asked, which: str) -> object:
        revoked = await self._sources.tokens.revoke(which, _purpose(asked))
        for token in revoked:
            self._record(asked.caller, f"token {token.id}", "revoked", **_said(token))
        now = self._sources.wall()
        return [view(each, now) for each in revoked]

    def _told(self, issued: Issued) -> object:
        """Return the one answer that holds a secret."""
        now = self._sources.wall()
        replaced = None if issued.replaced is None else view(issued.replaced, now)
        return {"token": view(issued.token, now), "secret": issued.secret, "replaced": replaced}

    def refused(self, who: NoAdmin, asked: str, listener: str) -> None:
        """Tell audit of somebody whose certificate opens nothing here; repeats fold."""
        name = "" if who.svid is None else who.svid.spiffe_id
        detail = {
            "change": "refused",
            "asked": asked,
            "listener": listener,
            "how": who.text,
            **who.said(),
        }
        self._sources.audit.write(self._line(Verdict.DENY, who.reason, name or listener, detail))

    def _record(self, caller: Asker, target: str, change: str, **said: object) -> None:
        detail = {"change": change, **caller.said(), **said}
        line = self._line(Verdict.ALLOW, Reason.LOCAL, target, detail)
        self._sources.audit.write(line, line.flow)  # with an id of its own it folds with no other

    def _line(
        self, verdict: Verdict, reason: Reason, target: str, detail: dict[str, object]
    ) -> Line:
        sources = self._sources
        return Line(
            flow=new_id(sources.wall(), sources.entropy(_ENTROPY_OCTETS)),
            app=OURSELVES,
            evidence=(),
            plane=Plane.CONTROL,
            fact=None,
            verdict=verdict,
            reason=reason,
            rule=None,
            generation=sources.ruleset().generation,
            target=target,
            detail=detail,
        )


def _said(token: Token) -> dict[str, object]:
    return {"purpose": token.purpose, "expires": token.expires, "bind_uid": token.bind_uid}


def _purpose(asked: Asked) -> Purpose:
    value = _value(asked.query, "purpose") or Purpose.APP
    if value not in {*Purpose}:
        raise RefusedError(400, "purpose is app, join or scrape")
    return Purpose(value)


def _value(query: str, key: str) -> str | None:
    """Return the value of `key` in a query; nothing in ours needs percent-encoding."""
    pairs = (pair.partition("=") for pair in query.split("&"))
    return next((value for name, _, value in pairs if name == key), None)
