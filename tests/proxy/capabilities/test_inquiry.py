"""`POST /introspect` (RFC 7662) and `POST /revoke` (RFC 7009): for those whom a token concerns."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec import structs

from proxy.capabilities.file import CapabilityFile
from proxy.errors import BindError
from rules.facts import UNKNOWN_APP, Principal
from rules.ruleset import Ruleset
from tests.proxy.capabilities.stand import (
    ADMINS,
    DOCS,
    DOMAIN,
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
)

CODER, HELPER, THIRD = (by_certificate(each) for each in ("coder", "helper", "third"))
SERVER = by_certificate("documents")


@pytest.fixture
async def stand(tmp_path: Path) -> AsyncIterator[Stand]:
    async with standing(tmp_path) as made:
        yield made


async def test_what_counts_is_told_with_its_claims(stand: Stand) -> None:
    token = await stand.token(CODER)
    answer = await stand.introspect(CODER, token)
    assert (answer.pop("active"), answer.pop("token_type")) == (True, "Bearer")
    assert answer == payload(token)
    assert (answer["iss"], answer["aud"]) == (DOMAIN, DOCS)
    _, passed = await stand.pass_on(HELPER, token)
    assert (await stand.introspect(CODER, passed["access_token"]))["act"] == {
        "sub": spiffe("helper")
    }


@pytest.mark.parametrize(
    ("caller", "is_told"),
    [
        (CODER, True),
        (by_certificate("coder", "its next key"), True),
        (ADMINS, True),
        (SERVER, True),
        (by_lease("documents", "lease-3"), True),
        (HELPER, False),
        (on_plain_port("coder"), False),
        (on_plain_port("documents"), False),
        (structs.replace(CODER, binding=None), False),
        (structs.replace(HELPER, principal=Principal(UNKNOWN_APP)), False),
    ],
)
async def test_a_token_is_told_of_to_its_parties_its_audience_and_admins(
    stand: Stand, caller: object, *, is_told: bool
) -> None:
    assert isinstance(caller, type(CODER))
    token = await stand.token(CODER, audience=SERVED)
    answer = await stand.introspect(caller, token)
    assert answer["active"] is is_told
    # RFC 7662, section 2.2: nothing else is said of what is not active
    assert is_told or answer == {"active": False}


async def test_an_audience_may_be_a_spiffe_id(stand: Stand) -> None:
    stand.ruleset = rules(coder=(entry(spiffe("documents")),))
    token = await stand.token(CODER, audience=spiffe("documents"))
    assert (await stand.introspect(SERVER, token))["active"] is True
    other = structs.replace(SERVER, svid=HELPER.svid)
    assert (await stand.introspect(other, token))["active"] is False


async def test_a_url_as_the_audience_is_nobodys_name(stand: Stand) -> None:
    token = await stand.token(CODER)
    assert await stand.introspect(SERVER, token) == {"active": False}


async def test_what_is_no_token_of_ours_is_inactive(stand: Stand) -> None:
    token, result = await stand.token(CODER), stand.attest(CODER)
    for text in ("x", result, token + "=", token.lower(), payload(token)["jti"], "é"):
        assert await stand.introspect(ADMINS, text) == {"active": False}
    await stand.introspect(CODER, token)
    count = stand.metrics.capability_introspections
    assert (count.value("active"), count.value("inactive")) == (1, 6)
    assert [line["change"] for line in stand.lines] == ["exchanged"]


async def test_a_form_without_a_token_is_malformed(stand: Stand) -> None:
    for path in ("/introspect", "/revoke"):
        status, answer = await stand.ask(path, CODER, token_type_hint="access_token")  # noqa: S106 - a kind of token
        assert (status, answer["error"]) == (400, "invalid_request")
        status, answer = await stand.ask(path, CODER, token="")
        assert (status, answer["error"]) == (400, "invalid_request")


def with_introspects(**audiences: frozenset[str]) -> Ruleset:
    """Return rules by which these apps introspect these audiences, and `coder` has DOCS."""
    named = rules(coder=(entry(),), **dict.fromkeys(audiences, ())).apps
    introspecting = {
        name: structs.replace(named[name], introspects=each) for name, each in audiences.items()
    }
    return Ruleset(1, {**named, **introspecting})


async def test_who_the_rules_say_serves_an_audience_is_told_of_its_tokens(stand: Stand) -> None:
    """RFC 7662, section 4: who may introspect what is authorised."""
    stand.ruleset = with_introspects(
        documents=frozenset({DOCS, "urn:x:y"}), helper=frozenset({DOCS}), third=frozenset({SERVED})
    )
    token = await stand.token(CODER)
    for caller in (SERVER, by_lease("documents", "lease-3"), HELPER):
        assert (await stand.introspect(caller, token))["sub"] == spiffe("coder")
    for caller in (THIRD, on_plain_port("documents")):
        assert await stand.introspect(caller, token) == {"active": False}
    stand.ruleset = with_introspects(documents=frozenset({DOCS + "/"}))
    assert await stand.introspect(SERVER, token) == {"active": False}


async def test_who_was_revoked_is_told_nothing_and_revokes_nothing(stand: Stand) -> None:
    stand.ruleset = with_introspects(documents=frozenset({DOCS}))
    token = await stand.token(CODER)
    assert SERVER.svid is not None
    for what in ("documents", SERVER.svid.spiffe_id, SERVER.svid.serial):
        stand.revoked = {what}
        assert await stand.introspect(SERVER, token) == {"active": False}
        status, answer = await stand.ask("/revoke", SERVER, token=token)
        assert (status, answer["error"]) == (400, "unauthorized_client")
    stand.revoked = set()
    assert await stand.is_active(token)


async def test_who_serves_an_audience_revokes_its_tokens(stand: Stand) -> None:
    stand.ruleset = with_introspects(documents=frozenset({DOCS}), third=frozenset({"urn:x:y"}))
    token = await stand.token(CODER)
    status, answer = await stand.ask("/revoke", THIRD, token=token)
    assert (status, answer["error"]) == (400, "unauthorized_client")
    assert await stand.ask("/revoke", on_plain_port("documents"), token=token) != (200, {})
    assert await stand.is_active(token)
    assert await stand.ask("/revoke", SERVER, token=token) == (200, {})
    assert not await stand.is_active(token)


@pytest.mark.parametrize("caller", [CODER, HELPER, SERVER, ADMINS])
async def test_its_parties_its_audience_and_admins_revoke_a_token(
    stand: Stand, caller: object
) -> None:
    assert isinstance(caller, type(CODER))
    stand.ruleset = rules(
        coder=(entry(SERVED),), helper=(entry(SERVED, on_behalf_of=frozenset({"coder"})),)
    )
    first = await stand.token(CODER, audience=SERVED)
    _, answer = await stand.pass_on(HELPER, first, audience=SERVED)
    second = answer["access_token"]
    assert await stand.ask("/revoke", caller, token=second) == (200, {})
    assert (await stand.is_active(first), await stand.is_active(second)) == (True, False)
    line = stand.lines[-1]
    assert (line["change"], line["tokens"]) == ("token-revoked", [payload(second)["jti"]])
    assert second not in str(line)
    lines = len(stand.lines)
    assert await stand.ask("/revoke", caller, token=second) == (200, {})
    assert len(stand.lines) == lines


async def test_others_revoke_nothing(stand: Stand) -> None:
    token = await stand.token(CODER)
    for caller in (THIRD, on_plain_port("coder")):
        status, answer = await stand.ask("/revoke", caller, token=token)
        assert (status, answer["error"]) == (400, "unauthorized_client")
    assert await stand.is_active(token)


async def test_revoking_what_is_unknown_is_done_already(stand: Stand) -> None:
    """RFC 7009, section 2.2."""
    for caller in (CODER, on_plain_port("coder")):
        assert await stand.ask("/revoke", caller, token="x") == (200, {})  # noqa: S106 - none
    assert stand.lines == []


async def test_a_revocation_is_on_the_disk_before_it_is_answered(stand: Stand) -> None:
    first = await stand.token(CODER)
    _, answer = await stand.pass_on(HELPER, first)
    await stand.ask("/revoke", CODER, token=first)
    file = CapabilityFile(stand.live.path, stand.limits)
    void = {unique for unique, _ in await file.void()}
    assert void == {payload(each)["jti"] for each in (first, answer["access_token"])}


async def test_what_cannot_be_written_is_void_and_the_agent_is_told(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = await stand.token(CODER)

    async def full() -> None:
        raise BindError("the disk is full")

    monkeypatch.setattr(stand.live, "settled", full)
    status, answer = await stand.ask("/revoke", CODER, token=token)
    assert (status, answer["error"]) == (503, "temporarily_unavailable")
    assert not await stand.is_active(token)
