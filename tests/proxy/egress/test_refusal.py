"""A decision as an HTTP response."""

import msgspec
import pytest

from proxy.egress.refusal import RETRY_AFTER_S, Answer, printable, refuse
from proxy.problem import STATUS, problem
from rules.decision import Decision, Reason, Verdict

ID = "0192f3a0000070008000000000000001"


def test_every_reason_has_a_status() -> None:
    assert set(STATUS) == set(Reason)


@pytest.mark.parametrize("reason", list(Reason))
def test_a_refusal_says_why_in_every_place_that_a_client_may_show(reason: Reason) -> None:
    octets = refuse(Decision(Verdict.DENY, reason), ID, "me", "example.org:443", Answer())
    head, _, body = octets.partition(b"\r\n\r\n")
    lines = head.decode("ascii").split("\r\n")
    assert lines[0] == f"HTTP/1.1 {STATUS[reason]} sallyport {reason} {ID}"
    assert f"X-Deny-Reason: {reason}" in lines
    assert "Content-Type: application/problem+json" in lines
    assert f"Content-Length: {len(body)}" in lines
    assert "Connection: close" not in lines
    members = msgspec.json.decode(body)
    assert members["status"] == STATUS[reason]
    assert members["reason"] == reason
    assert members["type"] == f"https://sallyport.internal/reasons/{reason}"
    assert members["instance"] == "urn:uuid:0192f3a0-0000-7000-8000-000000000001"
    assert (members["app"], members["target"]) == ("me", "example.org:443")
    assert members["how"]
    assert members["title"]
    assert members["detail"]
    assert any(line.startswith("Retry-After: ") for line in lines) == (reason in RETRY_AFTER_S)


@pytest.mark.parametrize("reason", [Reason.RATE, Reason.BUDGET])
def test_too_much_says_when_to_come_again(reason: Reason) -> None:
    octets = refuse(Decision(Verdict.DENY, reason), ID, "me", "x.example:443", Answer())
    assert octets.startswith(b"HTTP/1.1 429 ")
    assert b"\r\nRetry-After: " in octets


def test_a_denial_and_a_failure_have_types_of_their_own() -> None:
    """RFC 9209, section 2.3."""
    denied = refuse(Decision(Verdict.DENY, Reason.RULE), ID, "me", "x.example:443", Answer())
    assert b'\r\nProxy-Status: sallyport; error=http_request_denied; details="rule"\r\n' in denied
    late = Decision(Verdict.FAIL, Reason.UPSTREAM_TIMEOUT)
    failed = refuse(late, ID, "me", "x.example:443", Answer())
    assert b"error=connection_timeout" in failed


def test_head_gets_the_fields_only() -> None:
    decision = Decision(Verdict.DENY, Reason.RULE)
    full = refuse(decision, ID, "me", "x.example:80", Answer())
    assert (
        refuse(decision, ID, "me", "x.example:80", Answer(is_head=True))
        == (full[: full.index(b"\r\n\r\n") + 4])
    )


def test_says_when_the_connection_ends() -> None:
    octets = refuse(Decision(Verdict.DENY, Reason.RULE), ID, "me", "x:80", Answer(close=True))
    assert b"\r\nConnection: close\r\n" in octets


def test_the_admins_words_reach_the_agent_escaped() -> None:
    said = Decision(Verdict.DENY, Reason.RULE, "rules.yaml:7", text='out of bounds"\r\nX: 1\x1b[2J')
    octets = refuse(said, ID, "me", "x.example:443", Answer())
    body = octets.partition(b"\r\n\r\n")[2]
    assert b"\r" not in body
    assert b"\x1b" not in body
    assert msgspec.json.decode(body)["how"].startswith('out of bounds"\r\nX: 1')
    assert b"rules.yaml" not in octets


def test_details_of_a_problem_name_no_rule() -> None:
    members = problem(Reason.RULE, ID, "me", "x.example:443", "ask").__struct_fields__
    assert "rule" not in members


def test_what_a_peer_sent_is_made_printable() -> None:
    """threats.md, "Evidence as a weapon": "Control bytes and escape sequences in names"."""
    assert printable(b"a\x00\x1b[2J\xff\x7f\n") == "a\\x00\\x1b[2J\\xff\\x7f\\x0a"
    assert len(printable(b"x" * 1000)) == 256
