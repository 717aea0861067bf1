"""Errors are sorted by who must act."""

import pytest

from proxy.errors import BindError, ConfigError, PeerError, ProxyError, UpstreamError
from rules.decision import Reason


@pytest.mark.parametrize("kind", [BindError, ConfigError])
def test_an_operators_error_is_its_text(kind: type[ProxyError]) -> None:
    assert str(kind("do this")) == "do this"


@pytest.mark.parametrize("kind", [PeerError, UpstreamError])
def test_an_error_of_the_other_side_carries_its_reason(
    kind: type[PeerError | UpstreamError],
) -> None:
    error = kind(Reason.NAME_MALFORMED, "no name")
    assert isinstance(error, ProxyError)
    assert (error.reason, str(error)) == (Reason.NAME_MALFORMED, "no name")
