"""How our services answer gRPC: what a method raises becomes a status, and only a bug is told of.

What the agent did wrong is the agent's to read, never a line in our log.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from google.protobuf.message import DecodeError
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError, StreamTerminatedError
from grpclib.server import Stream
from h2.exceptions import ProtocolError

from certs.errors import CertsError, SpiffeError
from proxy.issuing.refusing import BusyError, DeniedError, ElsewhereError

logger = logging.getLogger(__name__)

type Call = Stream[Any, Any]
"""A call of a method, as grpclib gives it."""
type Method = Callable[[Call], Awaitable[None]]

_STATUS: tuple[tuple[type[CertsError], Status], ...] = (
    (DeniedError, Status.PERMISSION_DENIED),
    (BusyError, Status.RESOURCE_EXHAUSTED),
    (ElsewhereError, Status.UNAVAILABLE),
    (SpiffeError, Status.INVALID_ARGUMENT),
    (CertsError, Status.UNAVAILABLE),  # the clock, the disk: a client tries again
)


async def read(call: Call) -> Any:
    """Return the next message of a call; None at the end.

    Raises:
        GRPCError: what came is none.
    """
    try:
        return await call.recv_message()
    except (DecodeError, AssertionError) as error:  # grpclib asserts that a message is whole
        raise GRPCError(Status.INVALID_ARGUMENT, "this is no such message") from error


async def read_one(call: Call) -> Any:
    """Return the message of a call that has one; raises as `read`."""
    message = await read(call)
    if message is None:
        raise GRPCError(Status.INVALID_ARGUMENT, "the request is missing")
    return message


def status_of(error: CertsError) -> GRPCError:
    """Return what a client is told of `error`."""
    status = next(status for kind, status in _STATUS if isinstance(error, kind))
    return GRPCError(status, str(error))


def answered(method: Method) -> Method:
    """Return `method` as grpclib may call it: it raises a `GRPCError`, or nothing."""

    async def guarded(call: Call) -> None:
        try:
            await method(call)
        except CertsError as error:
            raise status_of(error) from None
        except (GRPCError, StreamTerminatedError, ProtocolError, asyncio.CancelledError):
            raise
        except Exception:
            logger.exception("a bug of ours; please report it")
            raise GRPCError(Status.INTERNAL, "a bug of ours; please report it") from None

    return guarded


def unary(method: Method, request: Any, reply: Any) -> Handler:
    """Return a method of one request and one reply, for grpclib's mapping."""
    return Handler(answered(method), Cardinality.UNARY_UNARY, request, reply)


def pushing(method: Method, request: Any, reply: Any) -> Handler:
    """Return a method of one request and replies for as long as the client stays."""
    return Handler(answered(method), Cardinality.UNARY_STREAM, request, reply)


def streaming(method: Method, request: Any, reply: Any) -> Handler:
    """Return a method of requests and replies in any order."""
    return Handler(answered(method), Cardinality.STREAM_STREAM, request, reply)
