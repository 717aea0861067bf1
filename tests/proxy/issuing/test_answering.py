import asyncio
from typing import Any, cast

import pytest
from google.protobuf.message import DecodeError
from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError, StreamTerminatedError

from certs.errors import CertsError, IssueError, KeystoreError, SpiffeError
from proxy.issuing.answering import (
    Call,
    answered,
    pushing,
    read,
    read_one,
    status_of,
    streaming,
    unary,
)
from proxy.issuing.refusing import BusyError, DeniedError, ElsewhereError


class Reading:
    """What grpclib's stream does where a message is looked for."""

    def __init__(self, found: Any) -> None:
        self._found = found

    async def recv_message(self) -> Any:
        if isinstance(self._found, BaseException):
            raise self._found
        return self._found


def call(found: Any) -> Call:
    return cast("Call", Reading(found))


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (DeniedError("no"), Status.PERMISSION_DENIED),
        (BusyError("later"), Status.RESOURCE_EXHAUSTED),
        (ElsewhereError("there"), Status.UNAVAILABLE),
        (KeystoreError("the disk"), Status.UNAVAILABLE),
        (IssueError("the clock"), Status.UNAVAILABLE),
        (SpiffeError("the name"), Status.INVALID_ARGUMENT),
        (CertsError("else"), Status.UNAVAILABLE),
    ],
)
async def test_each_error_has_its_status(error: CertsError, status: Status) -> None:
    assert status_of(error).status is status

    async def method(_: Call) -> None:
        raise error

    with pytest.raises(GRPCError, match=str(error)):
        await answered(method)(call(None))


@pytest.mark.parametrize(
    "error", [GRPCError(Status.NOT_FOUND), StreamTerminatedError(), asyncio.CancelledError()]
)
async def test_what_grpclib_knows_passes(error: BaseException) -> None:
    async def method(_: Call) -> None:
        raise error

    with pytest.raises(type(error)):
        await answered(method)(call(None))


async def test_a_bug_is_told_in_our_log_and_not_to_the_client(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def method(_: Call) -> None:
        raise ZeroDivisionError("a secret")

    with pytest.raises(GRPCError) as raised:
        await answered(method)(call(None))
    assert raised.value.status is Status.INTERNAL
    assert "secret" not in (raised.value.message or "")
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize("error", [DecodeError(), AssertionError()])
async def test_a_message_that_is_none_is_an_invalid_argument(error: Exception) -> None:
    with pytest.raises(GRPCError) as raised:
        await read(call(error))
    assert raised.value.status is Status.INVALID_ARGUMENT


async def test_a_request_that_is_missing_is_an_invalid_argument() -> None:
    assert await read_one(call("message")) == "message"
    assert await read(call(None)) is None
    with pytest.raises(GRPCError, match="missing"):
        await read_one(call(None))


def test_methods_have_the_cardinality_that_they_are_called_by() -> None:
    async def method(_: Call) -> None:
        pass

    found = [each(method, int, str).cardinality for each in (unary, pushing, streaming)]
    assert found == [
        Cardinality.UNARY_UNARY,
        Cardinality.UNARY_STREAM,
        Cardinality.STREAM_STREAM,
    ]
