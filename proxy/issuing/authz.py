"""Envoy's ext_authz over gRPC (envoy.service.auth.v3): our decisions for requests that Envoy has.

The appliance decides, as for a request that came to it; Envoy names the client by the certificate
that it verified.  Without an answer the answer is no.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
from grpclib.const import Handler, Status

from proxy.channel import Judge, Judged
from proxy.issuing import messages
from proxy.issuing.answering import Call, read_one, unary
from proxy.issuing.caller import Caller
from proxy.issuing.calls import Calls, UnansweredError
from proxy.problem import STATUS, problem
from rules.decision import Reason

METHOD = "/envoy.service.auth.v3.Authorization/Check"
_NOBODY = "0" * 32  # the id of a refusal that no audit line tells of


class Authorization:
    """The one method; `bound` counts that a limit (second) was reached, by an app (first)."""

    def __init__(
        self, calls: Calls, timeout_s: float, caller: Caller, bound: Callable[[str, str], None]
    ) -> None:
        self._calls = calls
        self._timeout_s = timeout_s
        self._caller = caller
        self._bound = bound

    def __mapping__(self) -> dict[str, Handler]:
        """Return the method by path, as grpclib wants it."""
        request, reply = messages.CheckRequest, messages.CheckResponse
        return {METHOD: unary(self.check, request, reply)}

    async def check(self, call: Call) -> None:
        """Say whether Envoy may send a request, and what it is to answer instead."""
        request = await read_one(call)
        attributes = request.attributes
        http = attributes.request.http
        question = partial(
            _judge,
            spiffe_id=attributes.source.principal,
            method=http.method,
            scheme=http.scheme,
            authority=http.host,
            path=http.path,
        )
        await call.send_message(_response(await self._judged(question), http.host))

    async def _judged(self, question: Callable[[int], Judge]) -> Judged:
        if self._calls.is_full:
            self._bound(self._caller.app, "ext_authz_calls")
            return _refused(Reason.CAPACITY, "too many requests are being decided: try again")
        try:
            return await self._calls.ask(question, Judged, self._timeout_s)
        except UnansweredError as error:
            return _refused(Reason.INTERNAL_ERROR, str(error))
        except ValueError:  # it does not fit the channel
            return _refused(Reason.REQUEST_MALFORMED, "make the request's target shorter")


def _judge(call: int, **asked: str) -> Judge:
    return Judge(call, **asked)


def _refused(reason: Reason, how: str) -> Judged:
    return Judged(0, False, "", reason, _NOBODY, STATUS[reason], how)


def _response(judged: Judged, target: str) -> Any:
    response = messages.CheckResponse()
    if judged.allowed:
        response.status.code = Status.OK.value
        response.ok_response.SetInParent()
        return response
    reason = _reason(judged.reason)
    said = problem(reason, judged.id or _NOBODY, judged.app, target, judged.how)
    response.status.code = Status.PERMISSION_DENIED.value
    denied = response.denied_response
    denied.status.code = judged.status
    for key, value in (
        ("x-deny-reason", str(reason)),
        ("content-type", "application/problem+json"),
    ):
        denied.headers.add().header.MergeFrom(messages.HeaderValue(key=key, value=value))
    body = msgspec.structs.replace(said, status=judged.status)
    denied.body = msgspec.json.encode(body).decode()
    return response


def _reason(text: str) -> Reason:
    try:
        return Reason(text)
    except ValueError:
        return Reason.INTERNAL_ERROR
