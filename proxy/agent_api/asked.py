"""A request to the agent-facing API, whichever plane carries it, its answer, and its evidence."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import msgspec
from msgspec import Struct

from proxy.attested.binding import Binding
from proxy.certificates.svid import Svid
from proxy.flow import Plane
from proxy.wire.fields import Fields
from rules.decision import Reason, Verdict
from rules.facts import Principal

PROBLEM = "application/problem+json"
JSON = "application/json"
FORM = "application/x-www-form-urlencoded"

ADMIN = Principal("")
"""Stands for an admin who is no agent: no app is called so."""


class Caller(Struct, frozen=True):
    """Who asks: by all evidence of the request.

    `svid` is the certificate of the connection, None without one.  `binding` is what a result can
    be bound to; None on a plain port, where nothing holds a token to its owner.  `is_admin`: he
    came by the control API, and may look into and revoke what is anybody's; unless he is an agent
    as well, `principal` is `ADMIN`, which is no app.
    """

    principal: Principal
    plane: Plane
    listener: str
    svid: Svid | None = None
    binding: Binding | None = None
    is_admin: bool = False


class Asked(Struct, frozen=True):
    """A request: `path` without its query, `media_type` in lower case without parameters.

    `value` is what the route `takes`, read from `content` before the route is asked.  `stay` lets
    the connection last until it is answered, though what asks is revoked by this very request;
    it ends with the answer.
    """

    method: str
    path: str
    caller: Caller
    media_type: str = ""
    content: bytes = b""
    value: Any = None
    stay: Callable[[], object] = lambda: None


class Answer(Struct, frozen=True):
    """The whole response but for what every response of ours has."""

    status: int
    content: bytes
    media_type: str = JSON
    fields: Fields = ()


class Record(Protocol):
    """Writes the audit line of what an agent has changed, or was refused."""

    def __call__(
        self,
        app: str,
        change: str,
        verdict: Verdict,
        reason: Reason,
        target: str,
        detail: Mapping[str, object],
    ) -> object:
        """Write it; `target` is whom or what it is about.  No secret and no token stands in it."""


class ProblemError(Exception):
    """A refusal that the agent is told as a problem (RFC 9457); `how` says what to do."""

    def __init__(self, status: int, reason: Reason, text: str, how: str = "") -> None:
        super().__init__(text)
        self.status = status
        self.reason = reason
        self.how = how


class OAuthError(Exception):
    """A refusal of an OAuth endpoint (RFC 6749, section 5.2): `error` is of its closed list."""

    def __init__(self, error: str, text: str, status: int = 400) -> None:
        super().__init__(text)
        self.error = error
        self.status = status


def encoded(value: Any, status: int = 200) -> Answer:
    """Return `value` as a JSON answer."""
    return Answer(status, msgspec.json.encode(value))
