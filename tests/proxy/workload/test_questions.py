"""Questions for the issuer: each is answered in its time, no app's keep another's from it."""

import asyncio

from proxy.channel import Signed, SignedClaims, Verified
from proxy.limits import Limits
from tests.proxy.lines import until
from tests.proxy.workload.stand import FAILING, PATIENCE_S, Stand, standing


async def signed(stand: Stand, app: str = "coder") -> SignedClaims:
    return await stand.workload.evidence.sign_claims(b"{}", "at+jwt", app)


async def asked(stand: Stand, least: int) -> int:
    """How many questions the issuer has got, once it has got `least`."""
    found = 0
    async with asyncio.timeout(PATIENCE_S):
        while found < least:  # they come by another way than this one
            found = (await stand.agents[0].ask(do="told"))["questions"]
    return found


async def mute(stand: Stand) -> None:
    agent = await stand.agent()
    await agent.connect()
    await agent.ask(do="mute")


async def test_one_that_is_asked_first_starts_the_issuer() -> None:
    async with standing() as stand:
        assert int((await signed(stand)).token) == 1
        assert len(stand.workload.evidence.questions) == 0


async def test_answers_go_to_who_asked_for_them() -> None:
    async with standing() as stand:
        evidence = stand.workload.evidence
        kinds = [f"kind-{at}" for at in range(9)]
        found = await asyncio.gather(
            *(
                evidence.verify(kind=each, message=b"", key=b"", signature=b"", app=each)
                for each in kinds
            )
        )
        assert [each.key_sha256 for each in found] == kinds


async def test_apps_have_their_turns() -> None:
    """One that asks much is answered much, and nobody waits for all of it."""
    async with standing(limits=Limits(issuer_questions_at_once=1)) as stand:
        greedy = [asyncio.ensure_future(signed(stand, "greedy")) for _ in range(5)]
        await asyncio.sleep(0)
        other = await signed(stand, "other")
        turns = [int((await each).token) for each in greedy]
        assert (turns, int(other.token)) == ([1, 3, 4, 5, 6], 2)


async def test_only_so_many_are_at_the_issuer_at_once() -> None:
    async with standing(limits=Limits(issuer_questions_at_once=2)) as stand:
        await mute(stand)
        waiting = [asyncio.ensure_future(signed(stand)) for _ in range(5)]
        await asyncio.sleep(0)
        assert len(stand.workload.evidence.questions) == 5
        assert await asked(stand, 2) == 2
        stand.workload.evidence.questions.answered(SignedClaims(1, "one"))
        assert await waiting[0] == SignedClaims(1, "one")
        assert await asked(stand, 3) == 3
        waiting[4].cancel()
        await asyncio.gather(waiting[4], return_exceptions=True)
        await stand.agents[0].ask(do="die")
        ended = await asyncio.gather(*waiting[1:4])
        assert all("the issuer ended" in each.problem for each in ended)


async def test_one_whose_asker_has_gone_is_not_sent() -> None:
    async with standing(limits=Limits(issuer_questions_at_once=1)) as stand:
        await mute(stand)
        first, gone, last = (asyncio.ensure_future(signed(stand)) for _ in range(3))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        stand.workload.evidence.questions.answered(SignedClaims(1, "one"))
        assert await first == SignedClaims(1, "one")
        assert await asked(stand, 2) == 2
        stand.workload.evidence.questions.answered(SignedClaims(3, "three"))
        assert await last == SignedClaims(3, "three")


async def test_who_asks_and_goes_makes_no_room_at_the_issuer() -> None:
    """It works on what it has: else one app, asking and going, keeps it from all others."""
    async with standing(limits=Limits(issuer_questions_at_once=1)) as stand:
        await mute(stand)
        questions = stand.workload.evidence.questions
        for _ in range(4):
            gone = asyncio.ensure_future(signed(stand, "greedy"))
            await until(lambda: len(questions) == 1)
            await asked(stand, 1)
            gone.cancel()
            await asyncio.gather(gone, return_exceptions=True)
        other = asyncio.ensure_future(signed(stand, "other"))
        await until(lambda: len(questions) == 1)
        assert await asked(stand, 1) == 1
        questions.answered(SignedClaims(1, "late"))
        assert await asked(stand, 2) == 2
        questions.answered(SignedClaims(5, "five"))
        assert await other == SignedClaims(5, "five")


async def test_no_more_than_so_many_wait_of_an_app_and_at_all() -> None:
    limits = Limits(issuer_questions=3, issuer_questions_per_app=2)
    async with standing(limits=limits) as stand:
        found = await asyncio.gather(*(signed(stand, app) for app in "aaabcc"))
        refused = [each.unanswered and "too many wait" in each.problem for each in found]
        assert refused == [False, False, True, False, True, True]
        assert stand.met("issuer_questions_per_app") == 1
        assert stand.met("issuer_questions") == 2
        assert (await signed(stand, "a")).problem == ""


async def test_an_issuer_that_does_not_answer_is_not_waited_for() -> None:
    limits = Limits(issuer_answer_s=0.05, issuer_questions_at_once=1)
    async with standing(limits=limits) as stand:
        await mute(stand)
        found = await asyncio.gather(signed(stand), signed(stand))
        assert all("did not answer in time" in each.problem for each in found)
        assert all(each.unanswered for each in found)
        assert stand.met("issuer_answer_s") == 2
        assert len(stand.workload.evidence.questions) == 0


async def test_what_the_issuer_did_not_live_to_answer_has_failed_and_is_asked_again() -> None:
    limits = Limits(issuer_restart_s=0.01, issuer_questions_at_once=1)
    async with standing(limits=limits) as stand:
        await mute(stand)
        waiting = asyncio.ensure_future(signed(stand))
        await until(lambda: len(stand.workload.evidence.questions) == 1)
        await stand.agents[0].ask(do="die")
        found = await waiting
        assert (found.problem, found.unanswered) == ("the issuer ended; try again", True)
        await until(lambda: stand.workload.is_up)
        assert int((await signed(stand)).token) == 1


async def test_while_the_issuer_rests_nothing_waits_for_it() -> None:
    async with standing(module=FAILING) as stand:
        stand.workload.wake()
        await until(lambda: stand.workload.problem is not None)
        assert "it is started again" in (await signed(stand)).problem


async def test_one_that_is_too_long_for_the_channel_is_refused() -> None:
    async with standing() as stand:
        evidence = stand.workload.evidence
        found = await evidence.verify(
            kind="tpm", message=b"", key=b"", signature=b"", quote=b"x" * 196608
        )
        assert "too long" in found.problem
        assert int((await signed(stand)).token) == 1


async def test_an_answer_that_nobody_waits_for_is_dropped() -> None:
    async with standing() as stand:
        stand.workload.evidence.questions.answered(SignedClaims(99, "late"))
        assert int((await signed(stand)).token) == 1


async def test_an_answer_of_another_kind_is_none() -> None:
    async with standing() as stand:
        await mute(stand)
        waiting = asyncio.ensure_future(signed(stand))
        await asyncio.sleep(0)
        stand.workload.evidence.questions.answered(Verified(1))
        assert "another question" in (await waiting).problem


async def test_signatures_and_questions_do_not_share_their_room() -> None:
    limits = Limits(issuer_questions=1, issuer_signatures=1)
    async with standing(limits=limits) as stand:
        first, second = await asyncio.gather(
            signed(stand), stand.workload.sign("spiffe://sallyport.internal/coder")
        )
        assert (first.problem, second.problem) == ("", "")
        assert isinstance(second, Signed)
