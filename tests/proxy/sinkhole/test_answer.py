"""What a visitor is told: why, under which id, and nothing of other apps."""

from html.parser import HTMLParser
from typing import override

import msgspec
import pytest
from msgspec import structs

from proxy.sinkhole.answer import ALERT, answer_http, reason_of
from proxy.sinkhole.heard import MALFORMED, Heard
from proxy.sinkhole.told import Told
from rules.decision import Reason
from rules.name import parse
from tests.proxy.sinkhole.stand import ID, LISTED

BAD = parse("bad.example.com")
HEARD = Heard("http", BAD)
BROWSER = structs.replace(HEARD, wants_html=True)
TOLD = Told("coder", BAD, ID, LISTED, 1.0)
VISIT = "0192f3a2" * 4


def split(octets: bytes) -> tuple[bytes, dict[str, str], bytes]:
    head, _, body = octets.partition(b"\r\n\r\n")
    status, *lines = head.split(b"\r\n")
    fields = dict(line.decode().split(": ", 1) for line in lines)
    assert int(fields["content-length"]) == len(body) or not body
    return status, fields, body


def problem(octets: bytes) -> dict[str, object]:
    _, fields, body = split(octets)
    assert fields["content-type"] == "application/problem+json"
    found: dict[str, object] = msgspec.json.decode(body)
    return found


def test_a_program_gets_the_problem_of_the_refusal() -> None:
    said = problem(answer_http(HEARD, TOLD, "coder", VISIT))
    assert (said["status"], said["reason"], said["app"]) == (403, "list", "coder")
    assert said["target"] == "bad.example.com"
    assert str(said["instance"]).replace("-", "") == f"urn:uuid:{ID}"
    assert said["how"] == "a deny list covers it; do not retry, ask the admin"


def test_the_head_says_why_and_that_it_is_over() -> None:
    status, fields, _ = split(answer_http(HEARD, TOLD, "coder", VISIT))
    assert status == f"HTTP/1.1 403 sallyport list {ID}".encode()
    assert (fields["connection"], fields["cache-control"]) == ("close", "no-store")
    assert fields["x-deny-reason"] == "list"


def test_a_head_is_answered_by_the_head_alone() -> None:
    _, fields, body = split(answer_http(structs.replace(HEARD, is_head=True), TOLD, "c", VISIT))
    assert body == b""
    assert int(fields["content-length"]) > 0


class Texts(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""

    @override
    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        assert all(name in {"lang", "charset"} for name, _ in attrs)

    @override
    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_browser_gets_a_page_that_says_the_same() -> None:
    _, fields, body = split(answer_http(BROWSER, TOLD, "coder", VISIT))
    page = Texts()
    page.feed(body.decode())
    assert fields["content-type"] == "text/html; charset=utf-8"
    assert "bad.example.com is refused here" in page.text
    assert f"sallyport why {ID}" in page.text
    assert "a deny list covers it" in page.text
    assert "default-src 'none'" in fields["content-security-policy"]


def test_what_an_admin_wrote_is_text_and_no_markup() -> None:
    text = "<script>alert('x')</script> & {how} \"y\""
    told = structs.replace(TOLD, decision=structs.replace(LISTED, text=text))
    page = Texts()
    page.feed(split(answer_http(BROWSER, told, "coder", VISIT))[2].decode())
    assert "script" not in page.tags
    assert text in page.text


def test_whom_nothing_names_learns_no_app() -> None:
    """threats.md, "Identity": what one app asks for is not told to another."""
    told = structs.replace(
        TOLD, decision=structs.replace(LISTED, reason=Reason.HOST_NOT_LISTED, text="not here")
    )
    octets = answer_http(HEARD, told, "unknown", VISIT)
    assert b"coder" not in octets
    assert problem(octets)["how"] == "not here; ask the admin, with the id"
    assert (
        problem(answer_http(HEARD, TOLD, "unknown", VISIT))["how"] == "ask the admin, with the id"
    )


def test_a_name_that_nobody_asked_for_is_told_so() -> None:
    said = problem(answer_http(HEARD, None, "coder", VISIT))
    assert (said["status"], said["reason"]) == (403, "special-use")
    assert str(said["instance"]).replace("-", "") == f"urn:uuid:{VISIT}"
    assert "no look-up of this name" in str(said["how"])


def test_no_name_at_all_is_told_so() -> None:
    assert problem(answer_http(Heard("http"), None, "coder", VISIT))["target"] == "this"


def test_what_is_no_request_is_told_so() -> None:
    said = problem(answer_http(MALFORMED, None, "coder", VISIT))
    assert (said["status"], said["reason"]) == (400, "request-malformed")


@pytest.mark.parametrize(
    ("heard", "told", "reason"),
    [
        (HEARD, TOLD, Reason.LIST),
        (HEARD, None, Reason.SPECIAL_USE),
        (MALFORMED, None, Reason.REQUEST_MALFORMED),
    ],
)
def test_a_visit_has_the_reason_of_the_look_up(
    heard: Heard, told: Told | None, reason: Reason
) -> None:
    assert reason_of(heard, told) is reason


def test_the_alert_is_fatal_and_denies_access() -> None:
    """RFC 8446, sections 5.1 and 6."""
    assert b"\x15\x03\x03\x00\x02" + bytes((2, 49)) == ALERT
