"""The errors of the package: one root, so that a caller misses none."""

import pytest

from certs.errors import CertsError, EvidenceError, IssueError, KeystoreError, SpiffeError


@pytest.mark.parametrize("error", [KeystoreError, IssueError, SpiffeError, EvidenceError])
def test_every_error_is_one_of_ours(error: type[CertsError]) -> None:
    assert issubclass(error, CertsError)
    assert str(error("what to do")) == "what to do"
