"""`python -P -m proxy.issuing.main CHANNEL SETTINGS`: the issuer, as a process of its own.

Both are descriptors that the appliance passes: its channel, and the settings as JSON.  The process
ends when the channel does, and upon SIGTERM.  Its log goes to stderr, and never holds a key.
"""

import asyncio
import logging
import os
import signal
import socket
import sys
import time

import msgspec
import uvloop

from certs.errors import CertsError
from proxy.channel import Trust
from proxy.channel_socket import tell_once
from proxy.config import Settings
from proxy.errors import ConfigError, ProxyError
from proxy.hardening import close_to_debuggers
from proxy.issuing.desk import Desk

logger = logging.getLogger("proxy.issuing")

EXIT_KEYS = 4  # as of what cannot be bound or written
EXIT_BUG = 70
_SWITCH_S = 0.0005  # the loop waits no longer for the thread that writes what was issued


async def _run(settings: Settings, sock: socket.socket) -> None:
    desk = Desk(settings, sock, os.environ, time.time)  # noqa: TID251 - a process owns its clock
    for each in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(each, desk.end)
    await desk.run()


def _settings(fd: int) -> Settings:
    with os.fdopen(fd, "rb") as handed_over:
        try:
            return msgspec.json.decode(handed_over.read(), type=Settings)
        except msgspec.MsgspecError as error:
            # Files that were replaced under a running appliance: it is older than we are.
            raise ConfigError(
                f"the settings are another version's ({error}): restart sallyport"
            ) from None


def main(argv: list[str]) -> int:
    """Serve the channel `argv[0]` with the settings in `argv[1]`; return the exit code."""
    close_to_debuggers()
    sys.setswitchinterval(_SWITCH_S)
    os.umask(0o077)
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    with socket.socket(fileno=int(argv[0])) as sock:
        last_words = sock.dup()
        os.set_inheritable(last_words.fileno(), False)
        with last_words:
            try:
                uvloop.run(_run(_settings(int(argv[1])), sock))
            except (CertsError, ProxyError) as error:
                logger.error("%s", error)  # noqa: TRY400 - for the operator; a trace is not
                tell_once(last_words, Trust({}, str(error)))
                return EXIT_KEYS
            except Exception:
                logger.exception("a bug of ours; please report it")
                return EXIT_BUG
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
