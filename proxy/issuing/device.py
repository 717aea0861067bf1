"""The device flow (RFC 8628), run by us for devices that have no browser.

    POST /enroll/device         {"app", "csr"} -> codes for a person, and a handle for the device
    POST /enroll/device/token   {"handle"} -> authorization_pending, slow_down, ..., or certificates

The request comes first and the approval after it: what a person approves is one key of one device.
"""

import asyncio
import base64
import contextlib
import secrets
from collections.abc import Awaitable, Callable
from typing import override

import msgspec
from aiohttp import web
from msgspec import Struct

from certs.csr import Csr, certs_only
from certs.oidc import TokenError, check_claims, check_id_token
from certs.svid import IssuedSvid
from proxy.config_identity import Oidc
from proxy.errors import ConfigError, ProxyError
from proxy.issuing.authority import BY_OIDC
from proxy.issuing.enrolment import Enrolment, RefusedError, Try, read, read_base64
from proxy.issuing.est import peer_of
from proxy.issuing.outgoing import UnreachableError
from proxy.issuing.provider import Began, Provider, ProviderError, Waiting
from rules.decision import Reason

_HANDLE_OCTETS = 32
_EASE = 0.9  # of the interval, that a device whose clock or network jitters is not punished
_SLOWER_S = 5  # RFC 8628, section 3.5
_MOST_INTERVAL_S = 60.0
_KEPT_S = 60.0  # an outcome, for a device whose answer was lost

type Sleep = Callable[[float], Awaitable[object]]


class Wanted(Struct, frozen=True):
    """What a device asks for; `csr` is DER in base64."""

    app: str
    csr: str


class Asked(Struct, frozen=True):
    """A device that asks how far its flow is."""

    handle: str

    @override
    def __repr__(self) -> str:
        return "Asked(...)"


class Ended(Struct, frozen=True):
    """A flow that ended without a certificate; `code` is that of RFC 8628, section 3.5."""

    code: str
    text: str


class Flow:
    """One device that waits for a person; times are those of `monotonic` and Unix time."""

    def __init__(self, app: str, csr: Csr, spiffe_id: str, peer: str) -> None:
        self.app = app
        self.csr = csr
        self.spiffe_id = spiffe_id
        self.attempt = Try(BY_OIDC, peer, app)
        self.interval = _SLOWER_S * 1.0
        self.next = 0.0  # when the device may ask again
        self.slow_downs = 0
        self.outcome: IssuedSvid | Ended | None = None
        self.ended = 0.0
        self.task: asyncio.Task[None] | None = None


class DeviceFlows:
    """The flows under way; `monotonic` gives seconds, `sleep` waits so many."""

    def __init__(
        self,
        enrolment: Enrolment,
        oidc: Oidc,
        provider: Provider,
        monotonic: Callable[[], float],
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._enrolment = enrolment
        self._oidc = oidc
        self._provider = provider
        self._monotonic = monotonic
        self._sleep = sleep
        self._flows: dict[str, Flow] = {}  # by handle, the oldest first

    def __len__(self) -> int:
        """Return how many flows are under way."""
        return sum(each.outcome is None for each in self._flows.values())

    def routes(self) -> list[web.RouteDef]:
        """Return what is served."""
        return [
            web.post("/enroll/device", self._begin),
            web.post("/enroll/device/token", self._token),
        ]

    async def close(self) -> None:
        """End every flow."""
        tasks = [each.task for each in self._flows.values() if each.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._flows.clear()

    async def _begin(self, request: web.Request) -> web.Response:
        wanted = await _content(request, Wanted)
        peer = peer_of(request)
        with self._enrolment.told(BY_OIDC, peer, wanted.app):
            return web.json_response(await self._began(wanted, peer))

    async def _began(self, wanted: Wanted, peer: str) -> dict[str, object]:
        if wanted.app not in self._oidc.apps:
            raise RefusedError(403, "no enrolment by approval for this app: use a join token")
        csr = read(read_base64(wanted.csr.encode()))
        spiffe_id = await self._enrolment.choose(wanted.app, csr)
        self._make_room(peer)
        handle = secrets.token_urlsafe(_HANDLE_OCTETS)
        flow = self._flows[handle] = Flow(wanted.app, csr, spiffe_id, peer)
        try:
            began = await self._provider.begin()
        except (ProviderError, UnreachableError, ConfigError) as error:
            self._enrolment.authority.log.warning("no device flow: %s", error)
            text = f"the OpenID provider began no flow: {error}"
            raise RefusedError(502, text, Reason.UPSTREAM_UNREACHABLE) from None
        finally:
            if flow.task is None:
                self._flows.pop(handle, None)
        return self._started(handle, flow, began)

    def _started(self, handle: str, flow: Flow, began: Began) -> dict[str, object]:
        life_s = min(max(began.expires_in, 0.0), self._enrolment.limits.enroll_flow_s)
        self._flows[handle] = flow
        flow.interval = max(flow.interval, began.interval)
        flow.next = self._monotonic() + flow.interval * _EASE
        flow.task = asyncio.get_running_loop().create_task(self._follow(flow, began, life_s))
        return {
            "handle": handle,
            "user_code": began.user_code,
            "verification_uri": began.verification_uri,
            "verification_uri_complete": began.verification_uri_complete,
            "expires_in": int(life_s),
            "interval": flow.interval,
            "spiffe_id": flow.spiffe_id,
        }

    def _make_room(self, peer: str) -> None:
        """Forget what ended a while ago; refuse where too much is under way."""
        limits, now = self._enrolment.limits, self._monotonic()
        ended = {name: each for name, each in self._flows.items() if each.outcome is not None}
        for name, each in ended.items():
            if now - each.ended > _KEPT_S or len(self._flows) >= 2 * limits.enroll_flows:
                del self._flows[name]
        own = sum(each.attempt.peer == peer and not each.outcome for each in self._flows.values())
        is_full = len(self) >= limits.enroll_flows
        if is_full or own >= limits.enroll_flows_per_peer:
            self._enrolment.at_bound("enroll_flows" if is_full else "enroll_flows_per_peer")
            text = "too many devices wait for an approval: try again in some minutes"
            raise RefusedError(503, text, Reason.CAPACITY)

    async def _token(self, request: web.Request) -> web.Response:
        asked = await _content(request, Asked)
        flow = self._flows.get(asked.handle)
        if flow is None:
            return _error(Ended("invalid_grant", "no such flow, or it is over: begin again"))
        if flow.outcome is None:
            return self._pending(flow)
        if isinstance(flow.outcome, Ended):
            return _error(flow.outcome)
        chain = (*flow.outcome.chain, *self._enrolment.authorities())
        message = base64.b64encode(certs_only(tuple(dict.fromkeys(chain)))).decode()
        return web.json_response({"spiffe_id": flow.spiffe_id, "certificates": message})

    def _pending(self, flow: Flow) -> web.Response:
        """Answer a device whose flow is not over; who asks too fast is slowed, then ended."""
        now = self._monotonic()
        is_early, flow.next = now < flow.next, now + flow.interval * _EASE
        if not is_early:
            return _error(Ended("authorization_pending", "nobody has approved yet"))
        flow.interval = min(flow.interval * 2, _MOST_INTERVAL_S)
        flow.next = now + flow.interval * _EASE
        flow.slow_downs += 1
        if flow.slow_downs <= self._enrolment.limits.enroll_slow_downs:
            text = f"ask each {flow.interval:g} s"
            return _error(Ended("slow_down", text), interval=flow.interval)
        self._enrolment.at_bound("enroll_slow_downs")
        ended = self._end(flow, "access_denied", "the device asked too often", Reason.RATE)
        if flow.task is not None:
            flow.task.cancel()
        return _error(ended)

    async def _follow(self, flow: Flow, began: Began, life_s: float) -> None:
        """Ask the provider by its interval until a person has decided, or time is over."""
        since, ends = self._enrolment.authority.wall(), self._monotonic() + life_s
        try:
            token = await self._approved(began, ends)
            if token is None:
                self._end(flow, "expired_token", "nobody approved in time: begin again")
                return
            await self._check(flow, token, since)
            said = {"user_code": began.user_code}
            issued = await self._enrolment.issue(flow.csr, flow.spiffe_id, flow.attempt, said)
            flow.outcome, flow.ended = issued, self._monotonic()
        except ProviderError as error:
            self._end(flow, error.code, str(error))
        except (TokenError, RefusedError) as error:
            reason = getattr(error, "reason", Reason.IDENTITY_UNKNOWN)
            self._end(flow, "access_denied", str(error), reason)
        except ProxyError as error:
            self._end(flow, "access_denied", str(error), Reason.UPSTREAM_UNREACHABLE)
        except Exception as error:  # noqa: BLE001 - a flow that never ends would keep its seat
            self._enrolment.authority.log.error("a bug of ours: %s", type(error).__name__)  # noqa: TRY400 - a traceback could show a token
            self._end(flow, "access_denied", "a bug of ours", Reason.INTERNAL_ERROR)

    async def _approved(self, began: Began, ends: float) -> str | None:
        """Return the ID token of a flow; None where its time is over."""
        interval = began.interval
        while self._monotonic() + interval < ends:
            await self._sleep(interval)
            try:
                return await self._provider.ask(began.device_code)
            except Waiting as waiting:
                interval += _SLOWER_S if waiting.slow_down else 0
            except UnreachableError as error:
                # RFC 8628, section 3.5: exponential back-off
                interval = min(interval * 2, _MOST_INTERVAL_S)
                self._enrolment.authority.log.warning("%s", error)
        return None

    async def _check(self, flow: Flow, token: str, since: float) -> None:
        """See that who approved may enrol for the app, and that the app still has its name."""
        claims = check_id_token(
            token,
            await self._provider.keys(),
            issuer=self._oidc.issuer,
            client_id=self._oidc.client_id,
            now=self._enrolment.authority.wall(),
            since=since,
        )
        check_claims(claims, self._oidc.apps[flow.app])
        await self._enrolment.choose(flow.app, flow.csr)

    def _end(
        self, flow: Flow, code: str, text: str, reason: Reason = Reason.IDENTITY_UNKNOWN
    ) -> Ended:
        flow.outcome, flow.ended = Ended(code, text), self._monotonic()
        self._enrolment.refuse(RefusedError(403, text, reason), flow.attempt)
        return flow.outcome


async def _content[T](request: web.Request, kind: type[T]) -> T:
    if request.content_type != "application/json":
        raise RefusedError(415, "the content is to be application/json", Reason.REQUEST_MALFORMED)
    with contextlib.suppress(msgspec.MsgspecError, RecursionError):
        return msgspec.json.decode(await request.read(), type=kind)
    raise RefusedError(400, "the content is not what is wanted here", Reason.REQUEST_MALFORMED)


def _error(ended: Ended, **said: float) -> web.Response:
    document = {"error": ended.code, "error_description": ended.text, **said}
    return web.json_response(document, status=400)  # RFC 6749, section 5.2
