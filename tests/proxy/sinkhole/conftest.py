"""The loop of production for every test of the sinkhole."""

import asyncio
from collections.abc import Callable, Mapping

import uvloop


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run coroutines on uvloop."""
    return {"uvloop": uvloop.new_event_loop}
