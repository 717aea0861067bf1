"""From the start of an appliance to the signal that ends it, told to whoever waits for that."""

import asyncio
import gc
import logging
import os
import signal
from typing import Protocol

from proxy.banner import Ready, ready_json, ready_table
from proxy.notify import Heartbeat, notify

logger = logging.getLogger("sallyport")


class Living(Protocol):
    """What is started, told to read its files again, and closed."""

    async def start(self) -> Ready:
        """Begin; raises what keeps it from that."""

    async def close(self) -> None:
        """End."""

    def reload(self) -> None:
        """Read what was changed."""


async def live(living: Living, *, as_json: bool) -> int:
    """Run until SIGTERM or SIGINT; return the exit code."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    ready = await living.start()
    loop.add_signal_handler(signal.SIGHUP, living.reload)
    gc.freeze()  # rules and modules stay: the cyclic collector need not walk them again
    if as_json:
        for note in ready.notes:
            logger.warning("%s", note)
        print(ready_json(ready), flush=True)  # noqa: T201 - the ready event is our output
    else:
        print(ready_table(ready), flush=True)  # noqa: T201 - so is the table
    heartbeat = Heartbeat(os.environ, os.getpid(), lambda: True)
    notify(os.environ, "READY=1")
    heartbeat.start()
    await ended.wait()
    notify(os.environ, "STOPPING=1")
    heartbeat.close()
    await living.close()
    return 0
