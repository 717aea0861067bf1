"""What a look-up yields: addresses, or why there are none."""

from ipaddress import ip_address

import pytest

from proxy.resolver.resolution import Resolution
from rules.decision import Decision, Reason, Verdict


def test_a_success_has_no_failure_and_no_flow_of_its_own() -> None:
    found = Resolution((ip_address("192.0.2.1"),), 3)
    assert (found.failure, found.flow) == (None, "")
    assert found.generation == 3


def test_a_failure_says_why() -> None:
    why = Decision(Verdict.FAIL, Reason.NO_ADDRESS)
    assert Resolution((), 1, why).failure is why


def test_what_was_decided_cannot_be_exchanged_afterwards() -> None:
    """threats.md, "Between name and address": what was checked is what is dialled."""
    found = Resolution((ip_address("192.0.2.1"),), 1)
    with pytest.raises(AttributeError, match="immutable"):
        found.addresses = (ip_address("127.0.0.1"),)  # type: ignore[misc]  # that is the point
