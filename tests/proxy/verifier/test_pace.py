"""An app attests at its rate, and none of its clients takes all of it."""

from pathlib import Path

from proxy.limits import Limits
from tests.proxy.verifier.stand import standing


async def test_a_client_that_floods_leaves_its_app_the_rest(tmp_path: Path) -> None:
    """threats.md, "Evidence as a weapon": one agent stops everyone by asking without end."""
    async with standing(tmp_path, Limits(attestation_burst=80, attestation_every_s=1.0)) as stand:
        flood, other = stand.agent(), stand.agent(key="bb")
        said = [(await flood.ask("/attest/nonce", {})).status for _ in range(100)]
        assert (said.count(200), said.count(429)) == (10, 90)
        assert (await flood.ask("/attest/nonce", {}))["detail"] == "this client attests too often"
        await other.attested()
        stand.clock.now += 7
        assert (await flood.ask("/attest/nonce", {})).status == 429
        stand.clock.now += 1
        assert (await flood.ask("/attest/nonce", {})).status == 200
        assert stand.metrics.bounds.value("attestation_shares") == 92
        assert stand.metrics.bounds.value("attestation_burst") == 0


async def test_a_share_is_of_eight_at_least(tmp_path: Path) -> None:
    async with standing(tmp_path, Limits(attestation_burst=16, attestation_every_s=1.0)) as stand:
        agent = stand.agent()
        said = [(await agent.ask("/attest/nonce", {})).status for _ in range(9)]
        assert said == [200] * 8 + [429]


async def test_clients_together_have_no_more_than_their_app(tmp_path: Path) -> None:
    async with standing(tmp_path, Limits(attestation_burst=2, attestation_every_s=1.0)) as stand:
        first, second = stand.agent(), stand.agent(key="bb")
        await first.nonce()
        await second.nonce()
        said = await first.ask("/attest/nonce", {})
        assert (said.status, said["detail"]) == (429, "this app attests too often")
        assert stand.metrics.bounds.value("attestation_burst") == 1
