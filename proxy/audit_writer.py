"""The thread that owns the audit file: what it is given is written in order, or it says why not.

The loop's thread gives and reads, this thread writes and counts; each number has one writer, so
that no lock is needed.  After an error the same lines are tried again every second: that is the
probe which ends the failure.
"""

import asyncio
import logging
from collections.abc import Callable
from queue import SimpleQueue
from threading import Event, Thread

from proxy.audit_file import AuditFile
from proxy.errors import BindError

logger = logging.getLogger(__name__)

PROBE_S = 1.0
"""Between two attempts to write after an error; rsyslog's action.resumeInterval is 30."""

type Notice = Callable[[str | None], bytes]
"""Makes the line that says what is wrong with the file, or (None) that it is well again."""


class AuditWriter:
    """Writes in the background.  `problem` is why it cannot at present; None while it can.

    `written_lines`, `written_octets` and `dropped_lines` only grow.
    """

    def __init__(self, file: AuditFile, notice: Notice, probe_s: float = PROBE_S) -> None:
        self.problem: str | None = None
        self.written_lines = 0
        self.written_octets = 0
        self.dropped_lines = 0
        self._file = file
        self._notice = notice
        self._probe_s = probe_s
        self._queue: SimpleQueue[bytes | None] = SimpleQueue()
        self._given_octets = 0
        self._done_octets = 0
        self._closing = Event()
        # A disk that hangs must not keep the process from ending.
        self._thread = Thread(target=self._run, name="audit", daemon=True)

    @property
    def queued_octets(self) -> int:
        """Return how much was given and is not in the file yet."""
        return self._given_octets - self._done_octets

    def start(self) -> None:
        """Open the file and begin.

        Raises:
            BindError: the file cannot be used.
        """
        self._file.open()
        self._thread.start()

    def put(self, lines: bytes) -> None:
        """Take whole lines for writing."""
        self._given_octets += len(lines)
        self._queue.put(lines)

    async def close(self, within_s: float) -> None:
        """Write what was given and close the file; give up on a disk that hangs."""
        if not self._thread.is_alive():
            return
        self._closing.set()
        self._queue.put(None)
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, self._thread.join, within_s)
        if self._thread.is_alive():
            logger.error("the audit disk hangs: %d octets not written", self.queued_octets)

    def _run(self) -> None:
        while (lines := self._queue.get()) is not None:
            self._write(lines)
        self._file.close()

    def _write(self, lines: bytes) -> None:
        rest = lines
        while True:
            try:
                while rest:
                    rest = self._append(rest)
                if self.problem is not None:
                    self._recover()
            except (OSError, BindError) as error:
                self._fail(error)
            else:
                return
            if self._closing.wait(self._probe_s):
                self.dropped_lines += rest.count(b"\n")
                self._done_octets += len(rest)
                return

    def _append(self, lines: bytes) -> bytes:
        octets = self._file.append(lines)
        self.written_lines += lines.count(b"\n", 0, octets)
        self.written_octets += octets
        self._done_octets += octets
        return lines[octets:]

    def _fail(self, error: OSError | BindError) -> None:
        if self.problem is not None:
            return
        self.problem = (isinstance(error, OSError) and error.strerror) or str(error)
        logger.error(
            "audit %s cannot be written: %s; free the disk or mend it, requests are refused"
            " meanwhile (audit.on_failure)",
            self._file.name,
            self.problem,
        )
        self._file.give_reserve_up()
        self._say(self.problem)

    def _recover(self) -> None:
        # Without the reserve the next failure could not be recorded: it is part of being well.
        self._file.keep_reserve()
        self.problem = None
        logger.warning("audit can be written again")
        self._say(None)

    def _say(self, problem: str | None) -> None:
        try:
            line = self._notice(problem)
            self._file.append(line)
        except (OSError, BindError) as error:
            logger.warning("the audit file does not say so: %s", error)
        else:
            self.written_lines += 1
            self.written_octets += len(line)
