"""What may be asked of a running appliance, and that each change leaves a line."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from proxy.control.asked import Asked, RefusedError
from proxy.control.client import ControlError
from proxy.control.place import Caller
from proxy.control.routes import Routes
from proxy.control.status import LastSeen
from proxy.tokens.known import Token
from rules.decision import Reason
from tests.proxy.control_stand import STARTED, Stand, standing


@pytest.fixture
async def stand(tmp_path: Path) -> AsyncIterator[Stand]:
    async with standing(tmp_path) as made:
        yield made


async def refused(stand: Stand, method: str, target: str, content: object = None) -> int:
    with pytest.raises(ControlError) as caught:
        await stand.ask(method, target, content)
    return caught.value.status


async def test_status_tells_everything_at_a_glance(stand: Stand) -> None:
    stand.refuse()
    await stand.ask("POST", "/tokens", {"name": "coder", "ttl_s": 3600})
    await stand.ask("POST", "/tokens", {"name": "coder"})
    stand.metrics.bounds.add("control_octets", n=2)
    stand.problems = {"audit": "No space left on device"}
    found = await stand.ask("GET", "/status")
    assert (found["pid"], found["version"], found["enforcement"]) == (
        os.getpid(),
        "0.9",
        "advisory",
    )
    assert (found["uptime_s"], found["generation"]) == (90.0, 3)
    assert found["reload"]["outcome"] == "changed"
    assert found["listen"] == {"do53": ["127.0.0.1:53"]}
    assert found["upstreams"][0]["state"] == "up"
    assert found["tokens"] == {"valid": 2, "expired": 0, "revoked": 0, "used": 0}
    assert [each["id"] for each in found["tokens_expiring"]] == ["coder.1"]
    assert found["certificate"]["days_left"] == 10.0
    assert found["bounds"] == {"control_octets": 2}
    assert found["problems"] == {"audit": "No space left on device"}
    assert {each["name"]: each["decisions"]["deny"] for each in found["apps"]} == {
        "box": 0,
        "coder": 1,
    }


async def test_apps_tell_evidence_decisions_and_when_they_were_seen(stand: Stand) -> None:
    stand.refuse()
    box, coder = await stand.ask("GET", "/apps")
    assert (box["evidence"], box["last_seen"]) == (["lease"], None)
    assert coder["evidence"] == ["token", "listener", "process"]
    assert coder["last_seen"].startswith("2026-")
    assert coder["decisions"] == {"allow": 0, "deny": 1, "fail": 0}


async def test_an_app_tells_its_lines_tokens_and_last_refusals(stand: Stand) -> None:
    recorded = stand.refuse()
    stand.refuse("box")
    await stand.ask("POST", "/tokens", {"name": "coder"})
    await stand.ask("POST", "/tokens", {"name": "other"})
    await stand.audit.close()  # what folds is written
    found = await stand.ask("GET", "/apps/coder")
    assert found["identity"] == [
        {"line": "a.yaml:3", "token": "coder"},
        {"line": "a.yaml:4", "listener": "127.0.0.1:53", "uid": 1000},
    ]
    assert [each["id"] for each in found["tokens"]] == ["coder.1"]
    assert [each["id"] for each in found["refusals"]] == [recorded]


async def test_the_app_unknown_is_known_and_others_are_not(stand: Stand) -> None:
    assert (await stand.ask("GET", "/apps/unknown"))["identity"] == []
    assert await refused(stand, "GET", "/apps/nobody") == 404


async def test_why_knows_what_still_folds(stand: Stand) -> None:
    recorded = stand.refuse("unknown")
    found = await stand.ask("GET", f"/why/{recorded}")
    assert (found["id"], found["app"], found["how"]) == (recorded, "unknown", "ask the admin")
    assert found["time"].endswith("Z")
    await stand.audit.close()
    hyphened = f"urn:uuid:{recorded[:8]}-{recorded[8:]}"
    assert (await stand.ask("GET", f"/why/{hyphened}"))["fact"] == "connect"
    assert await refused(stand, "GET", "/why/" + "0" * 32) == 404


async def test_why_knows_the_last_refusal_of_each_app(stand: Stand) -> None:
    assert await refused(stand, "GET", "/why?app=coder") == 404
    of_coder, of_box = stand.refuse("coder"), stand.refuse("box")
    await stand.audit.close()
    assert (await stand.ask("GET", "/why"))["id"] == of_box
    assert (await stand.ask("GET", "/why?more=1&app=coder"))["id"] == of_coder


async def test_audit_files_that_cannot_be_read_are_said(stand: Stand) -> None:
    stand.file.unlink()
    stand.file.mkdir()
    assert await refused(stand, "GET", "/why") == 503


async def test_a_token_is_made_and_works_at_once(stand: Stand) -> None:
    content = {"name": "coder", "ttl_s": 60, "bind_uid": 1000}
    made = await stand.ask("POST", "/tokens", content)
    found = stand.tokens.tokens.find(made["secret"], stand.now)
    assert isinstance(found, Token)
    assert (found.id, found.bind_uid, found.expires) == ("coder.1", 1000, stand.now + 60)
    assert (await stand.ask("GET", "/tokens")) == [made["token"]]


async def test_a_rotated_token_names_the_one_it_replaces(stand: Stand) -> None:
    await stand.ask("POST", "/tokens", {"name": "coder"})
    made = await stand.ask("POST", "/tokens/coder.1/rotate", {"grace_s": 5})
    assert (made["token"]["id"], made["replaced"]["id"]) == ("coder.2", "coder.1")
    again = await stand.ask("POST", "/tokens/coder/rotate")
    assert again["replaced"]["id"] == "coder.2"


async def test_a_revoked_token_is_void_at_once(stand: Stand) -> None:
    made = await stand.ask("POST", "/tokens", {"name": "coder"})
    [revoked] = await stand.ask("DELETE", "/tokens/coder")
    assert revoked["state"] == "revoked"
    assert stand.tokens.tokens.find(made["secret"], stand.now) is Reason.REVOKED


async def test_a_scrapers_token_is_changed_by_name_only_with_its_purpose(stand: Stand) -> None:
    await stand.ask("POST", "/tokens", {"name": "scraper", "purpose": "scrape"})
    assert await refused(stand, "DELETE", "/tokens/scraper") == 404
    assert await refused(stand, "DELETE", "/tokens/scraper?purpose=all") == 400
    made = await stand.ask("POST", "/tokens/scraper/rotate?purpose=scrape")
    assert made["token"]["purpose"] == "scrape"
    assert len(await stand.ask("DELETE", "/tokens/scraper?purpose=scrape")) == 2


@pytest.mark.parametrize(
    ("method", "target", "content", "status"),
    [
        ("POST", "/tokens", {"name": "A B"}, 400),
        ("POST", "/tokens", {"name": "a\n"}, 400),
        ("POST", "/tokens", {"name": "a", "more": 1}, 400),
        ("POST", "/tokens", {}, 400),
        ("POST", "/tokens", {"name": "a", "ttl_s": 1e12}, 409),
        ("POST", "/tokens/a/rotate", {"grace": 1}, 400),
        ("POST", "/tokens/a/rotate", {}, 404),
        ("DELETE", "/tokens/a", None, 404),
        ("GET", "/tokens/a", None, 405),
        ("PUT", "/status", None, 405),
        ("GET", "/reload", None, 405),
        ("GET", "/nothing", None, 404),
    ],
)
async def test_what_cannot_be_done_is_refused_and_changes_nothing(
    stand: Stand, method: str, target: str, content: object, status: int
) -> None:
    assert await refused(stand, method, target, content) == status
    assert await stand.ask("GET", "/tokens") == []


async def test_a_file_of_tokens_that_cannot_be_used_is_said(stand: Stand) -> None:
    stand.tokens.path.write_bytes(b"no database " * 99)
    stand.tokens.path.chmod(0o600)
    assert await refused(stand, "POST", "/tokens", {"name": "coder"}) == 503
    await stand.tokens.reload()
    assert await refused(stand, "GET", "/tokens") == 503
    found = await stand.ask("GET", "/status")
    assert "restore the file" in found["problems"]["tokens"]


async def test_reload_reads_rules_and_tokens(stand: Stand) -> None:
    found = await stand.ask("POST", "/reload")
    assert (found["outcome"], found["problems"]) == ("failed", ["a.yaml:1 is broken"])
    assert (await stand.ask("GET", "/status"))["reload"] == found


async def test_every_change_leaves_a_line_that_says_who(stand: Stand) -> None:
    """threats.md, "Identity": the agent reaches the admin side."""
    secrets = [
        (await stand.ask("POST", "/tokens", {"name": "coder"}))["secret"],
        (await stand.ask("POST", "/tokens/coder/rotate"))["secret"],
    ]
    await stand.ask("DELETE", "/tokens/coder")
    await stand.ask("POST", "/reload")
    lines = [line for line in await stand.lines() if line["plane"] == "control"]
    assert [(line["target"], line["change"]) for line in lines] == [
        ("token coder.1", "issued"),
        ("token coder.2", "rotated"),
        ("token coder.1", "revoked"),
        ("token coder.2", "revoked"),
        ("rules", "reload: failed"),
    ]
    who = {(line["by_uid"], line["by_pid"], line["app"], line["fact"]) for line in lines}
    assert who == {(os.getuid(), os.getpid(), "sallyport", None)}
    assert len({line["id"] for line in lines}) == 5  # none folded into another
    written = stand.file.read_text()
    assert not [secret for secret in secrets if secret in written]


async def test_reading_leaves_no_line(stand: Stand) -> None:
    for target in ("/status", "/apps", "/apps/coder", "/tokens"):
        await stand.ask("GET", target)
    assert await stand.lines() == []


async def test_searches_wait_for_one_another(stand: Stand) -> None:
    recorded = stand.refuse()
    await stand.audit.close()
    routes = Routes(stand.sources, LastSeen(stand.metrics))
    asked = Asked("GET", ("why", recorded), "", b"", Caller(1, 0, 0))
    found = await asyncio.gather(*(routes.answer(asked) for _ in range(4)))
    assert len(found) == 4
    with pytest.raises(RefusedError):
        await routes.answer(Asked("GET", ("why", "0"), "", b"", Caller(1, 0, 0)))
    assert stand.now > STARTED
