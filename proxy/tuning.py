"""What a process of ours asks of Python and of the C library, for speed and room."""

import ctypes
import resource
import sys

_SWITCH_INTERVAL_S = 0.0005  # a busy thread costs each query a wait for the GIL of this length
_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD = -3, -1  # mallopt(3)
_MMAP_OCTETS, _TRIM_OCTETS = 32 << 20, 64 << 20  # TLS reads with 256 KiB buffers: 5 times faster


def tune() -> None:
    """Raise the bound of descriptors to what we may have; make threads and large reads cheap."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(_M_MMAP_THRESHOLD, _MMAP_OCTETS)
        libc.mallopt(_M_TRIM_THRESHOLD, _TRIM_OCTETS)
