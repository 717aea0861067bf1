"""The attester against the appliance's own verifier, over TLS: software key and TPM."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, override

import pytest

from certs.attester_key import ensure_attester_key
from proxy.agent_api.asked import JSON, Asked, Caller
from proxy.attested.binding import Binding
from proxy.attester.attester import Attester, Claimed
from proxy.attester.errors import RefusedError
from proxy.attester.evidence import Evidence, Launched, Software, TpmQuote
from proxy.attester.place import proxy_place
from proxy.attester.tpm_device import Tpm
from tests.proxy.attester.verifier import Verifier, serving
from tests.proxy.verifier.stand import Stand, app, standing
from tests.swtpm import Swtpm, Vendor, missing

needs_tpm = [
    pytest.mark.skipif(bool(missing()), reason=missing()),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:tpm2_pytss"),
]


class Front(Verifier):
    """TLS in front of the real verifier, which runs in the test's loop."""

    def __init__(self, folder: Path, stand: Stand) -> None:
        super().__init__(folder)
        self.stand = stand
        self.loop = asyncio.get_running_loop()
        self.leased: Caller | None = None

    @override
    def answer(self, path: str, content: bytes, binding: Binding) -> tuple[int, Any]:
        self.calls.append(path)
        caller = self.leased or self.stand.agent(spki_sha256=binding.value).caller
        asked = Asked("POST", path, caller, JSON, content)
        work = asyncio.run_coroutine_threadsafe(self.stand.api.answer(asked), self.loop)
        found = work.result(10)
        return found.status, json.loads(found.content)


@asynccontextmanager
async def fronted(folder: Path, *, plain: bool = False) -> AsyncIterator[Front]:
    async with standing(folder) as stand:
        with serving(Front(folder, stand), plain=plain) as front:
            assert isinstance(front, Front)
            yield front


def attester_of(front: Front, evidence: Evidence) -> Attester:
    return Attester(front.place, front.own, evidence, Claimed("sha256:1", "1.4"))


def software(front: Front) -> Software:
    return Software(ensure_attester_key(front.folder / "attester.key"))


async def test_a_software_key_attests(tmp_path: Path) -> None:
    async with fronted(tmp_path) as front:
        found = await asyncio.to_thread(attester_of(front, software(front)).attest)
        assert (found.level, found.token_type) == ("software", "N_A")
        assert 295 <= found.expires_in <= 300
        [result] = front.stand.live.attestations.current(front.binding())
        assert result.id == found.id
        assert front.stand.lines[-1].detail["version"] == "1.4"


async def test_a_launched_agent_attests_in_its_lease(tmp_path: Path) -> None:
    async with fronted(tmp_path, plain=True) as front:
        front.leased = front.stand.leased().caller
        place = proxy_place(f"http://127.0.0.1:{front.port}", is_plain=True)
        found = await asyncio.to_thread(Attester(place, None, Launched()).attest)
        assert (found.level, found.binding) == ("launched", "lease-1")


async def test_evidence_without_reference_values_is_not_brought(tmp_path: Path) -> None:
    async with fronted(tmp_path) as front:
        front.stand.use(app("coder", pcrs={}))
        quote = TpmQuote(lambda: Tpm("device:/dev/none"), (0,))
        with pytest.raises(RefusedError, match="only software"):
            await asyncio.to_thread(attester_of(front, quote).attest)
        assert front.calls == ["/attest/nonce"]


@pytest.mark.live
@needs_tpm[0]
@needs_tpm[1]
async def test_a_tpm_enrols_attests_and_is_refused_once_it_changed(tmp_path: Path) -> None:
    with Swtpm(tmp_path / "tpm", Vendor()) as device:
        async with fronted(tmp_path) as front:
            front.stand.issuer.roots = (device.vendor.root,)
            quote = TpmQuote(lambda: Tpm(device.tcti, device.vendor.above), (16,))
            front.stand.use(app("coder", pcrs={16: frozenset({"00" * 32})}))
            attester = attester_of(front, quote)
            found = await asyncio.to_thread(attester.attest)
            assert found.level == "tpm"
            again = await asyncio.to_thread(attester.attest)
            assert front.calls.count("/attest/enrol") == 1
            assert again.id != found.id
            device.extend(16, b"another")
            with pytest.raises(RefusedError, match="16"):
                await asyncio.to_thread(attester.attest)
            assert not front.stand.live.attestations.current(front.binding())


async def test_a_second_certificate_has_no_part_in_the_attestation_of_the_first(
    tmp_path: Path,
) -> None:
    async with fronted(tmp_path) as front:
        attester = attester_of(front, software(front))
        await asyncio.to_thread(attester.attest)
        first = front.binding()
        front.issue()
        assert not front.stand.live.attestations.current(front.binding())
        await asyncio.to_thread(attester.attest)
        both = [front.stand.live.attestations.current(each) for each in (first, front.binding())]
        assert [len(each) for each in both] == [1, 1]
