"""Evidence held against the TPM that was enrolled, the lease, and the rules."""

import asyncio
import os
import signal
from pathlib import Path

import pytest
from msgspec import structs
from msgspec.structs import replace

from proxy.attested.binding import message
from rules.decision import Verdict
from rules.facts import Principal
from tests.proxy.issuing.stand import until
from tests.proxy.verifier.stand import (
    LAUNCHED,
    PCRS,
    Stand,
    app,
    b64,
    standing,
    unb64,
)
from tests.proxy.workload.stand import SILENT
from tests.proxy.workload.stand import standing as issuing


async def test_a_tpm_is_attested_with_what_it_measured(stand: Stand) -> None:
    agent = stand.agent()
    enrolled = agent.enrolled()
    said = await agent.quoted()
    assert (said.status, said.content.get("level")) == (200, "tpm")
    claims, typ = stand.issuer.signed[-1]
    assert (claims["measurements"], typ) == ({"pcr": PCRS}, "eat+jwt")
    assert unb64(claims["ueid"]) == b"\x01" + bytes.fromhex(enrolled.name[4:])
    known = stand.live.attester(enrolled.name, "coder")
    assert known is not None
    assert (known.clock_ms, known.reset_count, known.restart_count) == (4711, 5, 6)
    assert known.used_at == stand.clock.now


async def test_an_ak_attests_for_the_app_alone_that_enrolled_it(stand: Stand) -> None:
    agent = stand.agent()
    await agent.attested()
    said = await agent.quoted()
    assert said.status == 403
    assert "not enrolled for coder" in said["detail"]
    assert "/attest/enrol" in said["how"]
    assert len(agent.results) == 1  # nothing was found wrong
    agent.enrolled()
    other = agent.moved(principal=Principal("other"))
    assert (await other.quoted()).status == 403
    assert (await agent.quoted()).status == 200


@pytest.mark.parametrize(
    ("counters", "text"),
    [
        ((9_999_999, 4, 6), "resetCount went back"),
        ((9_999_999, 5, 5), "restartCount went back"),
        ((0, 5, 6), "Clock went back"),
    ],
)
async def test_counters_that_go_back_void_what_the_attester_has(
    stand: Stand, counters: tuple[int, int, int], text: str
) -> None:
    agent = stand.agent()
    agent.enrolled()
    await agent.quoted(counters=(100_000, 5, 6))
    said = await agent.quoted(counters=counters)
    assert said.status == 403
    assert text in said["detail"]
    assert agent.results == []
    assert len(stand.voided) == 1


async def test_a_reboot_is_no_change_while_the_pcrs_are_right(stand: Stand) -> None:
    agent = stand.agent()
    enrolled = agent.enrolled()
    assert (await agent.quoted(counters=(100_000, 5, 6))).status == 200
    assert (await agent.quoted(counters=(50, 6, 0), safe=0)).status == 200
    known = stand.live.attester(enrolled.name, "coder")
    assert known is not None
    assert (known.clock_ms, known.reset_count, known.restart_count) == (50, 6, 0)


async def test_quotes_may_pass_each_other_for_as_long_as_a_nonce_counts(stand: Stand) -> None:
    agent = stand.agent()
    agent.enrolled()
    assert (await agent.quoted(counters=(100_000, 5, 6))).status == 200
    assert (await agent.quoted(counters=(40_000, 5, 6))).status == 200
    assert (await agent.quoted(counters=(39_999, 5, 6))).status == 403


async def test_what_was_launched_is_attested_in_its_lease(stand: Stand) -> None:
    box = stand.leased()
    given = await box.nonce()
    assert given["evidence"] == ["software", "tpm", "launched"]
    said = await box.attest({"nonce": given["nonce"], "evidence": "launched"})
    assert (said.status, said.content.get("level")) == (200, "launched")
    claims, _ = stand.issuer.signed[-1]
    assert claims["sub"] == "sallyport:app:coder"
    assert claims["cnf"] == {"lease": "lease-1"}
    assert claims["measurements"] == structs.asdict(LAUNCHED)
    [result] = stand.live.attestations.all()
    assert result.measured
    # A key signs what was launched along.
    again = await box.nonce()
    assert again["message"] != b64(message(unb64(again["nonce"]), box.binding))
    assert (await box.attest(box.software(again))).status == 200


async def test_outside_a_lease_nothing_was_launched(stand: Stand) -> None:
    for agent in (stand.agent(), stand.leased(measured=None)):
        given = await agent.nonce()
        assert "launched" not in given["evidence"]
        said = await agent.attest({"nonce": given["nonce"], "evidence": "launched"})
        assert said.status == 403


async def test_without_reference_values_a_quote_is_refused_and_no_more(stand: Stand) -> None:
    agent = stand.agent()
    agent.enrolled()
    await agent.quoted()
    stand.use(app("coder", pcrs={}))
    assert (await agent.nonce())["evidence"] == ["software"]
    assert (await agent.quoted()).status == 403
    assert stand.voided == []  # a rule is missing: the TPM is what it was


async def test_a_key_that_is_not_listed_is_refused(stand: Stand) -> None:
    stand.use(app("coder", keys=frozenset({"00" * 32})))
    agent = stand.agent()
    said = await agent.attest(agent.software(await agent.nonce()))
    assert said.status == 403
    assert "reference_values.keys" in said["detail"]


async def test_a_quote_is_refused_over_another_key(stand: Stand) -> None:
    """threats.md, "Identity": relay, a valid quote over another TLS key; other nonce's quote."""
    agent, relay = stand.agent(), stand.agent(key="bb")
    agent.enrolled()
    own = await agent.nonce()
    others = await relay.nonce()
    moved = agent.moved(binding=relay.binding, svid=relay.caller.svid)
    said = await moved.attest({**agent.quote(own), "nonce": others["nonce"]})
    assert said.status == 403
    assert "another message" in said["detail"]


async def test_an_ak_removed_in_flight_proves_nothing(stand: Stand) -> None:
    for when in ("verify", "sign"):
        agent = stand.agent()
        enrolled = agent.enrolled()
        given = await agent.nonce()

        def remove(at: str, when: str = when, name: str = enrolled.name) -> None:
            if at == when:
                stand.live.remove(name)

        stand.issuer.meanwhile = remove
        assert (await agent.attest(agent.quote(given))).status == 403
        assert stand.live.attestations.all() == ()


async def test_a_rise_of_counters_that_cannot_be_written_proves_nothing(tmp_path: Path) -> None:
    async with standing(tmp_path) as stand:
        agent = stand.agent()
        await agent.attested()
        agent.enrolled()
        await stand.live.settled()
        assert stand.live._file is not None
        await stand.live._file.behind._db.execute("PRAGMA query_only = 1")  # type: ignore[union-attr]  # it is open
        said = await agent.quoted()
        assert (said.status, said["reason"]) == (503, "internal-error")


async def test_an_ak_under_another_name_proves_nothing(stand: Stand) -> None:
    agent, thief = stand.agent(), stand.agent()
    thief.enrolled()
    stand.live.note(replace(thief.enrolled(), name=agent.name))
    evidence = thief.quote(await agent.nonce(), attester=agent.name)
    said = await agent.attest(evidence)
    assert (said.status, said["detail"]) == (403, "the quote is of another AK")


@pytest.mark.parametrize("kind", ["software", "tpm"])
async def test_evidence_that_nobody_looked_at_voids_nothing(stand: Stand, kind: str) -> None:
    """An issuer that has ended, or is full, says nothing of who attests."""
    agent = stand.agent()
    agent.enrolled()
    await agent.attested()
    given = await agent.nonce()
    evidence = agent.software(given) if kind == "software" else agent.quote(given)
    stand.issuer.is_gone = True
    said = await agent.attest(evidence)
    assert (said.status, said["reason"]) == (503, "internal-error")
    assert said["detail"] == "the issuer ended; try again"
    assert said.fields[b"retry-after"] == b"1"
    assert len(agent.results) == 1
    assert stand.count(kind, "unavailable") == 1
    assert stand.lines[-1].verdict is Verdict.FAIL


async def test_an_issuer_that_is_killed_meanwhile_voids_nothing(stand: Stand) -> None:
    agent = stand.agent()
    await agent.attested()
    async with issuing(module=SILENT) as issuer:
        stand.ask_issuer(issuer.workload.evidence)
        given = await agent.nonce()  # nonces are its own, too
        evidence = agent.software(given)
        asking = asyncio.create_task(agent.attest(evidence))
        await until(lambda: len(issuer.workload.evidence.questions) == 1)
        await until(lambda: issuer.workload._issuer.pid > 0)
        os.kill(issuer.workload._issuer.pid, signal.SIGKILL)
        said = await asking
    assert (said.status, said["reason"]) == (503, "internal-error")
    assert "the issuer ended" in said["detail"]
    assert len(agent.results) == 1


async def test_who_is_to_enrol_is_told_how(stand: Stand) -> None:
    said = await stand.agent().quoted()
    assert said["how"] == "`sallyport attest --tpm TCTI` enrols it, or POST /attest/enrol"
