"""What is asked of `POST /token`: each parameter, and what becomes of those that are wrong."""

from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlencode

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.agent_api.asked import OAuthError
from proxy.capabilities.form import (
    ACCESS_TOKEN,
    EXCHANGE,
    JWT,
    ExchangeForm,
    TokenForm,
    read_exchange,
    token_of,
)
from tests.proxy.capabilities.stand import DOCS, Stand, by_certificate, standing

CODER = by_certificate("coder")
FORM = ExchangeForm(
    grant_type=EXCHANGE,
    subject_token="t",  # noqa: S106 - none
    subject_token_type=JWT,
    audience=DOCS,
    scope="b a b",
)


@pytest.fixture
async def stand(tmp_path: Path) -> AsyncIterator[Stand]:
    async with standing(tmp_path) as made:
        yield made


def with_(**more: str) -> ExchangeForm:
    return msgspec.structs.replace(FORM, **more)


def test_scopes_are_each_once_and_in_order() -> None:
    wanted = read_exchange(FORM)
    assert (wanted.scopes, wanted.target, wanted.actor_token) == (("a", "b"), DOCS, "")
    named = read_exchange(
        with_(audience="", resource="documents", requested_token_type=ACCESS_TOKEN)
    )
    assert named.target == "documents"


@pytest.mark.parametrize(
    ("more", "error"),
    [
        ({"grant_type": ""}, "invalid_request"),
        ({"grant_type": "password"}, "unsupported_grant_type"),
        ({"grant_type": "client_credentials"}, "unsupported_grant_type"),
        ({"subject_token": ""}, "invalid_request"),
        ({"subject_token_type": ""}, "invalid_request"),
        ({"subject_token_type": JWT.replace("jwt", "saml2")}, "invalid_request"),
        ({"actor_token": "t"}, "invalid_request"),
        ({"actor_token": "t", "actor_token_type": ACCESS_TOKEN}, "invalid_request"),
        ({"actor_token_type": JWT}, "invalid_request"),
        ({"requested_token_type": JWT.replace("jwt", "refresh_token")}, "invalid_request"),
        ({"audience": ""}, "invalid_target"),
        ({"resource": DOCS}, "invalid_target"),
        ({"audience": "a b"}, "invalid_target"),
        ({"audience": "a\n"}, "invalid_target"),
        ({"audience": "\u0430"}, "invalid_target"),
        ({"audience": "a" * 1025}, "invalid_target"),
        ({"scope": ""}, "invalid_scope"),
        ({"scope": " "}, "invalid_scope"),
        ({"scope": "a  b"}, "invalid_scope"),
        ({"scope": 'a"'}, "invalid_scope"),
        ({"scope": "a\tb"}, "invalid_scope"),
        ({"scope": "a" * 257}, "invalid_scope"),
        ({"scope": " ".join(map(str, range(65)))}, "invalid_scope"),
    ],
)
def test_what_is_wrong_has_its_own_error(more: dict[str, str], error: str) -> None:
    with pytest.raises(OAuthError) as caught:
        read_exchange(with_(**more))
    assert caught.value.error == error
    assert all(each not in str(caught.value) for each in more.values() if len(each) > 60)


def test_a_form_about_a_token_has_one() -> None:
    assert token_of(TokenForm("t")) == "t"
    with pytest.raises(OAuthError):
        token_of(TokenForm())


@given(st.dictionaries(st.sampled_from(ExchangeForm.__struct_fields__), st.text(max_size=40)))
def test_whatever_comes_is_read_or_refused(more: dict[str, str]) -> None:
    try:
        wanted = read_exchange(with_(**more))
    except OAuthError:
        return
    assert wanted.scopes == tuple(sorted(set(wanted.scopes)))
    assert wanted.target.isascii()


async def test_a_parameter_that_is_there_twice_is_refused(stand: Stand) -> None:
    """Attack: parameter pollution, and lists of audiences."""
    form = [
        ("grant_type", EXCHANGE), ("subject_token", stand.attest(CODER)),
        ("subject_token_type", JWT), ("audience", DOCS), ("scope", "documents:read"),
    ]  # fmt: skip
    for more in (*form, ("scope", ""), ("audience", "https://other.example")):
        answer = await stand.post("/token", CODER, urlencode([*form, more]).encode())
        assert (answer.status, b"invalid_request" in answer.content) == (400, True)
    for name in ("audience[]", "AUDIENCE", "colour"):
        answer = await stand.post("/token", CODER, urlencode([*form, (name, "x")]).encode())
        assert answer.status == 200, name


async def test_huge_forms_are_refused(stand: Stand) -> None:
    """Attack: huge claims."""
    form = {"grant_type": EXCHANGE, "subject_token_type": JWT, "audience": DOCS, "scope": "a"}
    huge = urlencode({**form, "subject_token": "x" * 70_000}).encode()
    assert (await stand.post("/token", CODER, huge)).status == 413
    many = urlencode({str(each): "x" for each in range(40)}).encode()
    assert (await stand.post("/token", CODER, many)).status == 400
    long = urlencode({**form, "subject_token": "x" * 60_000}).encode()
    assert (await stand.post("/token", CODER, long)).status == 400
