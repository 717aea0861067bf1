"""An AK is enrolled by who shows that it is in the TPM of a certified EK."""

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from proxy.certificates.revoked import Kind, Revocation
from proxy.limits import Limits
from rules.facts import Principal
from tests.certs.paper_tpm import ecc_public
from tests.proxy.issuing.evidence import endorsed
from tests.proxy.verifier.stand import Agent, Said, Stand, app, b64, standing, unb64
from tests.swtpm import Swtpm, Vendor, missing


def sent(agent: Agent, vendor: Vendor) -> dict[str, Any]:
    certificates = [b64(each) for each in endorsed(vendor)]
    return {"certificates": certificates, "ak": b64(ecc_public(agent.ak))}


async def challenged(agent: Agent) -> tuple[Said, bytes]:
    """Return what was answered, and the secret that is in it."""
    vendor = Vendor()
    agent.stand.issuer.roots = (vendor.root,)
    said = await agent.ask("/attest/enrol", sent(agent, vendor))
    assert said.status == 200, said
    secret, handle = agent.stand.drawn[-2:]
    assert handle.hex() == said["handle"]
    return said, secret


async def activated(agent: Agent, said: Said, secret: bytes) -> Said:
    return await agent.ask("/attest/activate", {"handle": said["handle"], "secret": b64(secret)})


async def test_who_returns_the_secret_has_enrolled_the_ak(stand: Stand) -> None:
    agent = stand.agent()
    said, secret = await challenged(agent)
    [pending] = stand.verifier._enrolments._pending.values()
    assert repr(pending) == "_Pending('coder', ...)"  # it holds the secret
    assert secret not in (unb64(said["credential"]), unb64(said["seed"]))
    done = await activated(agent, said, secret)
    assert (done.status, done["attester"]) == (200, agent.name)
    known = stand.live.attester(agent.name, "coder")
    assert known is not None
    assert (known.key, known.spiffe_id) == (ecc_public(agent.ak), agent.caller.svid.spiffe_id)  # type: ignore[union-attr]  # it has one
    assert stand.metrics.attester_enrolments.value("enrolled") == 1
    assert stand.changes == [("coder", "enrolled")]
    assert secret.hex() not in repr(stand.lines)
    assert (await agent.quoted()).status == 200


async def test_a_handle_counts_once_whatever_comes_with_it(stand: Stand) -> None:
    agent = stand.agent()
    said, secret = await challenged(agent)
    assert (await activated(agent, said, bytes(32))).status == 403
    assert (await activated(agent, said, secret)).status == 403
    assert stand.live.attesters() == ()
    assert stand.changes == [("coder", "enrol-refused")] * 2


async def test_a_handle_counts_for_whom_it_was_given_to(stand: Stand) -> None:
    agent = stand.agent()
    said, secret = await challenged(agent)
    for thief in (stand.agent(key="bb"), agent.moved(principal=Principal("other"))):
        assert (await activated(thief, said, secret)).status == 403
    assert (await activated(agent, said, secret)).status == 200


async def test_a_handle_counts_for_five_minutes(stand: Stand) -> None:
    agent = stand.agent()
    said, secret = await challenged(agent)
    stand.clock.now += said["expires_in"]
    assert (await activated(agent, said, secret)).status == 403


async def test_the_chain_of_another_root_is_refused(stand: Stand) -> None:
    """threats.md, "Identity": EK chain of another root; and without any root none is believed."""
    agent = stand.agent()
    for roots in ((), (Vendor("others").root,)):
        stand.issuer.roots = roots
        said = await agent.ask("/attest/enrol", sent(agent, Vendor()))
        assert (said.status, said["reason"]) == (403, "attestation-required")
    assert stand.metrics.attester_enrolments.value("refused") == 2


async def test_an_ak_that_signs_anything_is_refused(stand: Stand) -> None:
    """threats.md, "Identity": unrestricted AK."""
    agent, vendor = stand.agent(), Vendor()
    stand.issuer.roots = (vendor.root,)
    loose = ecc_public(agent.ak, attributes=0x00040072)
    said = await agent.ask("/attest/enrol", {**sent(agent, vendor), "ak": b64(loose)})
    assert said.status == 403


@pytest.mark.parametrize(
    "changed", [{"certificates": []}, {"certificates": ["A"]}, {"ak": "A"}, {"more": 1}]
)
async def test_what_is_no_enrolment_is_malformed(stand: Stand, changed: dict[str, Any]) -> None:
    agent = stand.agent()
    said = await agent.ask("/attest/enrol", {**sent(agent, Vendor()), **changed})
    assert (said.status, said["reason"]) == (400, "request-malformed")
    said = await agent.ask("/attest/activate", {"handle": "0" * 32, "secret": "A"})
    assert said.status == 400


async def test_enrolling_again_keeps_what_was_counted(stand: Stand) -> None:
    agent = stand.agent()
    enrolled = agent.enrolled()
    await agent.quoted(counters=(100_000, 5, 6))
    said, secret = await challenged(agent)
    assert (await activated(agent, said, secret)).status == 200
    assert stand.live.attester(enrolled.name, "coder") != enrolled
    assert (await agent.quoted(counters=(0, 4, 0))).status == 403


async def test_revoked_in_flight_nothing_is_enrolled(stand: Stand) -> None:
    """threats.md, "Identity": revoked in flight."""
    agent, vendor = stand.agent(), Vendor()
    stand.issuer.roots = (vendor.root,)
    revoked = Revocation(Kind.SERIAL, "aa", stand.clock.now)
    stand.issuer.meanwhile = lambda _: stand.revocations.use([revoked])
    said = await agent.ask("/attest/enrol", sent(agent, vendor))
    assert (said.status, said["reason"]) == (403, "revoked")
    stand.revocations.use([])
    stand.issuer.meanwhile = lambda _: None
    made, secret = await challenged(agent)
    stand.revocations.use([revoked])
    assert (await activated(agent, made, secret)).status == 403
    assert stand.live.attesters() == ()


async def test_where_it_is_full_an_app_loses_its_own_oldest(tmp_path: Path) -> None:
    """threats.md, "Evidence as a weapon".

    One agent stops everyone through a table that is shared.
    """
    async with standing(tmp_path, Limits(attester_challenges=1, attesters=1)) as stand:
        agent, other = stand.agent(), stand.agent("other", "bb")
        first, first_secret = await challenged(agent)
        second, second_secret = await challenged(agent)
        said = await other.ask("/attest/enrol", sent(other, Vendor()))
        assert (said.status, said["reason"]) == (503, "capacity")
        assert (await activated(agent, first, first_secret)).status == 403
        assert (await activated(agent, second, second_secret)).status == 200
        third, third_secret = await challenged(other)
        said = await activated(other, third, third_secret)
        assert (said.status, said["reason"]) == (503, "capacity")
        assert stand.metrics.bounds.value("attester_challenges") >= 2


async def test_a_crowd_of_one_app_closes_enrolment_for_no_other(tmp_path: Path) -> None:
    """threats.md, "Evidence as a weapon".

    One agent stops everyone through a table that is shared.
    """
    async with standing(tmp_path, Limits(attester_challenges=3)) as stand:
        own, other = stand.agent(key="bb"), stand.agent("other", "cc")
        own_waits = await challenged(own)
        crowd = stand.agent()
        first, second = await challenged(crowd), await challenged(crowd)
        stand.issuer.roots = ()
        assert (await other.ask("/attest/enrol", sent(other, Vendor()))).status == 403
        other_waits = await challenged(other)
        assert (await activated(crowd, *first)).status == 403  # the oldest of who has the most
        assert (await activated(crowd, *second)).status == 200  # what failed took nothing
        assert (await activated(own, *own_waits)).status == 200
        assert (await activated(other, *other_waits)).status == 200
        assert stand.metrics.bounds.value("attester_challenges") >= 1


async def test_an_app_that_enrols_too_often_waits(tmp_path: Path) -> None:
    async with standing(tmp_path, Limits(attestation_burst=1)) as stand:
        agent = stand.agent()
        await challenged(agent)
        assert (await agent.ask("/attest/enrol", sent(agent, Vendor()))).status == 429


async def test_without_its_file_nothing_is_enrolled(tmp_path: Path) -> None:
    (tmp_path / "attested.sqlite").mkdir()
    async with standing(tmp_path) as stand:
        agent = stand.agent()
        said, secret = await challenged(agent)
        done = await activated(agent, said, secret)
        assert (done.status, done["reason"]) == (503, "internal-error")


async def test_what_was_never_activated_makes_room(tmp_path: Path) -> None:
    async with standing(tmp_path, Limits(attester_challenges=1)) as stand:
        await challenged(stand.agent())
        stand.clock.now += 300
        await challenged(stand.agent("other", "bb"))
        assert stand.metrics.bounds.value("attester_challenges") == 0


async def test_an_ak_that_cannot_be_written_is_not_said_to_be_enrolled(stand: Stand) -> None:
    agent = stand.agent()
    said, secret = await challenged(agent)
    assert stand.live._file is not None
    database = stand.live._file.behind._db
    assert database is not None
    await database.execute("PRAGMA query_only = 1")
    done = await activated(agent, said, secret)
    assert (done.status, done["reason"]) == (503, "internal-error")


@pytest.fixture(scope="module")
def tpm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swtpm]:
    assert missing() == ""
    with Swtpm(tmp_path_factory.mktemp("tpm"), Vendor()) as made:
        yield made


class Host:
    """An agent on a host with a real TPM."""

    def __init__(self, agent: Agent, tpm: Swtpm) -> None:
        self.agent = agent
        self.tpm = tpm
        self.device = importlib.import_module("proxy.attester.tpm_device")  # an extra
        self.pcrs: dict[str, str] = {}

    async def enrolled(self) -> str:
        """Enrol; return the Name of the AK."""
        with self.device.Tpm(self.tpm.tcti) as opened:
            name, ak = opened.ak()
            chain = (*opened.ek_certificates(), *self.tpm.vendor.above)
            certificates = [b64(each) for each in dict.fromkeys(chain)]
            said = await self.agent.ask(
                "/attest/enrol", {"certificates": certificates, "ak": b64(ak)}
            )
            assert said.status == 200, said
            secret = opened.activate(unb64(said["credential"]), unb64(said["seed"]))
        done = await activated(self.agent, said, secret)
        assert (done.status, done["attester"]) == (200, name)
        return str(name)

    async def evidence(self) -> dict[str, Any]:
        given = await self.agent.nonce()
        with self.device.Tpm(self.tpm.tcti) as opened:
            quote, signature, self.pcrs = opened.quote(unb64(given["message"]), (0, 16))
            name, _ = opened.ak()
        return {
            "nonce": given["nonce"],
            "evidence": "tpm",
            "attester": name,
            "pcr": self.pcrs,
            "quote": b64(quote),
            "signature": b64(signature),
        }


async def test_a_real_tpm_enrols_attests_and_is_found_changed(stand: Stand, tpm: Swtpm) -> None:
    """threats.md, "Identity": PCR mismatch; resetCount and clock are those of a TPM."""
    stand.issuer.roots = (tpm.vendor.root,)
    host = Host(stand.agent(), tpm)
    name = await host.enrolled()
    evidence = await host.evidence()
    stand.use(app("coder", pcrs={int(at): frozenset({value}) for at, value in host.pcrs.items()}))
    assert (await host.agent.attest(evidence)).status == 200
    before = stand.live.attester(name, "coder")
    tpm.restart()
    assert (await host.agent.attest(await host.evidence())).status == 200
    after = stand.live.attester(name, "coder")
    assert before is not None
    assert after is not None
    assert after.reset_count > before.reset_count
    tpm.extend(16, b"another kernel")
    refused = await host.agent.attest(await host.evidence())
    assert refused.status == 403
    assert "PCR 16" in refused["detail"]
    assert host.agent.results == []


async def test_an_ek_that_nobody_looked_at_is_no_failure(stand: Stand) -> None:
    agent, vendor = stand.agent(), Vendor()
    stand.issuer.is_gone = True
    said = await agent.ask("/attest/enrol", sent(agent, vendor))
    assert (said.status, said["reason"]) == (503, "internal-error")
    assert said.fields[b"retry-after"] == b"1"
    assert stand.lines[-1].detail["outcome"] == "unavailable"
