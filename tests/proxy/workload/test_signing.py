"""Signatures for the appliance itself: made, failed in time, and never waited for without end."""

import asyncio

from proxy.channel import Signed
from proxy.limits import Limits
from tests.proxy.lines import until
from tests.proxy.workload.stand import DOMAIN, standing

ID = f"{DOMAIN}/coder"


async def test_one_that_is_asked_for_first_starts_the_issuer() -> None:
    async with standing() as stand:
        signed = await stand.workload.sign(ID, "admin", 600)
        assert (signed.chain, signed.serial, signed.problem) == (ID, "admin", "")


async def test_answers_go_to_who_asked_for_them() -> None:
    async with standing() as stand:
        ids = [f"{DOMAIN}/{name}" for name in "abcdef"]
        found = await asyncio.gather(*(stand.workload.sign(each) for each in ids))
        assert [each.chain for each in found] == ids


async def test_an_issuer_that_does_not_answer_is_not_waited_for() -> None:
    async with standing(limits=Limits(issuer_answer_s=0.05)) as stand:
        agent = await stand.agent()
        await agent.connect()
        await agent.ask(do="mute")
        assert "did not answer in time" in (await stand.workload.sign(ID)).problem
        assert stand.met("issuer_answer_s") == 1
        assert not stand.workload._signatures.questions._waiting


async def test_no_more_than_so_many_wait() -> None:
    async with standing(limits=Limits(issuer_signatures=1)) as stand:
        first, second = await asyncio.gather(stand.workload.sign(ID), stand.workload.sign(ID))
        assert first.chain == ID
        assert "too many" in second.problem
        assert stand.met("issuer_signatures") == 1


async def test_what_the_issuer_did_not_live_to_answer_has_failed() -> None:
    async with standing() as stand:
        agent = await stand.agent()
        await agent.connect()
        await agent.ask(do="mute")
        asked = asyncio.ensure_future(stand.workload.sign(ID))
        await until(lambda: bool(stand.workload._signatures.questions._waiting))
        await agent.ask(do="die")
        assert "the issuer ended" in (await asked).problem


async def test_an_answer_that_nobody_waits_for_is_dropped() -> None:
    async with standing() as stand:
        stand.workload._signatures.questions.answered(Signed(99, chain="late"))
        assert (await stand.workload.sign(ID)).chain == ID


async def test_what_no_app_may_have_is_not_presented_for_one_either() -> None:
    """Whatever a rule says: an admin's SPIFFE ID is signed for an admin alone."""
    async with standing() as stand:
        stand.barred.add(ID)
        assert "kept for admins" in (await stand.workload.sign(ID)).problem
        assert (await stand.workload.sign(ID, "admin", 600)).problem == ""
