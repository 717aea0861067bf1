"""What the library for X.509 raises for octets that are none of what is wanted."""

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

UNREADABLE = (
    *(ValueError, TypeError, UnsupportedAlgorithm, x509.DuplicateExtension),
    *(x509.InvalidVersion, x509.UnsupportedGeneralNameType),
)
"""Not all of them derive from ValueError, and reading is lazy: extensions raise when asked for."""
