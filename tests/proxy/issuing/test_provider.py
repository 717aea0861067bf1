"""A provider that answers as it likes; the real one is in test_device.py."""

from collections.abc import Mapping
from typing import Any, override

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config_identity import Oidc
from proxy.issuing.outgoing import Answer, Outgoing, UnreachableError
from proxy.issuing.provider import Provider, ProviderError, Waiting
from proxy.limits import Limits

ISSUER = "https://op.example"
METADATA = {
    "issuer": ISSUER,
    "token_endpoint": f"{ISSUER}/token",
    "jwks_uri": f"{ISSUER}/jwks",
    "device_authorization_endpoint": f"{ISSUER}/device",
}
BEGAN = {
    "device_code": "secret-code",
    "user_code": "ABCD",
    "verification_uri": f"{ISSUER}/page",
    "expires_in": 600,
}


class Scripted(Outgoing):
    """A network on which `answers` stand at their addresses."""

    def __init__(self, **answers: Any) -> None:
        super().__init__(None, Limits())
        self.sent: list[Mapping[str, str]] = []
        self._answers = {"metadata": METADATA, "device": BEGAN, **answers}

    @override
    async def ask(self, method: str, url: str, form: Mapping[str, str] | None = None) -> Answer:
        self.sent.append(form or {})
        name = "metadata" if url.endswith("openid-configuration") else url.rpartition("/")[2]
        found = self._answers[name]
        status, content = found if isinstance(found, tuple) else (200, found)
        octets = content if isinstance(content, bytes) else msgspec.json.encode(content)
        return Answer(status, octets)


def provider(**answers: Any) -> Provider:
    return Provider(Oidc(ISSUER, "sallyport", {}), Scripted(**answers))


async def test_a_flow_begins_with_what_people_are_shown() -> None:
    began = await provider().begin()
    assert (began.user_code, began.interval, began.expires_in) == ("ABCD", 5, 600)
    assert "secret-code" not in repr(began)


@pytest.mark.parametrize(("named", "used"), [(0, 1), (7, 7), (3600, 60)])
async def test_the_interval_of_the_provider_is_obeyed_within_bounds(named: int, used: int) -> None:
    assert (await provider(device={**BEGAN, "interval": named}).begin()).interval == used


@pytest.mark.parametrize(
    ("answers", "why"),
    [
        ({"metadata": {**METADATA, "issuer": f"{ISSUER}/"}}, "another one"),
        ({"metadata": {**METADATA, "device_authorization_endpoint": ""}}, "no device flow"),
        ({"metadata": b"<html>"}, "not what it should be"),
        ({"device": (401, {"error": "invalid_client"})}, "invalid_client"),
        ({"device": (500, b"oops")}, "no reason given"),
        ({"device": {**BEGAN, "user_code": "A\x1b[2J"}}, "not for showing"),
        ({"device": {**BEGAN, "verification_uri": "https://x/" + "a" * 4000}}, "not for showing"),
        ({"device": {**BEGAN, "verification_uri": "javascript:1"}}, "no https"),
        ({"device": {"device_code": 5}}, "not what it should be"),
    ],
)
async def test_an_answer_that_begins_nothing_is_told(answers: dict[str, Any], why: str) -> None:
    with pytest.raises(ProviderError, match=why):
        await provider(**answers).begin()


@pytest.mark.parametrize(("code", "slow"), [("authorization_pending", False), ("slow_down", True)])
async def test_nobody_has_approved_yet(code: str, slow: bool) -> None:
    with pytest.raises(Waiting) as caught:
        await provider(token=(400, {"error": code})).ask("secret-code")
    assert caught.value.slow_down is slow


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ((400, {"error": "access_denied"}), "access_denied"),
        ((400, {"error": "expired_token"}), "expired_token"),
        ((400, {"error": "\x1b[2J" + "x" * 500}), "access_denied"),
        ((400, b"oops"), "access_denied"),
        ((200, {"access_token": "no id token"}), "access_denied"),
    ],
)
async def test_a_flow_that_ended_says_how(answer: tuple[int, Any], code: str) -> None:
    with pytest.raises(ProviderError) as caught:
        await provider(token=answer).ask("secret-code")
    assert caught.value.code == code
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 200


async def test_a_provider_in_trouble_is_asked_again() -> None:
    with pytest.raises(UnreachableError):
        await provider(token=(503, b"")).ask("secret-code")


async def test_a_token_and_keys_come_back() -> None:
    found = provider(token={"id_token": "a.b.c"}, jwks={"keys": []})
    assert await found.ask("secret-code") == "a.b.c"
    assert await found.keys() == b'{"keys":[]}'


@given(st.binary(max_size=200))
async def test_any_answer_begins_nothing(octets: bytes) -> None:
    with pytest.raises(ProviderError):
        await provider(device=octets).begin()
