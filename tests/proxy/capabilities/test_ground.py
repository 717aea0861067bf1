"""On what a token is made; `test_exchange` has who is refused and why."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from proxy.capabilities.exchange import Exchange
from proxy.capabilities.form import ACCESS_TOKEN, JWT
from tests.proxy.capabilities.stand import Stand, by_certificate, by_lease, standing

CODER, HELPER, BOX = by_certificate("coder"), by_certificate("helper"), by_lease("box", "lease-1")


@pytest.fixture
async def stand(tmp_path: Path) -> AsyncIterator[Stand]:
    async with standing(tmp_path) as made:
        yield made


async def test_a_token_remembers_on_what_it_was_made(stand: Stand) -> None:
    await stand.pass_on(HELPER, await stand.token(CODER))
    exchange: Exchange = stand.exchange
    first, second = exchange.all()
    assert (first.binding, second.binding) == (CODER.binding, HELPER.binding)
    assert (first.parent, second.parent) == ("", first.id)
    assert (first.result, second.result) == ("1", "2")
    assert HELPER.binding is not None
    assert second.attester == HELPER.binding.value
    assert all(map(exchange.stands, (first, second)))


async def test_a_lease_has_neither_thumbprint_nor_serial(stand: Stand) -> None:
    await stand.token(BOX)
    [token] = stand.exchange.all()
    assert (token.thumbprint, token.holder.serial, token.binding) == ("", "", BOX.binding)


async def test_what_is_passed_on_is_called_an_access_token(stand: Stand) -> None:
    token = await stand.token(CODER)
    status, answer = await stand.pass_on(HELPER, token, subject_token_type=JWT)
    assert (status, answer["error"]) == (400, "invalid_request")
    assert ACCESS_TOKEN in answer["error_description"]
    assert (await stand.pass_on(HELPER, token))[0] == 200
