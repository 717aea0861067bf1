"""What is told of an appliance whose parts are absent or have nothing to say."""

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from proxy.control.status import LastSeen, detail, problems, status, summaries
from proxy.metrics import Metrics
from rules.decision import Reason, Verdict
from tests.proxy.control_stand import STARTED, Stand, standing


@pytest.fixture
async def stand(tmp_path: Path) -> AsyncIterator[Stand]:
    async with standing(tmp_path) as made:
        yield made


async def test_what_is_absent_is_left_empty(stand: Stand) -> None:
    bare = msgspec.structs.replace(
        stand.sources, listening=dict, reloaded=lambda: None, upstreams=tuple,
        certificate=lambda: None, problems=dict,
    )  # fmt: skip
    found = status(bare, LastSeen(stand.metrics))
    assert (found.reload, found.certificate, found.upstreams) == (None, None, ())
    assert (found.listen, found.bounds, found.problems) == ({}, {}, {})


async def test_it_is_json_as_it_stands(stand: Stand) -> None:
    text = msgspec.json.encode(status(stand.sources, LastSeen(stand.metrics)))
    assert msgspec.json.decode(text)["time"] == "2026-09-21T14:14:50.000000Z"


async def test_apps_that_no_rule_names_are_told_where_they_asked(stand: Stand) -> None:
    stand.metrics.app_decisions.add("unknown", Verdict.DENY, Reason.IDENTITY_UNKNOWN)
    stand.metrics.app_decisions.add("gone", Verdict.ALLOW, Reason.RULE)
    seen = LastSeen(stand.metrics)
    names = [each.name for each in summaries(stand.sources, seen)]
    assert names == ["box", "coder", "other", "unknown"]
    assert detail(stand.sources, seen, "other", []) is not None
    assert detail(stand.sources, seen, "gone", []) is None
    coder = detail(stand.sources, seen, "coder", [])
    assert coder is not None
    assert coder.identity[1] == {"line": "a.yaml:4", "listener": "127.0.0.1:53", "uid": 1000}


def test_an_app_was_seen_when_its_decisions_grew() -> None:
    metrics = Metrics()
    seen = LastSeen(metrics)
    seen.look(STARTED)
    assert seen.of("unknown") is None
    metrics.app_decisions.add("unknown", Verdict.DENY, Reason.RULE)
    seen.look(STARTED + 1)
    first = seen.of("unknown")
    seen.look(STARTED + 2)
    assert seen.of("unknown") == first == "2026-09-21T14:13:21.000000Z"
    metrics.app_decisions.add("unknown", Verdict.ALLOW, Reason.RULE)
    seen.look(STARTED + 3)
    assert seen.of("unknown") != first


async def test_revoked_and_rotated_tokens_tell_when(stand: Stand) -> None:
    await stand.ask("POST", "/tokens", {"name": "coder", "ttl_s": 60})
    await stand.ask("POST", "/tokens/coder/rotate")
    await stand.ask("DELETE", "/tokens/coder.2")
    old, new = await stand.ask("GET", "/tokens")
    assert (old["rotated"] is None, old["revoked"] is None) == (False, True)
    assert (new["rotated"] is None, new["revoked"] is None) == (True, False)
    found = await stand.ask("GET", "/status")
    assert found["tokens_expiring"] == []  # the one was replaced, the other revoked


async def test_problems_of_the_parts_and_of_the_tokens_stand_together(stand: Stand) -> None:
    stand.problems = {"audit": "full"}
    stand.tokens.problem = "damaged"
    assert problems(stand.sources) == {"audit": "full", "tokens": "damaged"}
