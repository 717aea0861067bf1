"""What can go wrong with keys and certificates, sorted by who must act.

    CertsError
    |-- KeystoreError    a file or folder: missing, half-written, or open to others
    |-- IssueError       a certificate that the root cannot sign: a name, or the time
    |-- SpiffeError      a SPIFFE ID, bundle or JWT-SVID is none, or not to be believed
    `-- EvidenceError    what should prove what runs where is no proof (RFC 9334, section 8.1)

Every text ends with what to do, and none of them holds a key or a part of one.
"""


class CertsError(Exception):
    """The root of everything that this package raises on purpose."""


class KeystoreError(CertsError):
    """The folder of keys cannot be used; the text says what to do."""


class IssueError(CertsError):
    """The root cannot sign what was asked for; the text says what to do."""


class SpiffeError(CertsError):
    """A SPIFFE ID, bundle or JWT-SVID is none, or not to be believed; the text says why."""


class EvidenceError(CertsError):
    """What should prove what runs where is no proof; the text is for who sent it."""
