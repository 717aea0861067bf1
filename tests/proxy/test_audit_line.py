import json
import unicodedata
from ipaddress import IPv4Address
from typing import override

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.audit_line import Record, encode, rfc3339
from proxy.flow import Plane
from rules.decision import Reason, Verdict
from rules.facts import Evidence

ORDER = [
    *("time", "id", "flow", "app", "evidence", "plane", "fact", "verdict", "reason", "rule"),
    *("generation", "count", "target"),
]


def record(target: str = "example.com A") -> Record:
    return Record(
        time="2026-11-22T01:02:03.000004Z",
        id="0" * 32,
        flow="1" * 32,
        app="coder",
        evidence=(Evidence.LISTENER, Evidence.PROCESS),
        plane=Plane.DNS,
        fact="question",
        verdict=Verdict.DENY,
        reason=Reason.HOST_NOT_LISTED,
        rule=None,
        generation=1,
        count=1,
        target=target,
    )


def test_fields_stand_in_the_order_of_the_reference_then_the_detail() -> None:
    text = encode(record(), {"via": "a.example", "name": "b.example"})
    assert list(json.loads(text)) == [*ORDER, "via", "name"]
    assert text.endswith(b"\n")
    assert text.count(b"\n") == 1


def test_writes_what_the_record_says() -> None:
    assert json.loads(encode(record(), {}))["evidence"] == ["listener", "process"]


def test_a_detail_never_replaces_a_field() -> None:
    read = json.loads(encode(record(), {"verdict": "allow", "app": "other", "port": 443}))
    assert (read["verdict"], read["app"], read["port"]) == ("deny", "coder", 443)


@given(st.text())
def test_no_character_of_a_target_reaches_a_terminal_raw(target: str) -> None:
    """threats.md, "Evidence as a weapon": control bytes and escape sequences in names."""
    text = encode(record(target), {"path": target})
    shown = text[:-1].decode()
    assert not [char for char in shown if unicodedata.category(char) in {"Cc", "Cf", "Zl", "Zp"}]
    kept = "".join("\ufffd" if "\ud800" <= char <= "\udfff" else char for char in target)
    assert msgspec.json.decode(text)["target"] == kept
    assert json.loads(text)["path"] == kept


@pytest.mark.parametrize(
    "char", ["\x1b", "\x7f", "\x85", "\x9b", "\u202e", "\u2066", "\u200b", "\U000e0041", "\ud800"]
)
def test_escapes_what_moves_hides_or_turns_text(char: str) -> None:
    text = encode(record(f"a{char}b"), {}).decode()
    assert char not in text


def test_shows_letters_of_any_script_as_they_are() -> None:
    assert "löschen.example" in encode(record(), {"text": "löschen.example"}).decode()


class _Hostile:
    @override
    def __str__(self) -> str:
        raise RuntimeError


def test_words_values_that_json_lacks() -> None:
    detail = {"address": IPv4Address("192.0.2.1"), "half": "\ud800", "more": 1}
    read = msgspec.json.decode(encode(record(), detail))
    assert (read["address"], read["half"], read["more"]) == ("192.0.2.1", "\ufffd", 1)


@pytest.mark.parametrize("value", [_Hostile(), {(1, 2): 3}])
def test_a_detail_that_cannot_be_worded_leaves_the_line_standing(value: object) -> None:
    read = json.loads(encode(record(), {"value": value, "half": "\ud800"}))
    assert read["target"] == "example.com A"
    assert read["detail"] == "not encodable"


def test_a_detail_that_holds_itself_leaves_the_line_standing() -> None:
    ring: dict[str, object] = {}
    ring["ring"] = ring
    assert json.loads(encode(record(), ring))["detail"] == "not encodable"


@pytest.mark.parametrize(
    ("now", "text"),
    [
        (0.0, "1970-01-01T00:00:00.000000Z"),
        (1_790_000_000.25, "2026-09-21T14:13:20.250000Z"),
        (1_790_000_000.9999999, "2026-09-21T14:13:21.000000Z"),
    ],
)
def test_dates_are_rfc_3339_in_utc_with_microseconds(now: float, text: str) -> None:
    assert rfc3339(now) == text
