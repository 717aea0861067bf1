"""What fails ends what its binding has; what shows a change ends all that the attester has."""

import asyncio
from functools import partial
from typing import Any

from msgspec import structs

from rules.decision import Verdict
from tests.proxy.issuing.stand import until
from tests.proxy.verifier.stand import (
    LAUNCHED,
    PCRS,
    Stand,
    app,
    b64,
)


async def test_a_failed_one_voids_what_the_binding_had(stand: Stand) -> None:
    agent, other = stand.agent(), stand.agent(key="bb")
    await agent.attested()
    await other.attested()
    given = await agent.nonce()
    said = await agent.attest(agent.software(given, signature=b64(b"\x30\x00")))
    assert said.status == 403
    assert (agent.results, len(other.results)) == ([], 1)
    assert stand.live.attestations.of(agent.binding, "coder") == ()


async def test_a_failed_one_ends_the_capability_tokens_of_its_binding(stand: Stand) -> None:
    """Whether a result stands or not: tokens outlive what they were made of."""
    agent = stand.agent()
    for is_unwritable in (False, True):
        stand.is_unwritable = is_unwritable
        given = await agent.nonce()
        said = await agent.attest(agent.software(given, signature=b64(b"\x30\x00")))
        assert said.status == 403
        binding, why = stand.failed.pop()
        assert (binding, "signature" in why or "key" in why) == (agent.binding, True)
    assert stand.changed == []


async def test_what_proves_nothing_against_him_leaves_his_tokens(stand: Stand) -> None:
    """A nonce that was too late, an issuer that is gone, and what is malformed."""
    agent = stand.agent()
    await agent.attested()
    evidence = agent.software(await agent.nonce())
    stand.clock.now += 60
    assert (await agent.attest(evidence)).status == 403
    assert agent.results == []
    stand.issuer.is_gone = True
    assert (await agent.attest(agent.software(await agent.nonce()))).status == 503
    assert (await agent.attest({**evidence, "key": "A"})).status == 400
    assert stand.failed == []


async def test_a_changed_pcr_voids_all_that_the_attester_has_proven(stand: Stand) -> None:
    """threats.md, "Identity".

    PCR mismatch; a changed PCR voids results, certificates and tokens.
    """
    agent = stand.agent()
    agent.enrolled()
    second = agent.moved(binding=stand.agent(key="bb").binding)
    stranger = stand.agent(key="cc")
    ids = {(await each.quoted())["id"] for each in (agent, second)}
    await stranger.attested()
    said = await agent.quoted(pcrs={**PCRS, "7": "cc" * 32})
    assert (said.status, said["reason"]) == (403, "attestation-required")
    assert "PCR 7" in said["detail"]
    assert (agent.results, second.results, len(stranger.results)) == ([], [], 1)
    assert stand.failed == []
    [(voided, why)] = stand.voided
    assert set(voided) == ids
    assert "PCR 7" in why
    assert stand.count("tpm", "changed") == 1


async def test_a_change_of_a_tpm_is_one_of_each_of_its_aks(stand: Stand) -> None:
    """threats.md, "Identity": PCR mismatch; another AK of the same TPM is no way around it."""
    agent, second, elsewhere = stand.agent(), stand.agent(key="bb"), stand.agent(key="cc")
    for each in (agent, second, elsewhere):
        known = each.enrolled()
        if each is elsewhere:
            stand.live.note(structs.replace(known, ek_sha256="dd" * 32))
        assert (await each.quoted()).status == 200
    said = await agent.quoted(pcrs={**PCRS, "7": "cc" * 32})
    assert said.status == 403
    assert (agent.results, second.results, len(elsewhere.results)) == ([], [], 1)
    assert {each.attester for each in stand.changed} == {agent.name, second.name}
    assert len(stand.changed[0].results) == 2
    assert stand.changed[1].serial == ""


async def test_a_new_ak_of_a_tpm_hides_no_older_state_of_it(stand: Stand) -> None:
    """threats.md, "Identity": resetCount and clock; those of a TPM are one for all its AKs."""
    agent, second = stand.agent(), stand.agent(key="bb")
    agent.enrolled()
    assert (await agent.quoted(counters=(100_000, 5, 6))).status == 200
    second.enrolled()
    said = await second.quoted(counters=(100_000, 4, 6))
    assert said.status == 403
    assert "resetCount went back from 5 to 4" in said["detail"]
    assert agent.results == []


async def test_counters_that_a_tpm_obscures_are_compared_with_nothing(stand: Stand) -> None:
    """TPM 2.0, part 1, section 36.7: so is the version of the firmware then."""
    agent, second = stand.agent(), stand.agent(key="bb")
    known = agent.enrolled()
    assert (await agent.quoted(counters=(100_000, 5, 6))).status == 200
    quoted = stand.live.attester(known.name, "coder")
    assert quoted is not None
    stand.live.note(structs.replace(quoted, firmware=quoted.firmware + 1))
    second.enrolled()
    assert (await second.quoted(counters=(100_000, 4, 6))).status == 200
    assert len(agent.results) == 1


async def test_each_result_that_is_void_has_a_line_of_its_own(stand: Stand) -> None:
    """A refusal may fold with others: what it voided is told apart from it."""
    agent = stand.agent()
    agent.enrolled()
    ids = {(await agent.quoted())["id"] for _ in range(2)}  # the first makes way for the second
    await agent.quoted(pcrs={**PCRS, "7": "cc" * 32})
    lines = [each for each in stand.lines if each.change == "attestation-void"]
    assert {each.detail["result"] for each in lines} == ids
    assert {each.verdict for each in lines} == {Verdict.ALLOW}
    assert [each.verdict for each in stand.lines if each.change == "attest-refused"] == [
        Verdict.DENY
    ]


async def test_another_digest_voids_what_the_lease_has(stand: Stand) -> None:
    box = stand.leased()
    sent = {"nonce": (await box.nonce())["nonce"], "evidence": "launched"}
    assert (await box.attest(sent)).status == 200
    stand.use(app("coder", launched=(structs.replace(LAUNCHED, file="44" * 32),)))
    sent = {"nonce": (await box.nonce())["nonce"], "evidence": "launched"}
    assert (await box.attest(sent)).status == 403
    assert (box.results, len(stand.voided)) == ([], 1)


async def test_evidence_that_fails_voids_what_is_being_signed(stand: Stand) -> None:
    """A quote from before a change does not outlive the one that shows the change."""
    agent = stand.agent()
    agent.enrolled()
    good = agent.quote(await agent.nonce())
    bad = agent.quote(await agent.nonce(), {**PCRS, "0": "dd" * 32})
    said: list[Any] = []

    async def changed() -> None:
        said.append(await agent.attest(bad))

    original = stand.issuer.sign_claims

    async def slow(claims: bytes, typ: str, app: str = "") -> Any:
        await changed()
        return await original(claims, typ, app)

    stand.issuer.sign_claims = slow  # type: ignore[method-assign]  # the issuer takes its time
    first = await agent.attest(good)
    assert (first.status, said[0].status) == (403, 403)
    assert agent.results == []
    assert stand.count("tpm", "withdrawn") == 1


async def test_what_cannot_be_written_is_void_all_the_same(stand: Stand) -> None:
    agent = stand.agent()
    agent.enrolled()
    await agent.quoted()
    stand.is_unwritable = True
    said = await agent.quoted(pcrs={**PCRS, "7": "cc" * 32})
    assert (said.status, said["reason"]) == (403, "attestation-required")
    assert (agent.results, len(stand.voided)) == ([], 1)


async def test_who_hangs_up_is_voided_all_the_same(stand: Stand) -> None:
    agent = stand.agent()
    agent.enrolled()
    await agent.quoted()
    evidence = agent.quote(await agent.nonce(), {**PCRS, "7": "cc" * 32})
    asking = asyncio.ensure_future(agent.attest(evidence))
    await until(lambda: agent.results == [])
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    await until(lambda: len(stand.voided) == 1)


async def test_a_change_is_acted_on_when_no_result_stands_any_more(stand: Stand) -> None:
    """threats.md, "Identity": a changed PCR voids certificates and tokens.

    So it does a moment after the last result has expired.
    """
    agent = stand.agent()
    agent.enrolled()
    assert (await agent.quoted()).status == 200
    stand.clock.now += 301
    stand.live.attestations.look(stand.clock.now)
    said = await agent.quoted(pcrs={**PCRS, "7": "cc" * 32})
    assert said.status == 403
    [changed] = stand.changed
    svid = agent.caller.svid
    assert svid is not None
    assert changed.results == ()
    assert (changed.app, changed.attester) == ("coder", agent.name)
    assert (changed.serial, changed.until) == (svid.serial, svid.not_after)
    assert "PCR 7" in changed.why


async def test_a_change_in_a_lease_has_no_certificate(stand: Stand) -> None:
    box = stand.leased()
    stand.use(app("coder", launched=(structs.replace(LAUNCHED, file="44" * 32),)))
    sent = {"nonce": (await box.nonce())["nonce"], "evidence": "launched"}
    assert (await box.attest(sent)).status == 403
    [changed] = stand.changed
    assert (changed.attester, changed.serial, changed.until) == ("lease-1", "", 0)


async def test_who_shows_a_change_is_answered_and_who_fails_is_as_all(stand: Stand) -> None:
    """His certificate is revoked by it: the connection lasts until he was told why."""
    agent = stand.agent()
    agent.enrolled()
    bad = agent.quote(await agent.nonce(), {**PCRS, "7": "cc" * 32})
    failing = agent.software(await agent.nonce(), signature=b64(b"\x30\x00"))
    stays: list[str] = []
    for kind, sent in (("failed", failing), ("changed", bad)):
        said = await stand.ask(agent.caller, "/attest", sent, partial(stays.append, kind))
        assert said.status == 403
    assert stays == ["changed"]
