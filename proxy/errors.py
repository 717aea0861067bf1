"""What can go wrong outside the rules, sorted by who must act.

    ProxyError
    |-- ConfigError      the operator mends sallyport.yaml or the command line (exit 3)
    |-- BindError        the operator frees a port or a folder (exit 4)
    |-- PeerError        the agent sent something malformed; it gets a 4xx or FORMERR
    `-- UpstreamError    the other side failed; the agent gets a 5xx or SERVFAIL

A denial is no error: it is a `rules.decision.Decision`.  Anything else that is raised is a bug
of ours, caught where a plane begins and answered with `internal-error`.
"""

from rules.decision import Reason


class ProxyError(Exception):
    """The root of everything that this package raises on purpose."""


class ConfigError(ProxyError):
    """The configuration cannot be used; the text says what to change."""


class BindError(ProxyError):
    """A socket or a file could not be opened; the text says what to do."""


class PeerError(ProxyError):
    """Malformed input from the agent.  `reason` is one of the closed list; the text says what."""

    def __init__(self, reason: Reason, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class UpstreamError(ProxyError):
    """An upstream resolver or origin failed.  `reason` is one of the closed list."""

    def __init__(self, reason: Reason, text: str) -> None:
        super().__init__(text)
        self.reason = reason
