"""What is wrong, and whether it stays so."""

import pytest

from proxy.attester.errors import RefusedError, RelayError


@pytest.mark.parametrize(
    ("status", "is_final"), [(0, True), (403, True), (404, True), (429, False), (503, False)]
)
def test_an_appliance_that_is_overloaded_may_be_asked_again(status: int, *, is_final: bool) -> None:
    assert RefusedError("no", status).is_final is is_final


def test_what_to_do_stands_in_the_text() -> None:
    assert str(RefusedError("no", 403, "revoked", "ask the operator")) == "no; ask the operator"
    assert RelayError("another key").is_final
