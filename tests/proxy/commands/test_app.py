"""`sallyport app`: apps, what they did, and their tokens."""

import json
from pathlib import Path

import pytest

from proxy.commands.app import complete_app
from tests.proxy.cli_desk import Desk, running


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_a_new_token_says_how_to_use_it_and_where_it_is_missing(desk: Desk) -> None:
    used = desk.run("app", "token", "coder").stderr
    assert "HTTP_PROXY=http://coder:SECRET@" in used
    assert "no app has" not in used
    assert "no app has `identity: [{token: other}]` yet" in desk.run("app", "token", "other").stderr
    desk.rules.write_text("apps: [")
    assert desk.run("app", "token", "coder").exit_code == 0


def test_a_token_is_rotated_and_revoked(desk: Desk) -> None:
    old = desk.run("app", "token", "coder").stdout.strip()
    rotated = desk.run("app", "rotate", "coder")
    assert rotated.exit_code == 0
    assert rotated.stdout.strip() not in {"", old}
    assert "HTTP_PROXY=http://coder:SECRET@" in rotated.stderr
    revoked = desk.run("app", "revoke", "coder")
    assert (revoked.exit_code, revoked.stderr.split("\n")[:2]) == (
        0,
        ["coder.1: revoked", "coder.2: revoked"],
    )


def test_without_an_appliance_apps_are_those_of_the_rules(desk: Desk) -> None:
    found = json.loads(desk.run("app", "list", "--json").stdout)
    assert [(each["name"], each["rules"]) for each in found["apps"]] == [("box", 0), ("coder", 1)]
    desk.rules.write_text("apps: [")
    broken = desk.run("app", "list")
    assert (broken.exit_code, "sallyport check" in broken.stderr) == (0, True)


async def test_beside_an_appliance_apps_tell_what_they_did(desk: Desk) -> None:
    async with running(desk) as stand:
        stand.refuse()
        listed = await desk.beside("app", "list")
        assert listed.exit_code == 0
        assert "token, listener, process" in listed.stdout


async def test_an_app_is_shown_with_lines_tokens_and_refusals(desk: Desk) -> None:
    async with running(desk) as stand:
        recorded = stand.refuse(target="evil\x1b[2J.example:443")
        await desk.beside("app", "token", "coder")
        await stand.audit.close()
        shown = await desk.beside("app", "show", "coder")
        assert shown.exit_code == 0, shown.stderr
        for words in ("token: coder  (a.yaml:3)", "coder.1 valid", recorded, "deny 1"):
            assert words in shown.stdout
        assert "\x1b" not in shown.stdout
        found = json.loads((await desk.beside("app", "show", "coder", "--json")).stdout)
        assert found["refusals"][0]["id"] == recorded
        unseen = await desk.beside("app", "show", "box")
        assert "not since the start" in unseen.stdout
        missing = await desk.beside("app", "show", "nobody")
    assert (missing.exit_code, "nobody" in missing.stderr) == (1, True)


def test_an_app_is_not_shown_without_an_appliance(desk: Desk) -> None:
    found = desk.run("app", "show", "coder")
    assert (found.exit_code, "sallyport up" in found.stderr) == (4, True)


def test_an_app_is_not_shown_without_a_control_socket(desk: Desk) -> None:
    desk.config.write_text(f"state: {desk.folder}\nlisten: {{control: ''}}\n")
    found = desk.run("app", "show", "coder")
    assert (found.exit_code, "`listen.control` is empty" in found.stderr) == (4, True)


def test_names_complete_from_the_rules(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in desk.env.items():
        monkeypatch.setenv(name, value)
    assert complete_app("") == ["box", "coder"]
    assert complete_app("co") == ["coder"]
    assert complete_app("x") == []
    desk.rules.write_text("apps: [")
    assert complete_app("") == []
    desk.config.unlink()
    desk.config.mkdir()
    assert complete_app("") == []
