"""What was proven ends with what it was of: tokens, certificates and leases, over restarts too."""

import datetime as dt
import logging
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import structs

from certs.domain import init_domain
from certs.profile import MOST_TTL_S
from proxy.agent_api.asked import Asked, Caller
from proxy.attested.binding import Binding, Kind, of_key
from proxy.capabilities.live import FILE_NAME
from proxy.capabilities.token import CapabilityToken, Party, digest
from proxy.certificates.file import RevocationFile
from proxy.certificates.revoked import Kind as Revoked
from proxy.certificates.revoked import Revocation
from proxy.certificates.svid import Svid
from proxy.errors import BindError
from proxy.flow import Plane
from proxy.identities import Identities
from proxy.limits import Limits
from proxy.proof import Ground, Proof
from proxy.sandbox.lease import Lease
from proxy.verifier.parts import Changed
from proxy.workload.events import Clock
from rules.facts import Evidence, Level, Principal
from rules.ruleset import App, Ruleset
from tests.proxy.attested.making import result
from tests.proxy.lines import until
from tests.proxy.verifier.stand import Agent
from tests.proxy.verifier.stand import Stand as VerifierStand
from tests.proxy.workload.stand import Stand, standing

LEASE = Lease("lease-1", "box")
LEASED = Binding(Kind.LEASE, LEASE.id)
KEY = Binding(Kind.KEY, "aa" * 32)
OTHER = Binding(Kind.KEY, "bb" * 32)
AK = "000b" + "ab" * 32
WHY = "PCR 16 differs"
RULES = Ruleset(1, {"coder": App("coder")})


def with_keys(folder: Path) -> None:
    (folder / "state").mkdir()
    init_domain(folder / "state" / "identity", "sallyport.internal", dt.datetime.now(dt.UTC), None)


def token(name: str, binding: Binding = KEY, attester: str = AK, **changed: Any) -> CapabilityToken:
    now = int(time.time())
    made = CapabilityToken(
        id=name, token_sha256=digest(name), parties=(Party("coder", "spiffe://a/b", "1a2b"),),
        audience="docs", scopes=("a",), level=Level.TPM, least=Level.TPM, binding=binding,
        attester=attester, result="1", rule="a.yaml:1", at=now, expires=now + 300,
    )  # fmt: skip
    return structs.replace(made, **changed)


class Case:
    """All of it over real files, beside an issuer that is started when it is needed."""

    def __init__(self, stand: Stand, limits: Limits) -> None:
        self.stand = stand
        self.settings = structs.replace(stand.settings, limits=limits)
        self.clock = Clock(time.time, os.urandom)
        self.identities = Identities(self.settings, stand.metrics, self.clock)
        self.proof: Proof

    @property
    def revoked(self) -> dict[str, Revocation]:
        known = self.identities.revocations.list()
        return {each.value: each for each in known if each.kind is Revoked.SERIAL}

    @property
    def void(self) -> set[str]:
        return {each.id for each in self.proof.exchange.all() if each.void_at is not None}

    async def open(self) -> None:
        await self.identities.open()
        self.proof = Proof(Ground(
            settings=self.settings, identities=self.identities, workload=self.stand.workload,
            audit=self.stand.audit, metrics=self.stand.metrics, ruleset=lambda: RULES,
            clock=self.clock, monotonic=time.monotonic,
        ))  # fmt: skip
        await self.proof.open()

    async def close(self) -> None:
        await self.proof.close()
        await self.identities.close()

    async def restart(self) -> None:
        await self.close()
        self.identities = Identities(self.settings, self.stand.metrics, self.clock)
        await self.open()

    async def keep(self, *tokens: CapabilityToken) -> None:
        await self.proof.capabilities.ready()
        for each in tokens:
            self.proof.capabilities.keep(each)

    async def attest(self, unique: str, **changed: Any) -> None:
        await self.identities.attested.ready()
        now = time.time()
        assert self.identities.attested.keep(result(unique, at=now, attester=AK, **changed))

    async def lines(self, change: str) -> list[dict[str, Any]]:
        return [each for each in await self.stand.lines() if each.get("change") == change]


@asynccontextmanager
async def opened(limits: Limits | None = None) -> AsyncIterator[Case]:
    async with standing(module="proxy.issuing.main", prepare=with_keys) as stand:
        case = Case(stand, limits or Limits())
        await case.open()
        try:
            yield case
        finally:
            await case.close()


async def test_a_change_voids_tokens_and_certificates_and_nothing_of_others() -> None:
    """threats.md, "Identity": a changed PCR voids results, certificates and tokens."""
    async with opened() as case:
        await case.keep(
            token("its"), token("by binding", attester="ee" * 32), token("by AK", OTHER),
            token("anothers", OTHER, "ee" * 32),
        )  # fmt: skip
        results = (result("a", serial="1", binding=KEY), result("b", serial="2", attester=AK))
        until = int(time.time()) + 100
        await case.proof.void(Changed(results, "coder", AK, WHY, "3", until))
        assert case.void == {"its", "by binding", "by AK"}
        assert set(case.revoked) == {"1", "2", "3"}
        assert case.revoked["3"].until == until
        others = case.revoked["1"].until
        assert others is not None
        assert time.time() < others <= time.time() + MOST_TTL_S
        assert {each.why for each in case.revoked.values()} == {WHY}
        on_disk = await RevocationFile(case.identities.revocations.path, Limits()).read()
        assert {each.value for each in on_disk} == {"1", "2", "3"}
        lines = await case.lines("revoked")
        assert {(each["target"], each["kind"], each["why"]) for each in lines} == {
            (serial, "serial", WHY) for serial in "123"
        }


async def test_a_change_counts_without_a_result_and_revokes_nothing_twice() -> None:
    async with opened() as case:
        await case.keep(token("its"))
        changes: list[object] = []
        case.identities.revocations.revocations.on_change(changes.append)
        for _ in range(3):
            await case.proof.void(Changed((), "coder", AK, WHY, "3", int(time.time()) + 100))
        assert case.void == {"its"}
        assert len(case.revoked) == len(changes) == 1
        await case.proof.void(Changed((), "coder", "lease-1", WHY))  # of a lease: no certificate
        assert len(case.revoked) == 1


async def test_evidence_that_fails_ends_the_tokens_of_its_binding_alone() -> None:
    """No certificate is revoked for it, and nothing of the same attester elsewhere ends."""
    async with opened() as case:
        await case.keep(token("its"), token("elsewhere", OTHER))
        await case.proof.failed(KEY, WHY)
        assert (case.void, case.revoked) == ({"its"}, {})


async def test_all_certificates_of_a_change_are_revoked_in_one_step() -> None:
    """Each step looks at everything that is open: there is one, however many there are."""
    async with opened() as case:
        changes: list[object] = []
        case.identities.revocations.revocations.on_change(changes.append)
        results = tuple(result(str(each), serial=f"{each:x}") for each in range(1, 200))
        await case.proof.void(Changed(results, "coder", AK, WHY))
        assert len(changes) == 1
        assert len(case.revoked) == 199


async def test_who_changes_without_end_takes_no_room_from_admins(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """threats.md, "Evidence as a weapon": one agent fills a table that all need."""
    caplog.set_level(logging.ERROR, "proxy.proof")
    async with opened(Limits(revocations=4, revocations_by_evidence=2)) as case:
        results = (result("a", serial="1"), result("b", serial="2"))
        await case.keep(token("its"))
        await case.proof.void(Changed(results, "coder", AK, WHY, "3", int(time.time()) + 100))
        assert set(case.revoked) == {"3", "1"}  # the one that shows it first
        assert case.void == {"its"}
        assert case.stand.met("revocations_by_evidence") == 1
        assert "revocations_by_evidence" in caplog.text
        await case.identities.revocations.revoke(Revoked.APP, "coder", by_uid=0)


async def test_where_there_is_no_room_at_all_what_is_proven_is_void_all_the_same(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.ERROR, "proxy.proof")
    async with opened(Limits(revocations=1)) as case:
        await case.identities.revocations.revoke(Revoked.APP, "other", by_uid=0)
        await case.keep(token("its"))
        await case.proof.void(Changed((), "coder", AK, WHY, "3", int(time.time()) + 100))
        assert (case.void, case.revoked) == ({"its"}, {})
        assert "limits.revocations" in caplog.text
        assert await case.lines("revoked") == []


async def test_what_is_not_on_the_disk_is_in_force_and_said() -> None:
    async with opened() as case:
        await case.keep(token("its"))
        case.identities.revocations.path.mkdir()
        results = (result("a", serial="1"), result("b", serial="2"))
        with pytest.raises(BindError):
            await case.proof.void(Changed(results, "coder", AK, WHY))
        assert (case.void, set(case.revoked)) == ({"its"}, {"1", "2"})
        assert len(await case.lines("revoked")) == 2
        case.identities.revocations.path.rmdir()


async def test_who_changed_is_among_the_agents_though_nobody_had_looked() -> None:
    async with opened() as case:
        await case.attest("a", binding=KEY)
        assert case.identities.attested.attestations.void(lambda _: True)
        [agent] = await case.proof.agents.all(time.time())
        assert (agent.app, agent.agent) == ("coder", "spiffe://sallyport.internal/coder")
        assert agent.attested_s is None


async def test_what_is_bound_to_a_lease_ends_with_it() -> None:
    async with opened() as case:
        leases = case.identities.leases
        leases.grant(LEASE, [LEASE.listener("proxy")])
        await case.attest("a", binding=LEASED, serial="", spiffe_id="")
        await case.attest("b", binding=KEY)
        await case.keep(token("leased", LEASED, LEASE.id), token("kept"))
        assert leases.end(LEASE.id) is LEASE
        assert [each.id for each in case.identities.attested.attestations.all()] == ["b"]
        assert case.void == {"leased"}
        [line] = await case.lines("attestation-void")
        assert (line["target"], line["why"]) == ("lease lease-1", "its lease has ended")
        assert line["result"] == "a"


async def test_no_token_of_a_lease_outlives_the_appliance() -> None:
    async with opened() as case:
        await case.keep(token("leased", LEASED), token("kept"))
        await case.attest("a", binding=LEASED, serial="")
        await case.restart()
        assert case.void == {"leased"}
        assert case.identities.attested.attestations.all() == ()
        case.identities.leases.grant(LEASE, [LEASE.listener("proxy")])
        await case.keep(token("new", LEASED))
        case.proof._counted(3)
        assert case.void == {"leased"}


async def test_nor_where_its_file_can_be_read_later_alone() -> None:
    async with opened() as case:
        await case.keep(token("leased", LEASED))
        file = Path(case.settings.state) / FILE_NAME
        await case.close()
        file.chmod(0o644)  # not ours alone: it is not read
        case.identities = Identities(case.settings, case.stand.metrics, case.clock)
        await case.open()
        assert case.proof.problems["capabilities"] is not None
        assert case.proof.exchange.all() == ()
        file.chmod(0o600)
        case.proof.capabilities._retry_at = 0.0
        await until(lambda: case.void == {"leased"})


async def test_who_is_revoked_counts_for_nothing_and_has_no_tokens() -> None:
    async with opened() as case:
        await case.keep(token("its"), token("other", parties=(Party("other", "spiffe://a/c"),)))
        revoke = case.identities.revocations.revoke
        assert not case.proof.is_revoked("coder", "spiffe://a/b", "1a2b")
        assert not case.proof.is_revoked("coder", "", "")
        await revoke(Revoked.SERIAL, "1a2b")
        assert case.void == {"its"}
        await revoke(Revoked.SPIFFE_ID, "spiffe://a/c")
        assert case.void == {"its", "other"}
        await revoke(Revoked.APP, "app")
        for who in (("x", "", "1a2b"), ("x", "spiffe://a/c", ""), ("app", "", "")):
            assert case.proof.is_revoked(*who)
        assert not case.proof.is_revoked("x", "spiffe://a/b", "")


async def test_the_api_has_every_part() -> None:
    async with opened() as case:
        api = case.proof.api
        for path in (
            "/attest/nonce", "/attest", "/attest/enrol", "/attest/activate", "/heartbeat", "/token",
            "/introspect", "/revoke", "/jwks.json", "/openapi.json",
            "/.well-known/oauth-authorization-server",
        ):  # fmt: skip
            assert api.takes(path), path
        assert case.proof.problems == {"attestation": None, "capabilities": None}
        answer = await api.answer(Asked("GET", "/jwks.json", _caller("aa")))
        assert answer.status == 200
        assert len(msgspec.json.decode(answer.content)["keys"]) >= 1


async def test_an_agent_attests_and_the_line_of_it_is_written() -> None:
    async with opened() as case:
        agent = Agent(_Asking(case), _caller("aa"))
        said = await agent.attested()
        found = case.identities.attested.attestations.find(said["token"])
        assert found is not None
        [line] = await case.lines("attested")
        assert (line["app"], line["target"], line["plane"]) == (
            "coder", "spiffe://sallyport.internal/coder", "control",
        )  # fmt: skip
        assert line["result"] == said["id"] != line["id"]  # which is of the line itself
        assert said["token"] not in str(line)


class _Asking(VerifierStand):
    """What an agent of the verifier's stand asks: the API of a case."""

    def __init__(self, case: Case) -> None:
        self.api = case.proof.api


def _caller(key: str) -> Caller:
    svid = Svid(
        spiffe_id="spiffe://sallyport.internal/coder", serial=key, not_before=0,
        not_after=int(time.time()) + 3600, sha256="99" * 32, spki_sha256=key * 32,
    )  # fmt: skip
    principal = Principal("coder", (Evidence.CERTIFICATE,))
    return Caller(principal, Plane.DNS, "127.0.0.1:8443", svid, of_key(svid))
