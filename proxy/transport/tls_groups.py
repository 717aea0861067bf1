"""Which groups a TLS server of ours agrees keys in: X25519, and P-256 for who has no other.

OpenSSL's own list ends with ffdhe8192: a peer that sends a share of it takes 190 ms of the loop
for one handshake (CVE-2002-20001), P-521 and P-384 take 1 to 3 ms, these two 0.4 ms.  Before
Python 3.15 `ssl` can name one group or leave the list as it is.  So OpenSSL is asked by ourselves,
through the pointer that CPython keeps first in a context; where that cannot be had, X25519 stands
alone.
"""

import _ssl
import ctypes
import ssl
import sys

GROUPS = "X25519:P-256"  # RFC 8446, section 9.1: P-256 MUST, X25519 SHOULD; the faster one first
ALONE = "X25519"
_SSL_CTRL_SET_GROUPS_LIST = 92  # openssl/ssl.h
_SSL_CTRL_SET_SESS_CACHE_MODE, _SSL_CTRL_GET_SESS_CACHE_MODE = 44, 45
_SSL_SESS_CACHE_OFF = 0
_SSL_CTRL_SET_MAX_CERT_LIST = 51
CHAIN_OCTETS = 32768  # that a client may show: eight certificates; OpenSSL's own bound is 100 KiB
_PROOF = 5  # tickets that no one else asks for


def limit_groups(context: ssl.SSLContext) -> bool:
    """Hold a context to GROUPS, or else to ALONE; return whether it was GROUPS."""
    if _set_groups(context):
        return True
    context.set_ecdh_curve(ALONE)
    return False


def keep_no_sessions(context: ssl.SSLContext) -> bool:
    """Let OpenSSL keep no session of TLS 1.2 to be resumed; return whether it obeyed.

    Python cannot ask for this.  TLS 1.3 has tickets only, which Python can turn off.
    """
    found = _native(context)
    if found is None:
        return False
    library, at = found
    off = ctypes.c_long(_SSL_SESS_CACHE_OFF)
    library.SSL_CTX_ctrl(at, _SSL_CTRL_SET_SESS_CACHE_MODE, off, None)
    mode = library.SSL_CTX_ctrl(at, _SSL_CTRL_GET_SESS_CACHE_MODE, ctypes.c_long(0), None)
    return bool(mode == _SSL_SESS_CACHE_OFF)


def limit_chains(context: ssl.SSLContext) -> bool:
    """Refuse a client that shows more than CHAIN_OCTETS of certificates; return whether that holds.

    100 KiB of them hold the loop for 40 ms, whoever sends them.  Python cannot ask for this.
    """
    found = _native(context)
    if found is None:
        return False
    library, at = found
    library.SSL_CTX_ctrl(at, _SSL_CTRL_SET_MAX_CERT_LIST, ctypes.c_long(CHAIN_OCTETS), None)
    return True


def _set_groups(context: ssl.SSLContext) -> bool:
    found = _native(context)
    if found is None:
        return False
    library, at = found
    given = ctypes.c_char_p(GROUPS.encode())
    return bool(library.SSL_CTX_ctrl(at, _SSL_CTRL_SET_GROUPS_LIST, ctypes.c_long(0), given) == 1)


def _native(context: ssl.SSLContext) -> tuple[ctypes.CDLL, ctypes.c_void_p] | None:
    """Return OpenSSL and its own view of a context; None where they cannot be had."""
    library = _library()
    if library is None or sys.implementation.name != "cpython":
        return None
    # struct PySSLContext { PyObject_HEAD; SSL_CTX *ctx; ... }, since Python 3.2
    at = ctypes.c_void_p.from_address(id(context) + object.__basicsize__)
    return (library, at) if at.value and _is_of(context, library, at) else None


def _library() -> ctypes.CDLL | None:
    """Return the OpenSSL that `ssl` itself uses; None where its functions are hidden."""
    try:
        library = ctypes.CDLL(getattr(_ssl, "__file__", None))  # a name in it finds what it needs
        library.SSL_CTX_ctrl.restype = ctypes.c_long
        library.SSL_CTX_get_num_tickets.restype = ctypes.c_size_t
    except (OSError, AttributeError):
        return None
    return library


def _is_of(context: ssl.SSLContext, library: ctypes.CDLL, at: ctypes.c_void_p) -> bool:
    """Return whether the pointer is this context's: what Python sets, OpenSSL must show there."""
    before = context.num_tickets
    try:
        for tickets in (_PROOF, _PROOF + 1):
            context.num_tickets = tickets
            if library.SSL_CTX_get_num_tickets(at) != tickets:
                return False
    finally:
        context.num_tickets = before
    return True
