"""What audit is told: who got what, who did not and why, and never a token."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from proxy.capabilities.told import OURSELVES
from proxy.control import routes
from rules.decision import Reason, Verdict
from tests.proxy.capabilities.stand import DOCS, Stand, by_certificate, payload, spiffe, standing

CODER = by_certificate("coder")


@pytest.fixture
async def stand(tmp_path: Path) -> AsyncIterator[Stand]:
    async with standing(tmp_path) as made:
        yield made


def test_our_own_lines_have_the_app_of_changes() -> None:
    assert OURSELVES == routes.OURSELVES


async def test_an_exchange_has_a_line_with_what_was_granted(stand: Stand) -> None:
    token = await stand.token(CODER)
    assert stand.lines == [
        {
            "app": "coder", "change": "exchanged", "verdict": Verdict.ALLOW, "reason": Reason.RULE,
            "target": DOCS, "token": payload(token)["jti"], "scope": "documents:read",
            "sub": spiffe("coder"), "actors": [], "level": "software",
            "expires": int(stand.now) + 60, "granted_by": "rules.yaml:7", "result": "1",
            "parent": "", "listener": "127.0.0.1:8443",
        }
    ]  # fmt: skip


async def test_a_refusal_has_a_line_with_the_reason_and_no_token(stand: Stand) -> None:
    result = stand.attest(CODER)
    await stand.trade(CODER, result, scope="x")
    await stand.trade(CODER, result, grant_type="password")
    first, second = stand.lines
    assert (first["change"], first["verdict"], first["reason"], first["target"]) == (
        "exchange-refused", Verdict.DENY, Reason.RULE, DOCS,
    )  # fmt: skip
    assert (first["error"], second["error"]) == ("invalid_scope", "unsupported_grant_type")
    assert (second["reason"], second["target"]) == (Reason.REQUEST_MALFORMED, "127.0.0.1:8443")
    assert result not in str(stand.lines)


async def test_many_that_are_voided_have_one_line(stand: Stand) -> None:
    for _ in range(20):
        await stand.token(CODER)
    stand.lines.clear()
    assert CODER.binding is not None
    assert stand.exchange.void_binding(CODER.binding, "why") == 20
    [line] = stand.lines
    assert (line["app"], line["voided"], len(line["tokens"])) == (OURSELVES, 20, 16)
