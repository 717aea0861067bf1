"""Telling systemd how we are: sd_notify(3), one datagram to the socket that it names."""

import asyncio
import socket
from collections.abc import Callable, Mapping

_PER_TIMEOUT = 2  # sd_watchdog_enabled(3): "every half of the time returned here"


def notify(environ: Mapping[str, str], *lines: str) -> bool:
    """Send `lines` (`READY=1`, `STOPPING=1`, ...); return whether anybody was told.

    Without NOTIFY_SOCKET nobody waits for it.  A service manager that is gone, or whose queue is
    full, is no reason to stop serving.
    """
    address = environ.get("NOTIFY_SOCKET", "")
    if address[:1] not in {"/", "@"}:
        return False
    if address.startswith("@"):  # unix(7): the abstract namespace
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sender:
        try:
            sender.sendto("\n".join(lines).encode(), address)
        except OSError:
            return False
    return True


def watchdog_s(environ: Mapping[str, str], pid: int) -> float | None:
    """Return how often the process `pid` is to send WATCHDOG=1, in seconds; None: never."""
    timeout_us = environ.get("WATCHDOG_USEC", "")
    if not timeout_us.isascii() or not timeout_us.isdigit() or int(timeout_us) == 0:
        return None
    if environ.get("WATCHDOG_PID", str(pid)) != str(pid):
        return None  # meant for another process of the service
    return int(timeout_us) / 1e6 / _PER_TIMEOUT


class Heartbeat:
    """Sends WATCHDOG=1 from the running loop, so that a loop that hangs is noticed."""

    def __init__(self, environ: Mapping[str, str], pid: int, is_well: Callable[[], bool]) -> None:
        """`is_well` is asked before each; while it says no, nothing is sent."""
        self._environ = environ
        self._every_s = watchdog_s(environ, pid)
        self._is_well = is_well
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Send the first, and the others in time; nothing where no watchdog waits."""
        if self._every_s is None:
            return
        if self._is_well():
            notify(self._environ, "WATCHDOG=1")
        self._timer = asyncio.get_running_loop().call_later(self._every_s, self.start)

    def close(self) -> None:
        """Send no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
