"""What is said when everything accepts: one object for programs, a table for people."""

import json
from importlib import metadata

import pytest

from proxy import banner
from proxy.banner import Ready, ready_json, ready_table, version

READY = Ready(
    pid=42,
    generation=1,
    enforcement="advisory",
    listen={
        "do53": ["127.0.0.1:5300", "[::1]:5300"],
        "proxy": ["127.0.0.1:3128"],
        "metrics": [],
    },
    rules=["/rules/a.yaml", "/rules/b.yaml"],
    notes=["first run: wrote /rules/a.yaml"],
)


def test_the_event_is_one_line_with_the_keys_of_the_reference() -> None:
    text = ready_json(READY)
    assert "\n" not in text
    assert json.loads(text) == {
        "event": "ready",
        "pid": 42,
        "generation": 1,
        "enforcement": "advisory",
        "listen": {
            "do53": ["127.0.0.1:5300", "[::1]:5300"],
            "proxy": ["127.0.0.1:3128"],
            "metrics": [],
        },
    }


def test_the_table_shows_what_listens_and_what_to_try() -> None:
    lines = [line.strip() for line in ready_table(READY).splitlines()]
    assert lines == [
        "listen do53     127.0.0.1:5300, [::1]:5300",
        "listen proxy    127.0.0.1:3128",
        "listen metrics  off",
        "rules           generation 1",
        "/rules/a.yaml",
        "/rules/b.yaml",
        f"enforcement     {banner._ENFORCEMENT['advisory']}",
        "note            first run: wrote /rules/a.yaml",
        "try             kdig @127.0.0.1 -p 5300 example.com",
        "try             curl -x http://127.0.0.1:3128 https://example.com/",
        "try             curl -x http://127.0.0.1:3128 https://example.net/    # refused",
    ]


def test_a_note_of_several_lines_stays_in_its_column() -> None:
    ready = Ready(1, 1, "system", {}, [], ["a.yaml:1:3: warning\n    apps:\n      ^"])
    lines = ready_table(ready).splitlines()
    at = lines[-3].index("a.yaml")
    assert lines[-2:] == [" " * at + "    apps:", " " * at + "      ^"]


def test_an_ipv6_only_listener_is_shown_as_clients_want_it() -> None:
    listen = {"do53": ["[::1]:53"], "proxy": ["[::1]:80"]}
    table = ready_table(Ready(1, 1, "advisory", listen, [], []))
    assert "kdig @::1 -p 53 example.com" in table
    assert "curl -x http://[::1]:80 https://example.com/" in table


def test_without_listeners_there_is_nothing_to_try() -> None:
    assert "try" not in ready_table(Ready(1, 1, "advisory", {"do53": [], "proxy": []}, [], []))


def test_the_version_is_that_of_what_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(banner, "DISTRIBUTION", "msgspec")
    assert version() == metadata.version("msgspec")
    monkeypatch.setattr(banner, "DISTRIBUTION", "not-installed-anywhere")
    assert version() == "unknown"
