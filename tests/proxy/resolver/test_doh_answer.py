"""Responses of the DoH listener: freshness, status, fields."""

import dns.flags
import dns.message
import dns.rrset
import msgspec
import pytest
from msgspec import structs

from proxy.problem import problem
from proxy.resolver.doh_answer import (
    PHRASES,
    Message,
    dns_answer,
    explained,
    fresh_s,
    http_refusal,
    turned_away,
)
from proxy.resolver.doh_request import HttpRefusal
from rules.decision import Reason

ID = "0192f3a47c5b7d2e8f00112233445566"
PROBLEM = problem(Reason.IDENTITY_UNKNOWN, ID, "unknown", "a.example A", "get a token")


def reply(*answers: str, authority: str = "") -> bytes:
    message = dns.message.make_response(dns.message.make_query("www.example.com", "A", use_edns=0))
    message.answer = [dns.rrset.from_text(*line.split(" ", 4)) for line in answers]  # type: ignore[arg-type]  # owner, TTL, class, type, data
    if authority:
        message.authority = [dns.rrset.from_text(*authority.split(" ", 4))]  # type: ignore[arg-type]  # as above
    return message.to_wire()


SOA = "example.com. {} IN SOA ns.example.com. h.example.com. 1 2 3 4 {}"
A = "www.example.com. {} IN A 192.0.2.1"


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        pytest.param(reply(A.format(300)), 300, id="one answer"),
        pytest.param(
            reply(
                "www.example.com. 60 IN CNAME a.example.com.", "a.example.com. 300 IN A 192.0.2.1"
            ),
            60,
            id="the least of a chain",
        ),
        pytest.param(reply(A.format(300), authority=SOA.format(5, 5)), 300, id="answers count"),
        pytest.param(reply(authority=SOA.format(900, 60)), 60, id="the minimum of the SOA"),
        pytest.param(reply(authority=SOA.format(5, 60)), 5, id="the TTL of the SOA"),
        pytest.param(reply(authority="example.com. 60 IN NS ns.example.com."), 0, id="no SOA"),
        pytest.param(reply(), 0, id="nothing"),
    ],
)
def test_a_reply_is_fresh_for_as_long_as_its_records_are(message: bytes, expected: int) -> None:
    """RFC 8484, section 5.1."""
    assert fresh_s(message) == expected


def test_a_message_goes_out_with_its_freshness() -> None:
    answer = dns_answer(Message(b"message", 60))
    assert (answer.status, answer.content) == (200, b"message")
    assert dict(answer.fields) == {
        b"content-type": b"application/dns-message",
        b"content-length": b"7",
        b"cache-control": b"private, max-age=60",
    }
    assert dict(dns_answer(Message(b"x", 0)).fields)[b"cache-control"] == b"no-store"


def test_a_head_has_the_fields_of_a_get_and_no_content() -> None:
    answer = dns_answer(Message(b"message", 60), is_head=True)
    assert answer.content == b""
    assert dict(answer.fields)[b"content-length"] == b"7"


@pytest.mark.parametrize("status", [each for each in PHRASES if each not in {200, 401}])
def test_a_refusal_of_http_is_a_problem(status: int) -> None:
    answer = http_refusal(HttpRefusal(status, "why", ((b"allow", b"GET"),)))
    fields = dict(answer.fields)
    assert answer.status == status
    assert fields[b"content-type"] == b"application/problem+json"
    assert fields[b"content-length"] == str(len(answer.content)).encode()
    assert fields[b"cache-control"] == b"no-store"
    assert fields[b"allow"] == b"GET"
    found = msgspec.json.decode(answer.content)
    assert (found["status"], found["detail"]) == (status, "why")
    assert http_refusal(HttpRefusal(status, "why"), is_head=True).content == b""


def test_a_credential_that_names_nobody_is_asked_for_again() -> None:
    answer = turned_away(structs.replace(PROBLEM, status=401), ID)
    challenges = [value for name, value in answer.fields if name == b"www-authenticate"]
    assert answer.status == 401
    assert [value.split()[0] for value in challenges] == [b"Bearer", b"Basic"]
    assert dict(answer.fields)[b"x-deny-reason"] == b"identity-unknown"
    assert answer.phrase == f"sallyport identity-unknown {ID}".encode()


def test_why_is_the_refusal() -> None:
    answer = explained(PROBLEM)
    assert answer.status == 200
    assert msgspec.json.decode(answer.content)["reason"] == "identity-unknown"


def test_a_certificate_that_names_nobody_is_no_matter_of_a_token() -> None:
    answer = turned_away(PROBLEM, ID)
    assert answer.status == 403
    assert b"www-authenticate" not in dict(answer.fields)
    assert dict(answer.fields)[b"x-deny-reason"] == b"identity-unknown"
