"""Whether a token counts, and whom it concerns; `test_exchange` has what ends one."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec import structs

from proxy.agent_api.asked import Caller
from proxy.capabilities.standing import Standing
from rules.facts import Principal
from rules.ruleset import IdentityLine, Requirements, Ruleset
from tests.proxy.capabilities.stand import (
    RULES,
    Stand,
    by_certificate,
    by_lease,
    entry,
    lines,
    on_plain_port,
    rules,
    standing,
)

CODER, BOX = by_certificate("coder"), by_lease("box", "lease-1")


@pytest.fixture
async def stand(tmp_path: Path) -> AsyncIterator[Stand]:
    async with standing(tmp_path) as made:
        yield made


async def test_what_a_rule_requires_of_the_connection_is_that_of_the_binding(stand: Stand) -> None:
    stand.ruleset = rules(
        coder=(entry(require=Requirements(mtls=True)),), box=(entry(require=Requirements()),)
    )
    keyed, lent = await stand.token(CODER), await stand.token(BOX)
    assert (await stand.is_active(keyed), await stand.is_active(lent)) == (True, True)
    stand.ruleset = rules(box=(entry(require=Requirements(mtls=True)),))
    assert (await stand.is_active(keyed), await stand.is_active(lent)) == (False, False)


@pytest.mark.parametrize("caller", [CODER, BOX])
async def test_who_is_named_by_no_line_any_more_holds_no_token(
    stand: Stand, caller: Caller
) -> None:
    name = caller.principal.app
    app, own = stand.ruleset.apps[name], lines(name)
    token = await stand.token(caller)
    mine = 0 if caller.svid else 1
    renamed = IdentityLine("f:3", spiffe="spiffe://example.internal/another")
    for identity, is_active in (
        ((own[1 - mine],), False), ((renamed,), False), ((), False), ((own[mine],), True),
    ):  # fmt: skip
        stand.ruleset = Ruleset(2, {**RULES.apps, name: structs.replace(app, identity=identity)})
        assert await stand.is_active(token) is is_active


async def test_what_was_passed_on_ends_with_the_line_of_each_party(stand: Stand) -> None:
    helper = by_certificate("helper")
    status, answer = await stand.pass_on(helper, await stand.token(CODER))
    assert status == 200
    assert await stand.is_active(answer["access_token"])
    stand.ruleset = Ruleset(
        2, {**RULES.apps, "coder": structs.replace(RULES.apps["coder"], identity=())}
    )
    assert not await stand.is_active(answer["access_token"])


async def test_a_token_that_is_forgotten_does_not_stand(stand: Stand) -> None:
    await stand.token(CODER)
    [token] = stand.exchange.all()
    assert stand.exchange.stands(token)
    stand.live.known.look(stand.now + 60)
    assert not stand.exchange.stands(token)


async def test_nobody_without_a_name_is_the_audience(stand: Stand) -> None:
    await stand.token(CODER)
    [token] = stand.exchange.all()
    tokens = Standing(stand.parts)
    nameless = structs.replace(CODER, principal=Principal(""), svid=None)
    for audience in ("", "coder", "sallyport:app:", "sallyport:app:coder"):
        made = structs.replace(token, audience=audience, parties=())
        assert not tokens.may_know(nameless, made)
        assert not tokens.may_know(on_plain_port("coder"), made)
