"""The way to a real issuer and back: what attesters send is verified, and claims are signed."""

import asyncio
import datetime as dt
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path

import jwt
import pytest

from certs.domain import init_domain
from certs.known_domain import record_of
from certs.known_jwks import jwt_jwks
from proxy.agent_api.issuing import ACCESS, RESULT, SOFTWARE, TPM, EvidenceVerifier
from tests.proxy.issuing.evidence import endorsed, quoted, software
from tests.proxy.workload.stand import Stand, standing
from tests.swtpm import Vendor

MODULE = "proxy.issuing.main"
KIND = "sallyport.internal"


def with_keys(folder: Path) -> None:
    (folder / "state").mkdir()
    init_domain(folder / "state" / "identity", KIND, dt.datetime.now(dt.UTC), None)


@pytest.fixture
async def stand() -> AsyncIterator[Stand]:
    async with standing(module=MODULE, prepare=with_keys) as made:
        yield made


def claims() -> bytes:
    now = int(time.time())
    return json.dumps({"iss": KIND, "sub": "a", "aud": "b", "iat": now, "exp": now + 300}).encode()


async def test_evidence_is_verified_and_what_came_of_it_signed(stand: Stand) -> None:
    verifier: EvidenceVerifier = stand.workload.evidence
    asked = software()
    found = await verifier.verify(
        kind=SOFTWARE, message=asked.message, key=asked.key, signature=asked.signature
    )
    assert (found.problem, len(found.key_sha256)) == ("", 64)
    wrong = await verifier.verify(
        kind=SOFTWARE, message=b"", key=asked.key, signature=asked.signature
    )
    assert "not by this key" in wrong.problem
    assert not wrong.unanswered  # it was looked at
    for typ in (RESULT, ACCESS):
        token = (await verifier.sign_claims(claims(), typ)).token
        header = jwt.get_unverified_header(token)
        assert header["typ"] == typ
        keys = jwt.PyJWKSet.from_json(
            jwt_jwks(record_of(stand.folder / "state" / "identity")).decode()
        )
        assert jwt.decode(token, keys[header["kid"]], ["ES256"], audience="b")["sub"] == "a"


async def test_a_quote_is_verified(stand: Stand) -> None:
    asked = quoted()
    found = await stand.workload.evidence.verify(
        kind=TPM,
        message=asked.message,
        key=asked.key,
        signature=asked.signature,
        quote=asked.quote,
        pcrs=asked.pcrs,
    )
    assert (found.problem, found.pcrs) == ("", asked.pcrs)
    found = await stand.workload.evidence.verify(
        kind=TPM, message=asked.message, key=asked.key, signature=asked.signature, quote=b"\xff"
    )
    assert found.problem
    assert found.pcrs == {}


async def test_without_roots_of_vendors_no_ek_is_believed(stand: Stand) -> None:
    found = await stand.workload.evidence.challenge(
        certificates=endorsed(Vendor()), ak=quoted().key, secret=b"s" * 32
    )
    assert "attestation.ek_roots" in found.problem
    assert (found.credential, found.seed) == (b"", b"")


async def test_workloads_have_their_svids_while_attesters_ask_much(stand: Stand) -> None:
    asked = software()
    evidence = stand.workload.evidence
    many = asyncio.gather(
        *(
            evidence.verify(
                kind=SOFTWARE, message=asked.message, key=asked.key, signature=asked.signature
            )
            for _ in range(200)
        )
    )
    signed = await stand.workload.sign(f"spiffe://{KIND}/coder")
    assert signed.problem == ""
    assert len(evidence.questions) > 0  # they are not all answered yet
    assert all(each.problem == "" for each in await many)


async def test_nothing_is_signed_that_cannot_be_recorded(stand: Stand) -> None:
    await stand.audit.close()
    refused = await stand.workload.evidence.sign_claims(claims(), ACCESS)
    assert "nothing is signed unrecorded" in refused.problem
