"""Whether a token counts, and whom it concerns; `test_exchange` has what ends one."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec import structs

from proxy.capabilities.standing import Standing
from rules.facts import Principal
from rules.ruleset import Requirements
from tests.proxy.capabilities.stand import (
    Stand,
    by_certificate,
    by_lease,
    entry,
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
