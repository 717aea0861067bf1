"""Nonces out, evidence in, results out; and every way in which that is refused."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import structs

from proxy.agent_api.asked import ADMIN
from proxy.attested.binding import message
from proxy.limits import Limits
from rules.decision import Reason
from rules.facts import UNKNOWN_APP, Attestation, Level, Principal
from tests.proxy.verifier.stand import (
    PCRS,
    Stand,
    b64,
    standing,
    unb64,
)


async def test_a_software_key_is_attested(stand: Stand) -> None:
    agent = stand.agent()
    given = await agent.nonce()
    assert (given["expires_in"], given["binding"]) == (60, agent.binding.value)
    assert unb64(given["message"]) == message(unb64(given["nonce"]), agent.binding)
    assert given["evidence"] == ["software", "tpm"]
    said = await agent.attest(agent.software(given, agent_hash="sha256:0", version="1.2"))
    assert said.status == 200
    assert (said["token_type"], said["expires_in"], said["level"]) == ("N_A", 300, "software")
    attestations = stand.live.attestations
    assert attestations.of(agent.binding, "coder") == (Attestation(Level.SOFTWARE, 300),)
    found = attestations.find(said["token"])
    assert found is not None
    assert (found.id, found.serial, found.spiffe_id) == (
        said["id"], "aa", "spiffe://sallyport.internal/coder",
    )  # fmt: skip
    assert stand.count("software", "attested") == 1
    [line] = stand.lines
    assert (line.change, line.detail["agent_hash"]) == ("attested", "sha256:0")
    assert said["token"] not in repr(line)


async def test_on_a_plain_port_nothing_is_attested(stand: Stand) -> None:
    """threats.md, "Identity": an attestation token copied to another process."""
    agent = stand.agent()
    plain = structs.replace(agent.caller, binding=None, svid=None)
    for path, content in (
        ("/attest/nonce", {}),
        ("/attest", agent.software(await agent.nonce())),
        ("/attest/enrol", {"certificates": ["AA"], "ak": "AA"}),
        ("/attest/activate", {"handle": "0" * 32, "secret": "AA"}),
    ):
        said = await stand.ask(plain, path, content)
        assert (said.status, said["reason"]) == (403, "attestation-required")
        assert "client certificate" in said["how"]


@pytest.mark.parametrize("principal", [Principal(UNKNOWN_APP), ADMIN])
async def test_who_is_no_app_attests_nothing(stand: Stand, principal: Principal) -> None:
    agent = stand.agent().moved(principal=principal)
    said = await agent.ask("/attest/nonce", {})
    assert (said.status, said["reason"]) == (403, "identity-unknown")


async def test_a_nonce_counts_once(stand: Stand) -> None:
    """threats.md, "Identity": replayed nonce; a nonce is used once."""
    agent = stand.agent()
    evidence = agent.software(await agent.nonce())
    assert (await agent.attest(evidence)).status == 200
    assert len(agent.results) == 1
    said = await agent.attest(evidence)
    assert (said.status, said["reason"]) == (403, "attestation-required")
    assert agent.results == []  # who replays has nothing left
    assert stand.changes == [
        ("coder", "attested"), ("coder", "attest-refused"), ("coder", "attestation-void"),
    ]  # fmt: skip
    assert stand.voided == []  # it failed, nothing has changed


async def test_a_nonce_counts_for_a_minute(stand: Stand) -> None:
    agent = stand.agent()
    evidence = agent.software(await agent.nonce())
    stand.clock.now += 60
    assert (await agent.attest(evidence)).status == 403
    assert stand.count("software", "failed") == 1


async def test_another_ones_nonce_spoils_what_its_user_has_alone(stand: Stand) -> None:
    """threats.md, "Identity": a guessed nonce voids somebody else's attestation."""
    agent, thief = stand.agent(), stand.agent(key="bb")
    await agent.attested()
    await thief.attested()
    given = await agent.nonce()
    assert (await thief.attest(thief.software(given))).status == 403
    assert (len(agent.results), thief.results) == (1, [])
    assert (await agent.attest(agent.software(given))).status == 200  # it counts still


async def test_evidence_is_refused_over_another_key(stand: Stand) -> None:
    """threats.md, "Identity": relay, a valid signature over another TLS key."""
    agent, relay = stand.agent(), stand.agent(key="bb")
    given = await relay.nonce()
    over_own = {**given.content, "message": b64(message(unb64(given["nonce"]), agent.binding))}
    said = await relay.attest(agent.software(structs.replace(given, content=over_own)))
    assert said.status == 403
    assert "not by this key" in said["detail"]
    assert (agent.results, relay.results) == ([], [])


@pytest.mark.parametrize(
    "changed",
    [
        {"key": None},
        {"signature": ""},
        {"quote": "AAAA"},
        {"attester": "000b" + "0" * 64},
        {"pcr": PCRS},
        {"nonce": "short"},
        {"nonce": "=" * 43},
        {"nonce": "A" * 42 + "B"},
        {"evidence": "magic"},
        {"evidence": "launched"},
        {"alg": "none"},
        {"key": "A" * 4096},
        {"key": "A"},
        {"agent_hash": "a" * 129},
        {"version": "1" * 65},
        {"pcr": {"24": "aa" * 32}},
        {"pcr": {"00": "aa" * 32}},
        {"pcr": {"0": "AA" * 32}},
    ],
)
async def test_what_is_no_evidence_uses_nothing_up(stand: Stand, changed: dict[str, Any]) -> None:
    agent = stand.agent()
    await agent.attested()
    evidence = agent.software(await agent.nonce())
    sent = {**evidence, **changed}
    sent = {name: value for name, value in sent.items() if value is not None}
    said = await agent.attest(sent)
    assert (said.status, said["reason"]) == (400, "request-malformed")
    assert len(agent.results) == 1
    assert (await agent.attest(evidence)).status == 200


async def test_an_app_that_attests_too_often_waits_and_no_other(tmp_path: Path) -> None:
    """threats.md, "Evidence as a weapon": one agent stops everyone by asking without end."""
    limits = Limits(attestation_burst=2, attestation_every_s=10.0)
    async with standing(tmp_path, limits) as stand:
        agent, other = stand.agent(), stand.agent("other", "bb")
        first, second = await agent.nonce(), await agent.nonce()
        said = await agent.ask("/attest/nonce", {})
        assert (said.status, said["reason"], said.fields[b"retry-after"]) == (429, "rate", b"1")
        assert (await agent.attest(agent.software(first))).status == 200
        assert (await agent.attest(agent.software(second))).status == 200
        stand.clock.now += 10
        third = await agent.nonce()
        stand.clock.now += 9
        for _ in range(2):
            said = await agent.attest({**agent.software(third), "signature": b64(b"\x30\x00")})
        assert said.status == 429
        assert len(agent.results) == 0  # the first of both failed
        await other.attested()
        assert stand.metrics.bounds.value("attestation_burst") == 2


async def test_a_full_table_is_said_before_a_nonce_is_used(tmp_path: Path) -> None:
    async with standing(tmp_path, Limits(attestations=1)) as stand:
        agent, other = stand.agent(), stand.agent("other", "bb")
        await agent.attested()
        said = await other.attest(other.software(await other.nonce()))
        assert (said.status, said["reason"]) == (503, "capacity")
        assert stand.metrics.bounds.value("attestations") == 1


async def test_too_many_nonces_are_refused(tmp_path: Path) -> None:
    async with standing(tmp_path, Limits(attestation_nonces=1)) as stand:
        await stand.agent().nonce()
        said = await stand.agent(key="bb").ask("/attest/nonce", {})
        assert (said.status, said["reason"]) == (503, "capacity")


async def test_a_damaged_file_attests_nobody(tmp_path: Path) -> None:
    (tmp_path / "attested.sqlite").write_bytes(b"not a database, by far" * 100)
    (tmp_path / "attested.sqlite").chmod(0o600)
    async with standing(tmp_path) as stand:
        agent = stand.agent()
        said = await agent.attest(agent.software(await agent.nonce()))
        assert (said.status, said["reason"]) == (503, "internal-error")
        assert stand.live.problem is not None
        assert str(tmp_path) not in said["detail"]


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None
)
@given(content=st.binary(max_size=200) | st.from_regex(rb'\{"nonce": ?"[A-Za-z0-9_-]{43}".*\}'))
async def test_any_content_is_answered(stand: Stand, content: bytes) -> None:
    agent = stand.agent()
    for path in ("/attest/nonce", "/attest", "/attest/enrol", "/attest/activate"):
        said = await stand.ask(agent.caller, path, content)
        assert said.status in {400, 403}
    assert stand.live.attestations.all() == ()


async def test_what_cannot_be_told_of_does_not_happen(stand: Stand) -> None:
    agent = stand.agent()
    evidence = agent.software(await agent.nonce())
    stand.barred = Reason.AUDIT_UNAVAILABLE
    said = await agent.attest(evidence)
    assert (said.status, said["reason"]) == (503, "audit-unavailable")
    stand.barred = None
    assert (await agent.attest(evidence)).status == 200  # the nonce was not used up


async def test_what_cannot_be_written_as_fast_as_it_comes_waits(tmp_path: Path) -> None:
    async with standing(tmp_path, Limits(attested_queue=1)) as stand:
        agent = stand.agent()
        await agent.attested()
        said = await agent.attest(agent.software(await agent.nonce()))
        assert (said.status, said["reason"]) == (503, "capacity")
        assert stand.metrics.bounds.value("attested_queue") == 1
        assert len(agent.results) == 1
