"""Routes that say what they were asked, wait, or break, as a test wants it."""

import asyncio
from enum import StrEnum

from msgspec import Struct

from proxy.agent_api.api import AgentApi, Route
from proxy.agent_api.asked import Answer, Asked, Caller, OAuthError, ProblemError, encoded
from proxy.flow import Plane
from proxy.limits import Limits
from proxy.metrics import Metrics
from rules.decision import Reason
from rules.facts import Principal


class Colour(StrEnum):
    RED = "red"


class Wanted(Struct, frozen=True, forbid_unknown_fields=True):
    """What POST /echo takes."""

    text: str
    colour: Colour = Colour.RED


class Form(Struct, frozen=True):
    """What POST /form takes."""

    grant_type: str
    ttl_s: int | None = None


class Echoed(Struct, frozen=True):
    """What a route was asked."""

    app: str
    plane: Plane
    listener: str
    spiffe_id: str
    binding: str
    is_admin: bool
    octets: int
    text: str = ""


def echoed(asked: Asked, text: str = "") -> Echoed:
    caller = asked.caller
    return Echoed(
        caller.principal.app,
        caller.plane,
        caller.listener,
        "" if caller.svid is None else caller.svid.spiffe_id,
        "" if caller.binding is None else caller.binding.value,
        caller.is_admin,
        len(asked.content),
        text,
    )


class Endpoints:
    """The routes; `asked` are those that were waited for at /held, until `go` is set."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.go = asyncio.Event()
        self.held = asyncio.Event()
        self.waiting = 0
        self.cancelled = asyncio.Event()
        self.metrics = Metrics()
        self.limits = limits or Limits()
        self.api = AgentApi(self.routes(), self.limits, self.metrics)

    def routes(self) -> tuple[Route, ...]:
        return (
            Route("POST", "/echo", "Say it again", self.echo, Wanted, Echoed),
            Route("GET", "/state", "Say who asks", self.state, gives=Echoed),
            Route("POST", "/form", "Take a form", self.form, Form, Echoed, form=True),
            Route("POST", "/held", "Wait", self.hold, gives=Echoed),
            Route("POST", "/problem", "Refuse", self.problem),
            Route("POST", "/oauth", "Refuse as OAuth does", self.oauth, form=True),
            Route("POST", "/broken", "Break", self.broken),
        )

    async def echo(self, asked: Asked) -> Answer:
        assert isinstance(asked.value, Wanted)
        return encoded(echoed(asked, asked.value.text))

    async def state(self, asked: Asked) -> Answer:
        return encoded(echoed(asked))

    async def form(self, asked: Asked) -> Answer:
        assert isinstance(asked.value, Form)
        return encoded(echoed(asked, f"{asked.value.grant_type} {asked.value.ttl_s}"))

    async def hold(self, asked: Asked) -> Answer:
        self.waiting += 1
        self.held.set()
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        finally:
            self.waiting -= 1
        return encoded(echoed(asked))

    async def problem(self, asked: Asked) -> Answer:
        text = f"nothing for {asked.caller.principal.app}"
        raise ProblemError(403, Reason.ATTESTATION_REQUIRED, text, "attest")

    async def oauth(self, _: Asked) -> Answer:
        raise OAuthError("invalid_client", 'who is "that"?', 401)

    async def broken(self, asked: Asked) -> Answer:
        raise LookupError(asked.content)


def caller(app: str = "me") -> Caller:
    return Caller(Principal(app), Plane.HTTP, "127.0.0.1:3128")


def asked(
    path: str, content: bytes = b"", media: str = "", method: str = "POST", app: str = "me"
) -> Asked:
    return Asked(method, path, caller(app), media, content)
