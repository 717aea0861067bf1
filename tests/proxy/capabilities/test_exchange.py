"""`POST /token`: who gets which token for which proof, and who gets none (RFC 8693)."""

import asyncio
import base64
import hmac
import json
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path
from urllib.parse import urlencode

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from msgspec import structs

from proxy.attested.binding import Binding, Kind
from proxy.capabilities.exchange import UnknownCapabilityError
from proxy.capabilities.form import ACCESS_TOKEN, EXCHANGE, JWT
from proxy.limits import Limits
from rules.decision import Reason
from rules.facts import Level
from rules.ruleset import Requirements
from tests.proxy.capabilities.stand import (
    ADMINS,
    DOCS,
    DOMAIN,
    RULES,
    SERVED,
    Stand,
    by_certificate,
    by_lease,
    entry,
    on_plain_port,
    payload,
    rules,
    spiffe,
    standing,
    svid_of,
)

CODER, HELPER, THIRD = (by_certificate(each) for each in ("coder", "helper", "third"))


@pytest.fixture
async def stand(tmp_path: Path) -> AsyncIterator[Stand]:
    async with standing(tmp_path) as made:
        yield made


def b64(octets: bytes) -> str:
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


async def test_a_result_is_exchanged_for_a_token_of_its_key(stand: Stand) -> None:
    status, answer = await stand.trade(CODER, stand.attest(CODER))
    token = answer.pop("access_token")
    assert (status, answer) == (
        200,
        {
            "issued_token_type": ACCESS_TOKEN,
            "token_type": "Bearer",
            "expires_in": 60,
            "scope": "documents:read",
        },
    )
    assert CODER.svid is not None
    claims = payload(token)
    unique = claims.pop("jti")
    assert claims == {
        "iss": DOMAIN,
        "sub": spiffe("coder"),
        "aud": DOCS,
        "client_id": spiffe("coder"),
        "scope": "documents:read",
        "iat": int(stand.now),
        "exp": int(stand.now) + 60,
        "cnf": {"x5t#S256": b64(bytes.fromhex(CODER.svid.sha256))},
        "level": "software",
    }
    assert jwt.get_unverified_header(token)["typ"] == "at+jwt"
    assert stand.signing.apps == ["coder"]
    [line] = stand.lines
    assert (line["change"], line["token"], line["target"]) == ("exchanged", unique, DOCS)
    assert token not in str(line)


async def test_no_answer_with_a_token_is_stored(stand: Stand) -> None:
    form = {
        "grant_type": EXCHANGE, "subject_token": stand.attest(CODER), "subject_token_type": JWT,
        "resource": DOCS, "scope": "documents:write documents:read documents:read",
        "requested_token_type": ACCESS_TOKEN, "colour": "red",
    }  # fmt: skip
    answer = await stand.post("/token", CODER, urlencode(form).encode())
    assert json.loads(answer.content)["scope"] == "documents:read documents:write"
    assert answer.status == 200


async def test_a_token_of_a_lease_names_the_lease(stand: Stand) -> None:
    box = by_lease("box", "lease-1")
    status, answer = await stand.trade(box, stand.attest(box, Level.LAUNCHED))
    claims = payload(answer["access_token"])
    assert (status, claims["cnf"], claims["level"]) == (200, {"lease": "lease-1"}, "launched")
    assert claims["sub"] == claims["client_id"] == "sallyport:app:box"


async def test_a_token_ends_with_the_certificate_that_it_is_bound_to(stand: Stand) -> None:
    ends = int(stand.now) + 20
    assert CODER.svid is not None
    caller = structs.replace(CODER, svid=structs.replace(CODER.svid, not_after=ends))
    assert payload(await stand.token(caller))["exp"] == ends
    stand.now += 20
    status, answer = await stand.trade(caller, stand.attest(caller))
    assert (status, "about to end" in answer["error_description"]) == (400, True)


async def test_the_certificate_of_now_is_the_one_in_the_token(stand: Stand) -> None:
    """A renewed certificate has the same key, and so the same binding."""
    result = stand.attest(CODER)
    assert CODER.svid is not None
    renewed = structs.replace(CODER.svid, sha256="ab" * 32, serial="77")
    _, answer = await stand.trade(structs.replace(CODER, svid=renewed), result)
    assert payload(answer["access_token"])["cnf"] == {"x5t#S256": b64(bytes.fromhex("ab" * 32))}


async def test_on_a_plain_port_nothing_is_exchanged(stand: Stand) -> None:
    """threats.md: an attestation token copied to another process."""
    result = stand.attest(CODER)
    for caller in (on_plain_port("coder"), ADMINS):
        status, answer = await stand.trade(caller, result)
        assert (status, answer["error"]) == (400, "invalid_client")
        assert "plain port" in answer["error_description"]
    assert stand.outcomes() == {"unidentified": 2}
    assert [line["reason"] for line in stand.lines] == [Reason.IDENTITY_UNKNOWN] * 2


@pytest.mark.parametrize(
    "thief",
    [
        by_certificate("coder", "another key"),
        by_certificate("helper"),
        by_lease("coder", "lease-2"),
        structs.replace(CODER, principal=structs.replace(CODER.principal, app="helper")),
        structs.replace(CODER, svid=structs.replace(svid_of("coder"), spiffe_id=spiffe("other"))),
        structs.replace(CODER, svid=None),
    ],
)
async def test_a_result_of_another_key_lease_app_or_name_is_refused(
    stand: Stand, thief: object
) -> None:
    """threats.md: an attestation token copied to another process: bound to the client key."""
    assert isinstance(thief, type(CODER))
    status, answer = await stand.trade(thief, stand.attest(CODER))
    assert (status, answer["error"]) == (400, "invalid_request")
    assert "is of another" in answer["error_description"]
    assert stand.outcomes() == {"unproven": 1}


async def test_what_we_did_not_issue_is_unknown_whatever_it_says(stand: Stand) -> None:
    """Attacks: alg none, HS256 with the public key, kid tricks, altered claims, another's key."""
    result = stand.attest(CODER)
    head, body, signature = result.split(".")
    claims, header = payload(result), jwt.get_unverified_header(result)
    none = b64(json.dumps({**header, "alg": "none"}).encode())
    public = stand.signing.domain.jwks()
    hs256 = b64(json.dumps({**header, "alg": "HS256"}).encode()) + "." + body
    mac = b64(hmac.new(public, hs256.encode(), sha256).digest())
    older = b64(json.dumps({**claims, "exp": claims["exp"] + 3600}).encode())
    key = ec.generate_private_key(ec.SECP256R1())
    foreign = [
        jwt.encode(claims, key, "ES256", headers={**header, "kid": kid})
        for kid in (header["kid"], "../../dev/null", "' OR 1=1 --")
    ]
    svid = stand.signing.domain.jwt(spiffe("coder"), (DOCS,), stand.signing.now(), 300)
    for forged in (
        f"{none}.{body}.", f"{none}.{body}.{signature}", f"{hs256}.{mac}",
        f"{head}.{older}.{signature}", f"{head}.{body}.{signature[:-4]}AAAA", f"{result}=",
        f" {result}", f"{result}\n", result.upper(), *foreign, svid, "x", "é" * 100, "\x00",
    ):  # fmt: skip
        status, answer = await stand.trade(CODER, forged)
        assert (status, answer["error"]) == (400, "invalid_request"), forged
        assert len(forged) < 2 or forged not in answer["error_description"]
    assert set(stand.outcomes()) == {"unproven"}
    assert (await stand.trade(CODER, result))[0] == 200


async def test_a_result_counts_until_it_expires_or_is_voided(stand: Stand) -> None:
    old = stand.attest(CODER)
    new = stand.attest(CODER)
    assert (await stand.trade(CODER, old))[0] == 200  # a newer one voids nothing
    assert (await stand.trade(CODER, new))[0] == 200
    stand.attestations.void(lambda each: each.id == "2")
    assert (await stand.trade(CODER, new))[0] == 400
    last = stand.attest(CODER)
    stand.now += 300
    assert (await stand.trade(CODER, last))[0] == 400


async def test_a_result_from_the_future_does_not_count(stand: Stand) -> None:
    """Attack: clock skew."""
    result = stand.attest(CODER)
    stand.now -= 3600
    assert (await stand.trade(CODER, result))[0] == 400


@pytest.mark.parametrize(
    ("more", "error"),
    [
        ({"audience": "https://other.example"}, "invalid_target"),
        ({"audience": DOCS + "/"}, "invalid_target"),
        ({"audience": DOCS.upper()}, "invalid_target"),
        ({"audience": f"{DOCS} https://other.example"}, "invalid_target"),
        ({"audience": f'["{DOCS}"]'}, "invalid_target"),
        ({"audience": "", "resource": "https://other.example"}, "invalid_target"),
        ({"scope": "documents:delete"}, "invalid_scope"),
        ({"scope": "documents:read documents:delete"}, "invalid_scope"),
        ({"scope": "documents:*"}, "invalid_scope"),
    ],
)
async def test_the_rules_grant_what_they_name_and_nothing_else(
    stand: Stand, more: dict[str, str], error: str
) -> None:
    status, answer = await stand.trade(CODER, stand.attest(CODER), **more)
    assert (status, answer["error"]) == (400, error)
    assert stand.live.known.all() == ()


async def test_an_app_without_capabilities_or_rules_gets_none(stand: Stand) -> None:
    for app in ("documents", "nobody"):
        caller = by_certificate(app)
        status, answer = await stand.trade(caller, stand.attest(caller))
        assert (status, answer["error"]) == (400, "invalid_target")
    assert stand.outcomes() == {"ungranted": 2}


async def test_a_stronger_result_of_the_binding_lends_nothing_to_a_weaker_one(
    stand: Stand,
) -> None:
    strong = Requirements(attested=Level.TPM, max_age_s=60)
    stand.ruleset = rules(coder=(entry(require=strong),))
    await stand.open()
    software, tpm = stand.attest(CODER), stand.attest(CODER, Level.TPM)
    status, answer = await stand.trade(CODER, software)
    assert (status, answer["error"]) == (400, "invalid_request")
    assert stand.lines[-1]["reason"] is Reason.ATTESTATION_REQUIRED
    assert (await stand.trade(CODER, tpm))[0] == 200
    stand.now += 61
    stand.attestations.look(stand.now)
    assert (await stand.trade(CODER, tpm))[0] == 400


# Delegation


async def test_a_token_is_passed_on_with_the_chain_of_who_acts(stand: Stand) -> None:
    first = await stand.token(CODER, scope="documents:read documents:write")
    status, answer = await stand.pass_on(HELPER, first)
    assert status == 200, answer
    second = answer["access_token"]
    claims = payload(second)
    assert (claims["sub"], claims["client_id"]) == (spiffe("coder"), spiffe("helper"))
    assert claims["act"] == {"sub": spiffe("helper")}
    status, answer = await stand.pass_on(THIRD, second)
    claims = payload(answer["access_token"])
    assert claims["sub"] == spiffe("coder")
    # RFC 8693, section 4.1: who acts now is outermost
    assert claims["act"] == {"sub": spiffe("third"), "act": {"sub": spiffe("helper")}}
    assert stand.lines[-1]["actors"] == [spiffe("helper"), spiffe("third")]


async def test_what_is_passed_on_ends_no_later_and_says_the_least_level(stand: Stand) -> None:
    first = await stand.token(CODER)
    stand.now += 50
    form = {"subject_token_type": ACCESS_TOKEN, "actor_token_type": JWT}
    proof = stand.attest(HELPER, Level.TPM)
    _, answer = await stand.trade(HELPER, first, actor_token=proof, **form)
    assert (answer["expires_in"], payload(answer["access_token"])["level"]) == (10, "software")


@pytest.mark.parametrize(
    ("more", "error"),
    [
        ({"scope": "documents:write"}, "invalid_scope"),
        ({"scope": "documents:read documents:write"}, "invalid_scope"),
        ({"audience": SERVED}, "invalid_target"),
        ({"actor_token": "x"}, "invalid_request"),
    ],
)
async def test_nothing_is_added_by_passing_on(
    stand: Stand, more: dict[str, str], error: str
) -> None:
    """Attack: scope escalation."""
    stand.ruleset = rules(
        coder=(entry(), entry(SERVED)),
        helper=(
            entry(on_behalf_of=frozenset({"coder"})),
            entry(SERVED, on_behalf_of=frozenset({"coder"})),
        ),
    )
    first = await stand.token(CODER, scope="documents:read")
    status, answer = await stand.pass_on(HELPER, first, **more)
    assert (status, answer["error"]) == (400, error)


async def test_a_rule_has_to_name_everybody_on_whose_behalf_it_is(stand: Stand) -> None:
    stand.ruleset = structs.replace(
        RULES, apps={**RULES.apps, **rules(third=(entry(on_behalf_of=frozenset({"helper"})),)).apps}
    )
    first = await stand.token(CODER)
    _, answer = await stand.pass_on(HELPER, first)
    status, refused = await stand.pass_on(THIRD, answer["access_token"])
    assert (status, refused["error"]) == (400, "invalid_target")
    box = by_lease("box", "lease-1")
    assert (await stand.pass_on(box, first))[0] == 400


async def test_a_chain_has_no_cycle_and_an_end(tmp_path: Path) -> None:
    async with standing(tmp_path, Limits(capability_parties=2)) as stand:
        first = await stand.token(CODER)
        assert (await stand.pass_on(CODER, first))[0] == 400  # of his own
        _, answer = await stand.pass_on(HELPER, first)
        second = answer["access_token"]
        stand.ruleset = rules(
            coder=(entry(on_behalf_of=frozenset({"coder", "helper"})),),
            helper=(entry(on_behalf_of=frozenset({"coder"})),),
            third=(entry(on_behalf_of=frozenset({"coder", "helper"})),),
        )
        status, refused = await stand.pass_on(CODER, second)
        assert (status, "already" in refused["error_description"]) == (400, True)
        status, refused = await stand.pass_on(THIRD, second)
        assert (status, "more than 2" in refused["error_description"]) == (400, True)
        assert stand.metrics.bounds.value("capability_parties") == 1


async def test_who_passes_on_shows_his_own_proof(stand: Stand) -> None:
    first = await stand.token(CODER)
    form = {"subject_token_type": ACCESS_TOKEN}
    status, refused = await stand.trade(HELPER, first, **form)
    assert (status, "actor_token" in refused["error_description"]) == (400, True)
    form["actor_token_type"] = JWT
    proof = stand.attest(CODER)
    status, refused = await stand.trade(HELPER, first, actor_token=proof, **form)
    assert (status, "another TLS key" in refused["error_description"]) == (400, True)
    # A result is nobody's to pass on, and no access token.
    mine = stand.attest(HELPER)
    assert (await stand.trade(HELPER, proof, actor_token=mine, **form))[0] == 400
    assert (await stand.trade(CODER, proof, subject_token_type=ACCESS_TOKEN))[0] == 400


async def test_what_is_void_is_not_passed_on_and_takes_its_children_along(stand: Stand) -> None:
    first = await stand.token(CODER)
    _, answer = await stand.pass_on(HELPER, first)
    second = answer["access_token"]
    assert await stand.is_active(second)
    assert len(stand.exchange.revoke(first, "why")) == 2
    assert not await stand.is_active(first)
    assert not await stand.is_active(second)
    assert (await stand.pass_on(HELPER, first))[0] == 400
    with pytest.raises(UnknownCapabilityError):
        stand.exchange.revoke("x", "why")


# In flight


async def test_what_is_revoked_while_it_is_signed_is_never_given(stand: Stand) -> None:
    """Attack: revoked in flight."""
    first = await stand.token(CODER)
    held = len(stand.live.known)

    def void_result() -> None:
        stand.attestations.void(lambda each: each.app == "helper")

    def narrow() -> None:
        stand.ruleset = rules(coder=(entry(),), helper=())

    def shorten() -> None:
        behalf = frozenset({"coder"})
        stand.ruleset = rules(coder=(entry(),), helper=(entry(ttl_s=5, on_behalf_of=behalf),))

    for meanwhile in (
        void_result, narrow, shorten, lambda: stand.revoked.add("helper"),
        lambda: stand.revoked.add(spiffe("coder")), lambda: stand.exchange.revoke(first, ""),
    ):  # fmt: skip
        stand.ruleset = RULES
        stand.revoked.clear()
        stand.signing.meanwhile = meanwhile
        status, answer = await stand.pass_on(HELPER, first)
        assert (status, "access_token" in answer) == (400, False)
        assert len(stand.live.known) == held


async def test_without_a_signature_there_is_none_for_now(stand: Stand) -> None:
    stand.signing.problem = "the issuer has ended; try again"
    status, answer = await stand.trade(CODER, stand.attest(CODER))
    assert (status, answer["error"]) == (503, "temporarily_unavailable")
    assert stand.outcomes() == {"unsigned": 1}
    assert stand.live.known.all() == ()


async def test_what_cannot_be_told_of_is_not_given(stand: Stand) -> None:
    stand.barred = Reason.AUDIT_UNAVAILABLE
    status, answer = await stand.trade(CODER, stand.attest(CODER))
    assert (status, answer["error"]) == (503, "temporarily_unavailable")
    assert stand.lines[-1]["reason"] is Reason.AUDIT_UNAVAILABLE


async def test_where_tokens_cannot_be_kept_none_is_given(tmp_path: Path) -> None:
    (tmp_path / "capabilities.sqlite").mkdir()
    async with standing(tmp_path) as stand:
        status, answer = await stand.trade(CODER, stand.attest(CODER))
        assert (status, answer["error"]) == (503, "temporarily_unavailable")
        assert stand.outcomes() == {"unrecorded": 1}


async def test_at_a_bound_no_token_is_forgotten_for_another(tmp_path: Path) -> None:
    async with standing(tmp_path, Limits(capabilities=3, capabilities_per_app=2)) as stand:
        held = [await stand.token(CODER) for _ in range(2)]
        status, answer = await stand.trade(CODER, stand.attest(CODER))
        assert (status, answer["error"]) == (503, "temporarily_unavailable")
        assert "capabilities_per_app" in answer["error_description"]
        box = by_lease("box", "lease-1")
        held.append(await stand.token(box))
        assert "limits.capabilities" in str(await stand.trade(box, stand.attest(box)))
        assert all([await stand.is_active(each) for each in held])
        assert stand.metrics.bounds.value("capabilities") == 1
        assert stand.outcomes() == {"granted": 3, "full": 2}
        stand.now += 60
        stand.live.known.look(stand.now)
        await stand.token(CODER)


async def test_one_agent_cannot_have_all_tokens_of_its_app(tmp_path: Path) -> None:
    async with standing(tmp_path, Limits(capabilities_per_binding=1)) as stand:
        await stand.token(CODER)
        status, answer = await stand.trade(CODER, stand.attest(CODER))
        assert (status, answer["error"]) == (503, "temporarily_unavailable")
        assert "capabilities_per_binding" in answer["error_description"]
        assert stand.metrics.bounds.value("capabilities_per_binding") == 1
        await stand.token(by_certificate("coder", "another key"))


async def test_those_that_are_being_signed_count_against_the_bound(tmp_path: Path) -> None:
    async with standing(tmp_path, Limits(capabilities_per_app=1)) as stand:
        signed = asyncio.Event()
        stand.signing.before = signed.wait
        result = stand.attest(CODER)
        both = [asyncio.ensure_future(stand.trade(CODER, result)) for _ in range(2)]
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        signed.set()
        assert sorted(status for status, _ in await asyncio.gather(*both)) == [200, 503]
        assert len(stand.live.known) == 1


async def test_what_the_disk_does_not_take_in_time_is_not_granted(tmp_path: Path) -> None:
    async with standing(tmp_path, Limits(capabilities=1)) as stand:
        result = stand.attest(CODER)
        assert (await stand.trade(CODER, result))[0] == 200
        assert stand.live.is_full
        status, answer = await stand.trade(CODER, result)
        assert (status, "disk" in answer["error_description"]) == (503, True)
        await stand.exchange.settled()
        assert not stand.live.is_full


# Voided for cause


async def test_what_was_made_of_a_result_that_was_voided_counts_no_more(stand: Stand) -> None:
    other = by_certificate("coder", "another key")
    tokens = []
    for caller in (CODER, other, HELPER):
        _, answer = await stand.trade(caller, stand.attest(caller, Level.TPM, "000b01"))
        tokens.append(answer["access_token"])
    stand.now += 1
    voided = stand.attestations.void(lambda each: each.binding == CODER.binding)
    # Of the app all that the attester has proven, and of others nothing.
    assert stand.exchange.void(voided, "PCR 0 has changed") == 2
    assert [await stand.is_active(each) for each in tokens] == [False, False, True]
    assert (stand.lines[-1]["change"], stand.lines[-1]["why"]) == (
        "tokens-void",
        "PCR 0 has changed",
    )
    assert stand.exchange.void_attester("coder", "000b01") == 0
    assert stand.exchange.void_attester("helper", "000b01") == 1
    assert stand.metrics.capabilities_voided.value() == 3


async def test_a_lease_that_has_ended_takes_its_tokens_along(stand: Stand) -> None:
    box = by_lease("box", "lease-1")
    token = await stand.token(box)
    assert stand.exchange.void_binding(Binding(Kind.LEASE, "lease-2")) == 0
    assert stand.exchange.void_binding(Binding(Kind.LEASE, "lease-1")) == 1
    assert not await stand.is_active(token)


async def test_a_token_outlives_its_result_and_not_its_own_time(stand: Stand) -> None:
    stand.ruleset = rules(coder=(entry(ttl_s=900),))
    token = await stand.token(CODER)
    stand.now += 400
    stand.attestations.look(stand.now)
    assert await stand.is_active(token)
    stand.now += 500
    assert not await stand.is_active(token)


@pytest.mark.parametrize("what", ["coder", spiffe("coder"), "5eed"])
async def test_a_party_that_is_revoked_voids_for_good(stand: Stand, what: str) -> None:
    caller = by_certificate("coder", serial="5eed")
    first = await stand.token(caller)
    _, answer = await stand.pass_on(HELPER, first)
    stand.revoked.add(what)
    assert not await stand.is_active(first)
    assert not await stand.is_active(answer["access_token"])
    assert (await stand.trade(caller, stand.attest(caller)))[0] == 400
    assert stand.exchange.void_revoked() == 2
    stand.revoked.clear()
    assert not await stand.is_active(first)


async def test_rules_that_grant_it_no_more_end_it_and_bring_it_back(stand: Stand) -> None:
    first = await stand.token(CODER)
    _, answer = await stand.pass_on(HELPER, first)
    second = answer["access_token"]
    behalf = frozenset({"coder"})
    helper = (entry(on_behalf_of=behalf),)
    tpm = Requirements(attested=Level.TPM)
    for changed, stands in (
        (rules(coder=(entry(),), helper=(entry(),)), (True, False)),
        (rules(coder=(entry(scopes=frozenset({"x"})),), helper=helper), (False, False)),
        (rules(coder=(entry(require=tpm),), helper=helper), (False, False)),
        (rules(helper=helper), (False, False)),
        (RULES, (True, True)),
    ):
        stand.ruleset = changed
        assert (await stand.is_active(first), await stand.is_active(second)) == stands
    stand.now += 10
    stand.ruleset = rules(coder=(entry(ttl_s=10),), helper=helper)
    assert not await stand.is_active(first)
