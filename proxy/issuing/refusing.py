"""Why a workload is not given what it asks for, sorted by what it may do about it."""

from certs.errors import IssueError


class DeniedError(IssueError):
    """He may not have it: not entitled, or revoked; `reason` is of the closed list."""

    def __init__(self, text: str, reason: str = "identity-unknown") -> None:
        super().__init__(text)
        self.reason = reason


class BusyError(IssueError):
    """He has had too much of it; it works again after a while."""


class ElsewhereError(IssueError):
    """Nothing is issued here at the moment; the text says where."""
