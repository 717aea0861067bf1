"""Requests of agents to what answers them: whatever goes wrong is an answer."""

import asyncio
import logging

import msgspec
import pytest

from proxy.agent_api.api import AgentApi, Route
from proxy.agent_api.asked import FORM, JSON, PROBLEM, Answer
from proxy.limits import Limits
from proxy.metrics import Metrics
from tests.proxy.agent_api.endpoints import Endpoints, asked

SECRET = b"hush-hush"


def told(answer: Answer) -> dict[str, object]:
    members = msgspec.json.decode(answer.content)
    assert isinstance(members, dict)
    return members


async def test_a_route_is_asked_about_what_it_takes() -> None:
    it = Endpoints()
    answer = await it.api.answer(asked("/echo", b'{"text": "hello"}', JSON))
    assert (answer.status, answer.media_type) == (200, JSON)
    assert (told(answer)["text"], told(answer)["app"]) == ("hello", "me")
    answer = await it.api.answer(asked("/form", b"grant_type=x&ttl_s=60&more=1", FORM))
    assert told(answer)["text"] == "x 60"
    assert it.metrics.agent_api_calls.value("answered") == 2
    assert it.metrics.agent_api_under_way.value == 0


async def test_head_is_get() -> None:
    it = Endpoints()
    got, head = [await it.api.answer(asked("/state", method=each)) for each in ("GET", "HEAD")]
    assert head == got


@pytest.mark.parametrize("media", [JSON, "", "multipart/form-data"])
async def test_what_is_no_form_is_refused_as_oauth_has_it(media: str) -> None:
    """RFC 6749, section 5.2."""
    it = Endpoints()
    answer = await it.api.answer(asked("/form", b'{"grant_type": "x"}', media))
    assert (answer.status, answer.media_type) == (400, JSON)
    assert told(answer) == {
        "error": "invalid_request",
        "error_description": f"/form takes {FORM}, once and not encoded",
    }


@pytest.mark.parametrize(
    ("path", "content", "media", "method", "status"),
    [
        ("/nothing", b"", "", "GET", 404),
        ("/", b"", "", "GET", 404),
        ("/echo", b"", "", "GET", 405),
        ("/echo", b"{}", "", "POST", 415),
        ("/echo", b"{}", FORM, "POST", 415),
        ("/echo", b"{}", JSON, "POST", 400),
        ("/echo", b"", JSON, "POST", 400),
        ("/echo", bytes(65536), JSON, "POST", 413),
    ],
)
async def test_what_http_says_of_a_request(
    path: str, content: bytes, media: str, method: str, status: int
) -> None:
    it = Endpoints()
    answer = await it.api.answer(asked(path, content, media, method))
    assert (answer.status, answer.media_type) == (status, PROBLEM)
    assert told(answer)["status"] == status
    assert it.metrics.agent_api_calls.value("refused") == 1
    assert it.metrics.bounds.value("agent_api_octets") == (status == 413)


async def test_a_refused_method_is_told_the_others() -> None:
    it = Endpoints()
    posted = await it.api.answer(asked("/state", method="DELETE"))
    got = await it.api.answer(asked("/echo", method="GET"))
    assert dict(posted.fields)[b"allow"] == b"GET, HEAD"
    assert dict(got.fields)[b"allow"] == b"POST"


async def test_no_value_of_the_content_is_in_a_refusal() -> None:
    it = Endpoints()
    for content in (b'{"text": "a", "colour": "%b"}', b'{"text": ["%b"]}', b'{"text": "%b" x}'):
        answer = await it.api.answer(asked("/echo", content % SECRET, JSON))
        assert answer.status == 400
        assert SECRET not in answer.content


async def test_a_problem_says_why_and_what_to_do() -> None:
    answer = await Endpoints().api.answer(asked("/problem"))
    assert (answer.status, answer.media_type) == (403, PROBLEM)
    assert dict(answer.fields)[b"x-deny-reason"] == b"attestation-required"
    assert told(answer) == {
        "type": "https://sallyport.internal/reasons/attestation-required",
        "title": "attestation required",
        "status": 403,
        "detail": "nothing for me",
        "reason": "attestation-required",
        "app": "me",
        "target": "POST /problem",
        "how": "attest",
    }


async def test_oauth_has_a_form_of_its_own() -> None:
    """RFC 6749, section 5.2."""
    answer = await Endpoints().api.answer(asked("/oauth"))
    assert (answer.status, answer.media_type) == (401, JSON)
    assert told(answer) == {"error": "invalid_client", "error_description": "who is 'that'?"}
    assert dict(answer.fields)[b"www-authenticate"].startswith(b"Bearer")


async def test_a_form_that_does_not_fit_is_an_invalid_request() -> None:
    answer = await Endpoints().api.answer(asked("/form", b"ttl_s=1", FORM))
    assert (answer.status, answer.media_type) == (400, JSON)
    assert told(answer)["error"] == "invalid_request"


async def test_a_bug_is_an_answer_without_what_was_sent(caplog: pytest.LogCaptureFixture) -> None:
    it = Endpoints()
    with caplog.at_level(logging.ERROR):
        answer = await it.api.answer(asked("/broken", SECRET))
    assert (answer.status, told(answer)["reason"]) == (500, "internal-error")
    assert SECRET not in answer.content
    assert "POST /broken" in caplog.text
    assert it.metrics.agent_api_calls.value("failed") == 1
    assert it.metrics.agent_api_under_way.value == 0


async def test_what_takes_too_long_ends() -> None:
    it = Endpoints(Limits(agent_api_s=0.01))
    answer = await it.api.answer(asked("/held"))
    assert (answer.status, dict(answer.fields)[b"retry-after"]) == (503, b"1")
    assert it.cancelled.is_set()
    assert it.metrics.bounds.value("agent_api_s") == 1


async def test_a_timeout_of_somebody_else_is_a_bug() -> None:
    async def late(_: object) -> Answer:
        raise TimeoutError

    api = AgentApi([Route("GET", "/late", "", late)], Limits(), Metrics())
    assert (await api.answer(asked("/late", method="GET"))).status == 500


async def test_calls_of_one_app_are_bounded_and_leave_room_for_others() -> None:
    it = Endpoints(Limits(agent_api_calls=3, agent_api_calls_per_app=2))
    calls = [asyncio.create_task(it.api.answer(asked("/held"))) for _ in range(2)]
    await asyncio.sleep(0)
    refused = await it.api.answer(asked("/state", method="GET"))
    assert (refused.status, dict(refused.fields)[b"retry-after"]) == (429, b"1")
    assert it.metrics.bounds.value("agent_api_calls_per_app") == 1
    other = asyncio.create_task(it.api.answer(asked("/held", app="other")))
    await asyncio.sleep(0)
    full = await it.api.answer(asked("/state", method="GET", app="third"))
    assert (full.status, told(full)["reason"]) == (503, "capacity")
    assert it.metrics.bounds.value("agent_api_calls") == 1
    assert it.metrics.agent_api_calls.value("busy") == 2
    assert it.metrics.agent_api_under_way.value == 3
    it.go.set()
    assert [each.status for each in await asyncio.gather(*calls, other)] == [200] * 3
    assert (await it.api.answer(asked("/state", method="GET"))).status == 200


async def test_a_call_that_nobody_waits_for_any_more_gives_its_place_back() -> None:
    it = Endpoints(Limits(agent_api_calls_per_app=1))
    call = asyncio.create_task(it.api.answer(asked("/held")))
    await it.held.wait()
    call.cancel()
    await asyncio.wait([call])
    assert it.cancelled.is_set()
    assert it.metrics.agent_api_under_way.value == 0
    assert (await it.api.answer(asked("/state", method="GET"))).status == 200


async def test_content_that_was_not_kept_is_refused_without_a_route() -> None:
    it = Endpoints()
    assert it.api.too_long(asked("/echo")).status == 413
    assert it.metrics.bounds.value("agent_api_octets") == 1


async def test_describes_itself() -> None:
    it = Endpoints()
    assert it.api.takes("/openapi.json")
    answer = await it.api.answer(asked("/openapi.json", method="GET"))
    assert answer.content == it.api.openapi()
    paths = msgspec.json.decode(answer.content)["paths"]
    assert set(paths) >= {"/echo", "/openapi.json"}


async def test_takes_exactly_its_paths() -> None:
    it = Endpoints()
    assert it.api.takes("/echo")
    assert not any(map(it.api.takes, ("/", "/echo/", "/Echo", "echo", "/why/1")))
    with pytest.raises(ValueError, match="two routes answer POST /echo"):
        AgentApi((*it.routes(), it.routes()[0]), Limits(), Metrics())
