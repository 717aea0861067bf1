"""Results are made of what still is so when they are signed."""

import datetime as dt
import json
import time
from pathlib import Path

import jwt
import pytest
from msgspec import structs

from certs.domain import init_domain
from proxy.attested.binding import Kind
from proxy.certificates.revoked import Kind as Revoked
from proxy.certificates.revoked import Revocation
from proxy.limits import Limits
from rules.ruleset import Capability, Requirements
from tests.proxy.attested.making import result
from tests.proxy.verifier.stand import (
    TRUST_DOMAIN,
    Stand,
    app,
    b64,
    standing,
    unb64,
)
from tests.proxy.workload.stand import standing as issuing


async def test_the_token_says_what_was_proven_and_apart_from_it_what_was_claimed(
    stand: Stand,
) -> None:
    agent = stand.agent()
    given = await agent.nonce()
    said = await agent.attest(agent.software(given, agent_hash="sha256:0"))
    claims = jwt.decode(
        said["token"],
        stand.issuer.key.public_key(),
        ["ES256"],
        audience=TRUST_DOMAIN,
        options={"verify_exp": False, "verify_iat": False},
    )
    assert claims["iss"] == TRUST_DOMAIN
    assert claims["sub"] == "spiffe://sallyport.internal/coder"
    assert claims["eat_nonce"] == given["nonce"]
    assert claims["cnf"] == {"x5t#S256": b64(bytes.fromhex("99" * 32))}
    assert (claims["jti"], claims["level"]) == (said["id"], "software")
    assert claims["exp"] - claims["iat"] == 300
    assert claims["claimed"] == {"agent_hash": "sha256:0"}
    assert claims["measurements"] == {}
    assert jwt.get_unverified_header(said["token"])["typ"] == "eat+jwt"


@pytest.mark.parametrize("when", ["verify", "sign"])
@pytest.mark.parametrize("kind", ["serial", "id", "app"])
async def test_revoked_in_flight_there_is_no_result(stand: Stand, when: str, kind: str) -> None:
    """threats.md, "Identity": revoked in flight."""
    agent = stand.agent()
    what = {
        "serial": (Revoked.SERIAL, "aa"),
        "id": (Revoked.SPIFFE_ID, "spiffe://sallyport.internal/coder"),
        "app": (Revoked.APP, "coder"),
    }[kind]

    def revoke(at: str) -> None:
        if at == when:
            stand.revocations.use([Revocation(*what, stand.clock.now)])

    given = await agent.nonce()
    stand.issuer.meanwhile = revoke
    said = await agent.attest(agent.software(given))
    assert (said.status, said["reason"]) == (403, "revoked")
    assert "token" not in said.content
    assert stand.live.attestations.all() == ()
    assert (await agent.ask("/attest/nonce", {})).status == 403


@pytest.mark.parametrize(
    ("change", "reason"),
    [("app", "identity-unknown"), ("key", "attestation-required"), ("end", "identity-unknown")],
)
async def test_what_changes_in_flight_is_decided_anew(
    stand: Stand, change: str, reason: str
) -> None:
    """threats.md, "Order of checks".

    A flow decided under generation N that registers after the sweep of N+1.
    """
    agent = stand.agent()

    def meanwhile(at: str) -> None:
        if at != "sign":
            return
        if change == "app":
            stand.use(app("other"))
        elif change == "key":
            stand.use(app("coder", keys=frozenset({"00" * 32})))
        else:
            stand.clock.now += 3600

    given = await agent.nonce()
    stand.issuer.meanwhile = meanwhile
    said = await agent.attest(agent.software(given))
    assert (said.status, said["reason"]) == (403, reason)
    assert stand.live.attestations.all() == ()


async def test_a_lease_that_ends_in_flight_has_no_result(stand: Stand) -> None:
    box = stand.leased()
    given = await box.nonce()
    stand.issuer.meanwhile = lambda _: stand.leases.clear()
    said = await box.attest({"nonce": given["nonce"], "evidence": "launched"})
    assert (said.status, said["detail"]) == (403, "the lease has ended")


async def test_where_nothing_can_be_signed_nothing_is_voided(stand: Stand) -> None:
    agent = stand.agent()
    await agent.attested()
    stand.issuer.problem = "the issuer has ended; try again"
    said = await agent.attest(agent.software(await agent.nonce()))
    assert (said.status, said["reason"]) == (503, "internal-error")
    assert said.fields[b"retry-after"] == b"1"
    assert len(agent.results) == 1


async def test_a_result_counts_in_its_own_lease_alone(stand: Stand) -> None:
    """threats.md, "Identity": token copied to another lease."""
    box, other = stand.leased(), stand.leased("lease-2")
    given = await box.nonce()
    assert (await other.attest({"nonce": given["nonce"], "evidence": "launched"})).status == 403
    assert (await box.attest({"nonce": given["nonce"], "evidence": "launched"})).status == 200
    assert other.results == []
    assert stand.live.attestations.of(other.binding, "coder") == ()
    assert box.binding.kind is Kind.LEASE


def _with_keys(folder: Path) -> None:
    (folder / "state").mkdir()
    init_domain(folder / "state" / "identity", TRUST_DOMAIN, dt.datetime.now(dt.UTC), None)


async def test_the_issuers_own_process_verifies_and_signs(stand: Stand) -> None:
    """threats.md, "Identity".

    Alg none, HS256 with the public key, kid tricks: a token is one that we issued.
    """
    stand.clock.now = time.time()
    async with issuing(module="proxy.issuing.main", prepare=_with_keys) as issuer:
        stand.ask_issuer(issuer.workload.evidence)
        agent = stand.agent()
        agent.enrolled()
        for said in (await agent.attested(), await agent.quoted()):
            header, claims, signature = said["token"].split(".")
            assert json.loads(unb64(header))["typ"] == "eat+jwt"
            assert stand.live.attestations.find(said["token"]) is not None
            none = b64(json.dumps({"alg": "none", "typ": "eat+jwt"}).encode())
            forged = b64(unb64(claims).replace(b"coder", b"other"))
            for other in (f"{none}.{claims}.", f"{header}.{forged}.{signature}", f"{header}.."):
                assert stand.live.attestations.find(other) is None
        given = await agent.nonce()
        evidence = agent.software(given)
        wrong = b64(unb64(evidence["signature"])[:-1] + b"\0")
        assert (await agent.attest({**evidence, "signature": wrong})).status == 403
        assert agent.results == []


async def test_a_table_that_fills_up_in_flight_takes_from_no_other(tmp_path: Path) -> None:
    async with standing(tmp_path, Limits(attestations=1)) as stand:
        agent = stand.agent()
        given = await agent.nonce()
        others = result("other", app="other")
        stand.issuer.meanwhile = lambda _: stand.live.attestations.add(others)
        said = await agent.attest(agent.software(given))
        assert (said.status, said["reason"]) == (503, "capacity")
        assert stand.live.attestations.all() == (others,)


async def test_a_result_ends_with_the_certificate_that_it_is_bound_to(stand: Stand) -> None:
    agent = stand.agent(not_after=int(stand.clock.now) + 100)
    said = await agent.attested()
    assert said["expires_in"] == 100
    claims, _ = stand.issuer.signed[-1]
    assert claims["exp"] - claims["iat"] == 100
    stand.clock.now += 99
    assert stand.live.attestations.of(agent.binding, "coder") != ()
    stand.clock.now += 1
    assert stand.live.attestations.of(agent.binding, "coder") == ()
    assert stand.live.attestations.find(said["token"]) is None


async def test_a_result_is_as_old_as_its_nonce(stand: Stand) -> None:
    """RFC 9334, section 10.3: evidence is younger than its nonce, and no more is known."""
    agent = stand.agent()
    given = await agent.nonce()
    begun = stand.clock.now
    stand.clock.now += 50
    said = await agent.attest(agent.software(given))
    assert (said["attested_at"], said["expires_in"]) == (begun, 250)
    claims, _ = stand.issuer.signed[-1]
    assert (claims["iat"], claims["exp"]) == (begun, begun + 300)
    stand.clock.now = begun + 299
    assert stand.live.attestations.of(agent.binding, "coder") != ()
    stand.clock.now = begun + 300
    assert stand.live.attestations.of(agent.binding, "coder") == ()


@pytest.mark.parametrize(
    ("max_age_s", "not_after_s", "waits_s", "renew_in"),
    [
        (300, 3600, 0, 240),
        (60, 3600, 0, 48),
        (60, 3600, 50, 8),
        (300, 100, 0, 80),
        (600, 3600, 50, 200),
        (3, 3600, 0, 5),
        (10, 3600, 50, 5),
    ],
)
async def test_it_says_when_to_attest_anew(
    stand: Stand, max_age_s: int, not_after_s: int, waits_s: int, renew_in: int
) -> None:
    """Before the result ends, its certificate, and the least age that a rule names."""
    rules = app("coder")
    capability = Capability(
        "coder.yaml:1",
        "https://api.example",
        frozenset({"read"}),
        60,
        require=Requirements(max_age_s=max_age_s),
    )
    stand.use(
        structs.replace(rules, require=Requirements(max_age_s=600), capabilities=(capability,))
    )
    agent = stand.agent(not_after=int(stand.clock.now) + not_after_s)
    given = await agent.nonce()
    stand.clock.now += waits_s
    said = await agent.attest(agent.software(given))
    assert said["renew_in"] == renew_in


async def test_an_older_nonce_takes_no_younger_results_place(stand: Stand) -> None:
    agent = stand.agent()
    older = await agent.nonce()
    stand.clock.now += 30
    first = await agent.attested()
    said = await agent.attest(agent.software(older))
    assert said.status == 200
    assert agent.results == [first["id"]]
    assert stand.live.attestations.find(said["token"]) is not None


async def test_a_nonce_counts_no_longer_than_what_it_proves(tmp_path: Path) -> None:
    async with standing(tmp_path, ttl_s=30) as stand:
        agent = stand.agent()
        evidence = agent.software(await agent.nonce())
        stand.clock.now += 30
        said = await agent.attest(evidence)
        assert (said.status, said["reason"]) == (403, "attestation-required")
        assert "30 s" in said["detail"]
