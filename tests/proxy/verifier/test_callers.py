"""Who attests, what is bound to him, and whether he is still who he was."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.agent_api.asked import ADMIN, ProblemError
from proxy.attested.binding import message
from proxy.sandbox.lease import Measured
from proxy.verifier.callers import Attesting, attesting, digest_of
from proxy.verifier.parts import Outcome, RefusedError
from rules.decision import Reason
from rules.facts import UNKNOWN_APP, Principal
from tests.proxy.verifier.stand import MEASURED, Stand, app

HEX = st.text("0123456789abcdef", min_size=64, max_size=64) | st.just("")


def known(stand: Stand) -> Attesting:
    return attesting(stand.agent().caller, stand.parts)


async def test_the_caller_says_whom_a_result_is_for(stand: Stand) -> None:
    who = known(stand)
    assert (who.app, who.spiffe_id) == ("coder", "spiffe://sallyport.internal/coder")
    assert who.target == who.spiffe_id
    assert (who.lease, who.measured, who.is_leased) == (None, None, False)
    box = attesting(stand.leased().caller, stand.parts)
    assert (box.spiffe_id, box.target, box.measured) == ("", "lease lease-1", MEASURED)
    nonce = bytes(32)
    assert box.message(nonce) == message(nonce, box.binding, digest_of(MEASURED))
    assert who.message(nonce) == message(nonce, who.binding)


@pytest.mark.parametrize("principal", [Principal(UNKNOWN_APP), ADMIN])
async def test_who_is_no_app_is_refused(stand: Stand, principal: Principal) -> None:
    with pytest.raises(ProblemError) as caught:
        attesting(stand.agent().moved(principal=principal).caller, stand.parts)
    assert caught.value.reason is Reason.IDENTITY_UNKNOWN


async def test_without_a_binding_he_is_told_where_to_come(stand: Stand) -> None:
    with pytest.raises(ProblemError) as caught:
        attesting(stand.agent().moved(binding=None).caller, stand.parts)
    assert caught.value.reason is Reason.ATTESTATION_REQUIRED
    assert "proxy_tls" in caught.value.how


async def test_a_certificate_that_has_ended_is_nobodys(stand: Stand) -> None:
    who = known(stand)
    assert who.rules().name == "coder"
    stand.clock.now += 3600
    with pytest.raises(RefusedError) as caught:
        who.rules()
    assert caught.value.outcome is Outcome.WITHDRAWN


async def test_an_app_that_is_no_more_is_nobodys(stand: Stand) -> None:
    who = known(stand)
    stand.use(app("other"))
    with pytest.raises(RefusedError, match="no rule file speaks of coder"):
        who.rules()


@given(st.tuples(HEX, HEX, HEX), st.tuples(HEX, HEX, HEX))
def test_what_was_launched_has_one_digest(
    first: tuple[str, str, str], second: tuple[str, str, str]
) -> None:
    is_same = digest_of(Measured(*first)) == digest_of(Measured(*second))
    assert is_same == (first == second)
    assert len(digest_of(Measured(*first))) == 32
