from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from certs.domain import rotate
from proxy.certificates.revoked import Kind
from proxy.issuing.holding import LOOK_S, Holding, entitled
from proxy.issuing.refusing import DeniedError
from tests.proxy.issuing.desk import APP, ID, TRUST_DOMAIN
from tests.proxy.issuing.stand import Stand, standing

OTHER = f"spiffe://{TRUST_DOMAIN}/agent/other"


@pytest.fixture
async def stand(tmp_path: Path) -> AsyncIterator[Stand]:
    async with standing(tmp_path) as found:
        yield found


async def test_an_svid_is_kept_until_half_of_its_life_is_over(stand: Stand) -> None:
    holding = Holding(stand.issuer, stand.caller, "workload")
    assert holding.wait_s() == pytest.approx(LOOK_S, abs=1)
    (first,) = holding.svids((ID,))
    stand.clock.ahead_s = 0.44 * 3600
    assert holding.svids((ID,)) == (first,)
    assert 0 < holding.wait_s() <= LOOK_S
    stand.clock.ahead_s = 0.56 * 3600
    assert holding.wait_s() == 0
    (second,) = holding.svids((ID,))
    assert second.serial != first.serial
    assert holding.svids((ID,)) == (second,)


async def test_two_streams_that_began_together_renew_at_different_times(stand: Stand) -> None:
    ends = set()
    for _ in range(8):
        holding = Holding(stand.issuer, stand.caller, "workload")
        holding.svids((ID,))
        ends.add(round(holding._held[ID][1] - stand.clock()))
    assert len(ends) > 2
    assert min(ends) >= 0.44 * 3600
    assert max(ends) <= 0.56 * 3600


async def test_another_set_of_ids_keeps_what_is_in_both(stand: Stand) -> None:
    holding = Holding(stand.issuer, stand.caller, "workload")
    (one,) = holding.svids((ID,))
    both = holding.svids((ID, OTHER))
    assert both[0] == one
    assert [each.spiffe_id for each in holding.svids((OTHER,))] == [OTHER]
    assert holding.svids((ID,))[0] != one  # it was let go


async def test_a_caller_is_entitled_to_his_ids_that_are_not_revoked(stand: Stand) -> None:
    stand.caller.entitle(APP, (ID, OTHER))
    assert entitled(stand.issuer, stand.caller) == (ID, OTHER)
    stand.revoke(Kind.SPIFFE_ID, ID)
    assert Holding(stand.issuer, stand.caller, "sds").entitled() == (OTHER,)
    stand.revoke(Kind.SPIFFE_ID, OTHER)
    with pytest.raises(DeniedError, match="was revoked"):
        entitled(stand.issuer, stand.caller)
    (event,) = stand.events("refused")
    assert (event.app, event.target, event.reason) == (APP, f"{ID}, {OTHER}", "revoked")


async def test_a_caller_without_any_is_told_what_to_look_at(stand: Stand) -> None:
    stand.caller.entitle("", ())
    with pytest.raises(DeniedError, match="identity"):
        entitled(stand.issuer, stand.caller)
    (event,) = stand.events("refused")
    assert (event.app, event.target, event.reason) == ("", "workload", "identity-unknown")


async def test_an_svid_of_an_id_that_is_revoked_is_not_given_again(stand: Stand) -> None:
    holding = Holding(stand.issuer, stand.caller, "workload")
    holding.svids((ID,))
    stand.revoke(Kind.APP, APP)
    with pytest.raises(DeniedError):
        holding.svids((ID,))


async def test_an_svid_below_a_forgotten_root_is_renewed(stand: Stand, tmp_path: Path) -> None:
    """A root that was stolen is believed no more, and neither is what stands below it."""
    holding = Holding(stand.issuer, stand.caller, "workload")
    (first,) = holding.svids((ID,))
    rotate(tmp_path / "identity", stand.now(), None, "root", forget=True)
    assert holding.svids((ID,)) == (first,)
    await stand.keys.look(stand.issuer)
    (second,) = holding.svids((ID,))
    assert second.chain[-1] != first.chain[-1]
    assert holding.svids((ID,)) == (second,)


async def test_an_svid_that_begins_later_is_renewed(stand: Stand) -> None:
    """The clock was ahead, and was set back: nobody takes what begins in an hour."""
    holding = Holding(stand.issuer, stand.caller, "workload")
    stand.clock.ahead_s = 1200
    (first,) = holding.svids((ID,))
    stand.clock.ahead_s = 0
    (second,) = holding.svids((ID,))
    assert second.not_before <= stand.clock() < first.not_before
