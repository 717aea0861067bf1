"""What goes wrong, as an answer."""

import msgspec
import pytest

from proxy.agent_api import refused
from proxy.agent_api.asked import OAuthError, ProblemError
from rules.decision import Reason
from tests.proxy.agent_api.endpoints import asked


@pytest.mark.parametrize(("bound", "status"), [("agent_api_calls", 503), ("of_app", 429)])
def test_who_is_too_many_may_come_again(bound: str, status: int) -> None:
    answer = refused.busy(asked("/a"), bound)
    assert answer.status == status
    assert (b"retry-after", b"1") in answer.fields


def test_a_401_asks_for_something() -> None:
    """RFC 9110, section 15.5.2."""
    error = ProblemError(401, Reason.IDENTITY_UNKNOWN, "who?")
    assert b"www-authenticate" in dict(refused.refused(asked("/a"), error).fields)
    assert b"www-authenticate" not in dict(refused.oauth(OAuthError("invalid_scope", "")).fields)


def test_a_refusal_of_oauth_has_the_characters_it_may_have() -> None:
    r"""RFC 6749, section 5.2: %x20-21 / %x23-5B / %x5D-7E."""
    answer = refused.oauth(OAuthError("invalid_target", 'a"b\\c\né~ !'))
    assert msgspec.json.decode(answer.content)["error_description"] == "a'b'c''~ !"


def test_what_http_says_has_no_reason_of_ours() -> None:
    members = msgspec.json.decode(refused.unfit_media(asked("/a"), "text/x").content)
    assert members == {
        "type": "about:blank",
        "title": "Unsupported Media Type",
        "status": 415,
        "detail": "/a takes text/x, once and not encoded",
    }
