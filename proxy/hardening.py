"""A process that holds keys: no core file of it, and no debugger of its own user.

prctl(2): a process that is not dumpable writes no core, cannot be attached to by ptrace(2) of its
own uid, and its /proc/PID is root's.  execve(2) makes a process dumpable again, so that each
program calls this for itself; the limit is inherited.  Root may look all the same.
"""

import contextlib
import ctypes
import resource

from msgspec import Struct

_GET_DUMPABLE = 3  # PR_GET_DUMPABLE, linux/prctl.h
_SET_DUMPABLE = 4


class Closed(Struct, frozen=True):
    """What holds for this process; `core` is that no core is written as a file.

    A `kernel.core_pattern` that pipes to a program ignores the limit (core(5)): `debugger`, that
    the process is not dumpable, holds there too.
    """

    core: bool
    debugger: bool

    @property
    def holds(self) -> bool:
        """Return whether memory leaves the process by neither way."""
        return self.core and self.debugger


def close_to_debuggers() -> Closed:
    """Write no core and let no process of our uid look into our memory, for good.

    Says nothing where the kernel refuses; what holds is returned, and read back from the kernel.
    """
    with contextlib.suppress(OSError, ValueError):  # ValueError: Python's name for EPERM here
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _prctl(_SET_DUMPABLE, 0)
    return closed()


def closed() -> Closed:
    """Return what holds for this process now."""
    return Closed(
        resource.getrlimit(resource.RLIMIT_CORE) == (0, 0),
        _prctl(_GET_DUMPABLE, 0) == 0,
    )


def _prctl(option: int, argument: int) -> int:
    """Return what prctl(2) returns; -1 where there is no such call."""
    try:
        call = ctypes.CDLL(None, use_errno=True).prctl
    except (OSError, AttributeError):
        return -1
    unsigned = ctypes.c_ulong
    return int(call(option, unsigned(argument), unsigned(0), unsigned(0), unsigned(0)))
