"""The agent-facing API: paths to what answers them, whichever plane carries the request.

What HTTP says of a request is looked at here, once for all planes (RFC 9110, sections 9.1, 15.5.6
and 15.5.16): so a route is asked only about content that fits it.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable

from msgspec import Struct, structs

from proxy.agent_api.asked import FORM, JSON, Answer, Asked, OAuthError, ProblemError
from proxy.agent_api.content import read_content
from proxy.agent_api.openapi import document
from proxy.agent_api.refused import (
    busy,
    method_not_allowed,
    not_found,
    oauth,
    refused,
    too_long,
    too_slow,
    unfit_media,
)
from proxy.limits import Limits
from proxy.metrics import Metrics
from rules.decision import Reason

logger = logging.getLogger(__name__)

_OPENAPI = "/openapi.json"
_FAILED = 500


class Route(Struct, frozen=True):
    """What answers `method` at `path`; `takes` and `gives` are the contents, for OpenAPI.

    `answer` may raise `ProblemError` and `OAuthError`; `form` says that `takes` comes as a form.
    """

    method: str
    path: str
    summary: str
    answer: Callable[[Asked], Awaitable[Answer]]
    takes: type | None = None
    gives: type | None = None
    form: bool = False

    @property
    def media_type(self) -> str:
        """What `takes` comes as."""
        return FORM if self.form else JSON


class AgentApi:
    """Answers requests of agents; the composition root hands every route in."""

    def __init__(self, routes: Iterable[Route], limits: Limits, metrics: Metrics) -> None:
        """Raise ValueError where two routes are one."""
        summary = "This description of the API, in OpenAPI 3.1"
        described = (*routes, Route("GET", _OPENAPI, summary, self._describe))
        self._routes: dict[str, dict[str, Route]] = {}
        for each in described:
            methods = self._routes.setdefault(each.path, {})
            if each.method in methods:
                raise ValueError(f"two routes answer {each.method} {each.path}")
            methods[each.method] = each
        self._described = described
        self._document = b""
        self._limits = limits
        self._metrics = metrics
        self._under_way = 0
        self._of_apps: Counter[str] = Counter()

    def takes(self, path: str) -> bool:
        """Return whether `path`, without a query, is one of ours."""
        return path in self._routes

    def openapi(self) -> bytes:
        """Return the description of every route, as JSON."""
        if not self._document:
            self._document = document(self._described)
        return self._document

    async def answer(self, asked: Asked) -> Answer:
        """Return the answer to a request; what goes wrong is an answer, too, never raised."""
        app = asked.caller.principal.app
        full = self._full(app)
        if full:
            self._metrics.bounds.add(full)
            self._metrics.agent_api_calls.add("busy")
            return busy(asked, full)
        self._under_way += 1
        self._of_apps[app] += 1
        self._metrics.agent_api_under_way.add()
        try:
            answer = await self._answer(asked)
        finally:
            self._under_way -= 1
            self._of_apps[app] -= 1
            if not self._of_apps[app]:
                del self._of_apps[app]
            self._metrics.agent_api_under_way.add(-1)
        self._count(answer)
        return answer

    def too_long(self, asked: Asked) -> Answer:
        """Return the answer to a request whose content is over the limit, and was not kept."""
        self._metrics.bounds.add("agent_api_octets")
        self._metrics.agent_api_calls.add("refused")
        return too_long(asked, self._limits.agent_api_octets)

    def _full(self, app: str) -> str:
        """Return the bound that another call of `app` would break, "" where there is room."""
        if self._under_way >= self._limits.agent_api_calls:
            return "agent_api_calls"
        is_full = self._of_apps[app] >= self._limits.agent_api_calls_per_app
        return "agent_api_calls_per_app" if is_full else ""

    async def _answer(self, asked: Asked) -> Answer:
        patience = asyncio.timeout(self._limits.agent_api_s)
        try:
            async with patience:
                return await self._routed(asked)
        except ProblemError as error:
            return refused(asked, error)
        except OAuthError as error:
            return oauth(error)
        except Exception as error:
            if isinstance(error, TimeoutError) and patience.expired():
                self._metrics.bounds.add("agent_api_s")
                return too_slow(asked)
            # What was sent may hold a secret: it is not in here.
            logger.exception("no answer on the API of agents: %s %s", asked.method, asked.path)
            text = "a bug of ours; please report it"
            return refused(asked, ProblemError(_FAILED, Reason.INTERNAL_ERROR, text))

    async def _routed(self, asked: Asked) -> Answer:
        methods = self._routes.get(asked.path)
        if methods is None:
            return not_found(asked)
        route = methods.get("GET" if asked.method == "HEAD" else asked.method)
        if route is None:
            return method_not_allowed(asked, tuple(methods))
        if len(asked.content) > self._limits.agent_api_octets:
            self._metrics.bounds.add("agent_api_octets")
            return too_long(asked, self._limits.agent_api_octets)
        if route.takes is not None:
            if asked.media_type != route.media_type:
                if route.form:  # RFC 6749, section 5.2: a 400, which its clients read
                    text = f"{asked.path} takes {FORM}, once and not encoded"
                    raise OAuthError("invalid_request", text)
                return unfit_media(asked, route.media_type)
            value = read_content(asked.content, route.takes, self._limits, is_form=route.form)
            asked = structs.replace(asked, value=value)
        return await route.answer(asked)

    def _count(self, answer: Answer) -> None:
        outcome = self._metrics.agent_api_calls
        if answer.status >= _FAILED:
            outcome.add("failed")
        else:
            outcome.add("answered" if answer.status < 400 else "refused")

    async def _describe(self, _: Asked) -> Answer:
        return Answer(200, self.openapi())
